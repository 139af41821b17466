"""Rows of a benchmark's files, checked against the official form, so that a wrong file is named before anything runs.

Knows pydantic and one small thing that many files hold: times as "HH:MM:SS".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError

import pdrop_video as pv

from .files import load_json

Form = TypeVar("Form")


class Row(BaseModel):
    """An entry of an official file; fields that are not named here are left out, numbers pass for text."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


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
    if len(parts) > 3:
        raise ValueError(f"{clock!r} is no time; expected HH:MM:SS")
    return sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))


def _timed(clock: str) -> str:
    seconds_of(clock)
    return clock


Clock = Annotated[str, AfterValidator(_timed)]
"""A time as text that `seconds_of` reads."""


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
        place = " > ".join(str(part) for part in first["loc"]) or "the top"
        raise pv.ConfigError(
            f"{path} is not in the official form: at {place} {first['msg'].lower()}, got {str(first['input'])[:60]!r}. "
            "Use the file as it was released."
        ) from error
