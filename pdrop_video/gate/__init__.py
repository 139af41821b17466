"""Before the vision tower: which frames, and which parts of them, are worth encoding. Knows pixels, never a model.

One small file a method, listed here by name.
"""

from __future__ import annotations

from ..common.checks import shown
from ..errors import ConfigError
from ..registry import named
from .base import Gate, Gated, Watched
from .codec import Codec
from .event import Event
from .static import Static
from .surprise import Surprise

GATES: dict[str, Gate] = {
    "codec": Codec(),
    "event": Event(),
    "static": Static(),
    "surprise": Surprise(),
}


def gate_named(gate: str | Gate) -> Gate:
    """A gate by its name, or itself; `ConfigError` if there is none of that name, or it is a reducer."""
    if hasattr(gate, "needs"):  # all that a gate has a reducer has, too
        raise ConfigError(
            f"gate is {shown(gate)}, which is a reducer; expected a gate, such as one of {', '.join(GATES)}."
        )
    return named("gate", GATES, gate)


__all__ = ["GATES", "Gate", "Gated", "Watched", "gate_named"]
