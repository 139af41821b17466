"""Grids of 4 or 8 bits: values by the token, keys by the channel and the token. Knows tensors only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.ties import working
from ..room import Parts
from .base import Learned

_FINER = 1 + 2**-7
"""What a step is lengthened by before it is rounded to bfloat16, so that its range never ends before the numbers do."""


def pack(codes: Tensor) -> Tensor:
    """Codes from 0 to 15 [..., channels], two a byte: the first half of the channels in the low bits."""
    half = codes.shape[-1] // 2
    return codes[..., :half] | codes[..., half:] << 4


def unpack(codes: Tensor) -> Tensor:
    """What `pack` was given."""
    return torch.cat([codes & 15, codes >> 4], dim=-1)


def group_of(channels: int, most: int) -> int:
    """The longest group, up to `most`, in which so many channels divide."""
    return next(size for size in range(min(channels, most), 0, -1) if channels % size == 0)


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """Asymmetric quantisation of each token by itself: a step and a zero point for each group of its channels.

    With the range from ``lo = min(x, 0)`` to ``hi = max(x, 0)`` and ``L = 2 ** bits - 1``: step ``s = (hi - lo) / L``,
    a bfloat16, rounded up; zero point ``z = round(-lo / s)``; codes ``q = clamp(round(x / s) + z, 0, L)``. What is read
    is ``(q - z) * s``, at most half a step off. A range of nothing has step 0.

    Parameters
    ----------
    bits : {4, 8}
    group : int
        Most channels that share a step.
    """

    bits: int
    group: int

    def learn(self, states: Tensor) -> Learned:
        """Nothing: each token has a grid of its own."""
        return ()

    def encode(self, states: Tensor, learned: Learned) -> Parts:
        """Codes, uint8 [..., head_dim * bits / 8]; steps, bfloat16, and zero points, uint8, each [..., groups]."""
        exact = working(states)
        grouped = exact.unflatten(-1, (-1, group_of(exact.shape[-1], self.group)))
        top = 2**self.bits - 1
        low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
        step = ((high - low) / top * _FINER).bfloat16()
        by = step.to(exact).masked_fill(step == 0, torch.inf)
        zero = (-low / by).round()
        codes = ((grouped / by[..., None]).round() + zero[..., None]).clamp(0, top).to(torch.uint8).flatten(-2)
        if self.bits == 4:
            codes = pack(codes)
        return codes, step, zero.to(torch.uint8)

    def decode(self, parts: Parts, learned: Learned, dtype: torch.dtype) -> Tensor:
        """Codes less zero points, times steps; in at least float32."""
        codes, step, zero = parts
        exact = torch.promote_types(dtype, torch.float32)
        if self.bits == 4:
            codes = unpack(codes)
        by = step.to(exact)[..., None]
        grouped = codes.unflatten(-1, (step.shape[-1], -1)).to(exact)
        return grouped.sub_(zero[..., None]).mul_(by).flatten(-2).to(dtype)

    def flops(self, head_dim: int) -> int:
        """Of reading a state of one head: a difference and a product a number."""
        return 2 * head_dim


@dataclass(frozen=True, slots=True)
class ChannelGrid:
    """Each channel in units of its own: less its mean, over its spread, both learned once; then as `TokenGrid`.

    So a channel that is large or far from zero in all tokens, as keys have them, takes nothing of the others' accuracy.
    """

    bits: int
    group: int

    @property
    def _tokens(self) -> TokenGrid:
        return TokenGrid(self.bits, self.group)

    def learn(self, states: Tensor) -> Learned:
        """Means and spreads of the channels, each float32 [batch, kv_heads, 1, head_dim].

        The spread is the standard deviation over the columns given, and no less than a hundredth of its quadratic mean
        over the head's channels; 1 where nothing differs.
        """
        exact = working(states)
        mean = exact.mean(-2, keepdim=True)
        square = (exact - mean).square().mean(-2, keepdim=True)
        spread = torch.maximum(square, square.mean(-1, keepdim=True) * 1e-4).sqrt()
        spread = spread.float()
        return mean.float(), spread.masked_fill(spread == 0, 1)

    def encode(self, states: Tensor, learned: Learned) -> Parts:
        """As `TokenGrid.encode`, in the channels' own units."""
        mean, spread = learned
        exact = working(states)
        return self._tokens.encode((exact - mean) / spread, ())

    def decode(self, parts: Parts, learned: Learned, dtype: torch.dtype) -> Tensor:
        """Back in the units of the model."""
        mean, spread = learned
        exact = torch.promote_types(dtype, torch.float32)
        return self._tokens.decode(parts, (), exact).mul_(spread).add_(mean).to(dtype)

    def flops(self, head_dim: int) -> int:
        """Of reading a state of one head: as `TokenGrid`, then a product and a sum a number."""
        return 2 * self._tokens.flops(head_dim)
