"""What the tokens of a cache layer are: metadata kept apart from keys and values. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..ties import spread


@dataclass(frozen=True, slots=True)
class TokenTable:
    """One row per held token, in the order of the cache's columns, which need not be that of time.

    Attributes
    ----------
    index : Tensor [tokens], int64
        The token's number in the stream (text prefix first, then every token that came).
    seconds : Tensor [tokens], float32
        Time of its frame; nan for text.
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
        return cls(
            index=index,
            seconds=nothing + torch.nan,
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
        return [getattr(self, f.name) for f in fields(self)]

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
