"""Schedules and recipes found for a budget, offline, from videos and questions; no right answers are needed."""

from .budget import Costs, shaped
from .judge import Clip, Objective
from .oracle import Oracle, evo_oracle
from .questions import QuestionSet
from .recipes import Candidate, Outcome, RecipeSearch
from .search import Found, Tried, search
from .space import Budget, Space

__all__ = [
    "Budget",
    "Candidate",
    "Clip",
    "Costs",
    "Found",
    "Objective",
    "Oracle",
    "Outcome",
    "QuestionSet",
    "RecipeSearch",
    "Space",
    "Tried",
    "evo_oracle",
    "search",
    "shaped",
]
