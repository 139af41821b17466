"""A question of a chat and its answer. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

import pdrop_video as pv


@dataclass(slots=True)
class Turn:
    """A question of the chat and what was answered so far.

    Attributes
    ----------
    question, text : str
    done : bool
    error : str
        Why there is no answer, one sentence.
    answer : Answer or None
        The whole of it, once it is done.
    """

    question: str
    text: str = ""
    done: bool = False
    error: str = ""
    answer: pv.Answer | None = None
