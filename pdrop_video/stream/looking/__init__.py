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


def decode_named(decode: str | Decode) -> Decode:
    """A method by its name, or itself; `ConfigError` if there is none of that name."""
    return named("decode", DECODES, decode)


__all__ = ["DECODES", "Decode", "Gaze", "Glance", "Row", "decode_named"]
