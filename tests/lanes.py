"""An engine over the least there is of a decoder: a linear map in each layer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from pdrop_video.engine import Engine

WIDTH = 4


def engine_of(layers: int, lanes: int) -> tuple[Engine, nn.ModuleList]:
    """It and the layers; a layer is a module with one linear map, ``layer.map``; behind them is ``layers.head``."""
    torch.manual_seed(0)
    stack: Any = nn.Module()
    stack.layers = nn.ModuleList(nn.Module() for _ in range(layers))
    for layer in stack.layers:
        layer.map = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
    stack.config = SimpleNamespace(hidden_size=WIDTH)
    stack.head = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
    model = SimpleNamespace(get_output_embeddings=lambda: stack.head)
    object.__setattr__(stack.layers, "head", stack.head)  # without being one of the layers
    return Engine(model, stack, lanes), stack.layers


def through(layers: nn.ModuleList, rows: Tensor) -> Tensor:
    """Rows [1, rows, width] through all maps, as somebody within `Engine.packing` computes them."""
    for layer in layers:
        rows = layer.map(rows).tanh()
    return rows
