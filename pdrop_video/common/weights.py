"""What a model's weights are known by: a digest of a corner of each. Knows parameters, wherever and however kept."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor


def digest(model: Any) -> str:
    """Of a corner of every parameter, so that a fine-tuned model is told from its base at little cost."""
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        corner = corner_of(model, name, parameter)
        found.update(name.encode() + str(tuple(parameter.shape)).encode() + corner.numpy().tobytes())
    return found.hexdigest()[:16]


def rounded_digest(model: Any) -> str:
    """Of the same corners, but in bfloat16: the same for a checkpoint whether it was loaded in float32 or in bfloat16.

    Empty where it could not be so: of quantised weights, and of float16, which has other digits.
    """
    if getattr(model, "hf_quantizer", None) is not None or model.dtype == torch.float16:
        return ""
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        found.update(corner_of(model, name, parameter).bfloat16().view(torch.int16).numpy().tobytes())
    return found.hexdigest()[:16]


def digest_if_repacked(model: Any) -> str | None:
    """The same of quantised weights, which some kernels pack anew when they first run; None of others."""
    return None if getattr(model, "hf_quantizer", None) is None else digest(model)


def corner_of(model: Any, name: str, parameter: Tensor) -> Tensor:
    """The first numbers of a parameter, also where its weights come when they are needed, or are quantised."""
    weights = parameter.detach()
    if weights.is_meta:
        of, _, own = name.rpartition(".")
        weights = model.get_submodule(of)._hf_hook.weights_map[own]
    try:
        return weights.flatten()[:8].to("cpu", torch.float64)
    except NotImplementedError:  # torchao's can't be flattened
        return weights.dequantize().flatten()[:8].to("cpu", torch.float64)
