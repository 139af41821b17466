"""Columns of a storage that others may read too: appended and evicted in place, forked without a copy.

Knows tensors only. Refuses to know how keys and values are stored in them, and what the columns are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .room import Arrangement, Parts, Room

_AT_ONCE = 64
"""Columns that going back moves at a time: it must not need memory to speak of."""


def roomy(columns: int) -> int:
    """The storage of so many columns where memory is bounded: a sixteenth more, and 16.

    In there short questions and their answers stand, and what grows need not move at every step.
    """
    return columns + columns // 16 + 16


class Columns:
    """One holder's columns of a `Room`.

    A fork shares the storage and has a length of its own. Whoever's length reaches the end of what is used may append
    in place, and where the storage ends, it becomes a larger one for all who read it: a question takes no storage of
    its own beside that of the memory. Anybody else copies first, and so does whoever evicts from a storage that others
    read. So nobody ever overwrites what another still reads.

    Columns stand in no particular order: attention does not ask for one, since positions are in the keys, and evicting
    then costs as many columns as go and not as many as stay. What each column is, a `TokenTable` says.

    Parameters
    ----------
    limit : int, optional
        Most columns that will be held, questions and what is in flight through a window apart: storage is `roomy` for
        what is held, and once a question is over it is no larger than that of so many.
    twice : int, optional
        The same once keys were moved and are held twice; by default the same number.

    Examples
    --------
    Somebody holds 5 columns in a storage of 8. A fork appends 2 in place (``used`` 7) and both read their own
    columns, ``[0, 5)`` and ``[0, 7)``. If the first now appends, its end (5) is not the end of what is used (7): it
    moves to a storage of its own. If the fork is released before that, ``used`` is 5 again and it need not.

    To evict columns 1 and 2 of 5, alone in its storage, it moves column 4 to place 1 and column 3 to place 2 and holds
    ``[0, 3)``: columns 0, 4, 3.
    """

    def __init__(self, limit: int | None = None, twice: int | None = None) -> None:
        self.limit, self.twice = limit, limit if twice is None else twice
        self.length = 0
        self.room: Room | None = None
        self.undo: list[Callable[[], None]] | None = None
        self._begun: Room | None = None
        self._before = self._aside = self._most = 0  # since `begin`: held then, set aside, held at most

    def held(self, parts: Parts) -> Parts:
        """Of tensors of the storage, what is held [batch, kv_heads, held, width]."""
        return tuple(part[:, :, : self.length] for part in parts)

    # -- growing and shrinking --------------------------------------------------------------------------------------

    def append(self, keys: Parts, values: Parts) -> None:
        """Hold some more [batch, kv_heads, new, width]."""
        start, end = self.length, self.length + keys[0].shape[-2]
        if self.room is None:
            self._enter(Room.like(keys, values, self._capacity(end)))
        room = self.ready(end - start)
        for part, new in zip(room.parts, (*keys, *values, *keys), strict=False):
            part[:, :, start:end] = new
        self.took(end - start)

    def ready(self, more: int) -> Room:
        """The storage, with room for some more columns behind those held, which this holder may write there."""
        room, end = self.room, self.length + more
        assert room is not None
        if room.used != self.length:
            self._copy(torch.arange(self.length, device=room.keys[0].device), self._capacity(end))
        elif end > room.capacity:
            room.grow(self._capacity(end))
        assert self.room is not None
        return self.room

    def took(self, more: int) -> None:
        """Hold what was written there."""
        room = self.room
        assert room is not None
        room.used = self.length = self.length + more
        if self.undo is not None:
            self._most = max(self._most, self.length)

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
            self._copy(move.order, self._capacity(before))
            return
        if self._noting and self._aside + len(move.gone) > self._before:
            # to set aside one lot after another would take more than the old storage, whole, beside a new one
            self._copy(move.order, self._capacity(before))
            self._go_back(1)
            room.used = self._before
            return
        if self._noting:
            saved = [part[:, :, move.gone] for part in room.parts]

            def put_back() -> None:
                for part, columns in zip(room.parts, saved, strict=True):
                    part.index_copy_(2, move.gone, columns)

            self._note(put_back, len(move.gone))
        for part in room.parts:
            part[:, :, move.target] = part[:, :, move.source]
        room.used = self.length = len(move.order)
        if self._noting:  # only now: until others come, what moved still stands where it stood

            def move_back() -> None:
                for source, target in zip(move.source.split(_AT_ONCE), move.target.split(_AT_ONCE), strict=True):
                    for part in room.parts:
                        part.index_copy_(2, source, part[:, :, target])

            self._note(move_back)

    def select(self, columns: Tensor) -> Columns:
        """A copy of some columns [chosen], with room to grow in a storage of their own."""
        chosen = Columns(len(columns))
        assert self.room is not None
        chosen._enter(self.room.select(columns, roomy(len(columns))))
        chosen.length = len(columns)
        return chosen

    # -- writing ----------------------------------------------------------------------------------------------------

    def overwrite(self, slots: Tensor, keys: Parts, values: Parts) -> None:
        """Put other keys and values [batch, kv_heads, slots, width] into held columns."""
        assert self.room is not None
        if len(self.room.holders) > 1:
            self._copy(torch.arange(self.length, device=slots.device), self._capacity(self.length))
        room: Room = self.room
        if self._noting:
            saved = [part[:, :, slots] for part in room.parts]

            def undo() -> None:
                for part, overwritten in zip(room.parts, saved, strict=True):
                    part.index_copy_(2, slots, overwritten)

            self._note(undo, len(slots))
        for part, new in zip(room.parts, (*keys, *values, *keys), strict=False):
            part[:, :, slots] = new

    def replace_keys(self, keys: Parts) -> None:
        """Hold other keys [batch, kv_heads, held, width], and apart from them those that came."""
        length = self.length
        assert self.room is not None
        if len(self.room.holders) > 1 or self.room.used != length:
            self._copy(torch.arange(length, device=keys[0].device), self._capacity(length))
        room: Room = self.room
        if self._noting and room.entered is None:
            self._note(room.join)
        elif self._noting:
            overwritten = [part.clone() for part in self.held(room.keys)]

            def undo() -> None:
                for part, old in zip(room.keys, overwritten, strict=True):
                    part[:, :, :length] = old

            self._note(undo)
        most = room.capacity if self.limit is None else min(room.capacity, roomy(self._bound(True)))
        room.split(max(most, length))
        for part, new in zip(room.keys, keys, strict=True):
            part[:, :, :length] = new

    # -- sharing ----------------------------------------------------------------------------------------------------

    def fork(self) -> Columns:
        """The same columns for another holder, in the same storage."""
        twin = Columns(self.limit, self.twice)
        twin._most = self._most
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
        self._begun, self._before, self._aside, self._most = room, length, 0, 0

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
        self._go_back(0)
        self.undo = self._begun = None

    @property
    def _noting(self) -> bool:
        """Whether what happens to the storage at hand can be taken back; another one stays whole meanwhile."""
        return self.undo is not None and self.room is self._begun

    def _note(self, undo: Callable[[], None], columns: int = 0) -> None:
        assert self.undo is not None
        self.undo.append(undo)
        self._aside += columns

    def _go_back(self, upto: int) -> None:
        """Take back all but the first `upto` notes; each may be interrupted and is then taken back once more."""
        while self.undo is not None and len(self.undo) > upto:
            self.undo[-1]()
            self.undo.pop()

    # -- storage ----------------------------------------------------------------------------------------------------

    def trim(self) -> None:
        """Give back the storage that a question took beyond the limit, or that keys needed before they were held twice.

        Not while there may be a way back, which needs it.
        """
        room = self.room
        if room is None or self.limit is None or self.undo is not None:
            return
        room.shrink(roomy(max(self._bound(room.entered is not None), self._most, room.used)))

    def _bound(self, twice: bool) -> int:
        """Most columns held while nobody asks."""
        limit = self.twice if twice else self.limit
        assert limit is not None
        return limit

    def _capacity(self, columns: int) -> int:
        """Storage for so many columns, with room to grow."""
        return columns + max(columns // 2, 64) if self.limit is None else roomy(columns)

    def _copy(self, order: Tensor, capacity: int) -> None:
        """Go to a storage of one's own with the columns `order` [kept]."""
        old = self.room
        assert old is not None
        self._enter(old.select(order, capacity, entered=True))
        self.length = len(order)

    def _enter(self, room: Room) -> None:
        if self.room is not None and self.room is not self._begun:
            self.room.holders.discard(self)
        self.room = room
        room.holders.add(self)
