"""The LLM's layer loop in stages: schedule, ranking, selection. Knows tensors, never a model family."""

from .allocators import ALLOCATORS
from .context import pyramid_drop
from .inside import INSIDES
from .loop import LayerLoop
from .rows import Boundary, Rows
from .schedule import Pyramid
from .scorers import SCORERS, Layout
from .stages import Schedule
from .trace import Trace

__all__ = [
    "ALLOCATORS",
    "INSIDES",
    "SCORERS",
    "Boundary",
    "LayerLoop",
    "Layout",
    "Pyramid",
    "Rows",
    "Schedule",
    "Trace",
    "pyramid_drop",
]
