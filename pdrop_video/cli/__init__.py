"""The command line. Parses and prints; everything else is the library's."""

from .app import app

__all__ = ["app"]
