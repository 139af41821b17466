"""Schedules found for a budget of FLOPs, offline."""

from .budget import Costs, shaped
from .quota import Measured, measure, quota_schedule, shares_left
from .search import Clip, Found, Tried, search

__all__ = [
    "Clip",
    "Costs",
    "Found",
    "Measured",
    "Tried",
    "measure",
    "quota_schedule",
    "search",
    "shaped",
    "shares_left",
]
