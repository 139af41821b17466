"""Everything that a push changes, in one place. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..memory import StreamCache
from ..memory.table import time_dtype
from ..models import Place
from .answer import Status
from .events import Note
from .sifted import Sifting


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Frames on their way to the vision tower.

    Attributes
    ----------
    frames : Tensor [frames, height, width, 3], uint8
    seconds, until : tuple of float
        When each is shown, and up to when it stands for what was to be seen.
    worth : Tensor [frames, rows, columns], bool, or None
        Which visual tokens of each are worth having; None for all.
    saliency : Tensor [frames, rows, columns], float32, or None
        What the gate said of each; None where it said nothing.
    """

    frames: Tensor
    seconds: tuple[float, ...]
    until: tuple[float, ...]
    worth: Tensor | None = None
    saliency: Tensor | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def then(self, other: Seen) -> Seen:
        """These frames, then others of the same size."""
        frames = torch.cat([self.frames.to(other.frames.device), other.frames])
        return Seen(
            frames,
            self.seconds + other.seconds,
            self.until + other.until,
            self._joined(other, "worth"),
            self._joined(other, "saliency"),
        )

    def _joined(self, other: Seen, name: str) -> Tensor | None:
        """A map of both; frames of which nothing was said are wholly worth having, and as salient as can be."""
        first, second = getattr(self, name), getattr(other, name)
        known = second if first is None else first
        if known is None:
            return None
        parts = (
            known.new_ones(len(each), *known.shape[1:]) if held is None else held
            for each, held in ((self, first), (other, second))
        )
        return torch.cat([part.to(known.device) for part in parts])

    def part(self, first: int, last: int, *, clone: bool = False) -> Seen:
        """Some of the frames, with storage of their own if need be."""
        frames, worth, saliency = (
            None if each is None else each[first:last] for each in (self.frames, self.worth, self.saliency)
        )
        assert frames is not None
        return Seen(
            frames.clone() if clone else frames, self.seconds[first:last], self.until[first:last], worth, saliency
        )

    def lasting(self, seconds: float) -> Seen:
        """The same frames, the last of which stands for what was to be seen up to a moment."""
        return replace(self, until=(*self.until[:-1], seconds))


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """How far the running video was heard.

    Attributes
    ----------
    samples : Tensor [samples], float32
        Sound that waits for the rest of its stretch.
    begun : float
        When the video began.
    taken : int
        Samples that went in.
    size : (h, w)
        The grid of its latest pictures.
    """

    samples: Tensor
    begun: float
    taken: int = 0
    size: tuple[int, int] = (1, 1)

    def until(self, rate: int) -> float:
        """Up to when there was sound."""
        return self.begun + (self.taken + len(self.samples)) / rate


@dataclass(slots=True)
class StreamState:
    """What a stream has come to; a fork of it can be changed without touching the original.

    Attributes
    ----------
    cache : StreamCache
    place : Place
        Where positions have come to.
    rows : int
        Tokens that entered so far, which is the next token's number in the stream.
    waiting : Seen or None
        Frames that wait for the rest of their step, an odd one for its partner, or for that of their sound.
    heard : Heard or None
        The running video's sound; None without.
    told : tuple of str
        Text that goes in front of the next frame, and is forgotten with it.
    noted : tuple of str
        Notes that go in front of that, each as a step of its own.
    answered : tuple of int or None
        After a turn that was kept, and until something follows it: those last tokens of the answer that the cache
        does not hold yet.
    chunks, steps, frames, visual_tokens, sound_tokens : int
        What entered so far; a kept turn counts as a chunk and a step, and a frame that a gate left out as a frame.
    skipped : int
        Frames that a gate left out.
    first_step : int
        The step with which the running turn's video began.
    span : tuple of float or None
        Times of the first and the last frame.
    push_seconds : float
        Spent on all pushes so far.
    usual : dict of Tensor
        What a scorer that learns knows of the past, by the layer before which it ranks.
    carried : dict of dict of Tensor
        What gate and reducer carry from chunk to chunk, by slot and name. Never written on: what changes is replaced.
    kept : list of int
        How many visual tokens each stage kept of those that the running push brought.
    pieces : tuple of (int, int)
        Visual tokens, with those of sound, and glue of each piece in which that push was run.
    reduced : tuple of int
        Visual tokens that the reducer was given in it, time by time.
    notes : tuple of Note
        The newest notes taken so far, also of what is in `noted` still.
    sifting : Sifting
        What gate and reducer made of its frames, for pictures; not saved.
    looked : int or None
        FLOPs of the vision tower in it, of what was encoded; None where the family does not say.
    """

    cache: StreamCache
    place: Place
    rows: int
    waiting: Seen | None = None
    heard: Heard | None = None
    told: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()
    answered: tuple[int, ...] | None = None
    chunks: int = 0
    steps: int = 0
    frames: int = 0
    visual_tokens: int = 0
    sound_tokens: int = 0
    skipped: int = 0
    first_step: int = 0
    span: tuple[float, float] | None = None
    push_seconds: float = 0.0
    usual: dict[int, Tensor] = field(default_factory=dict)
    carried: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)
    pieces: tuple[tuple[int, int], ...] = ()
    reduced: tuple[int, ...] = ()
    notes: tuple[Note, ...] = ()
    sifting: Sifting = field(default_factory=Sifting)
    looked: int | None = 0

    @property
    def since(self) -> float:
        """From when the tables count seconds: 0, or the first frame where the device has no float64."""
        first = 0.0 if self.span is None else self.span[0]
        return 0.0 if time_dtype(self.cache.tables[0].seconds.device) == torch.float64 else first

    def told_times(self, seconds: Tensor) -> Tensor:
        """A table's seconds as they were told, float64; on the host where the device has none."""
        return seconds if seconds.dtype == torch.float64 else seconds.cpu().double() + self.since

    def extend(self, seconds: float) -> None:
        """Let the newest step last up to a moment: what came since shows the same."""
        until, done = seconds - self.since, {}
        for i, table in enumerate(self.cache.tables):
            if id(table) not in done:
                # its time in words, too; a kept turn behind it has no time
                newest = (table.step == self.steps - 1) & ~table.until.isnan()
                done[id(table)] = table.lengthened(newest, until), table
            self.cache.tables[i] = done[id(table)][0]

    def status(self) -> Status:
        """What it holds, for those who watch it from outside."""
        archive = self.cache.archive
        return Status(
            frames=self.frames,
            seconds=self.span,
            cache_tokens=tuple(self.cache.lengths()),
            cache_bytes=self.cache.nbytes,
            archive_bytes=0 if archive is None else archive.nbytes,
            skipped=self.skipped,
            carried_bytes=self.carried_bytes,
        )

    @property
    def carried_bytes(self) -> dict[str, int]:
        """Bytes that each slot carries from chunk to chunk."""
        slots: dict[str, Mapping[Any, Tensor]] = {**self.carried, "scorer": self.usual}
        return {slot: sum(t.nbytes for t in tensors.values()) for slot, tensors in slots.items() if tensors}

    def fork(self) -> StreamState:
        """The same state, free to go its own way."""
        return replace(self, cache=self.cache.fork(), kept=list(self.kept))
