"""A trained part in one safetensors file: weights, and what is known of their training. Knows files and one model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..common.atomic import replacing
from ..common.checks import shown
from ..common.weights import rounded_digest
from ..errors import ConfigError, ModelError
from .base import Part, Trained

SUFFIX = ".safetensors"
_KEY = "pdrop_video.part"


def identity(model: Any) -> dict[str, Any]:
    """What a part depends on of its model: family, sizes, and a digest of its weights as bfloat16 has them.

    The digest is left empty of quantised weights and of float16, with which it is not compared.
    """
    text = model.config.get_text_config()
    return {
        "family": model.config.model_type,
        "hidden": text.hidden_size,
        "layers": text.num_hidden_layers,
        "weights": rounded_digest(model),
    }


def write_part(
    path: str | os.PathLike[str], part: Part, model: Mapping[str, Any], **said: Mapping[str, Any]
) -> Trained:
    """Write a part to a file, which appears in one step.

    Parameters
    ----------
    path : str or path
    part : Part
    model : mapping
        The `identity` of the model that it was trained for.
    **said
        `settings` and `figures`, as `Trained` has them.

    Returns
    -------
    Trained
        What the file says.

    Raises
    ------
    ConfigError
        If the file can't be written.
    """
    trained = Trained(part.name, part.version, dict(model), part.shape, parameters=part.parameters_count, **said)
    short = {
        name: (tensor.bfloat16() if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in part.state_dict().items()
    }
    data = save(short, {_KEY: json.dumps(trained.as_dict())})
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"{shown(os.fspath(path))} can't be written ({error.strerror}); choose another.") from error
    return trained


def read_said(path: str | os.PathLike[str]) -> Trained:
    """What a file says of its part; no weights are read.

    Raises
    ------
    ConfigError
        If it is missing, or holds no trained part.
    """
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            given = json.loads((file.metadata() or {})[_KEY])
        return Trained(**{each.name: given[each.name] for each in fields(Trained)})
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no file {shown(os.fspath(path))} with a trained part; see docs/parts.md."
        ) from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{shown(os.fspath(path))} holds no trained part; expected a file that `python -m pdrop_video.train_part` "
            "wrote."
        ) from error


def read_part(path: str | os.PathLike[str], registry: Mapping[str, type[Part]]) -> Part:
    """A part out of its file, in float32 on the CPU.

    Raises
    ------
    ConfigError
        If there is no such file or part, or it is one of another version.
    """
    trained, name = read_said(path), shown(os.fspath(path))
    if trained.part not in registry:
        raise ConfigError(f"{name} holds the part {shown(trained.part)}; known are {', '.join(registry)}.")
    kind = registry[trained.part]
    if trained.version != kind.version:
        raise ConfigError(
            f"{name} holds {trained.part} of version {trained.version}, and this is version {kind.version}; train it "
            f"again: python -m pdrop_video.train_part {trained.part}."
        )
    try:
        part = kind(**trained.shape)
        with safe_open(os.fspath(path), framework="pt") as file:
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
        weights = {key: each.float() if each.is_floating_point() else each for key, each in weights.items()}
        part.load_state_dict(weights)
    except (TypeError, RuntimeError, OSError, SafetensorError) as error:
        raise ConfigError(f"{name} does not hold the weights of {trained.part} that it speaks of: {error}") from error
    part.trained, part.source = trained, os.fspath(path)
    return part.eval().requires_grad_(False)


def check_fits(trained: Trained, model: Any, source: str) -> None:
    """Refuse a part that was trained for another model.

    Raises
    ------
    ModelError
        With the first difference: family, width, layers or weights.
    """
    here = identity(model)
    for name, words in (("family", "type"), ("hidden", "width"), ("layers", "layers"), ("weights", "weights")):
        there = trained.model.get(name)
        if there != here[name] and not (name == "weights" and not (there and here[name])):
            raise ModelError(
                f"the part {trained.part} in {shown(source)} was trained for another model: its {words} is "
                f"{there!r}, this model's is {here[name]!r}. Load it with the model that it was trained on, or train "
                f"it for this one: python -m pdrop_video.train_part {trained.part} --model ... (docs/parts.md)."
            )


def exact(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float32 or wider, as parts compute."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
