"""How a checked source is opened: by the library's reader, for files and streams alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pdrop_video as pv
from pdrop_video.video import Connection

from .guard import Source
from .relay import Relay
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

    def read(target: str) -> Any:
        return pv.open_video(
            target,
            settings.fps or fps,
            settings.chunk,
            ahead=_AHEAD,
            policy="latest" if source.live else "block",
            protocols=source.protocols,
            connection=Connection(options=source.options),
            motion=settings.uses_motion,
        )

    @contextmanager
    def through() -> Iterator[Any]:
        assert source.route is not None
        with Relay(source.route) as relay:
            parts = urlsplit(source.target)
            user, at, host = parts.netloc.rpartition("@")
            here = parts._replace(scheme=source.route.scheme, netloc=f"{user}{at}{relay.host}")
            try:
                with read(here.geturl()) as reader:
                    yield reader
            except pv.VideoError as error:  # the visitor knows nothing of the relay
                raise pv.VideoError(str(error).replace(relay.host, host)) from error

    def opened() -> Opened:
        return read(source.target) if source.route is None else through()

    return opened
