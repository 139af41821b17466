"""Standing questions of a session: asked again and again of what is remembered; events say when an answer changes.

The place where a session's pushes meet what the library does for proactive use; knows likelihoods, and no requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..stream import AsyncVideoStream
from .events import Events
from .metrics import Metrics


@dataclass(slots=True)
class Standing:
    """One question that is answered by yes or no.

    Attributes
    ----------
    question : str
    every : float
        Seconds of video from one look to the next.
    sure, clear : float
        Probability of yes from which on it holds, and down to which it no longer does.
    holds_since : float or None
        The second from which on it holds.
    due : float
        The second from which on to look again.
    """

    question: str
    every: float
    sure: float
    clear: float
    holds_since: float | None = None
    due: float = -math.inf


class Watchman:
    """All standing questions of one stream.

    Parameters
    ----------
    stream : AsyncVideoStream
    questions : list of Standing
    events : Events
    metrics : Metrics
    """

    def __init__(self, stream: AsyncVideoStream, questions: list[Standing], events: Events, metrics: Metrics) -> None:
        self.questions = questions
        self._stream, self._events, self._metrics = stream, events, metrics

    async def look(self, second: float) -> None:
        """Ask what is due, after frames up to a second were watched."""
        for each in self.questions:
            if second < each.due:
                continue
            each.due = second + each.every
            yes, no = await self._stream.likelihood(each.question, ["Yes", "No"])
            sure = 1 / (1 + math.exp(min(no - yes, 700.0)))
            if each.holds_since is None and sure >= each.sure:
                each.holds_since = second
                self._tell("begins", each, sure, begins=second)
            elif each.holds_since is not None and sure <= each.clear:
                begins, each.holds_since = each.holds_since, None
                self._tell("ends", each, sure, begins=begins, ends=second)

    def _tell(self, name: str, each: Standing, sure: float, **times: float) -> None:
        self._metrics.events.inc()
        self._events.add(name, question=each.question, probability=round(sure, 4), **times)
