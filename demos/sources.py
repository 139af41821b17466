"""How a checked source is opened: by the library's reader, for files and streams alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pdrop_video as pv
from pdrop_video.guard import Source, reading
from pdrop_video.video import Connection

from .settings import Settings
from .watching import Opened, refuse_large

_AHEAD = 2
"""Chunks decoded ahead of the model; it also lets a reader that waits for its source be closed by another thread."""


def opener(source: Source, settings: Settings, fps: float) -> Callable[[], Opened]:
    """What opens a source when its turn comes.

    Parameters
    ----------
    source : Source
    settings : Settings
    fps : float
        The model's own rate, where the settings name none.
    """
    rate = settings.fps or fps
    chunk = min(settings.chunk, math.ceil(rate)) if source.live else settings.chunk  # nobody waits longer than a second

    def read(target: str) -> Any:
        return pv.open_video(
            target,
            rate,
            chunk,
            ahead=_AHEAD,
            policy="latest" if source.live else "block",
            protocols=source.protocols,
            connection=Connection(options=source.options),
            motion=settings.uses_motion,
        )

    def opened() -> Opened:
        return read(source.target) if source.route is None else reading(source, read)

    return opened


def check(path: Path, limit: float, chunk: int) -> None:
    """Say at once, and not when its turn has come, what is wrong with a file.

    Parameters
    ----------
    path : Path
    limit : float
        Most seconds that it may last.
    chunk : int
        Frames at a time.
    """
    try:
        with pv.open_video(path, ahead=0) as reader:
            refuse_large(reader.info, limit, chunk)
    except pv.VideoError as error:  # where the server keeps its files is nobody's business
        raise pv.VideoError(str(error).replace(str(path), path.name)) from error
