"""A family without a file of its own, served by its checkpoint's own processor. Knows processors, never a family."""

from .adapter import Derived
from .deriving import derive
from .proof import prove

__all__ = ["Derived", "derive", "prove"]
