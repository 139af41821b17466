"""Subtitles: from an srt file to cues with times and plain text, and into a video's chunks at their moments.

Knows times and text. Refuses to know prompts, models and benchmarks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..common import checks
from ..errors import ConfigError
from .chunk import FrameChunk

_TAGS = re.compile(r"</?(?:font|b|i|u)\b[^>]*>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: shown from `start` to `end`, in seconds of the video."""

    start: float
    end: float
    text: str

    @property
    def middle(self) -> float:
        """The moment that it enters a stream at."""
        return (self.start + self.end) / 2

    def covers(self, second: float, least: float = 0.0) -> bool:
        """Whether it is shown at `second`, its very begin and end left out, as the benchmarks' own code does it.

        A cue shorter than `least` seconds is widened to that, about its middle.
        """
        return abs(second - self.middle) < max(self.end - self.start, least) / 2


def plain(text: str) -> str:
    """Text without formatting tags, on one line."""
    return " ".join(_TAGS.sub("", text).split())


def load_srt(path: str | os.PathLike[str]) -> list[Cue]:
    """Read an srt file; cues without text are left out.

    Raises
    ------
    ConfigError
        If the file can't be read, is not srt or not UTF-8; if the package that reads it is missing.
    """
    try:
        import srt
    except ImportError as error:
        raise ConfigError("subtitles are read by the package srt, which is not installed: pip install srt.") from error
    path = Path(checks.path("path", path))
    try:
        parsed = list(srt.parse(path.read_text(encoding="utf-8-sig"), ignore_errors=True))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 ({error.reason}); expected an srt file as released.") from error
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}); expected an srt file.") from error
    cues = [Cue(c.start.total_seconds(), c.end.total_seconds(), plain(c.content)) for c in parsed]
    cues = sorted((cue for cue in cues if cue.text), key=lambda cue: (cue.start, cue.end))
    if not cues and path.stat().st_size > 0:
        raise ConfigError(f"{path} holds no subtitle; expected an srt file with a number, times and text for each.")
    return cues


def interleaved(chunks: Iterable[FrameChunk], cues: Sequence[Cue]) -> Iterator[FrameChunk | str]:
    """Frames and the text of subtitles in the order of time: each cue at its middle, in front of the next frame.

    Parameters
    ----------
    chunks : iterable of FrameChunk
        Without sound.
    cues : sequence of Cue
        Those whose middle lies before the first frame, or behind the last one, are left out.
    """
    waiting, seen = sorted(cues, key=lambda cue: cue.middle), False
    for chunk in chunks:
        begin = 0
        for i, second in enumerate(chunk.seconds):
            due = [cue for cue in waiting if cue.middle <= second]
            if not due:
                continue
            del waiting[: len(due)]
            if i > begin:
                yield chunk.part(begin, i)
                begin, seen = i, True
            if seen:
                yield from (cue.text for cue in due)
        yield chunk.part(begin, len(chunk))
        seen = True
