"""The command line. Parses and prints; everything else is the library's."""

from .app import app
from .running import run

__all__ = ["app", "run"]
