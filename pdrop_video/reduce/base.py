"""What a reducer is given, and what it gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..common.ties import comparable, spread


@dataclass(frozen=True, slots=True)
class Tokens:
    """The visual tokens of a chunk as they would enter the language model, in the order step, row, column.

    After a gate a step may have fewer of them than its grid has places, or none.

    Attributes
    ----------
    features : Tensor [tokens, hidden]
    step : Tensor [tokens], int64
        Which step of time each shows, counted within the chunk.
    row, column : Tensor [tokens], int64
        Its place in the picture.
    seconds : tuple of float
        The time of each step.
    grid : (rows, columns)
        Of a step.
    since : int
        Steps of the stream before these.
    tower : mapping of Tensor
        What the vision tower knew of the tokens, as far as `Reducer.needs` asks for it and the family gives it.
    saliency : Tensor [tokens], float32, optional
        What the gate said of each (`pdrop_video.gate.Gated.saliency`); None without such a gate.
    question : Tensor [words, hidden], optional
        The standing question as it enters the language model; None where none is known.
    asked : str, optional
        Its text.
    parts : mapping of Part
        The trained parts that the reducer names in `Reducer.parts`.
    """

    features: Tensor
    step: Tensor
    row: Tensor
    column: Tensor
    seconds: tuple[float, ...]
    grid: tuple[int, int]
    since: int = 0
    tower: Mapping[str, Tensor] = field(default_factory=dict)
    saliency: Tensor | None = None
    question: Tensor | None = None
    asked: str | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def places(self) -> int:
        """Places of a step's grid."""
        return self.grid[0] * self.grid[1]

    def place(self) -> Tensor:
        """Each token's place, row by row [tokens]."""
        return self.row * self.grid[1] + self.column

    def turn(self) -> Tensor:
        """Who goes first among equals [tokens], the smallest number first; see `pdrop_video.common.ties.spread`."""
        return spread(self.step + self.since, self.row, self.column)

    def best(self, scores: Tensor, count: int) -> Tensor:
        """Numbers [count] of the tokens of the highest scores, ascending.

        Scores are compared as shares of the largest, after rounding to what their type can tell apart; of equals those
        stay that are spread evenly over time and space (`pdrop_video.common.ties`).

        Parameters
        ----------
        scores : Tensor [tokens]
        count : int
        """
        everything = torch.ones_like(scores, dtype=torch.bool)
        ranked = comparable(scores, everything, self.features.dtype)
        turn = self.turn().argsort(stable=True)
        order = turn[ranked[turn].argsort(descending=True, stable=True)]
        return order[:count].sort().values


@dataclass(frozen=True, slots=True)
class Reduced:
    """What a reducer decided.

    Attributes
    ----------
    kept : Tensor [kept], int64
        Numbers of the tokens that go on, ascending: each keeps its own place and position.
    weights : Tensor [kept, tokens], optional
        What each that goes on is a mean of: rows of weights from 0 that sum to 1. Left out where tokens go on as they
        are. Features that a family adds behind its first layers (Qwen3-VL's deepstack) are averaged likewise.
    """

    kept: Tensor
    weights: Tensor | None = None


class Reducer(Protocol):
    """Chooses or merges visual tokens before the language model: a frozen dataclass that can be called.

    It may carry tensors from chunk to chunk. It gets them by name and gives back all that it will carry on, new tensors
    in place of those that change: what it was given must stay as it is, since a push that fails goes back to it.

    Attributes
    ----------
    needs : tuple of str
        What it must know of the vision tower; a family that can't say it is refused when a stream is opened.
    wants : tuple of str, optional
        What it makes use of besides, where the family can say it.
    check : method, optional
        ``check(model_type: str, knows: tuple[str, ...], asked: str | None)``, asked when a stream is opened, with what
        the family can say of its vision tower and the standing question: raises `ConfigError`, with what to do, where
        it can't work.
    parts : tuple of str, optional
        Trained parts (`pdrop_video.parts`) that it can't do without: a stream is refused where one is not loaded, and a
        saved one goes on only beside the same weights.
    unit : int, optional
        Steps of the stream that it takes together; 1 where left out. A stream holds frames back until a unit is whole,
        so that what becomes of them depends on no chunk's borders: a call then gets whole units, one behind another,
        of which only the last may be shorter, where a video ends or a question is asked meanwhile.
    facts : Facts, optional
        What a catalogue says of it.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """A class's own attribute, mostly; a property where it depends on parameters."""

    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """What goes on, and what to carry. There is one token or more; nothing is carried at a stream's beginning."""

    def left(self, tokens: int) -> int | None:
        """How many of a later chunk's tokens go on; None where that depends on what they show."""

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Most bytes that it ever carries while a step has so many places."""

    def flops(self, tokens: int, hidden: int) -> int:
        """What it costs, a multiply-add as two: matrix products and sums of products."""


def asks_for(reducer: Reducer | None, knows: Iterable[str]) -> tuple[str, ...]:
    """What a reducer is told of the vision tower by a family that knows so much: what it needs, and what it wants."""
    asked = {*reducer.needs, *getattr(reducer, "wants", ())} if reducer is not None else set()
    return tuple(sorted(asked & set(knows)))
