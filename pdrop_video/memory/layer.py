"""One decoder layer's keys and values: storage that grows in place and can be shared by forks.

Knows tensors and the interface of a transformers cache layer. Refuses to know what the tokens are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer


@dataclass(slots=True)
class _Room:
    """Storage [batch, kv_heads, capacity, head_dim] for keys and values; the first `used` columns are taken."""

    keys: Tensor
    values: Tensor
    used: int

    @property
    def capacity(self) -> int:
        return self.keys.shape[-2]


class KeyValueLayer(DynamicLayer):
    """Keys and values of one layer, appended in place, forked without a copy.

    A fork shares the storage and its own length. Whoever's length reaches the end of what is used may append in
    place; anybody else copies first, so that nobody ever overwrites what another still reads.

    ``get_seq_length()`` is the number of columns *held*, and ``get_mask_sizes(q)`` follows from it as
    ``(held + q, 0)``: queries stand right behind the held columns, so transformers' masks can't leak the future
    whatever was evicted. Positions are given to the model explicitly and never derived from this length.

    Examples
    --------
    A layer holds 5 columns in a storage of 8. A fork appends 2 in place (``used`` 7) and both read their own
    columns, ``[0, 5)`` and ``[0, 7)``. If the first now appends, its end (5) is not the end of what is used (7): it
    moves to a storage of its own. If the fork is released before that, ``used`` is 5 again and it need not.
    """

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._room: _Room | None = None
        self._length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Note dtype and device; storage comes with the first append."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append ``[batch, kv_heads, new, head_dim]``; returns all held keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self._length, self._length + key_states.shape[-2]
        if self._room is None or self._room.used != start or end > self._room.capacity:
            self._move(key_states, value_states, end + max(end // 2, 64))
        assert self._room is not None
        self._room.keys[:, :, start:end] = key_states
        self._room.values[:, :, start:end] = value_states
        self._room.used = end
        self._view(end)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Columns held."""
        return self._length

    def truncate(self, length: int) -> None:
        """Forget the newest columns down to `length`; their room is free again if nobody appended behind them."""
        assert 0 <= length <= self._length
        if self._room is not None:
            if self._room.used == self._length:
                self._room.used = length
            self._view(length)

    def keep(self, index: Tensor) -> None:
        """Hold only the columns `index` [kept], in that order, in a storage of its own."""
        assert self._room is not None
        keys, values = self.keys.index_select(-2, index), self.values.index_select(-2, index)
        self._length = 0
        self._move(keys, values, self._room.capacity)
        self._room.keys[:, :, : len(index)] = keys
        self._room.values[:, :, : len(index)] = values
        self._room.used = len(index)
        self._view(len(index))

    def fork(self) -> KeyValueLayer:
        """A layer that holds the same columns and shares their storage."""
        twin = KeyValueLayer()
        if self._room is not None:
            twin.dtype, twin.device, twin.is_initialized, twin._room = self.dtype, self.device, True, self._room
            twin._view(self._length)
        return twin

    def release(self, origin: KeyValueLayer) -> None:
        """Give the room behind `origin`'s columns back; call it on a fork of `origin` that is done."""
        if self._room is not None and self._room is origin._room and self._room.used == self._length:
            self._room.used = origin._length

    @property
    def nbytes(self) -> int:
        """Bytes of the columns held."""
        return 0 if self._room is None else 2 * self.keys.numel() * self.keys.element_size()

    def _move(self, like_keys: Tensor, like_values: Tensor, capacity: int) -> None:
        """Go to a fresh storage, taking along what is held."""
        keys, values = (s.new_empty(*s.shape[:2], capacity, s.shape[-1]) for s in (like_keys, like_values))
        if self._length:
            keys[:, :, : self._length], values[:, :, : self._length] = self.keys, self.values
        self._room = _Room(keys, values, self._length)

    def _view(self, length: int) -> None:
        assert self._room is not None
        self._length = length
        self.keys, self.values = self._room.keys[:, :, :length], self._room.values[:, :, :length]
