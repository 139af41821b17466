"""Several turns at once, of which one runs: who that is, who goes before whom, and how the others wait.

Knows threads and that turns wait for something to be computed; refuses to know what.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from threading import Lock, Thread, get_ident
from typing import Any, Protocol, TypeVar

from .turnstile import Turnstile, closed

T = TypeVar("T")


class Asked(Protocol):
    """Something to be computed that turns wait for."""

    @property
    def layer(self) -> int:
        """Where in the model it is."""

    @property
    def size(self) -> int:
        """How many rows it takes."""

    @property
    def work(self) -> int:
        """How much it is to compute, in rows at a module."""

    def meets(self, other: Any) -> bool:
        """Whether both can be computed in one call."""


class Member:
    """One turn that has begun.

    Attributes
    ----------
    gate : Lock
        Where its thread waits.
    who : object or None
        On whose behalf it would go before others.
    hurries : bool
        Whether it does.
    asked : Asked or None
        What it waits for.
    outcome : object or None
        What came of it.
    group : (Group, int) or None
        Whom it met last, and as which number.
    leads : list of Member
        For whom it shall compute, itself first.
    work : int
        How much was computed for it among others.
    progress : (int, int)
        The layer that it is in, and how often it waited there.
    begun, arrived : int
        How many turns had begun when this one did, and when it came to where it waits.
    """

    __slots__ = (
        "arrived",
        "asked",
        "begun",
        "gate",
        "group",
        "hurries",
        "leads",
        "outcome",
        "progress",
        "who",
        "work",
    )

    def __init__(self, gate: Lock, begun: int, who: object = None, hurries: bool = False) -> None:
        self.gate, self.who, self.hurries = gate, who, hurries
        self.begun = self.arrived = begun
        self.asked: Asked | None = None
        self.outcome: Any = None
        self.group: Any = None
        self.leads: list[Member] = []
        self.work = 0
        self.progress = (-2, 0)

    def arrive(self, asked: Asked, begun: int) -> None:
        """Wait for something to be computed, when so many turns have begun."""
        self.arrived = begun
        layer, times = self.progress
        self.progress = (layer, times + 1) if layer == asked.layer else (asked.layer, 0)
        self.asked, self.outcome, self.group = asked, None, None

    def meets(self, other: Member) -> bool:
        """Whether what both wait for can be computed in one call."""
        assert self.asked is not None
        return self.asked.meets(other.asked)


class Lanes(Turnstile):
    """A turnstile that lets several through at once.

    Parameters
    ----------
    lanes : int
        Most turns at once; whoever comes beyond them stands in line, in the order of asking.
    layers : int
        Of the model; who waits behind them is nearly through.
    """

    def __init__(self, lanes: int, layers: int) -> None:
        super().__init__()
        self.lanes, self.layers = lanes, layers
        self._begun = 0  # how many turns have begun so far
        self._members: dict[Lock | None, Member] = {}
        self._ready: deque[Member] = deque()  # who may go on
        self._waiting: list[Member] = []  # for something to be computed
        self._within: set[int] = set()  # threads within a forward, which may wait there
        self._packs = False  # whether the one who runs is within one
        self._wishes: dict[int, object] = {}  # on whose behalf a thread asks for a turn before others
        self._hurried: dict[Lock, object] = {}  # gates of such turns
        self._debts: dict[object, int] = {}  # how much is to be computed for others before who went first may again

    @contextmanager
    def first(self, who: object) -> Iterator[None]:
        """A turn that goes before those of others, once as much was computed for them as for the last one of `who`."""
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
        if who is not None:
            self._hurried[gate] = who
        return super()._queue(gate)

    def _leave(self, gate: Lock) -> None:
        super()._leave(gate)
        self._hurried.pop(gate, None)

    def _take(self, gate: Lock) -> None:
        super()._take(gate)
        who = self._hurried.get(gate)
        self._members[gate] = self._member(gate, who, self._first_now(who))

    def _leave_off(self) -> None:
        gate = self._busy
        member = self._members.pop(gate, None)
        self._packs = False
        if gate is not None:
            self._hurried.pop(gate, None)
        if not (self._members or self._line):
            self._debts.clear()
        elif member is not None and member.hurries and member.work:
            self._debts[member.who] = self._debts.get(member.who, 0) + member.work

    def _first_now(self, who: object) -> bool:
        """Whether a turn on behalf of somebody goes before others."""
        return who is not None and who not in self._debts

    def _computed_for(self, members: Sequence[Member]) -> None:
        """Note that something was computed for these."""
        others = 0
        for member in members:
            assert member.asked is not None
            member.work += member.asked.work
            others += 0 if member.hurries else member.asked.work
        for who, owed in list(self._debts.items()):
            self._debts[who] = owed - others
            if owed <= others:
                del self._debts[who]
                for member in self._members.values():
                    member.hurries |= member.who == who

    def _next(self) -> Lock | None:
        """Who runs next: all who can, before anything is computed for those who wait; and first those who hurry."""
        if self._hurried:  # also those in line, which is not searched otherwise: it may be long
            for gate in self._line:
                if self._first_now(self._hurried.get(gate)):
                    self._line.remove(gate)
                    self._take(gate)
                    return gate
            able = next((member for member in self._ready if member.hurries), None)
            if able is not None:
                self._ready.remove(able)
                return able.gate
            if behind := [member for member in self._waiting if member.hurries]:
                return self._led(min(behind, key=_progress))
        if self._line and len(self._members) < self.lanes:
            gate = self._line.popleft()
            self._take(gate)
            return gate
        if self._ready:
            return self._ready.popleft().gate
        return self._led(self._foremost()) if self._waiting else None

    def _member(self, gate: Lock, who: object, hurries: bool) -> Member:
        self._begun += 1
        return Member(gate, self._begun, who, hurries)

    def _foremost(self) -> Member:
        """Whose rows are computed next: of those furthest behind, so that all go on together.

        But who has been overtaken by as many turns as there are lanes waits no longer: some of them overtook twice.
        And behind the last layer nobody waits for turns that begun after he came there, which have all layers to go.
        """
        overdue = [member for member in self._waiting if self._begun - member.begun > self.lanes]
        if overdue:
            return min(overdue, key=lambda member: member.begun)
        for member in self._waiting:
            if member.progress[0] == self.layers:
                earlier = (each for each in self._waiting if each.begun <= member.arrived)
                if all(each.progress[0] == self.layers for each in earlier):
                    return member
        return min(self._waiting, key=_progress)

    def _led(self, member: Member) -> Lock:
        """Have what a member waits for computed by it; called with the mutex."""
        raise NotImplementedError

    def _switch(self, me: Member) -> None:
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

        def work(number: int, member: Member) -> None:
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
            member = self._member(closed(), me.who, me.hurries)
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


def _progress(member: Member) -> tuple[int, int]:
    return member.progress
