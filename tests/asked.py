"""Visual tokens for the tests of reducers that look at a question."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pdrop_video.common.ties import spread
from pdrop_video.reduce import Tokens


def tokens_of(features: Tensor, grid: tuple[int, int], there: Tensor | None = None, **more: Any) -> Tokens:
    """A chunk's tokens [steps * rows * columns, hidden], those of whole grids or, behind a gate, the ones `there`."""
    number, places = torch.arange(len(features)), grid[0] * grid[1]
    steps = tuple(float(i) for i in range(-(-len(features) // places)))
    step, row, column = number // places, number % places // grid[1], number % grid[1]
    if there is not None:
        features, step, row, column = features[there], step[there], row[there], column[there]
    return Tokens(features, step, row, column, steps, grid, **more)


def random_tokens(
    seed: int,
    steps: int = 3,
    grid: tuple[int, int] = (4, 5),
    hidden: int = 12,
    *,
    holes: bool = False,
    words: int = 0,
    dtype: torch.dtype = torch.float64,
    **more: Any,
) -> Tokens:
    """Random ones; with `holes` a gate left out a third of them, and all of the second step."""
    generator = torch.Generator().manual_seed(seed)
    count = steps * grid[0] * grid[1]
    features = torch.randn(count, hidden, generator=generator, dtype=torch.float64)
    question = torch.randn(words, hidden, generator=generator, dtype=torch.float64).to(dtype) if words else None
    there = None
    if holes:
        there = torch.rand(count, generator=generator) > 1 / 3
        there[grid[0] * grid[1] : 2 * grid[0] * grid[1]] = False
        there[0] = True
    return tokens_of(features.to(dtype), grid, there, question=question, **more)


def turns(tokens: Tokens) -> list[int]:
    """Who goes first among equals."""
    return spread(tokens.step + tokens.since, tokens.row, tokens.column).tolist()


def some(tokens: Tokens, which: Tensor) -> Tokens:
    """Some tokens of a chunk."""
    return replace(
        tokens,
        features=tokens.features[which],
        step=tokens.step[which],
        row=tokens.row[which],
        column=tokens.column[which],
    )


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two rows; 0 with a row of zeros."""
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length else 0.0
