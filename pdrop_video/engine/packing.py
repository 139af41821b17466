"""Rows of several forwards that meet at one module of a decoder are computed by it in one call.

Knows modules that give each row what it would get alone: linear maps, norms, experts behind a router. Refuses to know
threads, and what rows are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

MOST_ROWS = 1024
"""In one call. More at once are not faster: by then a processor computes, and does not wait for weights."""


class Meeting(Protocol):
    """Who brings rows of several forwards together."""

    def open(self) -> bool:
        """Whether rows of this thread may meet others."""

    def meet(self, slot: Slot, module: nn.Module, rows: Tensor) -> Tensor:
        """What a module gives for rows [..., width]."""


@dataclass(slots=True, eq=False)
class Slot:
    """A place where rows can meet.

    Attributes
    ----------
    meeting : Meeting
    layer : int
        The decoder layer that it is in, or the number of layers behind them.
    """

    meeting: Meeting
    layer: int

    def __deepcopy__(self, memo: Any) -> Slot:
        return self  # of a module that is copied, whose rows meet the others' as before


def install(model: Any, stack: Any, meeting: Meeting) -> int:
    """Let the modules of a decoder that give each row by itself be places where rows meet; returns how many.

    Modules whose ``forward`` somebody else replaced, as accelerate does where weights move, stay as they are, and so
    do those with weights in other forms than torch's: what they give a row may depend on the others.

    Parameters
    ----------
    model : PreTrainedModel
        Its output embeddings are the last place.
    stack : nn.Module
        Its decoder layers.
    meeting : Meeting
    """
    places = [(number, part) for number, layer in enumerate(stack.layers) for part in _places(layer)]
    head = model.get_output_embeddings()
    head = model.get_decoder().get_output_embeddings() if head is None else head
    if type(head) is nn.Linear:
        places.append((len(stack.layers), head))
    known: dict[type, bool] = {nn.Linear: True}
    count = 0
    for number, part in places:
        ours = vars(part).get("forward")
        if ours is not None and not (isinstance(ours, partial) and ours.func is _forward):
            continue
        if type(part) not in known:
            known[type(part)] = _each_row_alone(part, stack.config.hidden_size)
        if known[type(part)]:
            vars(part)["forward"] = partial(_forward, part, Slot(meeting, number))
            count += 1
    return count


def _forward(module: nn.Module, slot: Slot, *args: Any, **kwargs: Any) -> Any:
    if len(args) == 1 and not kwargs and slot.meeting.open() and not args[0].is_inference():
        return slot.meeting.meet(slot, module, args[0])
    return type(module).forward(module, *args, **kwargs)


def _places(layer: nn.Module) -> Iterator[nn.Module]:
    """The parts of a decoder layer that may be places, no part of another one."""
    for part in layer.children():
        experts = any(hasattr(each, "experts") for each in part.modules())
        if experts or type(part).__name__.endswith("Norm"):
            yield part
        else:
            yield from (each for each in part.modules() if type(each) is nn.Linear)


@torch.no_grad()
def _each_row_alone(module: nn.Module, width: int) -> bool:
    """Whether a module takes rows [1, rows, width] by themselves, and gives each what it gets among others."""
    like = next(module.parameters(), None)
    if like is None or like.is_meta or not like.is_floating_point():
        return False
    rows = torch.randn(1, 5, width, generator=torch.Generator().manual_seed(0)).to(like)
    try:
        whole = type(module).forward(module, rows)
        parts = [type(module).forward(module, part) for part in (rows[:, :2], rows[:, 2:])]
    except (TypeError, ValueError, RuntimeError, IndexError, AssertionError):  # it takes something else
        return False
    if not all(isinstance(each, Tensor) and each.ndim == 3 for each in (whole, *parts)):
        return False
    joined = torch.cat(parts, dim=1)
    tolerance = torch.finfo(whole.dtype).eps ** 0.5  # rows that mix are off by much more
    return whole.shape == joined.shape and bool((whole - joined).norm() <= tolerance * whole.norm())


@dataclass(slots=True)
class _Sheet:
    """Rows of all who met, and each one's own."""

    rows: Tensor
    own: list[Tensor]
    versions: list[int]

    @classmethod
    def of(cls, rows: Tensor, own: list[Tensor]) -> _Sheet:
        return cls(rows, own, [each._version for each in own])

    def holds(self, number: int, rows: Tensor) -> bool:
        """Whether rows are those of one who met, as they were."""
        return rows is self.own[number] and rows._version == self.versions[number]


