"""The families' adapters and the loading of their checkpoints. Knows transformers, never a stage or a budget."""

from .base import Adapter
from .chunk import VisualChunk
from .loading import ADAPTERS, adapter_for, describe, read
from .pixels import Pixels
from .positions import LinearPositions, MRopePositions, Place, Positions
from .prompt import Prompt

__all__ = [
    "ADAPTERS",
    "Adapter",
    "LinearPositions",
    "MRopePositions",
    "Pixels",
    "Place",
    "Positions",
    "Prompt",
    "VisualChunk",
    "adapter_for",
    "describe",
    "read",
]
