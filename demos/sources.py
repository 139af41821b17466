"""How a checked source is opened: by the library's reader, for files and streams alike."""

from __future__ import annotations

from collections.abc import Callable

import pdrop_video as pv
from pdrop_video.video import Connection

from .guard import Source
from .settings import Settings
from .watching import Opened

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

    def opened() -> Opened:
        return pv.open_video(
            source.target,
            settings.fps or fps,
            settings.chunk,
            ahead=_AHEAD,
            policy="latest" if source.live else "block",
            connection=Connection(options=source.options),
        )

    return opened
