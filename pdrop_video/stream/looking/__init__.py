"""What an answer looks at while it is generated: one small file a method, listed here by name."""

from __future__ import annotations

from ...registry import named
from .base import Decode, Gaze, Glance, Row
from .dstp import Dstp
from .fixation import Fixation

DECODES: dict[str, Decode] = {
    "dstp": Dstp(),
    "fixation": Fixation(),
}
DEFAULT, NEVER = "dstp", "none"
"""What an answer's tokens look at where its question hides something and nobody said (docs/inside.md), and what one
says for what the question saw and nothing else."""


def decode_named(decode: str | Decode) -> Decode:
    """A method by its name, or itself; `ConfigError` if there is none of that name."""
    return named("decode", DECODES, decode)


def chosen(decode: str | Decode | None, hides: bool) -> Decode | None:
    """What an answer's tokens look at, where a question hides something or nothing; None for what the question saw."""
    if decode is None:
        decode = DEFAULT if hides else NEVER
    return None if isinstance(decode, str) and decode == NEVER else decode_named(decode)


__all__ = ["DECODES", "DEFAULT", "NEVER", "Decode", "Gaze", "Glance", "Row", "chosen", "decode_named"]
