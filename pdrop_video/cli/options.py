"""What the command line's options mean, as the library's own values. Knows texts; refuses to know models and videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..common.atomic import check_replaceable
from ..common.checks import path, text
from ..errors import ConfigError
from ..memory import Memory
from ..pyramid import Pyramid


def check_questions(questions: list[str]) -> None:
    """Some text that can be encoded, each of them."""
    if not all(question.strip() for question in questions):
        raise ConfigError("one of the questions is empty; expected some text.")
    for question in questions:
        text("one of the questions", question)


def check_choice(name: str, value: str, *options: str) -> None:
    """One of a few words."""
    if value not in options:
        raise ConfigError(f"{name} is {value!r}; expected {' or '.join(map(repr, options))}.")


def check_out(out: Path) -> None:
    """A file that can be written when there is something to write."""
    try:
        check_replaceable(path("--out", out))
    except OSError as error:
        raise ConfigError(f"--out {out} can't be written: {error.strerror}; choose a file that can.") from error


def pyramid_of(option: str, ratios: str | None, scorer: str | None = None, allocator: str = "joint") -> Pyramid:
    """The schedule of ``--ratios`` or ``--ask-ratios``: shares, none, or a file that `search` wrote."""
    if ratios is None:
        return Pyramid(scorer=scorer, allocator=allocator)
    if ratios.strip().lower() == "none":
        return Pyramid(stages=1, scorer=scorer, allocator=allocator)
    if ratios.endswith(".json"):
        return replace(Pyramid.load(ratios), scorer=scorer, allocator=allocator)
    try:
        shares = tuple(float(part) for part in ratios.split(","))
    except ValueError as error:
        raise ConfigError(f"{option} {ratios}: expected numbers such as 0.5,0.25,0.125, none, or a file.") from error
    return Pyramid(ratios=shares, scorer=scorer, allocator=allocator)


def memory_of(tokens: str, evictor: str, archive: int | None) -> Memory:
    """The memory of ``--memory``: a number of tokens, or none."""
    if tokens.strip().lower() == "none":
        return Memory(tokens=None, evictor=evictor, archive=archive)
    try:
        count = int(tokens)
    except ValueError as error:
        raise ConfigError(f"--memory {tokens}: expected a number of tokens, or none.") from error
    return Memory(tokens=count, evictor=evictor, archive=archive)
