"""Where accelerate lets modules compute, whose weights may be elsewhere until then. Knows its hooks, no model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def computes_on(module: nn.Module) -> torch.device | None:
    """Where a hook lets a module compute; None where there is none, and modules compute where their weights are."""
    hook = vars(module).get("_hf_hook")
    places = (getattr(each, "execution_device", None) for each in getattr(hook, "hooks", [hook]))
    return next((torch.device(place) for place in places if place is not None), None)


def inputs_on(model: Any) -> torch.device:
    """Where what a model is given goes: its first weights' device, or where they will be when they are needed."""
    device: torch.device = model.device
    if device.type != "meta":
        return device
    return next((place for module in model.modules() if (place := computes_on(module)) is not None), device)
