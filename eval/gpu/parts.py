"""The parts of the check, in their order. Names and limits alone: nothing here imports what is measured."""

from __future__ import annotations

from dataclasses import dataclass


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
        Has ``cases(machine)``, which yields names and callables that give rows of plain values. A row with ``passed``
        is a proof.
    limit : float
        Seconds after which it is ended, whatever it is doing.
    """

    name: str
    title: str
    module: str
    limit: float


PARTS = (
    Part("proofs", "Correctness on the device", "eval.gpu.proofs", 130),
    Part("prefill", "Prefill at the 7 B shape", "eval.gpu.prefill", 70),
    Part("answers", "First token and decoding at the 7 B shape", "eval.gpu.answers", 60),
    Part("watching", "Watching at the 7 B shape", "eval.gpu.watching", 90),
    Part("counts", "What the host does, and memory over many pushes", "eval.gpu.counts", 100),
)
"""450 seconds together: less than eight minutes with what starting takes."""
