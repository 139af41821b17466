"""What the tokens of a cache layer are: metadata kept apart from keys and values. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

import torch
from torch import Tensor

from ..common.ties import spread


@cache
def time_dtype(device: torch.device) -> torch.dtype:
    """float64, in which all frames have times of their own, also in Unix time; float32 if a device has no float64."""
    try:
        return torch.zeros((), dtype=torch.float64, device=device).dtype
    except (TypeError, RuntimeError):  # MPS
        return torch.float32


@dataclass(frozen=True, slots=True)
class TokenTable:
    """One row per held token, in the order of the cache's columns, which need not be that of time.

    Attributes
    ----------
    index : Tensor [tokens], int64
        The token's number in the stream (text prefix first, then every token that came).
    seconds : Tensor [tokens], float64
        Time of its frame; nan for text. On a device without float64 (MPS) float32, counted from the stream's first
        frame: to 1/64 s for three days, 1/8 s for a month.
    until : Tensor [tokens], like `seconds`
        Up to when its frame showed what was to be seen: later than its time where a gate left out frames that show the
        same.
    chunk : Tensor [tokens], int64
        Which pushed chunk it came with; -1 for the prefix.
    step : Tensor [tokens], int64
        Its step of time in the stream, counted from 0; -1 for the prefix. Glue has that of its frame, a kept turn of
        question and answer one of its own.
    row, column : Tensor [tokens], int64
        Its place in the picture, in visual tokens; -1 for text.
    score : Tensor [tokens], float32
        What it scored when it was last ranked; 0 if never.
    visual : Tensor [tokens], bool
        False for text.
    position : Tensor [tokens, axes], int64
        Its position in the stream: (t, h, w) for M-RoPE, one number otherwise. Never changes.
    entered, now : Tensor [tokens, axes], int64
        The positions that its key was rotated to when it came and is rotated to now. Both are `position` for as long as
        positions were not moved.
    """

    index: Tensor
    seconds: Tensor
    until: Tensor
    chunk: Tensor
    step: Tensor
    row: Tensor
    column: Tensor
    score: Tensor
    visual: Tensor
    position: Tensor
    entered: Tensor
    now: Tensor

    @classmethod
    def text(cls, index: Tensor, position: Tensor, now: Tensor, *, chunk: int = -1, step: int = -1) -> TokenTable:
        """Rows of text: the prefix, which is never evicted, or a turn.

        Parameters
        ----------
        index : Tensor [tokens]
        position, now : Tensor [tokens, axes]
        chunk, step : int
        """
        nowhere = torch.full_like(index, -1)
        nothing = torch.zeros_like(index, dtype=torch.float32)
        timeless = torch.full_like(index, torch.nan, dtype=time_dtype(index.device))
        return cls(
            index=index,
            seconds=timeless,
            until=timeless,
            chunk=torch.full_like(index, chunk),
            step=torch.full_like(index, step),
            row=nowhere,
            column=nowhere,
            score=nothing,
            visual=torch.zeros_like(index, dtype=torch.bool),
            position=position,
            entered=now,
            now=now,
        )

    def __len__(self) -> int:
        return self.index.shape[0]

    def columns(self) -> list[Tensor]:
        """All of its columns."""
        return [getattr(self, name) for name in _columns()]

    def to(self, device: torch.device | str) -> TokenTable:
        """The same rows on a device."""
        return TokenTable(*(column.to(device) for column in self.columns()))

    def take(self, index: Tensor) -> TokenTable:
        """The rows `index` [kept]."""
        return TokenTable(*(column[index] for column in self.columns()))

    def append(self, other: TokenTable) -> TokenTable:
        """These rows, then those of `other`."""
        return TokenTable(*map(torch.cat, zip(self.columns(), other.columns(), strict=True)))

    def spread(self) -> tuple[Tensor, Tensor]:
        """Keys [tokens] by which equals are compared, higher first: spread evenly over time and space, then the newer.

        Text has no place in a picture; what is equal otherwise is of one step.
        """
        return -spread(self.step, self.row, self.column), self.index

    def in_time(self) -> TokenTable:
        """The same rows in the order in which the tokens came."""
        return self.take(self.index.argsort())


@cache
def _columns() -> tuple[str, ...]:
    return tuple(field.name for field in fields(TokenTable))
