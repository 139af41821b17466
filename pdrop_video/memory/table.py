"""What the tokens of a cache layer are: metadata kept apart from keys and values. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenTable:
    """One row per held token, in the order of the cache's columns.

    Attributes
    ----------
    index : Tensor [tokens], int64
        The token's number in the stream (text prefix first, then every visual token that was pushed).
    seconds : Tensor [tokens], float32
        Time of its frame; nan for text.
    chunk : Tensor [tokens], int64
        Which pushed chunk it came with; -1 for the prefix.
    step : Tensor [tokens], int64
        Its step of time in the stream, counted from 0; -1 for the prefix.
    row, column : Tensor [tokens], int64
        Its place in the picture, in visual tokens; -1 for text.
    score : Tensor [tokens], float32
        What it scored when it was last ranked; 0 if never.
    visual : Tensor [tokens], bool
        False for text.
    """

    index: Tensor
    seconds: Tensor
    chunk: Tensor
    step: Tensor
    row: Tensor
    column: Tensor
    score: Tensor
    visual: Tensor

    @classmethod
    def text(cls, tokens: int, device: torch.device) -> TokenTable:
        """The prefix: `tokens` rows that are never evicted."""
        nowhere = torch.full((tokens,), -1, device=device)
        return cls(
            index=torch.arange(tokens, device=device),
            seconds=torch.full((tokens,), torch.nan, device=device),
            chunk=nowhere,
            step=nowhere,
            row=nowhere,
            column=nowhere,
            score=torch.zeros(tokens, device=device),
            visual=torch.zeros(tokens, dtype=torch.bool, device=device),
        )

    def __len__(self) -> int:
        return self.index.shape[0]

    def take(self, index: Tensor) -> TokenTable:
        """The rows `index` [kept]."""
        return TokenTable(*(getattr(self, f.name)[index] for f in fields(self)))

    def append(self, other: TokenTable) -> TokenTable:
        """These rows, then those of `other`."""
        return TokenTable(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))
