"""What every command of `eval` asks before it works, and how it says what went wrong: a sentence and an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

import pdrop_video as pv
from pdrop_video.common.checks import shown, text

_err = Console(stderr=True)


@contextmanager
def clear_errors(code: int = 1) -> Iterator[None]:
    """One sentence for what went wrong on purpose; anything else is a bug and keeps its traceback."""
    try:
        yield
    except pv.PDropError as error:
        said = str(error).encode("utf-8", "backslashreplace").decode()
        _err.print(f"[red]error:[/red] {escape(said)}", highlight=False, soft_wrap=True)
        raise typer.Exit(code) from error
    except KeyboardInterrupt:
        _err.print("stopped; the same command goes on from here.", highlight=False)
        raise typer.Exit(130) from None


def encodable(name: str, value: Any) -> Any:
    """The same value, all of whose text and paths UTF-8 can write, as every file of a run must.

    Raises
    ------
    ConfigError
        If some of it cannot be written, as bytes of a command line that are no UTF-8.
    """
    if isinstance(value, str | Path):
        text(name, str(value), empty=True)
        if "\0" in str(value):
            raise pv.ConfigError(f"{name} is {shown(str(value))}, which has a NUL character; expected text without it.")
    elif isinstance(value, dict):
        for key, of in value.items():
            encodable(f"{name}'s {shown(key)}", key)
            encodable(f"{name}'s {shown(key)}", of)
    elif isinstance(value, list | tuple):
        for of in value:
            encodable(f"each of {name}", of)
    return value


def out_folder(folder: Path, name: str = "--out") -> Path:
    """A folder that can be written, or made, without making it yet.

    Raises
    ------
    ConfigError
        If it is a file, stands below one, or may not be written.
    """
    encodable(name, folder)
    reason = ""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        if not there.is_dir():
            reason = "File exists" if there == folder else f"{there} is no folder"
        elif not os.access(there, os.W_OK | os.X_OK):
            reason = "Permission denied"
        elif any(len(os.fsencode(part)) > 255 for part in folder.parts):
            reason = "File name too long"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise pv.ConfigError(f"{folder} can't be written ({reason}); choose another {name}.")
    return folder
