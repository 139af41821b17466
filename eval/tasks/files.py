"""Reading a benchmark's files: what is missing is named, with how to get it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import pdrop_video as pv
from pdrop_video.common.checks import shown

VIDEO_SUFFIXES = (".mp4", ".MP4", ".mkv", ".webm", ".avi", ".mov")


def required(path: Path, how: str) -> Path:
    """The path itself, if it exists.

    Raises
    ------
    ConfigError
        If it does not; `how` says how to get it, for example "download ... and unpack it there".
    """
    if not path.exists():
        raise pv.ConfigError(f"there is no {path}; {how}.")
    return path


def load_json(path: Path, how: str) -> Any:
    """The content of a JSON file.

    Raises
    ------
    ConfigError
        If it is missing, a folder, not JSON, or has an object that names something twice.
    """
    required(path, how)
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_object)
    except OSError as error:
        raise pv.ConfigError(f"{path} can't be read ({error.strerror}); expected a file: {how}.") from error
    except (ValueError, RecursionError) as error:
        raise pv.ConfigError(f"{path} is not JSON ({error}); was the download cut short? Otherwise {how}.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object each of whose names stands once: of two, one would be lost without a word."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{shown(next(name for name in names if names.count(name) > 1))} stands twice in an object")
    return made


def video_file(folder: Path, name: str, suffixes: Iterable[str] = VIDEO_SUFFIXES) -> Path:
    """The video of that name (without suffix) in whatever format it came; the first suffix if there is none."""
    return first_there(*(folder / f"{name}{suffix}" for suffix in suffixes))


def first_there(*places: Path) -> Path:
    """The first of some places that exists; else the first of them."""
    return next((place for place in places if place.exists()), places[0])


def write_json(path: Path, content: Any, indent: int = 1) -> list[Path]:
    """Write a result file as JSON; returns the files written."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")
    return [path]


def read_text(path: Path, how: str) -> str:
    """The content of a text file.

    Raises
    ------
    ConfigError
        If it is missing, a folder, or not UTF-8.
    """
    try:
        return required(path, how).read_text(encoding="utf-8")
    except OSError as error:
        raise pv.ConfigError(f"{path} can't be read ({error.strerror}); expected a file: {how}.") from error
    except UnicodeDecodeError as error:
        raise pv.ConfigError(f"{path} is no text ({error}); was the download cut short? Otherwise {how}.") from error


def read_lines(path: Path, how: str) -> list[Any]:
    """The content of a file with JSON in each line; empty lines are left out.

    Raises
    ------
    ConfigError
        If it is missing, a folder, or has a line that is not JSON.
    """
    found = []
    for number, line in enumerate(read_text(path, how).split("\n"), 1):
        try:
            if line.strip():
                found.append(json.loads(line, object_pairs_hook=_object))
        except (ValueError, RecursionError) as error:
            raise pv.ConfigError(
                f"{path}, line {number}, is not JSON ({error}); was the download cut short? Otherwise {how}."
            ) from error
    return found


def read_table(path: Path, columns: Sequence[str], how: str) -> list[dict[str, Any]]:
    """The rows of a Parquet file, of which only the columns named are kept.

    Raises
    ------
    ConfigError
        If it is missing, no Parquet file, or has not all of the columns.
    """
    try:
        table = pd.read_parquet(required(path, how))
    except (ValueError, OSError, NotImplementedError) as error:
        raise pv.ConfigError(f"{path} is no Parquet file ({error}); was the download cut short?") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise pv.ConfigError(f"{path} has no column {', '.join(missing)}; expected the file as it was released.")
    return table[list(columns)].to_dict("records")
