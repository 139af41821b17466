"""The parts of the check, in their order. Names and limits alone: nothing here imports what is measured."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the check.

    Attributes
    ----------
    name : str
        On the command line, and of its file.
    title : str
        In the report.
    module : str
        Has ``cases(setting)``, which yields names and callables that give rows of plain values. A row with ``passed``
        is a proof.
    limit : float
        Seconds after which it is ended, whatever it is doing.
    """

    name: str
    title: str
    module: str
    limit: float


@dataclass(slots=True)
class Setting:
    """What a part is told.

    Attributes
    ----------
    device : str
    small : bool
        Few cases in small shapes, for a rehearsal.
    ends : float
        When the part's time is up, by `time.monotonic`.
    facts : dict
        Names and versions, which the part notes.
    between : callable
        What is called between two cases.
    """

    device: str
    small: bool
    ends: float
    facts: dict[str, Any] = field(default_factory=dict)
    between: Callable[[], object] = gc.collect


PARTS = (
    Part("proofs", "Correctness on the device", "eval.gpu.proofs", 130),
    Part("prefill", "Prefill at the 7 B shape", "eval.gpu.prefill", 70),
    Part("answers", "First token and decoding at the 7 B shape", "eval.gpu.answers", 60),
    Part("watching", "Watching at the 7 B shape", "eval.gpu.watching", 90),
    Part("counts", "What the host does, and memory over many pushes", "eval.gpu.counts", 100),
)
"""450 seconds together: less than eight minutes with what starting takes."""
