"""Many streams on one model: whose turn it is, and rows of several streams in one product of matrices."""

from .engine import Engine
from .turnstile import Turnstile

__all__ = ["Engine", "Turnstile"]
