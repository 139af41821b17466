"""The LLM's layer loop in stages: schedule, ranking, selection. Knows tensors, never a model family."""

from .context import Trace, pyramid_drop
from .loop import Boundary, LayerLoop, Rows
from .schedule import Pyramid, Schedule

__all__ = ["Boundary", "LayerLoop", "Pyramid", "Rows", "Schedule", "Trace", "pyramid_drop"]
