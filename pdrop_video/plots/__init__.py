"""Pictures of what a stream keeps: the frames under their tokens, the memory over time, and what an answer rested on.

Reads streams and answers, changes nothing. matplotlib draws and is imported when the first picture is asked for.
"""

from . import wording
from .album import Album, Overlay
from .charts import cache, evidence, memory
from .frames import described, kept
from .painting import Fate
from .saving import check_folder, save

__all__ = [
    "Album",
    "Fate",
    "Overlay",
    "cache",
    "check_folder",
    "described",
    "evidence",
    "kept",
    "memory",
    "save",
    "wording",
]
