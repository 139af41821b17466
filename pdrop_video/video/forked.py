"""What a forked process must never free: native objects wait for their threads, which stayed with the parent.

It knows nothing of videos.
"""

from __future__ import annotations

import ctypes
import os
from weakref import WeakSet

_kept: WeakSet[object] = WeakSet()


def keep_when_forked(thing: object) -> None:
    """Let a process that is forked off leave `thing`, and all that it refers to, as it is until it exits."""
    _kept.add(thing)


def _leave() -> None:
    for thing in list(_kept):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_leave)
