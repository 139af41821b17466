"""What the vision tower sees through a trained part that reaches into it. Knows adapters and parts, never a stream."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import ConfigError
from ..models import Adapter, VisualChunk
from ..models.qwen2_vl import Qwen2VL
from ..parts import PARTS, Part, needed_by
from ..parts.standby import StandbyPart
from ..parts.uhd import UHDPart

Sight = StandbyPart | UHDPart
"""A part that takes part in looking."""


def sight_of(parts: Mapping[str, Part]) -> Sight | None:
    """The part through which frames are looked at, of those that gate and reducer use; None if there is none."""
    return next((part for part in parts.values() if isinstance(part, StandbyPart | UHDPart)), None)


def reaches(method: object) -> bool:
    """Whether a method looks through such a part."""
    return any(issubclass(PARTS[name], StandbyPart | UHDPart) for name in needed_by(method) if name in PARTS)


def look(
    part: Sight,
    adapter: Adapter,
    frames: Tensor,
    seconds: tuple[float, ...],
    first: int,
    carried: Mapping[str, Tensor],
    worth: Tensor | None = None,
) -> tuple[VisualChunk, dict[str, Tensor]]:
    """As `Adapter.look`, through a part; and what it carries on. Gradients reach the part.

    Parameters
    ----------
    part : Part
    adapter : Adapter
    frames, seconds, first, worth
        As there.
    carried : mapping of Tensor
        What was given back for the steps before; nothing at a stream's beginning.

    Raises
    ------
    ConfigError
        If a gate wants parts of pictures alone, of which these parts know nothing.
    """
    if worth is not None and not bool(worth.all()):
        raise ConfigError(
            f"the gate leaves out parts of pictures, and the part {part.name} was trained on whole ones; choose a gate "
            "that leaves out whole frames."
        )
    if isinstance(part, UHDPart):
        return _compressed(part, adapter, frames, seconds, first), {}
    with torch.no_grad(), part.passing() as passed:
        chunk = adapter.look(frames, seconds, first)
    grid = (len(chunk.steps), *chunk.size)
    tokens, kept = part(passed, grid, carried)
    return chunk.with_standby(tokens, part.stands(grid)), kept


def _compressed(part: UHDPart, adapter: Adapter, frames: Tensor, seconds: tuple[float, ...], first: int) -> VisualChunk:
    """A quarter of the grid's tokens, at places of the grid."""
    assert isinstance(adapter, Qwen2VL)  # as is every family whose towers the part knows
    values, grid = adapter.values_of(frames)
    tokens = part(values, grid, adapter.told_of(grid, values.device))
    kept = part.kept(grid).to(values.device)
    whole = tokens.new_zeros(grid[0] * grid[1] * grid[2], tokens.shape[1]).index_copy(0, kept, tokens)
    return adapter.laid_out(whole, (), grid, seconds, first).keep(kept)


def most_bytes(part: Sight) -> int:
    """Most bytes that a part carries from chunk to chunk."""
    return part.most_bytes if isinstance(part, StandbyPart) else 0


def look_flops(part: Sight, adapter: Adapter, size: tuple[int, int], steps: int) -> int | None:
    """FLOPs of `look` at so many steps of (h, w) visual tokens; None if nobody said what the tower multiplies."""
    if (tower := adapter.tower(*size)) is None:
        return None
    looked = tower.halved(part.after) if isinstance(part, UHDPart) else tower
    return looked.flops(steps) + steps * part.flops(tower.patches)


def left_of(part: Sight, size: tuple[int, int], full: bool) -> int:
    """Visual tokens that enter the language model of each step of (h, w) that is looked at through a part."""
    if isinstance(part, UHDPart):
        return -(-size[0] // 2) * -(-size[1] // 2)
    return part.n + size[0] * size[1] * full
