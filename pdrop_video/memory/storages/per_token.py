"""int8_per_token: every column in a byte a number, and one scale for each token and head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...common.ties import working
from ...registry import Facts
from ..room import Parts
from .base import Codec, Learned


class AbsMax:
    """Symmetric quantisation to 8 bits: a state of one token and head is its codes times its largest number / 127."""

    def learn(self, states: Tensor) -> Learned:
        """Nothing: each state has a scale of its own."""
        return ()

    def encode(self, states: Tensor, learned: Learned) -> Parts:
        """Codes, int8 [..., head_dim] from -127 to 127, and scales, float32 [..., 1]."""
        exact = working(states)
        scale = (exact.abs().amax(-1, keepdim=True) / 127).float()
        # of nothing but zeros, and of what is too small for a scale, all codes are 0
        codes = (exact / scale.masked_fill(scale == 0, torch.inf)).round().clamp(-127, 127)
        return codes.to(torch.int8), scale

    def decode(self, parts: Parts, learned: Learned, dtype: torch.dtype) -> Tensor:
        """Codes times scales, in at least float32."""
        codes, scale = parts
        exact = torch.promote_types(dtype, torch.float32)
        return (codes.to(exact) * scale).to(dtype)

    def flops(self, head_dim: int) -> int:
        """Of reading a state of one head: a product a number."""
        return head_dim


@dataclass(frozen=True, slots=True)
class PerToken:
    """All keys and values in 8 bits, the newest as well: 132 bytes for 256 in bfloat16 (128 channels).

    Rounding to the nearest of 255 steps, the size of which each token and head has for itself, as usual for
    activations (LLM.int8(), arXiv 2208.07339; there by row). What attention gets is made from the codes anew in every
    layer, so that no more than one layer's keys and values are there in full.
    """

    facts: ClassVar[Facts] = Facts(
        says="every key and value in 8 bits, the newest too, a scale for each token and head",
        paper="LLM.int8(), arXiv 2208.07339",
        formula="s = max |x| / 127 for each token and head, code = round(x / s); read as code * s",
    )

    def __call__(self, of: Literal["keys", "values"]) -> Codec:
        """The same for both."""
        return AbsMax()
