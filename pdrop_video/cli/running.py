"""The command line as a process of its own, which ends even where a source does not answer."""

from __future__ import annotations

import os
import sys

from ..video.ahead import late
from .app import app


def run() -> None:
    """Run the command that was typed; never returns."""
    try:
        app()
    except SystemExit as end:
        leave(end)
        raise


def leave(end: SystemExit) -> None:
    """End the process at once if FFmpeg is still waiting for a source in some thread.

    It can't be woken there, and crashes if the interpreter is taken down around it, now and then.
    """
    if late() and (end.code is None or isinstance(end.code, int)):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code or 0)
