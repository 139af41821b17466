"""One pass over a video: frames are pushed, subtitles told and questions asked, each at its moment.

Knows the streaming interface and the order of moments. Refuses to know models, files and journals.

A question in the middle of a chunk is asked on a fork of the stream, to which the chunk's frames up to that moment are
pushed; the stream itself goes on with whole chunks. An answer therefore does not depend on what else is asked in the
same pass, which is what lets a run be cut, sharded and resumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import pdrop_video as pv
from pdrop_video.video.subtitles import Cue

Asker = TypeVar("Asker")


class Watcher(Protocol):
    """What a pass needs of a stream; `pdrop_video.VideoStream` has it."""

    def push(self, frames: pv.FrameChunk) -> Any:
        """Watch frames."""

    def tell(self, text: str) -> Any:
        """Let text enter at this moment."""

    def fork(self) -> Any:
        """The same past, another future."""


@dataclass(slots=True)
class Due(Generic[Asker]):
    """Somebody who wants to ask once the video was watched up to a moment (its frame included)."""

    at: float
    asker: Asker


@dataclass(slots=True)
class Pass(Generic[Asker]):
    """The state of a pass.

    Parameters
    ----------
    stream : Watcher
    cues : sequence of Cue
        Subtitles to interleave, by their middles; only those that cover a watched frame are told.
    due : list of Due
        Who asks when. A moment past the video's end is asked at the end.
    least : float
        A cue shorter than this is widened to it, in seconds.

    Attributes
    ----------
    seconds : list of float
        Times of the frames that the question may rest on.
    """

    stream: Any
    cues: Sequence[Cue]
    due: list[Due[Asker]]
    least: float = 1.0
    seconds: list[float] = field(default_factory=list)
    _told: int = 0

    def run(self, chunks: Iterable[pv.FrameChunk]) -> Iterator[tuple[float, Any, Asker]]:
        """Watch; yields (moment, stream to ask, who asks) as moments come.

        Whoever asks may put a later moment into `due` before the next one is drawn.
        """
        for chunk in chunks:
            rest: pv.FrameChunk | None = chunk
            while rest is not None:
                yield from self._before(rest.seconds[0])
                upcoming = self.cues[self._told].middle if self._told < len(self.cues) else math.inf
                part, rest = split(rest, upcoming)
                assert part is not None  # every cue before its first frame was told
                yield from self._within(part)
                self.stream.push(part)
                self.seconds += part.seconds
        yield from self._before(math.inf)

    def _before(self, second: float) -> Iterator[tuple[float, Any, Asker]]:
        """Everything between the last frame and the next one, which is at `second`, in the order of time."""
        while (due := self._next(second)) is not None:
            self._tell(due.at, second)
            yield due.at if math.isfinite(due.at) else self.seconds[-1], self.stream, due.asker
        self._tell(second, second)

    def _within(self, part: pv.FrameChunk) -> Iterator[tuple[float, Any, Asker]]:
        """Those who are due before the part's last frame, on forks that have seen the part up to then."""
        while (due := self._next(part.seconds[-1])) is not None:
            head, _ = split(part, due.at)
            fork, before = self.stream.fork(), len(self.seconds)
            if head is not None:
                fork.push(head)
                self.seconds += head.seconds
            yield due.at, fork, due.asker
            del self.seconds[before:]

    def _tell(self, until: float, following: float) -> None:
        """Tell the subtitles up to a moment that cover the last frame or the following one."""
        while self._told < len(self.cues) and self.cues[self._told].middle <= until:
            cue = self.cues[self._told]
            if cue.middle >= following:
                return
            near = (*self.seconds[-1:], following)
            if any(cue.covers(time, self.least) for time in near):
                self.stream.add_text(cue.text)
            self._told += 1

    def _next(self, second: float) -> Due[Asker] | None:
        """The next one who is due before `second` comes, no longer waiting."""
        first = min(self.due, key=lambda due: due.at, default=None)
        if first is None or (first.at >= second and second < math.inf):
            return None
        self.due.remove(first)
        return first


def split(chunk: pv.FrameChunk, second: float) -> tuple[pv.FrameChunk | None, pv.FrameChunk | None]:
    """A chunk's frames up to a moment, and those after it; None for no frames."""
    count = sum(time <= second for time in chunk.seconds)
    head = _part(chunk, 0, count) if count else None
    return head, (_part(chunk, count, len(chunk)) if count < len(chunk) else None)


def _part(chunk: pv.FrameChunk, first: int, last: int) -> pv.FrameChunk:
    if (first, last) == (0, len(chunk)):
        return chunk
    return chunk.part(first, last)
