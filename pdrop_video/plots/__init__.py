"""Pictures of what a stream keeps: the frames under their tokens, the memory over time, and what an answer rested on.

Reads streams and answers, changes nothing. matplotlib draws and is imported when the first picture is asked for.
"""

from .album import Album, Overlay
from .charts import cache, check_folder, evidence, kept, memory, save

__all__ = ["Album", "Overlay", "cache", "check_folder", "evidence", "kept", "memory", "save"]
