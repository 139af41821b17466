"""The engine: rows of several turns meet at the modules of the decoder.

A turn that comes to a place where rows can meet waits there while another one runs, until all have come to such a
place. Then those furthest behind are computed, in one call for all who wait at the same place: so the weights are read
once for all of them, whatever each stream drops, attends to and forgets on its own between two places. Ours.

Knows places and who waits there; refuses to know what is computed between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any

import torch
from torch import Tensor, nn

from .lanes import Lanes, Member
from .packing import MOST_ROWS, Group, Slot, install


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
        me.arrive(slot, module, rows, self._begun)
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

    def _known(self, me: Member, slot: Slot, module: nn.Module, rows: Tensor) -> Tensor | None:
        """What a module gives for rows that the last group knows."""
        if me.group is None:
            return None
        try:
            return me.group.given(me.number, slot, module, rows)
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

    def _led(self, member: Member) -> Lock:
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
