"""The one place that loads models: from the package, a folder or the hub; safetensors only, no remote code."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
from transformers.utils.hub import cached_file

from ..errors import ModelError
from .base import Adapter
from .llava_onevision import LlavaOneVision
from .pixels import Pixels
from .prompt import Prompt
from .qwen2_5_vl import Qwen2_5VL

if TYPE_CHECKING:
    from ..lm import VideoLM

BUILTIN = Path(__file__).parent.parent / "builtin"
"""The tiny model that ships with the package."""

ADAPTERS: dict[str, type[Adapter]] = {name: a for a in (Qwen2_5VL, LlavaOneVision) for name in a.model_types}
"""Every supported family by its ``model_type``."""


def load(
    name: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    attn: str | None = None,
    **kwargs: Any,
) -> VideoLM:
    """Load a video-LLM.

    Parameters
    ----------
    name : str or Path, optional
        A folder, or a model's name on the hub such as "Qwen/Qwen2.5-VL-7B-Instruct". Left out: the built-in model,
        which needs no network.
    device : str or torch.device, optional
        Where to put it; by default the first CUDA device if there is one, else the CPU. Not with `device_map`.
    dtype : str or torch.dtype
        "auto" takes the checkpoint's own.
    attn : str, optional
        transformers' attention implementation: "sdpa" (its default), "eager", "flash_attention_2", ...
    **kwargs
        Passed to ``from_pretrained``: `revision`, `device_map`, `quantization_config`, ...

    Returns
    -------
    VideoLM

    Raises
    ------
    ModelError
        If there is no such model, it has no safetensors weights, or its family is not supported.
    """
    from ..lm import VideoLM

    source = str(BUILTIN if name is None else name)
    hub: dict[str, Any] = {k: kwargs[k] for k in ("revision", "cache_dir", "token", "local_files_only") if k in kwargs}
    config = _config(source, hub)
    adapter = adapter_for(config.model_type)
    if attn is not None:
        kwargs["attn_implementation"] = attn
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            source, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False, **kwargs
        ).eval()
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **hub)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"{source!r} was found but could not be loaded: {_first_line(error)} Expected safetensors weights and "
            "tokenizer files as save_pretrained writes them (convert .bin weights by loading and saving them once)."
        ) from error
    if "device_map" not in kwargs:
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    template = _json(source, "chat_template.json", hub).get("chat_template")
    return VideoLM(
        model,
        adapter(model, Pixels.of(_preprocessor(source, hub))),
        Prompt(tokenizer, adapter.video_token, template),
        name="built-in" if name is None else source,
    )


def describe(name: str | Path | None = None, **hub: Any) -> tuple[Any, Adapter]:
    """A model's config and an adapter that can preprocess but not encode; no weights are read.

    Parameters
    ----------
    name : str or Path, optional
        As for `load`.
    **hub
        `revision`, `cache_dir`, `token` or `local_files_only`.

    Raises
    ------
    ModelError
        As for `load`.
    """
    source = str(BUILTIN if name is None else name)
    config = _config(source, hub, weights=False)
    pixels = Pixels.of(_preprocessor(source, hub))
    return config, adapter_for(config.model_type)(SimpleNamespace(config=config), pixels)


def adapter_for(model_type: str) -> type[Adapter]:
    """The adapter of a family.

    Raises
    ------
    ModelError
        If there is none.
    """
    if model_type not in ADAPTERS:
        known = ", ".join(sorted(ADAPTERS))
        raise ModelError(f"models of type {model_type!r} are not supported; expected one of: {known}.")
    return ADAPTERS[model_type]


def _config(source: str, hub: dict[str, Any], weights: bool = True) -> Any:
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"the folder {source!r} has no config.json; expected what save_pretrained writes.")
        if weights and not any(folder.glob("*.safetensors")):
            raise ModelError(
                f"the folder {source!r} holds no *.safetensors file; only safetensors weights are loaded. Convert "
                "others by loading them in transformers and calling save_pretrained once."
            )
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False, **hub)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"no model {source!r}: {_first_line(error)} Expected a local folder, a name on the hub such as "
            "'Qwen/Qwen2.5-VL-7B-Instruct', or nothing for the built-in model."
        ) from error


def _preprocessor(source: str, hub: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing numbers for videos, in whichever of its files the checkpoint keeps them."""
    combined = _json(source, "processor_config.json", hub)
    return (
        _json(source, "video_preprocessor_config.json", hub)
        or combined.get("video_processor")
        or _json(source, "preprocessor_config.json", hub)
        or combined.get("image_processor")
        or {}
    )


def _json(source: str, file: str, hub: dict[str, Any]) -> dict[str, Any]:
    path = cached_file(
        source,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
        **hub,
    )
    return {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


def _first_line(error: Exception) -> str:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if line.endswith(".") else f"{line}."
