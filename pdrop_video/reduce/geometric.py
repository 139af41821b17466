"""How much of a budget a question about places should get for lines and places: a rule of words, ours."""

from __future__ import annotations

import re

_WHERE = re.compile(
    r"\b(where|count|how (many|far|long|wide)|road|line|left|right|above|below|between|behind|beside|path|route"
    r"|direction|distance|position|locat\w+|boundar\w+|edge|edges)\b",
    re.IGNORECASE,
)
"""What a question about places and extents says."""
_GEOMETRIC, _EVEN = 0.7, 0.5


def geometric_by_rule(asked: str | None) -> float:
    """.7 where the question has a word for places, counts or lines, and else .5; DualComp's lambda_rule."""
    return _GEOMETRIC if asked and _WHERE.search(asked) else _EVEN
