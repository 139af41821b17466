"""What the command line's options mean, as the library's own values. Knows texts; refuses to know models and videos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.atomic import check_replaceable
from ..common.checks import path, text
from ..errors import ConfigError
from ..pyramid import Pyramid
from ..stream import Recipe


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


def pyramid_of(option: str, ratios: str | None, **methods: str | None) -> Pyramid:
    """The schedule of ``--ratios`` or ``--ask-ratios``: shares, none, or a file that `search` wrote."""
    return Recipe.from_dict({"pyramid": _dropping(option, ratios) | _given(methods)}).pyramid


def recipe_of(
    file: str | None = None,
    *,
    gate: str | None = None,
    reducer: str | None = None,
    ratios: str | None = None,
    memory: str | None = None,
    storage: str | None = None,
    scorer: str | None = None,
    allocator: str | None = None,
    inside: str | None = None,
    evictor: str | None = None,
    archive: int | None = None,
) -> Recipe:
    """What the options say; where there is a file, instead of what it says of the same."""
    pyramid = _dropping("--ratios", ratios) | _given({"scorer": scorer, "allocator": allocator, "inside": inside})
    remembering = {} if memory is None else _tokens(memory)
    remembering |= _given({"evictor": evictor, "archive": archive, "storage": storage})
    recipe = Recipe() if file is None else Recipe.load(file)
    return recipe.altered(gate=gate, reducer=reducer, pyramid=pyramid, memory=remembering)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _dropping(option: str, ratios: str | None) -> dict[str, Any]:
    if ratios is None:
        return {}
    if ratios.strip().lower() == "none":
        return {"stages": 1}
    if ratios.endswith(".json"):
        schedule = Recipe(pyramid=Pyramid.load(ratios)).as_dict()["pyramid"]
        return {name: value for name, value in schedule.items() if name not in ("scorer", "allocator", "inside")}
    try:
        return {"ratios": [float(part) for part in ratios.split(",")]}
    except ValueError as error:
        raise ConfigError(f"{option} {ratios}: expected numbers such as 0.5,0.25,0.125, none, or a file.") from error


def _tokens(memory: str) -> dict[str, Any]:
    if memory.strip().lower() == "none":
        return {"tokens": None}
    try:
        return {"tokens": int(memory)}
    except ValueError as error:
        raise ConfigError(f"--memory {memory}: expected a number of tokens, or none.") from error
