"""What a storage is asked for: how keys, and how values, are turned into what is stored, and back."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from ..room import Parts

Learned = tuple[Tensor, ...]
"""What a codec has learned from a layer's first columns; tensors of any shape, or none."""


SIDES: tuple[Literal["keys", "values"], ...] = ("keys", "values")
"""What a storage has a codec for each of."""


class Codec(Protocol):
    """How a layer's keys, or its values, are stored.

    Every column is stored by itself: the same states give the same parts, whatever comes with them. So columns can go,
    come back from a file and be chosen one by one, and no answer depends on how many frames were pushed together.

    One that says ``plain`` gives back numbers of the type that it was given, and they are stored in the model's type.
    """

    def learn(self, states: Tensor) -> Learned:
        """What all columns of a layer are stored with, from the first that come [batch, kv_heads, columns, head_dim].

        Asked once. It stays as long as the layer does, is shared by forks and saved; a constant, of shapes that do not
        depend on how many columns there are. Keys' codec of a storage that says ``uses_query`` gets, once something was
        asked, how much each channel counts for that, too [kv_heads, head_dim].
        """

    def encode(self, states: Tensor, learned: Learned) -> Parts:
        """States [batch, kv_heads, columns, head_dim] as they are stored, each part [batch, kv_heads, columns, width].

        Their number, types and widths follow from type and head_dim of the states alone.
        """

    def decode(self, parts: Parts, learned: Learned, dtype: torch.dtype) -> Tensor:
        """States [batch, kv_heads, columns, head_dim] of a type, as attention gets them."""


class Storage(Protocol):
    """How keys and values are stored: a frozen dataclass that can be called.

    Keys are stored with RoPE. When positions move they are rotated once from what is stored of them as they came, and
    what comes out is stored in the same way.

    One that says ``recent``, a number of columns, stores what is older than so many of the newest: those and the prompt
    stay in the model's type. A column is encoded once, as it leaves that window (or is archived from it), and learning
    happens then. Its keys are held once, as they came, or without RoPE if the storage says ``bare``; they are rotated
    to where they stand after decoding. So they may be decoded into something that a rotation leaves exact.
    """

    def __call__(self, of: Literal["keys", "values"]) -> Codec:
        """The codec of either."""


def recent_in(storage: Storage) -> int | None:
    """How many of the newest columns a storage leaves in the model's type; None if it stores all alike."""
    return getattr(storage, "recent", None)


def bare_in(storage: Storage) -> bool:
    """Whether a storage is given keys without RoPE."""
    return bool(getattr(storage, "bare", False))


def asks_in(storage: Storage) -> bool:
    """Whether a storage learns from what a probe asks."""
    return bool(getattr(storage, "uses_query", False))


def learned_bytes(codec: Codec, kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of what a codec learns of one layer."""
    return sum(part.nbytes for part in codec.learn(torch.zeros(1, kv_heads, 1, head_dim, dtype=dtype, device="cpu")))


def column_bytes(codec: Codec, kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
    """Bytes that a column of states of this kind takes in one layer."""
    blank = torch.zeros(1, kv_heads, 1, head_dim, dtype=dtype, device="cpu")
    return sum(part.nbytes for part in codec.encode(blank, codec.learn(blank)))


def reading_flops(storage: Storage, kv_heads: int, *widths: int) -> int:
    """FLOPs by which a key and a value of one column are made from what is stored.

    A codec that multiplies says so of one head, by a method ``flops(head_dim)``: of `rotatek` the product with its
    directions, of 8 or 4 bits what makes each number of its code. RoPE is counted nowhere.
    """
    codecs = zip((storage(of) for of in SIDES), widths, strict=True)
    return kv_heads * sum(codec.flops(width) for codec, width in codecs if hasattr(codec, "flops"))
