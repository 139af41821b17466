"""What parts are trained on: a file of JSON lines. Knows files; refuses to know models and frames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common import checks
from ..errors import ConfigError

_KEYS = ("video", "question", "answer", "options", "evidence")
_EVERY = 6
"""Of so many videos one is held out."""


@dataclass(frozen=True, slots=True)
class Line:
    """A question about a video, with its answer.

    Attributes
    ----------
    video : str
        A file's path, or an address.
    question : str
        As it is put, options listed below it where there are some.
    answer : str
        What the model should say, word by word.
    evidence : tuple of float, optional
        Seconds at which the answer is to be seen; None where nobody said.
    """

    video: str
    question: str
    answer: str
    evidence: tuple[float, ...] | None = None


def read_lines(path: str | Path) -> list[Line]:
    """The lines of a file, in order.

    A line is ``{"video": "a.mp4", "question": "Who came in?", "answer": "a dog"}``. It may have "options", a list that
    is put below the question, and "evidence", a list of the seconds at which the answer is to be seen. A video's path
    is relative to the file.

    Raises
    ------
    ConfigError
        If the file is missing or not of this form, a video is missing, or all lines are of one video, of which none
        could be held out.
    """
    path = Path(checks.path("data", path))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read ({error}); expected a file of JSON lines (docs/parts.md).") from error
    lines = [_line(f"line {n} of {path}", path, said) for n, said in enumerate(text.splitlines(), 1) if said.strip()]
    if len({line.video for line in lines}) < 2:
        raise ConfigError(f"{path} has {len(lines)} lines, not of two videos or more; one at least is held out.")
    return lines


def _line(where: str, path: Path, said: str) -> Line:
    try:
        given = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is no JSON ({error}).") from error
    if not isinstance(given, dict) or set(given) - set(_KEYS) or not {"video", "question", "answer"} <= set(given):
        raise ConfigError(
            f'{where} is {checks.shown(given)}; expected {{"video": "a.mp4", "question": "Who?", "answer": "a dog"}}, '
            'and perhaps "options" and "evidence".'
        )
    video, question, answer = (checks.text(f"{key} in {where}", given[key]) for key in _KEYS[:3])
    options = checks.texts(f"options in {where}", given.get("options") or [], least=0)
    source = video if "://" in video else str(path.parent / video)
    if "://" not in video and not Path(source).exists():
        raise ConfigError(f"{where} names {video}, and there is no {source}.")
    evidence = _evidence(where, given.get("evidence"))
    return Line(source, "\n".join([question, *options]), answer, evidence)


def _evidence(where: str, given: Any) -> tuple[float, ...] | None:
    return None if given is None else checks.several(f"evidence in {where}", given, checks.real)


def held_out(lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """Lines to train on, and those of every sixth video (of two videos or more one at least), by first appearance."""
    videos = list(dict.fromkeys(line.video for line in lines))
    out = set(videos[_EVERY - 1 :: _EVERY] or videos[-1:])
    return [line for line in lines if line.video not in out], [line for line in lines if line.video in out]
