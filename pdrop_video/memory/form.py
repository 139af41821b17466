"""How a layer writes what has left its recent window, and reads it back. Knows tensors only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..common.ties import working
from .room import Parts
from .storages import Codec, Learned, Storage, asks_in, bare_in
from .subspace import channel_weights, rotated_pairs

Turned = Callable[[Tensor, Tensor], Tensor]
"""A layer's keys [kv_heads, tokens, head_dim] moved by so many positions [tokens, axes], in one rotation."""


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """The two codecs of a storage and what they have learned of one layer.

    Attributes
    ----------
    keys, values : Codec
    learned : (tuple of Tensor, tuple of Tensor)
        Of keys and of values.
    dtype : torch.dtype
        Of keys and values before they were stored.
    device : torch.device
        Of the layer.
    turn : callable
    bare : bool
        Whether keys are stored without RoPE, or as they came.
    count : int
        In how many tensors keys are stored.
    """

    keys: Codec
    values: Codec
    learned: tuple[Learned, Learned]
    dtype: torch.dtype
    device: torch.device
    turn: Turned
    bare: bool
    count: int = 0

    @classmethod
    def learning(
        cls,
        storage: Storage,
        turn: Turned,
        keys: Tensor,
        values: Tensor,
        entered: Tensor,
        asked: Tensor | None = None,
    ) -> Form:
        """A storage's form that learns from the first keys and values, of which `write` says what they are.

        And, if the storage says ``uses_query``, from what a probe asks [heads, rows, head_dim].
        """
        nothing = cls(storage("keys"), storage("values"), ((), ()), keys.dtype, keys.device, turn, bare_in(storage))
        given = nothing.stripped(keys, entered)
        weights: tuple[Tensor, ...] = ()
        if asked is not None and asks_in(storage):
            pairs = rotated_pairs(turn, keys[0], entered.shape[1]) if nothing.bare else None
            weights = (channel_weights(asked, keys.shape[1], pairs),)
        learned = nothing.keys.learn(given, *weights), nothing.values.learn(values)
        return replace(nothing, learned=learned, count=len(nothing.keys.encode(given[:, :, :0], learned[0])))

    @classmethod
    def knowing(cls, storage: Storage, turn: Turned, keys: Tensor, learned: tuple[Learned, Learned]) -> Form:
        """A storage's form that has learned already, for keys like these."""
        form = cls(storage("keys"), storage("values"), learned, keys.dtype, keys.device, turn, bare_in(storage))
        return replace(form, count=len(form.keys.encode(keys, learned[0])))

    def write(self, keys: Tensor, values: Tensor, entered: Tensor) -> tuple[Parts, Parts]:
        """Keys as they came and values [batch, kv_heads, tokens, head_dim] as they are stored.

        Parameters
        ----------
        keys, values : Tensor
        entered : Tensor [tokens, axes]
            The positions that keys are rotated to.
        """
        stripped = self.stripped(keys, entered)
        coded = self.keys.encode(stripped, self.learned[0])
        if getattr(self.keys, "plain", False):
            coded = tuple(part.to(self.dtype) for part in coded)
        return coded, self.values.encode(values, self.learned[1])

    def stripped(self, keys: Tensor, entered: Tensor) -> Tensor:
        """Keys as the codec gets them, in at least float32."""
        exact = working(keys)
        return self.turn(exact[0], -entered)[None] if self.bare else exact

    def read_keys(self, parts: Parts, by: Tensor | None) -> Tensor:
        """Keys rotated by so many positions [tokens, axes] from how they are stored."""
        exact = torch.promote_types(self.dtype, torch.float32)
        keys = self.keys.decode(parts, self.learned[0], exact)
        return (keys if by is None else self.turn(keys[0], by)[None]).to(self.dtype)

    def read_values(self, parts: Parts) -> Tensor:
        """Values."""
        return self.values.decode(parts, self.learned[1], self.dtype)

    def came(self, parts: Parts, entered: Tensor) -> Tensor:
        """Keys as they came."""
        return self.read_keys(parts, entered.to(self.device) if self.bare else None)
