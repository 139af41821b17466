"""The cubes of video that rows and columns stand in, numbered. Knows places in time and space, and never keys."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.ties import spread
from ..scorers import Layout
from .base import Inside

Places = tuple[Tensor, Tensor, Tensor]
"""Step of the stream, row and column of tokens, each [tokens], int64; the row is below 0 of what is of no picture."""

_SIDE = 20
"""Bits of a row or a column."""


@dataclass(frozen=True, slots=True, eq=False)
class Cubes:
    """Where tokens stand.

    Attributes
    ----------
    code : Tensor [tokens], int64
        The same for tokens of one cube, and as large as it is late; -1 of what is of no picture.
    turn : Tensor [tokens], int64
        Who goes first among equal tokens.
    """

    code: Tensor
    turn: Tensor

    @classmethod
    def at(cls, inside: Inside, places: Places) -> Cubes:
        """Of tokens at these places."""
        time, down, across = inside.cube(*places)
        code = (((time << _SIDE) + down) << _SIDE) + across
        return cls(code.masked_fill(places[1] < 0, -1), spread(*places))

    @classmethod
    def of_rows(cls, inside: Inside, layout: Layout) -> Cubes:
        """Of rows in flight, of a batch of one."""
        frame, place, width = layout.frame[0], layout.place[0], layout.width or max(layout.places, 1)
        down = torch.where(frame < 0, -1, place // width)
        return cls.at(inside, (frame + layout.since, down, place % width))

    def then(self, other: Cubes) -> Cubes:
        """These tokens, then others."""
        return Cubes(torch.cat([self.code, other.code]), torch.cat([self.turn, other.turn]))

    def numbered(self) -> Tensor:
        """The number of each token's cube [tokens], from 0 in order of time; -1 of what is of no picture.

        No device waits, as for ``unique``.
        """
        ranked, order = self.code.sort(stable=True)
        begins = torch.ones_like(ranked)
        begins[1:] = ranked[1:] != ranked[:-1]
        first = (ranked[:1] >= 0).long()  # whether the first is a cube
        return torch.empty_like(ranked).index_copy(0, order, begins.cumsum(0) - 2 + first)

    @staticmethod
    def turn_of(code: Tensor) -> Tensor:
        """Who goes first among equal cubes of these codes."""
        side = 2**_SIDE
        return spread(code >> (2 * _SIDE), (code >> _SIDE) % side, code % side)
