"""Schedules and recipes found for a budget, offline, from videos and questions; no right answers are needed."""

from .budget import Costs, shaped
from .judge import Clip, Objective
from .oracle import Oracle, evo_oracle
from .questions import QuestionSet
from .quota import Measured, measure, quota_schedule, shares_left
from .recipes import Candidate, Outcome, RecipeSearch
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
