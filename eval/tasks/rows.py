"""Rows of a benchmark's files, checked against the official form, so that a wrong file is named before anything runs.

Knows pydantic, and what many files hold: text, numbers, options, and times as "HH:MM:SS".
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

import pdrop_video as pv
from pdrop_video.common.checks import shown

from .base import Item
from .files import load_json

Form = TypeVar("Form")
Entry = TypeVar("Entry", bound=BaseModel)


class Row(BaseModel):
    """An entry of an official file; fields that are not named here are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _as_text(value: Any) -> Any:
    """Text as it is, and a number as text; "nan" is what a table makes of nothing."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" or c == "\0" for c in value):
        raise ValueError("expected text that UTF-8 can write")
    return value


def _some(text: str) -> str:
    if not text.strip():
        raise ValueError("expected some text, not an empty one")
    return text


def _number(value: Any) -> Any:
    if isinstance(value, bool | str | bytes):
        raise ValueError("expected a number")
    return value


def _letters(options: list[str]) -> list[str]:
    if not 2 <= len(options) <= 26:
        raise ValueError(f"expected 2 to 26 options, not {len(options)}")
    return options


Label = Annotated[str, BeforeValidator(_as_text)]
"""Text, or a number that stands for it; may be empty."""
Text = Annotated[str, BeforeValidator(_as_text), AfterValidator(_some)]
"""Some text, or a number that stands for it."""
Options = Annotated[list[Text], AfterValidator(_letters)]
"""Two options or more, as many as there are letters at most."""
Candidates = Annotated[list[Label], AfterValidator(_letters)]
"""Options some of which may have no text, as a few rows of MLVU have them."""
Count = Annotated[int, BeforeValidator(_number), Field(ge=0)]
"""A whole number from 0."""
Seconds = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
"""A time or a duration."""


def seconds_of(clock: str) -> float:
    """Seconds of "HH:MM:SS", "MM:SS" or "SS", with or without a fraction.

    Raises
    ------
    ValueError
        If it is none of them.

    Examples
    --------
    >>> seconds_of("00:03:10"), seconds_of("0:02:22"), seconds_of("01:00:00.500")
    (190.0, 142.0, 3600.5)
    """
    parts = clock.strip().split(":")
    if len(parts) > 3 or not all(re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{0,9})?", part) for part in parts):
        raise ValueError(f"{clock!r} is no time; expected HH:MM:SS")
    return sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))


def _timed(clock: str) -> str:
    seconds_of(clock)
    return clock


Clock = Annotated[str, AfterValidator(_timed)]
"""A time as text that `seconds_of` reads."""


def has_option(answer: str, options: Sequence[str]) -> None:
    """Check that a letter is one of the options'.

    Raises
    ------
    ValueError
        If it is none.
    """
    letters = [chr(ord("A") + index) for index in range(len(options))]
    if answer.strip() not in letters:
        raise ValueError(f"the answer is {answer!r}; expected the letter of one of {len(options)} options")


def unique(items: list[Item], path: Path) -> list[Item]:
    """The same items, each of which has a name of its own.

    Raises
    ------
    ConfigError
        If two of them share one: an answer could not be told from the other's. The message names both rows.
    """
    first: dict[str, int] = {}
    for number, item in enumerate(items):
        earlier = first.setdefault(item.id, number)
        if earlier != number:
            raise pv.ConfigError(
                f"{path} has the question {shown(item.id)} twice, as its questions {earlier} and {number} (from 0); "
                "expected each once. Use the file as it was released."
            )
    return items


def different(entries: list[Entry], path: Path, kind: str) -> list[Entry]:
    """The same entries, no two of which say the same: where a file has no names, that is how a doubled one shows.

    Raises
    ------
    ConfigError
        If two do; the message names both.
    """
    first: dict[str, int] = {}
    for number, entry in enumerate(entries):
        earlier = first.setdefault(entry.model_dump_json(), number)
        if earlier != number:
            raise pv.ConfigError(
                f"{path} has the same entry twice, as its {kind} {earlier} and {number} (from 0); expected each once. "
                "Use the file as it was released."
            )
    return entries


def load_rows(path: Path, form: type[Form], how: str) -> Form:
    """The content of a JSON file in the given form, for example ``list[Question]``.

    Raises
    ------
    ConfigError
        If it is missing (`how` says how to get it), not JSON, or not in that form.
    """
    return parse_rows(load_json(path, how), form, path)


def parse_rows(content: Any, form: type[Form], path: Path) -> Form:
    """Parsed JSON in the given form.

    Raises
    ------
    ConfigError
        If it is not; the message names the first place that differs.
    """
    try:
        return TypeAdapter(form).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = " > ".join(shown(str(part))[1:-1] for part in first["loc"]) or "the top"
        said = first["msg"].removeprefix("Value error, ")
        raise pv.ConfigError(
            f"{path} is not in the official form: at {place} {said[:1].lower()}{said[1:]}, got "
            f"{shown(first['input'])}. Use the file as it was released."
        ) from error
