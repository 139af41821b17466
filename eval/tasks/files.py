"""Reading a benchmark's files: what is missing is named, with how to get it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
    candidates = [folder / f"{name}{suffix}" for suffix in suffixes]
    return next((path for path in candidates if path.exists()), candidates[0])