@dataclass(slots=True, eq=False)
class RowsAt:
    """Rows that a forward brought to a module.

    Attributes
    ----------
    slot : Slot
    module : nn.Module
    rows : Tensor [..., width]
    """

    slot: Slot
    module: nn.Module
    rows: Tensor

    @property
    def layer(self) -> int:
        """Where in the model they are."""
        return self.slot.layer

    @property
    def size(self) -> int:
        """How many there are."""
        return self.rows.numel() // max(1, self.rows.shape[-1])

    work = size

    def meets(self, other: Any) -> bool:
        """Whether the rows of both can be computed in one call."""
        if not isinstance(other, RowsAt) or other.slot is not self.slot:
            return False
        mine, its = self.rows, other.rows
        return mine.dtype == its.dtype and mine.device == its.device and mine.shape[-1] == its.shape[-1]

    def computed(self, others: Sequence[RowsAt]) -> list[tuple[Group, int]]:
        """The group of these rows and those of others, and each one's number in it."""
        group = Group([each.rows for each in (self, *others)])
        group.given(0, self.slot, self.module, self.rows)
        return [(group, number) for number in range(1 + len(others))]


@dataclass(slots=True, eq=False)
class JobAt:
    """A job that a forward consists of, which some function does for several at a time.

    Attributes
    ----------
    compute : callable
    job : object
    work : int
        How much it is, in rows at a module.
    """

    compute: Callable[[Sequence[Any]], Sequence[Any]]
    job: Any
    work: int
    layer: ClassVar[int] = -1  # before the first one
    size: ClassVar[int] = 1

    def meets(self, other: Any) -> bool:
        """Whether it is for the same function."""
        return isinstance(other, JobAt) and other.compute is self.compute

    def computed(self, others: Sequence[JobAt]) -> list[tuple[Any]] | None:
        """What each gets; None if nobody else has come, so that it rather meets others on its way."""
        if not others:
            return None
        return [(given,) for given in self.compute([each.job for each in (self, *others)])]


class Group:
    """Some forwards that met at a slot, until they part.

    What they do next with the very rows that they brought or got, such as keys and values after queries, is computed
    for all of them as soon as the first of them asks, and nobody waits.

    Parameters
    ----------
    rows : sequence of Tensor [..., width]
        What each brought.
    """

    def __init__(self, rows: Sequence[Tensor]) -> None:
        self.shapes = [each.shape[:-1] for each in rows]
        self.sizes = [shape.numel() for shape in self.shapes]
        width = rows[0].shape[-1]
        alone = len(rows) == 1 and rows[0].ndim == 3 and len(rows[0]) == 1
        packed = rows[0] if alone else torch.cat([each.reshape(1, -1, width) for each in rows], dim=1)
        self._sheets = [_Sheet.of(packed, list(rows))]
        self._through: dict[tuple[int, Slot], int] = {}

    def given(self, number: int, slot: Slot, module: nn.Module, rows: Tensor) -> Tensor | None:
        """What a module gives for rows of the one with that number; None if they are others than the group knows."""
        known = next((n for n, sheet in enumerate(self._sheets) if sheet.holds(number, rows)), None)
        if known is None:
            return None
        if (known, slot) not in self._through:
            gave = type(module).forward(module, self._sheets[known].rows)
            parts = gave.split(self.sizes, dim=1)
            own = [each.view(*shape, each.shape[-1]) for each, shape in zip(parts, self.shapes, strict=True)]
            self._sheets.append(_Sheet.of(gave, own))
            self._through[known, slot] = len(self._sheets) - 1
        return self._sheets[self._through[known, slot]].own[number]
