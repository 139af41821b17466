"""Full: keys and values as the model makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...registry import Facts
from ..room import Parts
from .base import Codec, Learned


class AsIs:
    """The codec that does nothing."""

    def learn(self, states: Tensor) -> Learned:
        """Nothing."""
        return ()

    def encode(self, states: Tensor, learned: Learned) -> Parts:
        """The states themselves."""
        return (states,)

    def decode(self, parts: Parts, learned: Learned, dtype: torch.dtype) -> Tensor:
        """The states themselves."""
        return parts[0]


@dataclass(frozen=True, slots=True)
class Full:
    """Keys and values as the model makes them, in its own type."""

    facts: ClassVar[Facts] = Facts(says="every key and value as the model makes it", paper="", formula="as it is")

    def __call__(self, of: Literal["keys", "values"]) -> Codec:
        """The same for both."""
        return AsIs()
