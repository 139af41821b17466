"""What a reducer that merges has decided so far, group by group, and its answer."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Reduced, Tokens
from .steps import salience


class Merged:
    """Collects tokens that go on, alone or as means of others; each goes on once.

    Parameters
    ----------
    tokens : Tokens
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self._parts: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def alone(self, numbers: Tensor) -> None:
        """Tokens [kept] that go on as they are."""
        self._parts.append((numbers, numbers, None))

    def means(self, numbers: Tensor, chain: Tensor, weights: Tensor) -> None:
        """Tokens that go on as means.

        Parameters
        ----------
        numbers : Tensor [kept], int64
            The tokens whose places they have.
        chain : Tensor [steps, tokens], int64
            What is merged: each column is one mean over steps to begin with.
        weights : Tensor [kept, tokens]
            Of these means.
        """
        self._parts.append((numbers, chain.flatten(), (weights / len(chain)).repeat(1, len(chain))))

    def reduced(self, salient: str) -> Reduced:
        """The answer; where nothing was kept, the one token that is most salient."""
        if not sum(len(numbers) for numbers, _, _ in self._parts):
            self.alone(self.tokens.best(salience(self.tokens, salient), 1))
        kept = torch.cat([numbers for numbers, _, _ in self._parts]).sort().values
        features = self.tokens.features
        exact = torch.promote_types(features.dtype, torch.float32)
        rows = torch.zeros(len(kept), len(self.tokens), dtype=exact, device=features.device)
        for numbers, columns, weights in self._parts:
            place = torch.searchsorted(kept, numbers)
            if weights is None:
                rows[place, columns] = 1
            else:
                rows[place[:, None], columns[None, :]] = weights.to(rows)
        return Reduced(kept, rows)
