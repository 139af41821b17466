"""The families' adapters and the loading of their checkpoints. Knows transformers, never a stage or a budget."""

from .base import Adapter
from .chunk import SoundRows, VisualChunk
from .ears import Ears, Hearing
from .loading import ADAPTERS, adapter_for, describe, read
from .pixels import Pixels
from .positions import LinearPositions, MRopePositions, Place, Positions
from .prompt import Prompt
from .tower import Tower

__all__ = [
    "ADAPTERS",
    "Adapter",
    "Ears",
    "Hearing",
    "LinearPositions",
    "MRopePositions",
    "Pixels",
    "Place",
    "Positions",
    "Prompt",
    "SoundRows",
    "Tower",
    "VisualChunk",
    "adapter_for",
    "describe",
    "read",
]
