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
    def of(cls, keys: Tensor, kept: int, weight: Tensor | None = None) -> Subspace:
        """That of a block.

        Parameters
        ----------
        keys : Tensor [kv_heads, tokens, head_dim]
            With RoPE, all in one frame.
        kept : int
            How many directions.
        weight : Tensor [kv_heads, head_dim], optional
            Of each channel, as `channel_weights` has them; a ten thousandth of the mean variance is then added to each.
            None weighs all channels alike.
        """
        exact = exactly(keys)
        mean = exact.mean(1)
        centred = exact - mean[:, None]
        spread = centred.mT @ centred
        if weight is not None:
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


def channel_weights(asked: Tensor, kv_heads: int, pairs: Tensor | None = None) -> Tensor:
    """How much each channel of a key counts for what is asked [kv_heads, head_dim].

    Its length, over the last 32 rows, of the mean over the heads that share a key; from a thousandth of the median
    channel's (the lower one of two) on.

    Parameters
    ----------
    asked : Tensor [heads, rows, head_dim]
    kv_heads : int
    pairs : Tensor [head_dim, head_dim], bool, optional
        Channels that a rotation mixes, as `rotated_pairs` has them: those count alike, by their mean square, which no
        rotation changes. So queries with RoPE weigh keys without (ours).
    """
    rows = rearrange(exactly(asked[:, -_ASKING:]), "(kv group) rows dim -> kv group rows dim", kv=kv_heads)
    square = rows.mean(1).square().sum(1)
    if pairs is not None:
        square = square @ pairs.to(square) / pairs.sum(0)
    weight = square.sqrt()
    return weight.maximum(_FLOOR * weight.median(-1, keepdim=True).values)


def rotated_pairs(turn: Callable[[Tensor, Tensor], Tensor], keys: Tensor, axes: int) -> Tensor:
    """Which channels a layer's rotation mixes, each with itself [head_dim, head_dim], bool.

    Parameters
    ----------
    turn : callable
        Keys [kv_heads, tokens, head_dim] moved by so many positions [tokens, axes].
    keys : Tensor [kv_heads, ..., head_dim]
        Any keys of the layer.
    axes : int
        Of a position.
    """
    dim = keys.shape[-1]
    unit = torch.eye(dim, dtype=torch.promote_types(keys.dtype, torch.float32), device=keys.device)
    moved = turn(unit.expand(len(keys), -1, -1), torch.full((dim, axes), 1001, device=keys.device))[0]
    return (moved.abs() > 1e-5) | (unit > 0)
