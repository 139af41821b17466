"""Schedules found for a budget of FLOPs, offline."""

from .budget import Costs, shaped
from .search import Clip, Found, Tried, search

__all__ = ["Clip", "Costs", "Found", "Tried", "search", "shaped"]
