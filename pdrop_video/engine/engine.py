"""The engine: rows of several turns meet at the modules of the decoder.

A turn that comes to a place where rows can meet waits there while another one runs, until all have come to such a
place. Then those furthest behind are computed, in one call for all who wait at the same place: so the weights are read
once for all of them, whatever each stream drops, attends to and forgets on its own between two places. Ours.

Knows places and who waits there; refuses to know what is computed between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .lanes import Lanes, Member
from .packing import MOST_ROWS, Group, JobAt, RowsAt, Slot, install

J = TypeVar("J")
T = TypeVar("T")


class Engine(Lanes):
    """A turnstile that lets several through at once, and computes their rows together.

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
        super().__init__(lanes, len(stack.layers))
        self.places = install(model, stack, self)

    @contextmanager
    def packing(self) -> Iterator[None]:
        """Around a forward within a turn: its rows may meet those of others."""
        ident = get_ident()
        if self._owner != ident or ident in self._within:  # outside of any turn, or within such a block already
            yield
            return
        me = self._members[self._busy]
        self._packs = True
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
        if given is None:
            # alone if the one who should have computed these rows could not
            me.group = self._met(me, RowsAt(slot, module, rows)) or (Group([rows]), 0)
            group, number = me.group
            given = group.given(number, slot, module, rows)
            assert given is not None
        return given

    def gathered(self, compute: Callable[[Sequence[J]], Sequence[T]], job: J) -> T:
        """What `compute` gives for a job, perhaps among those of others."""
        outcome = None
        if self.open():
            outcome = self._met(self._members[self._busy], JobAt(compute, job, self.places))
        return compute([job])[0] if outcome is None else outcome[0]

    def _met(self, me: Member, asked: RowsAt | JobAt) -> Any:
        """What comes of something to be computed, with others if there are any; None if it is to be done alone."""
        me.arrive(asked, self._begun)
        self._waiting.append(me)
        try:
            self._go_on(me)
            if me.leads:
                self._compute(me)
            return me.outcome
        finally:
            me.asked = me.outcome = None

    def _known(self, me: Member, slot: Slot, module: nn.Module, rows: Tensor) -> Tensor | None:
        """What a module gives for rows that the last group knows."""
        if me.group is None:
            return None
        group, number = me.group
        try:
            given: Tensor | None = group.given(number, slot, module, rows)
            return given
        except Exception:  # it may be too much for all of them together
            me.group = None
            return None

    def _go_on(self, me: Member) -> None:
        """Switch, and be within `packing` again afterwards; who was interrupted waits for nothing any more."""
        try:
            self._switch(me)
        except BaseException:
            leads, me.leads = me.leads, []
            self._ready.extend(each for each in leads if each is not me)
            raise
        self._packs = True

    def _compute(self, me: Member) -> None:
        """Compute what all wait for whom this member leads; if that fails, each computes its own."""
        leads, me.leads = me.leads, []
        self._packs = False  # nothing in there meets anything
        try:
            asked: Any = [each.asked for each in leads]
            outcomes = asked[0].computed(asked[1:])
            if outcomes is not None:
                self._computed_for(leads)
                for each, outcome in zip(leads, outcomes, strict=True):
                    each.outcome = outcome
        except Exception:  # such as too little memory for all: who fails alone, too, says so itself
            if len(leads) == 1:
                raise
        finally:
            self._packs = True
            self._ready.extend(leads[1:])

    def _led(self, member: Member) -> Lock:
        """Let a member compute what it waits for, with all who can be computed in the same call."""
        member.leads, rows = [], 0
        for each in (member, *(other for other in self._waiting if other is not member and other.meets(member))):
            assert each.asked is not None
            rows += each.asked.size
            if each is member or rows <= MOST_ROWS:
                member.leads.append(each)
        self._waiting = [each for each in self._waiting if each not in member.leads]
        return member.gate
