"""The vision towers that trained parts reach into: those of Qwen2-VL and Qwen2.5-VL. Knows their modules by name.

Rows of these towers lie in squares of ``merge * merge`` patches, which the merger makes one token; a step's rows stand
together, and its squares row by row or window by window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError

Grid = tuple[int, int, int]
"""Steps, and visual tokens down and across."""
SERVED = ("qwen2_vl", "qwen2_5_vl")
"""Model types whose towers these are."""


def tower_of(model: Any, part: str) -> Any:
    """The vision tower of a model that a part reaches into.

    Raises
    ------
    ConfigError
        If the part does not know towers of this kind, or its weights are not plain ones.
    """
    kind = model.config.model_type
    if kind not in SERVED:
        raise ConfigError(
            f"the part {part} reaches into the vision tower, and knows those of {' and '.join(SERVED)}; models of type "
            f"{kind!r} have another one. Load the model without it."
        )
    tower = model.model.visual
    strange = next((type(m).__name__ for _, m in linears(tower.blocks[0]) if type(m) is not nn.Linear), None)
    if strange is not None or not linears(tower.blocks[0]):
        raise ConfigError(
            f"the part {part} needs a vision tower of plain linear layers, and found {strange or 'none'}; load the "
            "model without quantisation, or leave its vision tower out of it."
        )
    return tower


def linears(module: nn.Module) -> list[tuple[str, Any]]:
    """The matrices of a module by name: whatever has `in_features`, quantised ones included."""
    return [(name, each) for name, each in module.named_modules() if hasattr(each, "in_features")]


def sizes_of(module: nn.Module) -> list[list[Any]]:
    """Name, numbers in and numbers out of each matrix of a module, JSON-ready."""
    return [[name, int(m.in_features), int(m.out_features)] for name, m in linears(module)]


def dense(module: nn.Module) -> int:
    """FLOPs of one row through all matrices of a module, a multiply-add as two."""
    return sum(2 * each.weight.numel() for _, each in linears(module))


@dataclass(slots=True)
class Passed:
    """What one run of a tower left behind.

    Attributes
    ----------
    patches : Tensor [patches, width]
        As they enter the first block, in squares, these row by row.
    qkv : list of Tensor [patches, 3 * width]
        Of each block, before RoPE, in the tower's own order.
    rope : tuple of Tensor [patches, head_dim]
        Cosines and sines in the same order.
    """

    patches: Tensor
    qkv: list[Tensor] = field(default_factory=list)
    rope: tuple[Tensor, Tensor] | None = None


@contextmanager
def passing(tower: Any) -> Iterator[Passed]:
    """While a tower that nobody else runs looks at something: what it leaves behind. What it gives stays as it is."""
    passed = Passed(torch.empty(0))

    def entered(_: nn.Module, __: Any, made: Tensor) -> None:
        passed.patches = made

    def asked(_: nn.Module, __: Any, made: Tensor) -> None:
        passed.qkv.append(made)

    def placed(_: nn.Module, __: Any, named: dict[str, Any]) -> None:
        passed.rope = named["position_embeddings"]

    with ExitStack() as hooks:
        hooks.callback(tower.patch_embed.register_forward_hook(entered).remove)
        first = tower.blocks[0].attn.register_forward_pre_hook(placed, with_kwargs=True)
        hooks.callback(first.remove)
        for block in tower.blocks:
            hooks.callback(block.attn.qkv.register_forward_hook(asked).remove)
        yield passed


def rope(places: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [rows, head_dim] of rows at (row, column) places [rows, 2], which may lie between patches.

    As in these towers, the first half of a head's angles tells the row and the second half the column.
    """
    half = head_dim // 2
    slow = torch.arange(0, half, 2, dtype=torch.float32, device=places.device) / half
    angles = (places.float()[..., None] * theta**-slow).flatten(-2)  # [rows, head_dim / 2]
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def theta_of(tower: Any) -> float:
    """The base of a tower's RoPE."""
    said = getattr(tower.config, "rope_parameters", None) or {}
    return float(said.get("rope_theta", 10000.0))


def turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys [..., rows, heads, head_dim] rotated by angles [..., rows, head_dim], as the towers do it."""
    wide = states.float() if states.dtype != torch.float64 else states
    first, second = wide.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(-2).to(wide.dtype), sin.unsqueeze(-2).to(wide.dtype)
    return (wide * cos + torch.cat([-second, first], dim=-1) * sin).to(states.dtype)


class LowRank(nn.Module):
    """What is added to the matrices of a frozen module, so that it becomes a copy of its own: for each W, W + B A.

    B is zero at first, so that the copy begins as the module itself.

    Parameters
    ----------
    sizes : list
        As `sizes_of` gives them.
    rank : int
        Rows of A and columns of B.
    """

    def __init__(self, sizes: list[list[Any]], rank: int) -> None:
        super().__init__()
        self.names = [name for name, _, _ in sizes]
        into = [torch.randn(rank, wide) * wide**-0.5 for _, wide, _ in sizes]
        self.into = nn.ParameterList(into)
        self.out = nn.ParameterList([torch.zeros(wide, rank) for _, _, wide in sizes])

    @contextmanager
    def on(self, module: nn.Module) -> Iterator[nn.Module]:
        """The module as the copy, within the block, for whoever alone runs it."""
        found = dict(module.named_modules())
        with ExitStack() as hooks:
            for number, name in enumerate(self.names):
                hooks.callback(found[name].register_forward_hook(partial(self._add, number)).remove)
            yield module

    def added(self, number: int, rows: Tensor) -> Tensor:
        """What B A of one of the matrices makes of rows [..., in]."""
        into, out = self.into[number], self.out[number]
        return rows.to(into) @ into.T @ out.T

    def _add(self, number: int, _: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
        return made + self.added(number, given[0]).to(made)

    def flops(self, rows: int) -> int:
        """What is added for so many rows, a multiply-add as two."""
        return 2 * rows * sum(each.numel() for each in (*self.into, *self.out))


def few(copies: nn.ModuleList, number: int) -> LowRank:
    """One of several copies."""
    copy = copies[number]
    assert isinstance(copy, LowRank)
    return copy


def slots_of(count: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns in which `count` slots stand, as square as `count` allows, the longer side along the picture's.

    Examples
    --------
    >>> slots_of(8, 4, 4), slots_of(8, 9, 16), slots_of(8, 16, 9)
    ((2, 4), (2, 4), (4, 2))
    """
    short = max(side for side in range(1, math.isqrt(count) + 1) if count % side == 0)
    return (count // short, short) if height > width else (short, count // short)
