"""Keys as coordinates in a few directions: RotateK's low-rank form of what many columns of one head have in common.

Knows keys and queries of one layer. Refuses to know where they are stored and what they show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..common.ties import exactly

_ASKING = 32
_FLOOR, _RIDGE = 1e-3, 1e-4


@dataclass(frozen=True, slots=True)
class Subspace:
    """The directions in which a block's keys differ most, and what they share outside of them (RotateK, 2605.19218).

    With mu the mean of a block's keys and P the projection onto the directions, a key k counts as
    ``P k + (I - P) mu``: a logit is off by ``(k - mu) (I - P) q``, and by nothing where all directions are held.

    Attributes
    ----------
    axes : Tensor [kv_heads, head_dim, kept]
        Orthonormal columns R, P = R R^T, in the keys' type.
    rest : Tensor [kv_heads, head_dim]
        (I - P) mu.
    """

    axes: Tensor
    rest: Tensor

    @classmethod
    def of(cls, keys: Tensor, kept: int, asked: Tensor | None = None) -> Subspace:
        """That of a block.

        Parameters
        ----------
        keys : Tensor [kv_heads, tokens, head_dim]
            With RoPE, all in one frame.
        kept : int
            How many directions.
        asked : Tensor [heads, rows, head_dim], optional
            Queries in the same frame, of which the last 32 rows count: each channel by the length, over the rows, of
            the mean over the heads that share a key, from a thousandth of the median channel's (the lower one of two)
            on; then a ten thousandth of the mean variance is added to each. None weighs all channels alike.
        """
        exact = exactly(keys)
        mean = exact.mean(1)
        centred = exact - mean[:, None]
        spread = centred.mT @ centred
        if asked is not None:
            rows = exactly(asked[:, -_ASKING:])
            rows = rearrange(rows, "(kv group) rows dim -> kv group rows dim", kv=len(keys)).mean(1)
            weight = rows.norm(dim=1)
            weight = weight.maximum(_FLOOR * weight.median(-1, keepdim=True).values)
            spread = spread * weight[:, :, None] * weight[:, None]
            ridge = _RIDGE * spread.diagonal(dim1=-2, dim2=-1).abs().mean(-1).clamp(min=1e-6)
            spread = spread + ridge[:, None, None] * torch.eye(keys.shape[-1], dtype=exact.dtype, device=keys.device)
        axes = torch.linalg.eigh((spread + spread.mT) / 2).eigenvectors[..., -kept:].flip(-1).to(keys.dtype)
        exact_axes = exactly(axes)  # as they are stored
        rest = mean - (exact_axes @ (exact_axes.mT @ mean[..., None]))[..., 0]
        return cls(axes.contiguous(), rest.to(keys.dtype))

    def coordinates(self, keys: Tensor) -> Tensor:
        """Keys [kv_heads, tokens, head_dim] as [kv_heads, tokens, kept]: not centred, not weighted."""
        return keys @ self.axes

    def keys(self, coordinates: Tensor) -> Tensor:
        """The keys [kv_heads, tokens, head_dim] that coordinates stand for."""
        return coordinates @ self.axes.mT + self.rest[:, None]

    def turned(self, turn: Callable[[Tensor], Tensor]) -> Subspace:
        """The same block at other positions: `turn` rotates keys [kv_heads, tokens, head_dim] by one shift for all.

        Coordinates stay what they are. It is the same as to turn queries back: ``q . RoPE(D) R c = RoPE(-D) q . R c``.
        """
        axes = turn(self.axes.mT.contiguous()).mT
        return Subspace(axes.contiguous(), turn(self.rest[:, None])[:, 0])
