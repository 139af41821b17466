"""Schedules and recipes found for a budget, offline, from videos and questions; no right answers are needed."""

from .budget import Costs, shaped
from .judge import Clip, Objective
from .oracle import Oracle, evo_oracle
from .outcome import Candidate, Outcome
from .questions import QuestionSet
from .quota import Measured, measure, quota_schedule, shares_left
from .recipes import RecipeSearch
from .search import Found, Tried, search
from .space import Budget, Space

__all__ = [
    "Budget",
    "Candidate",
    "Clip",
    "Costs",
    "Found",
    "Measured",
    "Objective",
    "Oracle",
    "Outcome",
    "QuestionSet",
    "RecipeSearch",
    "Space",
    "Tried",
    "evo_oracle",
    "measure",
    "quota_schedule",
    "search",
    "shaped",
    "shares_left",
]
