"""Streams as files: stored for a visitor to take away, and read again as what they are, a stranger's files."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pdrop_video as pv
from pdrop_video.stream import saved

from .session import SessionError
from .uploads import Uploads

KIND = ".pdrop"
"""How a stream's file ends."""


def store(stream: pv.VideoStream, uploads: Uploads, client: str, name: str) -> Path:
    """Write a stream where uploads are, counted as one: whoever was told its path may take it within a minute.

    Parameters
    ----------
    stream : VideoStream
    uploads : Uploads
    client : str
        Whose it is.
    name : str
        Of the file, without its end.

    Raises
    ------
    PDropError
        If there is no room for it, or it would be too large to come back.
    """
    arrival = uploads.begin(client)
    try:
        file = arrival.folder / "stream"
        stream.save(file)
        size = file.stat().st_size
        if size > uploads.largest:
            raise SessionError(
                f"The stream has {size / 2**20:.0f} MB, more than can be opened again here "
                f"({uploads.largest / 2**20:.0f} MB); watch with a smaller memory."
            )
        uploads.grow(arrival, size)
        return uploads.keep(arrival, file, secrets.token_urlsafe(18), f"{name}{KIND}")
    except BaseException:
        uploads.drop(arrival)
        raise


def reopened(path: Path, lm: pv.VideoLM, largest: int) -> pv.VideoStream:
    """A stream out of a file, if it asks for nothing that the page would not let one set.

    Parameters
    ----------
    path : Path
    lm : VideoLM
    largest : int
        Most tokens that a layer may be set to remember.
    """
    try:
        header, _ = saved.read(path)
        _check(header, largest)
        return lm.resume(path)
    except pv.PDropError as error:  # where the server keeps its files is nobody's business
        raise SessionError(str(error).replace(str(path), path.name)) from error


def _check(header: dict[str, Any], largest: int) -> None:
    """Whether a file is one that this page may have written: it names folders and sizes, and anybody may write one."""
    memory, lookout = header.get("memory"), header.get("lookout")
    if not isinstance(memory, dict) or not isinstance(lookout, dict):
        raise SessionError("This is no stream that a page like this one saved; open one of those.")
    tokens = memory.get("tokens")
    if not isinstance(tokens, int) or tokens > largest:
        raise SessionError(f"The stream's memory is {tokens}; expected {largest:,} tokens a layer at most here.")
    if any(memory.get(name) for name in ("archive", "archive_folder", "bytes")) or header.get("system"):
        raise SessionError("The stream has an archive or a system prompt, which this page does not offer.")
    if lookout.get("summary") or len(lookout.get("watches") or ()) > 5:
        raise SessionError("The stream has questions of its own, more than this page offers.")
