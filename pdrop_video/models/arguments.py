"""What `load` is given, checked before anything is read. Knows names and devices; refuses to know models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..common import checks
from ..errors import ConfigError, ModelError

DTYPES = ("float32", "float16", "bfloat16", "float64")

_PARALLEL = ("tp_plan", "tp_size", "distributed_config", "device_mesh")

_REFUSED = {
    "trust_remote_code": "code that comes with a checkpoint is never run; leave it out",
    "use_safetensors": "only safetensors are ever read; leave it out",
    "load_in_4bit": "give quantization_config=transformers.BitsAndBytesConfig(load_in_4bit=True)",
    "load_in_8bit": "give quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True)",
    "torch_dtype": "it is called dtype here",
    "config": "it is the checkpoint's own; leave it out",
    "state_dict": "weights are the checkpoint's own; leave it out",
    "ignore_mismatched_sizes": "weights that do not fit are refused; leave it out",
    "output_loading_info": "load returns a VideoLM; leave it out",
}


def checked_source(name: object, builtin: Path) -> str:
    """A folder, or a name on the hub; the built-in model's folder where there is none."""
    if name is None:
        return str(builtin)
    if not isinstance(name, str | os.PathLike) or not str(name).strip():
        raise ConfigError(
            f"name is {checks.shown(name)}; expected a folder, a name on the hub such as "
            "'Qwen/Qwen2.5-VL-7B-Instruct', or None for the built-in model."
        )
    return checks.path("name", name)


def checked_device(device: object) -> torch.device | None:
    """A device that is there.

    Raises
    ------
    ConfigError
        If it is no name of one.
    ModelError
        If this machine has none of that name.
    """
    if device is None:
        return None
    if isinstance(device, bool) or not isinstance(device, str | int | torch.device):
        raise ConfigError(f"device is {checks.shown(device)}; expected a name such as 'cuda:0' or 'cpu'.")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:  # an unknown name, or no such device
        raise ModelError(f"the model can't be put on {checks.shown(device)}: {first_line(error)}") from error
    return found


def checked_dtype(dtype: object) -> str:
    """One of the types that a model can be computed in, or "auto"; `ModelError` for another."""
    if isinstance(dtype, str | torch.dtype) and str(dtype).removeprefix("torch.") in ("auto", *DTYPES):
        return str(dtype).removeprefix("torch.")
    raise ModelError(f"`dtype` is {checks.shown(dtype)}; choose 'auto' or {' or '.join(map(repr, DTYPES))}.")


def checked_more(given: Mapping[str, Any], device: object) -> dict[str, Any]:
    """What is passed on to ``from_pretrained``."""
    for name, value in given.items():
        if name in _PARALLEL and value is not None:
            raise ModelError(
                f"load was given {name}={checks.shown(value)}, but tensor parallelism is not supported: each process "
                "would hold some of the heads and rank tokens by these alone, so that processes would keep different "
                "ones. Spread the layers over devices with device_map='auto', or load a replica in each process."
            )
        if name in _REFUSED:
            raise ConfigError(f"load was given {name}={checks.shown(value)}: {_REFUSED[name]}.")
    if given.get("revision") is not None:
        checks.text("revision", given["revision"])
    if given.get("cache_dir") is not None:
        checks.path("cache_dir", given["cache_dir"])
    if not isinstance(given.get("token"), bool | None):
        checks.text("token", given["token"])
    checks.switch("local_files_only", given.get("local_files_only", False))
    places = given.get("device_map")
    if places is not None and device is not None:
        raise ConfigError(f"both device={str(device)!r} and a device_map were given; give one of them.")
    for place in places.values() if isinstance(places, Mapping) else [places]:
        if isinstance(place, bool) or not isinstance(place, str | int | torch.device | None):
            raise ConfigError(
                f"device_map is {checks.shown(places)}; expected 'auto', a device, or a device for each module's name."
            )
    if places is not None and str(places) in ("disk", "meta"):
        raise ConfigError(
            f"device_map is {str(places)!r}, where nothing can be computed; choose a device, 'auto', or a device for "
            "each module's name."
        )
    return dict(given)


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if line.endswith(".") else f"{line}."
