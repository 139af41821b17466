"""The engine: several turns at once, one of which runs at a time, whose rows meet at the modules of the decoder.

A turn that comes to a place where rows can meet waits there while another one runs, until all have come to such a
place. Then those furthest behind are computed, in one call for all who wait at the same place: so the weights are read
once for all of them, whatever each stream drops, attends to and forgets on its own between two places. Ours.

Knows threads and places; refuses to know what is computed between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from threading import Lock, Thread, get_ident
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .packing import MOST_ROWS, Group, Slot, install
from .turnstile import Turnstile, closed

T = TypeVar("T")


class _Member:
    """One turn that has begun.

    Attributes
    ----------
    gate : Lock
        Where its thread waits.
    hurries : bool
        Whether it goes before all that do not.
    computes : bool
        Whether it has come to a forward.
    asked : (Slot, Module, Tensor) or None
        What it waits for.
    group : Group or None
        Whom it met last, and as which `number`.
    leads : list of _Member
        Whose rows it shall compute, its own first.
    progress : (int, int)
        The layer that it is in, and how often it waited there.
    """

    __slots__ = ("asked", "computes", "gate", "group", "hurries", "leads", "number", "progress")

    def __init__(self, gate: Lock, hurries: bool = False) -> None:
        self.gate, self.hurries, self.computes = gate, hurries, False
        self.asked: tuple[Slot, nn.Module, Tensor] | None = None
        self.group: Group | None = None
        self.number = 0
        self.leads: list[_Member] = []
        self.progress = (-1, 0)

    def arrive(self, slot: Slot, module: nn.Module, rows: Tensor) -> None:
        """Wait for what a module gives."""
        layer, times = self.progress
        self.progress = (layer, times + 1) if layer == slot.layer else (slot.layer, 0)
        self.asked, self.group = (slot, module, rows), None

    def meets(self, other: _Member) -> bool:
        """Whether the rows of both can be computed in one call."""
        assert self.asked is not None
        assert other.asked is not None
        (place, _, mine), (its, _, yours) = self.asked, other.asked
        alike = mine.dtype == yours.dtype and mine.device == yours.device and mine.shape[-1] == yours.shape[-1]
        return place is its and alike


class Engine(Turnstile):
    """A turnstile that lets several through at once.

    Parameters
    ----------
    model : PreTrainedModel
    stack : nn.Module
        Its decoder layers.
    lanes : int
        Most turns at once; whoever comes beyond them stands in line, in the order of asking.

    Attributes
    ----------
    lanes : int
    places : int
        At how many modules of the model rows can meet.
    """

    def __init__(self, model: Any, stack: Any, lanes: int) -> None:
        super().__init__()
        self.lanes = lanes
        self._members: dict[Lock | None, _Member] = {}
        self._ready: deque[_Member] = deque()  # who may go on
        self._waiting: list[_Member] = []  # at a slot
        self._within: set[int] = set()  # threads within `packing`, which may wait there
        self._packs = False  # whether the one who runs is within `packing`
        self._wishes: dict[int, object] = {}  # on whose behalf a thread asks for a turn before others
        self._hurried: dict[Lock, object] = {}  # gates of such turns
        self._spent: set[object] = set()  # who had one since another turn was through
        self.places = install(model, stack, self)

    # -- turns --------------------------------------------------------------------------------------------------------

    @contextmanager
    def first(self, who: object) -> Iterator[None]:
        """A turn that goes before those of others, if `who` had none such since another one was through."""
        me = get_ident()
        self._wishes[me] = who
        try:
            with self:
                del self._wishes[me]
                yield
        finally:
            self._wishes.pop(me, None)

    def forked(self) -> None:
        """Called in a process that was forked off, where the threads of other turns do not live on."""
        super().forked()
        self._broken |= len(self._members) > 1 or self._busy not in (None, *self._members)

    def _mine(self) -> bool:
        return super()._mine() or get_ident() in self._within

    def _queue(self, gate: Lock) -> bool:
        who = self._wishes.get(get_ident())
        if who is not None and who not in self._spent:
            self._hurried[gate] = who
        return super()._queue(gate)

    def _leave(self, gate: Lock) -> None:
        super()._leave(gate)
        self._hurried.pop(gate, None)

    def _take(self, gate: Lock) -> None:
        super()._take(gate)
        self._members[gate] = _Member(gate, gate in self._hurried)

    def _leave_off(self) -> None:
        gate = self._busy
        member = self._members.pop(gate, None)
        self._packs = False
        who = None if gate is None else self._hurried.pop(gate, None)
        if not (self._members or self._line) or (who is None and member is not None and member.computes):
            self._spent.clear()
        elif who is not None and member is not None and member.computes:
            self._spent.add(who)

    def _next(self) -> Lock | None:
        """Who runs next: all who can, before anything is computed for those who wait; and first those who hurry."""
        hurrying = [member for member in self._members.values() if member.hurries]
        for gate in self._line:
            if gate in self._hurried:
                self._line.remove(gate)
                self._take(gate)
                return gate
        if hurrying:
            able = next((member for member in self._ready if member.hurries), None)
            if able is not None:
                self._ready.remove(able)
                return able.gate
            if behind := [member for member in self._waiting if member.hurries]:
                return self._leader(min(behind, key=_progress))
        if self._line and len(self._members) < self.lanes:
            gate = self._line.popleft()
            self._take(gate)
            return gate
        if self._ready:
            return self._ready.popleft().gate
        return self._leader(min(self._waiting, key=_progress)) if self._waiting else None

    def _leader(self, member: _Member) -> Lock:
        """Let a member compute what it waits for, with all who can be computed in the same call."""
        member.leads, rows = [], 0
        for each in (member, *(other for other in self._waiting if other is not member and other.meets(member))):
            assert each.asked is not None
            asked = each.asked[2]
            rows += asked.numel() // max(1, asked.shape[-1])
            if each is member or rows <= MOST_ROWS:
                member.leads.append(each)
        self._waiting = [each for each in self._waiting if each not in member.leads]
        return member.gate

    def _switch(self, me: _Member) -> None:
        """Let another one run, and wait until it is this one's turn to go on, whatever interrupts."""
        interrupt, handed = None, False
        while True:
            try:
                if not handed:
                    with self._mutex:
                        gate = self._busy = self._next()
                        handed = True
                        assert gate is not None
                        if gate is not me.gate:
                            self._owner, self._packs = None, False
                            gate.release()
                if gate is not me.gate:
                    me.gate.acquire()
                break
            except BaseException as error:  # Ctrl-C: what the caller will undo now, it must undo within its turn
                interrupt = error
                if handed and self._busy is me.gate:  # it may have come as the gate was opened, or right behind it
                    with self._mutex:
                        me.gate.acquire(blocking=False)
                    break
        self._owner = get_ident()
        if interrupt is not None:
            raise interrupt

    # -- rows that meet -----------------------------------------------------------------------------------------------

    @contextmanager
    def packing(self) -> Iterator[None]:
        """Around a forward within a turn: its rows may meet those of others."""
        if self._owner != get_ident():  # the model is not shared at all, or already by a block around this one
            yield
            return
        me, ident = self._members[self._busy], get_ident()
        if ident in self._within:
            yield
            return
        self._packs = me.computes = True
        self._within.add(ident)
        try:
            if self._line or len(self._members) > 1:
                self._ready.append(me)
                self._go_on(me)
            yield
        finally:
            self._packs, me.group = False, None
            self._within.discard(ident)

    def open(self) -> bool:
        """Whether rows of this thread may meet others, and there are any."""
        return (
            self._packs
            and self._owner == get_ident()
            and (len(self._members) > 1 or bool(self._line))
            and not torch.is_grad_enabled()
        )

    def meet(self, slot: Slot, module: nn.Module, rows: Tensor) -> Tensor:
        """What a module gives for rows, computed with those of others that have come to it."""
        me = self._members[self._busy]
        given = self._known(me, slot, module, rows)
        if given is not None:
            return given
        me.arrive(slot, module, rows)
        self._waiting.append(me)
        try:
            self._go_on(me)
            if me.leads:
                self._compute(me)
            if me.group is None:  # the one who should have computed these rows could not
                me.group, me.number = Group([rows]), 0
            given = me.group.given(me.number, slot, module, rows)
            assert given is not None
            return given
        finally:
            me.asked = None

    def _known(self, me: _Member, slot: Slot, module: nn.Module, rows: Tensor) -> Tensor | None:
        """What a module gives for rows that the last group knows."""
        if me.group is None:
            return None
        try:
            return me.group.given(me.number, slot, module, rows)
        except Exception:  # it may be too much for all of them together
            me.group = None
            return None

    def _go_on(self, me: _Member) -> None:
        """Switch, and be within `packing` again afterwards; who was interrupted waits for nothing any more."""
        try:
            self._switch(me)
        except BaseException:
            leads, me.leads = me.leads, []
            self._ready.extend(each for each in leads if each is not me)
            raise
        self._packs = True

    def _compute(self, me: _Member) -> None:
        """Compute the rows of all that this member leads; if that fails, each computes its own."""
        leads, me.leads = me.leads, []
        try:
            assert me.asked is not None
            slot, module, _ = me.asked
            brought = [each.asked[2] for each in leads if each.asked is not None]
            group = Group(brought)
            group.given(0, slot, module, brought[0])
            for number, each in enumerate(leads):
                each.group, each.number = group, number
        except Exception:  # such as too little memory for all: who fails alone, too, says so itself
            if len(leads) == 1:
                raise
            me.group = None
        finally:
            self._ready.extend(leads[1:])

    # -- jobs of one turn ---------------------------------------------------------------------------------------------

    def together(self, jobs: Sequence[Callable[[], T]], between: Callable[[], None] = lambda: None) -> list[T]:
        """What some jobs give, each in a thread of its own, so that their rows meet."""
        between()
        if len(jobs) < 2 or self._owner != get_ident():
            return [job() for job in jobs]
        me = self._members[self._busy]
        results: dict[int, T] = {}
        errors: list[BaseException] = []
        left = len(jobs)

        def work(number: int, member: _Member) -> None:
            nonlocal left
            member.gate.acquire()
            self._owner = get_ident()
            try:
                results[number] = jobs[number]()
            except BaseException as error:
                errors.append(error)
            left -= 1
            if not left:
                self._ready.append(me)
            self._hand_on()

        packs = self._packs
        for number in range(len(jobs)):
            member = _Member(closed(), me.hurries)
            context = copy_context()
            Thread(target=context.run, args=(work, number, member), daemon=True).start()
            with self._mutex:
                self._members[member.gate] = member
            self._ready.append(member)
        try:
            self._switch(me)
        finally:
            self._packs = packs
        if errors:
            raise errors[0]
        return [results[number] for number in range(len(jobs))]


def _progress(member: _Member) -> tuple[int, int]:
    return member.progress
