"""What gate and reducer made of the newest frames, place by place. Plain data; knows no method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..models import VisualChunk


@dataclass(frozen=True, slots=True, eq=False)
class SiftedStep:
    """What of a step of time entered the language model, and as what.

    Attributes
    ----------
    frames : tuple of float
        Times of the frames that it shows.
    members : Tensor [rows, columns], int64, or None
        Of how many of the vision tower's tokens that is a mean which entered at a place, itself included: 1 where it
        entered as it was, 0 where none entered. None where all entered as they were.
    worth : Tensor [rows, columns], bool, or None
        Which places the gate found worth having; None for all.
    merged : Tensor [rows, columns], bool, or None
        Places at which none entered, since their token became part of means elsewhere; None for nowhere.
    """

    frames: tuple[float, ...]
    members: Tensor | None = None
    worth: Tensor | None = None
    merged: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Sifted:
    """What became of the frames of the last push, and of what entered since.

    Attributes
    ----------
    skipped : tuple of (float, float or None)
        Times of the frames that the gate left out, each with that of the frame that stands for it; None where that came
        before a stream was saved.
    waiting : tuple of float
        Times of the frames that wait for more to come.
    steps : tuple of SiftedStep
        Those that entered the language model, in order; among them may be frames of the push before.
    """

    skipped: tuple[tuple[float, float | None], ...] = ()
    waiting: tuple[float, ...] = ()
    steps: tuple[SiftedStep, ...] = ()


@dataclass(frozen=True, slots=True)
class Sifting:
    """What a stream notes for `Sifted`: of one push at a time, so that it is as small as that.

    Attributes
    ----------
    skipped, steps
        See `Sifted`.
    told : int or None
        How many of the steps are of the last push; the others entered with a turn after it. None for all.
    newest : float or None
        Time of the newest frame that the gate let on.
    """

    skipped: tuple[tuple[float, float | None], ...] = ()
    steps: tuple[SiftedStep, ...] = ()
    told: int | None = None
    newest: float | None = None

    def begun(self) -> Sifting:
        """As a push begins."""
        return Sifting(steps=() if self.told is None else self.steps[self.told :], newest=self.newest)

    def late(self) -> Sifting:
        """As more enters after a push."""
        return self if self.told is not None else replace(self, told=len(self.steps))

    def gated(self, seconds: Sequence[float], going: Sequence[int]) -> Sifting:
        """With a push's frames, of which some go on."""
        on, newest, skipped = set(going), self.newest, self.skipped
        for number, when in enumerate(seconds):
            if number in on:
                newest = when
            else:
                skipped += ((when, newest),)
        return replace(self, skipped=skipped, newest=newest)

    def entered(self, steps: Sequence[SiftedStep]) -> Sifting:
        """With some more steps."""
        return replace(self, steps=(*self.steps, *steps))


def sifted_steps(
    seconds: Sequence[float],
    together: int,
    chunk: VisualChunk,
    gated: bool,
    kept: Tensor | None = None,
    weights: Tensor | None = None,
) -> list[SiftedStep]:
    """What entered of a chunk's steps.

    Parameters
    ----------
    seconds : sequence of float
        The times of the frames.
    together : int
        Frames of a step.
    chunk : VisualChunk
        What came out of the vision tower, without what the gate found not worth having.
    gated : bool
        Whether it found so of anything.
    kept : Tensor [kept], optional
        Which of its visual tokens enter; all of them where left out.
    weights : Tensor [kept, visual tokens], optional
        What each becomes a mean of.
    """
    frames = [tuple(seconds[i : i + together]) for i in range(0, len(seconds), together)]
    if kept is None and not gated:
        return [SiftedStep(times) for times in frames]
    rows = chunk.visual_rows()
    at = (chunk.step() * chunk.places + chunk.place())[rows]
    whole = torch.zeros(len(chunk.steps) * chunk.places, dtype=torch.int64, device=at.device)
    of, went = torch.ones_like(at), None
    if kept is not None:
        of = torch.zeros_like(at).index_fill(0, kept, 1)
        if weights is not None:
            of = of.index_copy(0, kept, (weights != 0).sum(1, dtype=torch.int32).long())
            went = (weights.sum(0) != 0).index_fill(0, kept, False)  # weights are none below 0

    def grids(numbers: Tensor) -> Tensor:
        """What is of the picture of each step; standby tokens are of all of it."""
        return numbers.view(len(chunk.steps), -1)[:, : chunk.size[0] * chunk.size[1]].unflatten(1, chunk.size)

    members = grids(whole.index_copy(0, at, of))
    worth = grids(whole.bool().index_fill(0, at, True)) if gated else None
    merged = None if went is None else grids(whole.bool().index_copy(0, at, went))
    return [
        SiftedStep(times, members[i], None if worth is None else worth[i], None if merged is None else merged[i])
        for i, times in enumerate(frames)
    ]
