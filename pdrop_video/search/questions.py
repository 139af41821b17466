"""Question sets: which videos, and what is asked of each. Knows files; refuses to know models and right answers."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common import checks
from ..errors import ConfigError
from ..video import FrameChunk, open_video
from ..video.address import Address

VIDEOMME = "videomme/test-00000-of-00001.parquet"
"""The released questions of Video-MME, in the folder that its videos are in, too."""
SUFFIXES = (".mp4", ".MP4", ".mkv", ".webm", ".avi", ".mov")
ROOM = 2 * 2**30
"""Bytes of decoded frames, and of what the full model says, that a search keeps at hand."""


class Kept:
    """What is expensive to make and may be made again: the most recently used of it, within some bytes."""

    def __init__(self, most: int = ROOM) -> None:
        self.most, self.held = most, 0
        self._things: OrderedDict[Any, tuple[Any, int]] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        """What was made under this key, or is made now."""
        if key in self._things:
            self._things.move_to_end(key)
            return self._things[key][0]
        made = make()
        self._things[key] = made, size(made)
        self.held += self._things[key][1]
        while self.held > self.most and len(self._things) > 1:
            self.held -= self._things.popitem(last=False)[1][1]
        return made


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """The chunks of a video, decoded whenever somebody goes through them and they are not at hand.

    Attributes
    ----------
    source : str
    frames, chunk : int
        Evenly spaced, of the whole video; and of a push.
    kept : Kept
        Where decoded frames stay for a while.
    motion : bool
        Whether the codec's motion comes with them.
    """

    source: str
    frames: int
    chunk: int
    kept: Kept
    motion: bool = False

    def __iter__(self) -> Iterator[FrameChunk]:
        return iter(self.kept.get((self.source, self.frames, self.chunk, self.motion), self._decoded, _frame_bytes))

    def _decoded(self) -> list[FrameChunk]:
        with open_video(self.source, frames=self.frames, chunk=self.chunk, motion=self.motion) as video:
            return list(video)


def _frame_bytes(chunks: list[FrameChunk]) -> int:
    return sum(chunk.frames.nbytes for chunk in chunks)


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Videos with their questions, in order.

    Attributes
    ----------
    questions : dict of str to tuple of str
        For each video's path what is asked of it.
    """

    questions: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.questions:
            raise ConfigError("the question set is empty; expected one video or more, with a question each.")
        for video in self.questions:
            Address.of(video)

    @classmethod
    def read(cls, path: str | Path) -> QuestionSet:
        """From a folder in Video-MME's layout, or a file of JSON lines.

        A line is ``{"video": "a.mp4", "question": "What happens?"}``, or has several under "questions"; options, if
        there are some, under "options". A video's path is relative to the file. Lines of one video come together.

        Raises
        ------
        ConfigError
            If a file is missing or not of this form, a video is missing, or there is none.
        """
        path = Path(checks.path("path", path))
        rows = _released(path) if path.is_dir() else _lines(path)
        questions: dict[str, list[str]] = {}
        for video, question in rows:
            asked = questions.setdefault(video, [])
            if question not in asked:
                asked.append(question)
        return cls({video: tuple(asked) for video, asked in questions.items()})


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} can't be read ({error}); expected a file of JSON lines, or a folder in Video-MME's layout."
        ) from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            given = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"line {number} of {path} is no JSON ({error}).") from error
        where = f"line {number} of {path}"
        unknown = (
            set(given) - {"video", "question", "questions", "options"} if isinstance(given, dict) else {"no object"}
        )
        if unknown or "video" not in given or ("question" in given) == ("questions" in given):
            raise ConfigError(
                f'{where} is {checks.shown(given)}; expected {{"video": "a.mp4", "question": "What happens?"}}.'
            )
        video = checks.text(f"video in {where}", given["video"])
        asked = checks.texts(f"questions in {where}", given.get("questions", [given.get("question")]))
        options = checks.texts(f"options in {where}", given.get("options", []), least=0)
        source = video if "://" in video else str(path.parent / video)
        if "://" not in video and not Path(source).exists():
            raise ConfigError(f"{where} names {video}, and there is no {source}.")
        for question in asked:
            yield source, _worded(question, options)


def _worded(question: str, options: Iterable[str]) -> str:
    """A question with its options, one a line."""
    listed = list(options)
    if not listed:
        return question
    return "\n".join([question, *listed, "Answer with the letter of the right option."])


def _released(folder: Path) -> Iterator[tuple[str, str]]:
    table = folder / VIDEOMME
    if not table.exists():
        raise ConfigError(f"there is no {table}; expected a folder in Video-MME's layout, or a file of JSON lines.")
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise ConfigError("Parquet files need pyarrow, which is missing: pip install 'pdrop-video[eval]'.") from error
    try:
        rows = parquet.read_table(table, columns=["videoID", "question", "options"]).to_pylist()
    except (ArrowInvalid, OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{table} is not the released Video-MME file ({error}).") from error
    for row in rows:
        found = [folder / "data" / f"{row['videoID']}{suffix}" for suffix in SUFFIXES]
        video = next((path for path in found if path.exists()), None)
        if video is None:
            raise ConfigError(f"there is no {found[0]}; unpack the videos of {folder} there, or give JSON lines.")
        yield str(video), _worded(row["question"], row["options"])
