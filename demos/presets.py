"""Settings that go well together, under a name that says what they are for."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from .settings import Settings

USUAL = "Usual"
PRESETS: dict[str, dict[str, Any]] = {
    USUAL: {},
    "Drop nothing": {"ratios": "none"},
    "Hours of video": {"fps": 1, "memory": 4096, "gate": "static", "reducer": "evs"},
    "Little computing": {
        "ratios": "none",
        "gate": "surprise:threshold=5,max_gap=30",
        "reducer": "streamingtom:keep=0.2",
    },
    "Fast changes": {"fps": 8, "ratios": "0.75, 0.5, 0.25"},
}
"""What differs from the usual settings."""


def chosen(name: str, model: str) -> tuple[Any, ...]:
    """The values of the form for a preset, in the order of `Settings`; the model stays as it is."""
    return astuple(Settings(model=model, **PRESETS.get(name, {})))
