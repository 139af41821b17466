"""What a method inside layers is asked, and the sets of largest shares that such methods go by."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ...common.ties import settled


class Inside(Protocol):
    """Says what layers may leave out, of tokens that all stay: a frozen dataclass that can be called.

    Visual tokens come in cubes, which no border of a chunk moves: they follow from a token's own place.

    Attributes
    ----------
    ffn, attention : bool
        Which halves of a layer it has a say in.
    """

    @property
    def ffn(self) -> bool:
        """Whether it leaves out rows of FFNs."""

    @property
    def attention(self) -> bool:
        """Whether it leaves out columns of attention."""

    def cube(self, step: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of tokens at these places in time and space [...] the places of their cubes."""

    def __call__(self, hidden: Tensor, cube: Tensor, turn: Tensor) -> Tensor:
        """Which rows get an FFN of their own [rows], bool; the others get the mean over those of their cube.

        Parameters
        ----------
        hidden : Tensor [rows, hidden]
            The residual stream in front of the FFN.
        cube : Tensor [rows], int64
            The number of each visual row's cube, less than there are rows; -1 of text, about which what is said does
            not matter.
        turn : Tensor [rows], int64
            Who goes first among equals, the smallest number first.
        """

    def attends(self, query: Tensor, mean: Tensor, competes: Tensor, turn: Tensor, dtype: torch.dtype) -> Tensor:
        """To which cubes each row attends, beside its own and text [kv_heads, rows, cubes], bool.

        Parameters
        ----------
        query : Tensor [kv_heads, group, rows, head_dim]
            Scaled as the layer scales its products, in at least float32.
        mean : Tensor [kv_heads, cubes, head_dim]
            Mean keys.
        competes : Tensor [rows, cubes], bool
            Which cubes each row may choose from.
        turn : Tensor [cubes], int64
            Who goes first among equals.
        dtype : torch.dtype
            Of the hidden states, for `pdrop_video.common.ties.settled`.
        """


def largest(share: Tensor, p: float, turn: Tensor, dtype: torch.dtype) -> Tensor:
    """The smallest sets of largest shares whose sum reaches `p` [..., numbers], bool: top-p, or a nucleus.

    Parameters
    ----------
    share : Tensor [..., numbers]
        That sum up to 1 over the last axis.
    p : float
    turn : Tensor [numbers], int64
        Who goes first among equals.
    dtype : torch.dtype
        Of the states that shares were made of: shares, and their sums, are compared as `settled` has them.

    Examples
    --------
    >>> share = torch.tensor([0.135419, 0.274646, 0.557013, 0.032923], dtype=torch.float64)
    >>> largest(share, 0.8, torch.arange(4), torch.float64).nonzero()[:, 0].tolist()
    [1, 2]
    """
    first = turn.argsort()
    ranked, order = settled(share, dtype)[..., first].sort(dim=-1, descending=True, stable=True)
    taken = _reached(ranked.cumsum(-1) - ranked, p, dtype)
    sorted_back = torch.empty_like(taken).scatter(-1, order, taken)
    return torch.empty_like(taken).index_copy(-1, first, sorted_back)


def largest_of_each(share: Tensor, group: Tensor, p: float, turn: Tensor, dtype: torch.dtype) -> Tensor:
    """The same for several groups at once: shares [numbers] that sum up to 1 over those of the same `group`.

    Examples
    --------
    >>> share, group = torch.tensor([0.5, 0.2, 0.5, 0.8]).double(), torch.tensor([0, 1, 0, 1])
    >>> largest_of_each(share, group, 0.5, torch.arange(4), torch.float64).tolist()
    [True, False, False, True]
    """
    share = settled(share, dtype)
    order = turn.argsort()
    order = order[share[order].argsort(descending=True, stable=True)]
    order = order[group[order].argsort(stable=True)]
    ranked, of = share[order], group[order]
    before = ranked.cumsum(0) - ranked
    taken = _reached(before - before[torch.searchsorted(of, of)], p, dtype)
    return torch.empty_like(taken).index_copy(0, order, taken)


def _reached(before: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    """Whether what goes before has not yet reached `p`, so that one more is taken."""
    return settled(before, dtype) < settled(before.new_tensor(p), dtype)
