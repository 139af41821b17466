"""Parts in a process beside this one, which is ended when a part's time is up; those that are left go on in another.

Knows processes and clocks. Refuses to know what a part does, and needs nothing but Python.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .parts import Part
from .state import ENDED, FELL, Folder, in_words

STARTING = 120.0
"""Seconds that a process may take, beside the limit of its first part, until everything is imported."""
_LOOK = 0.1
_ROOT = Path(__file__).resolve().parents[2]
"""Of the checkout, from which everything is imported: nothing needs to be installed."""


@dataclass(frozen=True, slots=True)
class How:
    """How a check is run.

    Attributes
    ----------
    device : str
    small : bool
        Few cases in small shapes, for a rehearsal.
    limit : float or None
        Seconds for each part, in place of its own.
    total : float
        Seconds for all of them.
    starting : float
        Seconds that a process may take until everything is imported.
    """

    device: str
    small: bool
    limit: float | None = None
    total: float = 470.0
    starting: float = STARTING

    @property
    def words(self) -> str:
        """Device and size, as parts note them."""
        return in_words(self.device, self.small)


def run_parts(parts: Sequence[Part], folder: Folder, how: How, say: Callable[[str], None] = print) -> None:
    """Do what is not done yet of some parts, one after another."""
    ends = time.monotonic() + how.total
    left = [part for part in parts if not folder.done(part.name, how.words)]
    while left:
        if time.monotonic() >= ends:
            say(f"not begun, the time is up: {', '.join(part.name for part in left)}")
            return
        through = _one_process(left, folder, how, ends, say)
        left = left[through:]


def _one_process(left: list[Part], folder: Folder, how: How, ends: float, say: Callable[[str], None]) -> int:
    """Begin a process that does parts one after another; returns how many of them need no other one."""
    limits = [part.limit if how.limit is None else how.limit for part in left]
    named = [f"{part.name}={part.module}={limit}" for part, limit in zip(left, limits, strict=True)]
    command = [sys.executable, "-m", "eval.gpu.child", str(folder.path), how.device, "small" if how.small else "full"]
    given: dict[str, Any] = {"cwd": _ROOT, "env": {**os.environ, "HF_HUB_OFFLINE": "1"}, "start_new_session": True}
    with (folder.path / "log.txt").open("ab") as log:
        # it ends by itself when its standard input does, should this process be gone
        child = subprocess.Popen([*command, *named], stdin=subprocess.PIPE, stdout=log, stderr=log, **given)
    try:
        now, since, grace = 0, time.monotonic(), how.starting
        say(f"{left[0].name} ...")
        while True:
            over = child.poll() is not None  # asked before its files are read, so that none is written in between
            while now < len(left) and folder.done(left[now].name, how.words):
                say(f"{left[now].name} done, {time.monotonic() - since:.0f} s")
                now, since, grace = now + 1, time.monotonic(), 0.0
                if now < len(left) and not over:
                    say(f"{left[now].name} ...")
            if now == len(left):
                return now
            part = left[now]
            if grace and folder.read(part.name).get("process") == child.pid:
                since, grace = time.monotonic(), 0.0  # everything is imported
            if over:
                return now + _fell(part, folder, child, say)
            if time.monotonic() > min(since + limits[now] + grace, ends):
                _end(child)
                spent = f"{time.monotonic() - since:.0f} s"
                known = folder.read(part.name)
                folder.write(part.name, {"part": part.name, "rows": {}, **known, "state": ENDED, "after": spent})
                say(f"{part.name} was ended after {spent}")
                return now + 1
            time.sleep(_LOOK)
    finally:
        _end(child)


def _fell(part: Part, folder: Folder, child: subprocess.Popen[bytes], say: Callable[[str], None]) -> int:
    """Note that a process came to an end within a part, if this part has not said so itself."""
    known = folder.read(part.name)
    if known.get("state") != FELL:
        why = f"the process ended with {child.returncode}; see log.txt"
        folder.write(part.name, {"part": part.name, "rows": {}, **known, "state": FELL, "why": why})
    say(f"{part.name} fell: {folder.read(part.name).get('why', '')}")
    return 1


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a process and all that it began."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        child.stdin.close()
