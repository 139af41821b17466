"""Parts that reach into the vision tower, once more and plainly: rows one by one, masks written out, loops for sums."""

from __future__ import annotations

import math
from typing import Any

import torch
from families import video
from torch import Tensor

import pdrop_video as pv
from pdrop_video.models import VisualChunk
from pdrop_video.parts.towers import slots_of
from pdrop_video.stream import sight

SHAPES = [(5, 60, 72), (6, 100, 60), (5, 40, 200)]
"""Frames, height, width: grids of 3 x 3, 4 x 2 and 1 x 7 tokens; windows of Qwen2.5-VL are 2 x 2."""
FAMILIES = ["qwen2_vl", "qwen2_5_vl"]


def times(frames: int) -> tuple[float, ...]:
    return tuple(0.5 * i for i in range(frames))


def look(lm: pv.VideoLM, part: Any, shape: tuple[int, int, int], carried: Any = None) -> tuple[VisualChunk, Any]:
    """Random frames through a part."""
    frames = video(*shape[:1], height=shape[1], width=shape[2])
    with torch.no_grad():
        return sight.look(part, lm.adapter, frames, times(len(frames)), 0, carried or {})


def copied(linear: Any, rows: Tensor, few: Any, number: int) -> Tensor:
    """Rows through W + B A and the bias."""
    weight = linear.weight + few.out[number] @ few.into[number]
    return torch.nn.functional.linear(rows, weight, linear.bias)


def mlp(module: Any, rows: Tensor, few: Any) -> Tensor:
    """Through a copy of a block's MLP."""
    if hasattr(module, "gate_proj"):
        gate = copied(module.gate_proj, rows, few, few.names.index("gate_proj"))
        up = copied(module.up_proj, rows, few, few.names.index("up_proj"))
        return copied(module.down_proj, module.act_fn(gate) * up, few, few.names.index("down_proj"))
    inner = module.act(copied(module.fc1, rows, few, few.names.index("fc1")))
    return copied(module.fc2, inner, few, few.names.index("fc2"))


def merged(merger: Any, rows: Tensor, few: Any) -> Tensor:
    """Through a copy of the merger, four rows at a time."""
    four = merger.ln_q(rows).reshape(len(rows) // 4, -1)
    return copied(merger.mlp[2], merger.mlp[1](copied(merger.mlp[0], four, few, 0)), few, 1)


def angles(place: tuple[float, float], head: int) -> Tensor:
    """Of one row [head_dim / 2]."""
    slow = [10000.0 ** (-2 * i / (head // 2)) for i in range(head // 4)]
    return torch.tensor([axis * each for axis in place for each in slow], dtype=torch.float64)


def spun(row: Tensor, angle: Tensor) -> Tensor:
    """One head of one row turned."""
    half = len(row) // 2
    first, second = row[:half], row[half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()])


def patch_places(h: int, w: int) -> list[tuple[int, int]]:
    """Of the patches of a step, in the order in which the tower is given them."""
    return [(2 * r + i, 2 * c + j) for r in range(h) for c in range(w) for i in range(2) for j in range(2)]


def standby_places(n: int, h: int, w: int) -> list[tuple[float, float]]:
    """Of the standby rows: the middles of equal cells."""
    down, across = slots_of(n, h, w)
    cell = 2 * h / (2 * down), 2 * w / (2 * across)
    return [
        ((2 * r + i + 0.5) * cell[0] - 0.5, (2 * c + j + 0.5) * cell[1] - 0.5)
        for r in range(down)
        for c in range(across)
        for i in range(2)
        for j in range(2)
    ]


def attended(block: Any, rows: Tensor, places: list[Any], sees: Tensor, copy: Any = None, own: Any = None) -> Tensor:
    """A block's attention over some rows under a mask [rows, rows], True where one sees another.

    Rows `own` [rows], bool, pass its copy.
    """
    heads = block.attn.num_heads
    width = rows.shape[1] // heads
    normed = block.norm1(rows)
    told = block.attn.qkv(normed)
    if copy is not None:
        told = torch.where(own[:, None], copied(block.attn.qkv, normed, copy, copy.names.index("qkv")), told)
    query, key, value = told.chunk(3, dim=-1)
    turn = [angles(place, width) for place in places]
    made = torch.empty_like(query)
    for head in range(heads):
        of = slice(head * width, (head + 1) * width)
        q = torch.stack([spun(row[of], angle) for row, angle in zip(query, turn, strict=True)])
        k = torch.stack([spun(row[of], angle) for row, angle in zip(key, turn, strict=True)])
        scores = (q @ k.T / math.sqrt(width)).masked_fill(~sees, -math.inf)
        made[:, of] = scores.softmax(dim=-1) @ value[:, of]
    gone = block.attn.proj(made)
    if copy is None:
        return gone
    return torch.where(own[:, None], copied(block.attn.proj, made, copy, copy.names.index("proj")), gone)


def in_time(attention: Any, before: list[Tensor]) -> Tensor:
    """What is added to the newest of some steps' rows, row by row."""
    rows, k = before[-1], attention.steps
    made = torch.zeros_like(rows)
    normed = [torch.nn.functional.layer_norm(each, each.shape[1:]) for each in before[-k:]]
    width = attention.inner // attention.heads
    slow = torch.tensor([100.0 ** (-2 * i / width) for i in range(width // 2)], dtype=rows.dtype)
    for slot in range(len(rows)):
        told = [attention.qkv(each[slot]).chunk(3) for each in normed]
        parts = []
        for head in range(attention.heads):
            own = slice(head * width, (head + 1) * width)
            query = spun(told[-1][0][own], slow * (len(told) - 1))
            keys = torch.stack([spun(each[1][own], slow * at) for at, each in enumerate(told)])
            weights = (keys @ query / math.sqrt(width)).softmax(0)
            parts.append(weights @ torch.stack([each[2][own] for each in told]))
        made[slot] = attention.proj(torch.cat(parts))
    return made
