"""Whose turn it is at a model: a lock that is passed in the order of asking.

A turn is one piece of a chunk or one token of an answer. Whatever touches the model, its tokenizer or a cache does so
within a turn, and nobody waits for anything but the next turn while holding one: so there is no deadlock, and no stream
waits longer than one turn of each other. Knows threads; refuses to know models, frames and questions.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock, get_ident
from typing import Any, TypeVar
from weakref import WeakSet

from ..errors import StreamError

J = TypeVar("J")
T = TypeVar("T")
_ALL: WeakSet[Turnstile] = WeakSet()


def _after_fork() -> None:
    for turnstile in list(_ALL):
        turnstile.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Turnstile:
    """A lock that threads pass in the order in which they asked for it. Use it with ``with``.

    Not re-entrant: a thread that would wait for itself gets a `StreamError`.
    """

    def __init__(self) -> None:
        self._mutex = Lock()  # around `_busy` and `_line`, for a few instructions at a time
        self._busy: Lock | None = None  # the gate of whoever holds it, or to whom it is being handed on
        self._line: deque[Lock] = deque()  # who waits: each at a gate of its own, which the one before opens
        self._owner: int | None = None
        self._broken = False
        _ALL.add(self)
        self._chores: deque[Callable[[], None]] = deque()

    def __enter__(self) -> Turnstile:
        gate = closed()
        try:
            if not self._queue(gate):
                gate.acquire()
        except BaseException:  # Ctrl-C while waiting: leave the line, or pass on what was handed over meanwhile
            self._leave(gate)
            raise
        self._owner = get_ident()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._do_chores()
        finally:
            self._hand_on()
            self._idle()

    def give_way(self) -> None:
        """Let everybody pass who waits by now; call it while holding the lock, which is held again afterwards."""
        if not self._line:
            return
        self.__exit__()
        gate, interrupt = closed(), None
        while True:
            try:
                if not self._queue(gate):
                    gate.acquire()
                break
            except BaseException as error:  # Ctrl-C: what the caller will undo now, it must undo within a turn
                interrupt = error
        self._owner = get_ident()
        if interrupt is not None:
            raise interrupt

    @property
    def waiting(self) -> int:
        """How many threads stand in line."""
        return len(self._line)

    def first(self, who: object) -> AbstractContextManager[Any]:
        """A turn for what somebody waits for at a screen, the first token of an answer.

        Here one like any other; an `Engine` lets it pass others, but each of `who` only once before one of them is
        through.
        """
        return self

    def packing(self) -> AbstractContextManager[Any]:
        """Around a forward within a turn whose rows may be computed together with others'; here there are none."""
        return nullcontext()

    def gathered(self, compute: Callable[[Sequence[J]], Sequence[T]], job: J) -> T:
        """What `compute` gives for a job, within a block of `packing`.

        Here it gets that job alone; an `Engine` may give it those that other turns bring to the same function. If it
        fails for all of them together, which must leave no trace, each is computed alone.
        """
        return compute([job])[0]

    def together(self, jobs: Sequence[Callable[[], T]], between: Callable[[], None] = lambda: None) -> list[T]:
        """What some jobs give, each a forward or more, within the turn of whoever calls; `between` comes before each.

        Here one after another; an `Engine` computes their rows together, and `between` comes once.
        """
        results = []
        for job in jobs:
            between()
            results.append(job())
        return results

    def later(self, chore: Callable[[], None]) -> None:
        """Have `chore` done within a turn: now if it is nobody's, else at the end of the running one.

        Never waits, so that finalisers may call it, which run in any thread at any moment, even in one that is in the
        middle of this class.
        """
        self._chores.append(chore)
        self._idle()

    def _queue(self, gate: Lock) -> bool:
        """Take the lock if it is free, else stand in line; whether it is this gate's turn.

        May be called again for a gate that Ctrl-C kept from learning the answer, at whatever moment it came.
        """
        if self._broken:
            raise StreamError(
                "this process was forked while another thread worked with the model, and nobody ends that work here; "
                'start it anew (the start method "spawn"), and load the model and resume streams in it.'
            )
        if self._mine():
            raise StreamError(
                "a stream or its model was used from within its own work (a signal handler, a scorer or an evictor); "
                "do it from another thread, or once that work is done."
            )
        with self._mutex:
            if self._busy is None:
                self._take(gate)
            elif self._busy is not gate and gate not in self._line:
                self._line.append(gate)
            return self._busy is gate

    def _mine(self) -> bool:
        """Whether this thread has a turn, so that it would wait for itself."""
        return self._owner == get_ident()

    def forked(self) -> None:
        """Called in a process that was forked off, where no other thread lives on."""
        self._mutex, self._line = Lock(), deque()
        self._broken = self._busy is not None and self._owner != get_ident()

    def _leave(self, gate: Lock) -> None:
        """Give up a gate, wherever it stands."""
        with self._mutex:
            if gate in self._line:
                self._line.remove(gate)
            mine = self._busy is gate
        if mine:
            self._hand_on()

    def _hand_on(self) -> None:
        self._owner = None
        with self._mutex:
            self._leave_off()
            self._busy = self._next()
            if self._busy is not None:
                self._busy.release()

    def _next(self) -> Lock | None:
        """The gate to open next, if somebody waits; called with the mutex."""
        return self._line.popleft() if self._line else None

    def _take(self, gate: Lock) -> None:
        """Begin a turn while it is nobody's; called with the mutex."""
        self._busy = gate

    def _leave_off(self) -> None:
        """The turn that was running is over; called with the mutex."""

    def _do_chores(self) -> None:
        while self._chores:
            self._chores.popleft()()

    def _idle(self) -> None:
        """Do chores if it is nobody's turn.

        If the mutex is taken, or it is somebody's turn, they are not lost: who takes the mutex either has a turn before
        him, at whose end chores are done, or comes by here afterwards.
        """
        while self._chores and self._mutex.acquire(blocking=False):
            free = self._busy is None
            if free:
                self._take(closed())
            self._mutex.release()
            if not free:
                return
            self._owner = get_ident()
            try:
                self._do_chores()
            finally:
                self._hand_on()


def closed() -> Lock:
    """A gate that stands shut."""
    gate = Lock()
    gate.acquire()
    return gate
