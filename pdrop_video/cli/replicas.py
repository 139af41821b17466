"""`pdrop-video serve --ray`: many replicas until somebody says stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

import pdrop_video as pv

if TYPE_CHECKING:  # what the command loads only if it serves
    from ..serve import Settings
    from ..serve.replicas import Cluster


def serve_many(make: Callable[[], pv.VideoLM], settings: Settings, cluster: Cluster, host: str, port: int) -> None:
    """Serve by Ray until a signal comes.

    Raises
    ------
    ConfigError
    """
    from ..serve.replicas import run

    if port == 0:
        raise pv.ConfigError("--ray needs a --port of its own choice, as it is the same on every machine.")
    saves = None if settings.saves is None else settings.saves.absolute()  # replicas work in folders of their own
    settings = replace(settings, saves=saves, folders=tuple(each.absolute() for each in settings.folders))
    told = threading.Event()

    def stop(*_: Any) -> None:
        told.set()

    end = run(make, settings, cluster, host, port)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    typer.echo(f"{cluster.replicas} replicas are at http://{host}:{port}/v1 - Ctrl-C stops them.")
    try:
        told.wait()
    finally:
        end()
