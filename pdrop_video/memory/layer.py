"""One decoder layer's keys and values: storage that grows and shrinks in place and can be shared by forks.

Knows tensors and the interface of a transformers cache layer. Refuses to know what the tokens are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from .room import Arrangement, Room

_QUESTION = 1024
"""Columns of storage beyond a layer's budget, in which questions and answers find room without a copy of the memory."""


class KeyValueLayer(DynamicLayer):
    """Keys and values of one layer: appended and evicted in place, forked without a copy.

    A fork shares the storage and has a length of its own. Whoever's length reaches the end of what is used may append
    in place; anybody else copies first, and so does whoever evicts from a storage that others read. So nobody ever
    overwrites what another still reads.

    Columns stand in no particular order: attention does not ask for one, since positions are in the keys, and evicting
    then costs as many columns as go and not as many as stay. What each column is, a `TokenTable` says.

    ``get_seq_length()`` is the number of columns *held*, and ``get_mask_sizes(q)`` follows from it as
    ``(held + q, 0)``: queries stand right behind the held columns, so transformers' masks can't leak the future
    whatever was evicted. Positions are given to the model explicitly and never derived from this length.

    Parameters
    ----------
    limit : int, optional
        Most columns that will ever be held, questions apart; storage does not grow far beyond.
    moves : bool
        Whether positions may move one day: there is room for the keys as they came from the start, so that a stream
        of many hours takes no more memory then.

    Examples
    --------
    A layer holds 5 columns in a storage of 8. A fork appends 2 in place (``used`` 7) and both read their own
    columns, ``[0, 5)`` and ``[0, 7)``. If the first now appends, its end (5) is not the end of what is used (7): it
    moves to a storage of its own. If the fork is released before that, ``used`` is 5 again and it need not.

    To evict columns 1 and 2 of 5, alone in its storage, it moves column 4 to place 1 and column 3 to place 2 and holds
    ``[0, 3)``: columns 0, 4, 3.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, limit: int | None = None, moves: bool = False) -> None:
        super().__init__()
        self.limit, self.moves = limit, moves
        self._room: Room | None = None
        self._length = 0
        self._begun: Room | None = None
        self._undo: list[Callable[[], None]] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Note dtype and device; storage comes with the first append."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    # -- growing ----------------------------------------------------------------------------------------------------

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append ``[batch, kv_heads, new, head_dim]``; returns all held keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self._length, self._length + key_states.shape[-2]
        if self._room is None:
            self._enter(Room.like(key_states, value_states, self._capacity(end), moves=self.moves))
        elif self._room.used != start or end > self._room.capacity:
            self._copy(torch.arange(start, device=self.device), self._capacity(end))
        room = self._room
        assert room is not None
        room.keys[:, :, start:end], room.values[:, :, start:end] = key_states, value_states
        if room.entered is not None:
            room.entered[:, :, start:end] = key_states
        room.used = end
        self._view(end)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Columns held."""
        return self._length

    @property
    def nbytes(self) -> int:
        """Bytes of the columns held."""
        parts = [] if self._room is None else self._room.parts
        return sum(part[:, :, : self._length].numel() * part.element_size() for part in parts)

    @property
    def entered(self) -> Tensor | None:
        """Keys as they came [batch, kv_heads, held, head_dim]; None while `keys` are the same."""
        room = self._room
        return None if room is None or room.entered is None else room.entered[:, :, : self._length]

    def restore(self, keys: Tensor, values: Tensor, entered: Tensor | None) -> None:
        """Hold what another layer held [batch, kv_heads, held, head_dim], as read from its attributes."""
        self.update(keys if entered is None else entered, values)
        if entered is not None:
            assert self._room is not None
            self._room.split()
            self._room.keys[:, :, : self._length] = keys
            self._view(self._length)

    # -- shrinking --------------------------------------------------------------------------------------------------

    def truncate(self, length: int) -> None:
        """Forget the newest columns down to `length`; their room is free again if nobody appended behind them."""
        assert 0 <= length <= self._length
        if self._room is not None:
            if self._room.used == self._length:
                self._room.used = length
            self._view(length)

    def keep(self, move: Arrangement) -> None:
        """Hold only some columns, in the arrangement's order."""
        room, before = self._room, self._length
        assert room is not None
        if len(room.holders) > 1 or room.used != before:
            self._copy(move.order, room.capacity)
            return
        after = len(move.order)
        if self._undo is not None:
            # what is written over now, and what may be by the columns to come: going back needs no memory for it
            written = torch.cat([move.gone, move.source])
            saved = [(part, part[:, :, written]) for part in room.parts]

            def undo() -> None:
                for part, columns in saved:
                    part.index_copy_(2, written, columns)
                room.used = before
                self._view(before)

            self._undo.append(undo)
        for part in room.parts:
            part[:, :, move.target] = part[:, :, move.source]
        room.used = after
        self._view(after)

    def overwrite(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put other keys and values [kv_heads, slots, head_dim] into held columns."""
        room = self._room
        assert room is not None
        if len(room.holders) > 1:
            self._copy(torch.arange(self._length, device=self.device), room.capacity)
        elif self._undo is not None:
            saved = [(part, part[:, :, slots]) for part in room.parts]

            def undo() -> None:
                for part, overwritten in saved:
                    part.index_copy_(2, slots, overwritten)

            self._undo.append(undo)
        assert self._room is not None
        for part, new in zip(self._room.parts, (keys, values, keys), strict=False):
            part[:, :, slots] = new[None]

    def rotate(self, turn: Callable[[Tensor, Tensor], Tensor], by: Tensor) -> None:
        """Replace the keys by ``turn(entered, by)``, one rotation of the keys as they came [kv_heads, held, head_dim].

        Parameters
        ----------
        turn : callable
            Rotates keys.
        by : Tensor [held, axes]
            By how many positions.
        """
        room, length = self._room, self._length
        assert room is not None
        if len(room.holders) > 1 or room.used != length:
            self._copy(torch.arange(length, device=self.device), room.capacity)
            room = self._room
            assert room is not None
        before = room.keys, room.entered, room.spare
        if self._undo is not None:
            overwritten = None if room.entered is None else room.keys[:, :, :length].clone()

            def undo() -> None:
                room.keys, room.entered, room.spare = before
                if overwritten is not None:
                    room.keys[:, :, :length] = overwritten

            self._undo.append(undo)
        entered = room.split()
        room.keys[0, :, :length] = turn(entered[0, :, :length], by)
        self._view(length)

    # -- sharing ----------------------------------------------------------------------------------------------------

    def fork(self) -> KeyValueLayer:
        """A layer that holds the same columns and shares their storage."""
        twin = KeyValueLayer(self.limit, self.moves)
        if self._room is not None:
            twin.dtype, twin.device, twin.is_initialized = self.dtype, self.device, True
            twin._enter(self._room)
            twin._view(self._length)
        return twin

    def release(self, origin: KeyValueLayer) -> None:
        """Give the room behind `origin`'s columns back; call it on a fork of `origin` that is done."""
        room = self._room
        if room is not None:
            room.holders.discard(self)
            if room is origin._room and room.used == self._length:
                room.used = origin._length

    def begin(self) -> None:
        """From here on remember how to go back.

        Moving to another storage needs no record, since the one at hand stays whole: the layer goes on holding it, so
        that nobody takes it for his own. What is overwritten in place does.
        """
        room, length = self._room, self._length
        assert room is not None
        self._begun = room

        def undo() -> None:
            if room is self._room and room.used == self._length:
                room.used = length
            self._enter(room)
            self._view(length)

        self._undo = [undo]

    def commit(self) -> None:
        """Stay with what happened since `begin`."""
        begun, self._undo, self._begun = self._begun, None, None
        if begun is not None and begun is not self._room:
            begun.holders.discard(self)

    def rollback(self) -> None:
        """Go back to how it was at `begin`, bit for bit; may be called again if it was interrupted."""
        for undo in reversed(self._undo or []):
            undo()
        self._undo = self._begun = None

    # -- storage ----------------------------------------------------------------------------------------------------

    def _capacity(self, columns: int) -> int:
        """Storage for so many columns, with room to grow: up to the limit, and then once for all."""
        roomy = columns + max(columns // 2, 64)
        if self.limit is None or roomy < self.limit or columns > self.limit + _QUESTION:
            return roomy
        return self.limit + _QUESTION

    def _copy(self, order: Tensor, capacity: int) -> None:
        """Go to a storage of one's own with the columns `order` [kept]."""
        old, length = self._room, len(order)
        assert old is not None
        new = Room.like(old.keys, old.values, capacity, moves=self.moves)
        new.used = length
        if old.entered is not None:
            new.split()
        for part, copy in zip(old.parts, new.parts, strict=True):
            torch.index_select(part, -2, order, out=copy[:, :, :length])
        self._enter(new)
        self._view(length)

    def _enter(self, room: Room) -> None:
        if self._room is not None and self._room is not self._begun:
            self._room.holders.discard(self)
        self._room = room
        room.holders.add(self)

    def _view(self, length: int) -> None:
        assert self._room is not None
        self._length = length
        self.keys, self.values = self._room.keys[:, :, :length], self._room.values[:, :, :length]
