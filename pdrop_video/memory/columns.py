"""Columns of a storage that others may read too: appended and evicted in place, forked without a copy.

Knows tensors only. Refuses to know how keys and values are stored in them, and what the columns are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .room import Arrangement, Parts, Room

_QUESTION = 1024
"""Columns of storage beyond a layer's budget, in which questions and answers find room without a copy of the memory."""


class Columns:
    """One holder's columns of a `Room`.

    A fork shares the storage and has a length of its own. Whoever's length reaches the end of what is used may append
    in place; anybody else copies first, and so does whoever evicts from a storage that others read. So nobody ever
    overwrites what another still reads.

    Columns stand in no particular order: attention does not ask for one, since positions are in the keys, and evicting
    then costs as many columns as go and not as many as stay. What each column is, a `TokenTable` says.

    Parameters
    ----------
    limit : int, optional
        Most columns that will ever be held, questions apart; storage does not grow far beyond.
    moves : bool
        Whether positions may move one day: there is room for the keys as they came from the start, so that a stream
        of many hours takes no more memory then.
    reserve : int
        Columns of storage beyond `limit`, for questions and answers.

    Examples
    --------
    Somebody holds 5 columns in a storage of 8. A fork appends 2 in place (``used`` 7) and both read their own
    columns, ``[0, 5)`` and ``[0, 7)``. If the first now appends, its end (5) is not the end of what is used (7): it
    moves to a storage of its own. If the fork is released before that, ``used`` is 5 again and it need not.

    To evict columns 1 and 2 of 5, alone in its storage, it moves column 4 to place 1 and column 3 to place 2 and holds
    ``[0, 3)``: columns 0, 4, 3.
    """

    def __init__(self, limit: int | None = None, moves: bool = False, reserve: int = _QUESTION) -> None:
        self.limit, self.moves, self.reserve = limit, moves, reserve
        self.length = 0
        self.room: Room | None = None
        self._begun: Room | None = None
        self.undo: list[Callable[[], None]] | None = None

    def held(self, parts: Parts) -> Parts:
        """Of tensors of the storage, what is held [batch, kv_heads, held, width]."""
        return tuple(part[:, :, : self.length] for part in parts)

    # -- growing and shrinking --------------------------------------------------------------------------------------

    def append(self, keys: Parts, values: Parts) -> None:
        """Hold some more [batch, kv_heads, new, width]."""
        start, end = self.length, self.length + keys[0].shape[-2]
        if self.room is None:
            self._enter(Room.like(keys, values, self._capacity(end), moves=self.moves))
        elif self.room.used != start or end > self.room.capacity:
            self._copy(torch.arange(start, device=keys[0].device), self._capacity(end))
        room = self.room
        assert room is not None
        for part, new in zip(room.parts, (*keys, *values, *keys), strict=False):
            part[:, :, start:end] = new
        room.used = self.length = end

    def truncate(self, length: int) -> None:
        """Forget the newest columns down to `length`; their room is free again if nobody appended behind them."""
        assert 0 <= length <= self.length
        if self.room is not None:
            if self.room.used == self.length:
                self.room.used = length
            self.length = length

    def keep(self, move: Arrangement) -> None:
        """Hold only some columns, in the arrangement's order."""
        room, before = self.room, self.length
        assert room is not None
        if len(room.holders) > 1 or room.used != before:
            self._copy(move.order, room.capacity)
            return
        after = len(move.order)
        if self.undo is not None:
            # what is written over now, and what may be by the columns to come: going back needs no memory for it
            written = torch.cat([move.gone, move.source])
            saved = [(part, part[:, :, written]) for part in room.parts]

            def undo() -> None:
                for part, columns in saved:
                    part.index_copy_(2, written, columns)
                room.used = self.length = before

            self.undo.append(undo)
        for part in room.parts:
            part[:, :, move.target] = part[:, :, move.source]
        room.used = self.length = after

    def select(self, columns: Tensor) -> Columns:
        """A copy of some columns [chosen], with room to grow in a storage of their own."""
        room, chosen = self.room, Columns()
        assert room is not None
        keys, values = (tuple(part.index_select(-2, columns) for part in of) for of in (room.keys, room.values))
        chosen.append(keys, values)
        return chosen

    # -- writing ----------------------------------------------------------------------------------------------------

    def overwrite(self, slots: Tensor, keys: Parts, values: Parts) -> None:
        """Put other keys and values [batch, kv_heads, slots, width] into held columns."""
        room = self.room
        assert room is not None
        if len(room.holders) > 1:
            self._copy(torch.arange(self.length, device=slots.device), room.capacity)
        elif self.undo is not None:
            saved = [(part, part[:, :, slots]) for part in room.parts]

            def undo() -> None:
                for part, overwritten in saved:
                    part.index_copy_(2, slots, overwritten)

            self.undo.append(undo)
        assert self.room is not None
        for part, new in zip(self.room.parts, (*keys, *values, *keys), strict=False):
            part[:, :, slots] = new

    def replace_keys(self, keys: Parts) -> None:
        """Hold other keys [batch, kv_heads, held, width], and apart from them those that came."""
        room, length = self.room, self.length
        assert room is not None
        if len(room.holders) > 1 or room.used != length:
            self._copy(torch.arange(length, device=keys[0].device), room.capacity)
            room = self.room
            assert room is not None
        before = room.keys, room.entered, room.spare
        if self.undo is not None:
            overwritten = None if room.entered is None else [part.clone() for part in self.held(room.keys)]

            def undo() -> None:
                room.keys, room.entered, room.spare = before
                for part, old in zip(room.keys, overwritten or (), strict=False):
                    part[:, :, :length] = old

            self.undo.append(undo)
        room.split()
        for part, new in zip(room.keys, keys, strict=True):
            part[:, :, :length] = new

    # -- sharing ----------------------------------------------------------------------------------------------------

    def fork(self) -> Columns:
        """The same columns for another holder, in the same storage."""
        twin = Columns(self.limit, self.moves, self.reserve)
        if self.room is not None:
            twin._enter(self.room)
            twin.length = self.length
        return twin

    def release(self, origin: Columns) -> None:
        """Give the room behind `origin`'s columns back; call it on a fork of `origin` that is done."""
        room = self.room
        if room is not None:
            room.holders.discard(self)
            if room is origin.room and room.used == self.length:
                room.used = origin.length

    def begin(self) -> None:
        """From here on remember how to go back.

        Moving to another storage needs no record, since the one at hand stays whole: the holder goes on holding it, so
        that nobody takes it for his own. What is overwritten in place does.
        """
        room, length = self.room, self.length
        self._begun = room

        def undo() -> None:
            if room is None:  # there was nothing yet
                if self.room is not None:
                    self.room.holders.discard(self)
                self.room, self.length = None, 0
                return
            if room is self.room and room.used == self.length:
                room.used = length
            self._enter(room)
            self.length = length

        self.undo = [undo]

    def commit(self) -> None:
        """Stay with what happened since `begin`."""
        begun, self.undo, self._begun = self._begun, None, None
        if begun is not None and begun is not self.room:
            begun.holders.discard(self)

    def rollback(self) -> None:
        """Go back to how it was at `begin`, bit for bit; may be called again if it was interrupted."""
        for undo in reversed(self.undo or []):
            undo()
        self.undo = self._begun = None

    # -- storage ----------------------------------------------------------------------------------------------------

    def _capacity(self, columns: int) -> int:
        """Storage for so many columns, with room to grow: up to the limit, and then once for all."""
        roomy = columns + max(columns // 2, 64)
        if self.limit is None or roomy < self.limit or columns > self.limit + self.reserve:
            return roomy
        return self.limit + self.reserve

    def _copy(self, order: Tensor, capacity: int) -> None:
        """Go to a storage of one's own with the columns `order` [kept]."""
        old = self.room
        assert old is not None
        new = Room.like(old.keys, old.values, capacity, moves=self.moves)
        new.used = self.length = len(order)
        if old.entered is not None:
            new.split()
        for part, copy in zip(old.parts, new.parts, strict=True):
            torch.index_select(part, -2, order, out=copy[:, :, : len(order)])
        self._enter(new)

    def _enter(self, room: Room) -> None:
        if self.room is not None and self.room is not self._begun:
            self.room.holders.discard(self)
        self.room = room
        room.holders.add(self)
