"""When something begins and ends, from how likely it is at each look; and notes of what was seen. Plain data.

Knows seconds and likelihoods. Refuses to know streams, models and threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..common import checks
from ..errors import ConfigError


@dataclass(frozen=True, slots=True)
class Event:
    """What a watch looked out for began, or came to its end.

    Attributes
    ----------
    question : str
    begin : float
        Seconds of the video: the last frame watched at the look that was sure of it.
    end : float or None
        The same of the look at which it was over; None while it lasts.
    peak : float
        The largest likelihood of all looks from `begin` on.
    cut : bool
        Whether it did not end, but the watching did: `end` is then that of the last look.
    """

    question: str
    begin: float
    end: float | None
    peak: float
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """What a watch looks out for, and when it believes it; see `VideoStream.watch_for`."""

    question: str
    options: tuple[str, ...] = ("yes", "no")
    every: float = 2.0
    sure: float = 0.7
    clear: float = 0.4
    cooldown: float = 0.0

    def __post_init__(self) -> None:
        checks.text("question", self.question)
        options = tuple(checks.texts("options", self.options))
        if len(set(options)) < len(options):
            raise ConfigError(f"options are {checks.shown(options)}; expected each of them once.")
        sure, clear = (checks.real(name, getattr(self, name), 0, 1) for name in ("sure", "clear"))
        if clear >= sure:
            raise ConfigError(f"clear is {clear:g} and sure {sure:g}; expected clear below sure, such as 0.4 and 0.7.")
        cooldown = checks.real("cooldown", self.cooldown, 0)
        plain = dict(options=options, every=interval(self.every), sure=sure, clear=clear, cooldown=cooldown)
        for name, value in plain.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Phase:
    """Where a watch stands.

    Attributes
    ----------
    mark : int
        The number of the last mark at which it looked, -1 for none; see `mark_of`.
    event : Event or None
        What lasts.
    ended : float or None
        When the last one ended.
    seen : float or None
        When it looked last, as far as a look came to anything.
    likelihood : float or None
        What it was then.
    looks : int
        How many looks came to anything.
    """

    mark: int = -1
    event: Event | None = None
    ended: float | None = None
    seen: float | None = None
    likelihood: float | None = None
    looks: int = 0

    def after(self, terms: Terms, seconds: float, likelihood: float) -> tuple[Phase, Event | None]:
        """The phase after a look, and what began or ended with it.

        Nothing lasts: an event begins if the likelihood is `sure` or more and the last event ended `cooldown` seconds
        ago or earlier. One lasts: it ends if the likelihood is `clear` or less. Otherwise all stays as it is.
        """
        then = replace(self, seen=seconds, likelihood=likelihood, looks=self.looks + 1)
        if self.event is not None:
            event = replace(self.event, peak=max(self.event.peak, likelihood))
            if likelihood > terms.clear:
                return replace(then, event=event), None
            event = replace(event, end=seconds)
            return replace(then, event=None, ended=seconds), event
        rested = self.ended is None or seconds - self.ended >= terms.cooldown
        if likelihood >= terms.sure and rested:
            event = Event(terms.question, seconds, None, likelihood)
            return replace(then, event=event), event
        return then, None

    def cut(self) -> tuple[Phase, Event | None]:
        """The phase after the end of all looking."""
        if self.event is None:
            return self, None
        return replace(self, event=None, ended=self.seen), replace(self.event, end=self.seen, cut=True)


@dataclass(frozen=True, slots=True)
class Note:
    """A line about a stretch of the video.

    Attributes
    ----------
    begin, end : float
        The stretch, in seconds.
    text : str
    """

    begin: float
    end: float
    text: str

    def __str__(self) -> str:
        return f"[{clock(self.begin)}-{clock(self.end)}] {self.text}"


def interval(every: Any) -> float:
    """Seconds from mark to mark; a thousandth is the least that any clock of a video tells apart."""
    return checks.real("every", every, 0.001)


def mark_of(every: float, span: tuple[float, float]) -> int:
    """The number of the last mark passed: one stands at the first frame, and one every so many seconds behind it."""
    return int((span[1] - span[0]) // every)


def chance(means: Sequence[float]) -> float:
    """How likely the first of some answers is, from the mean log-probabilities of their tokens.

    Among all of them; of a single one, the mean probability of its tokens (geometric).

    Raises
    ------
    ConfigError
        If that is no number.
    """
    top = max(means)
    weights = [math.exp(mean - top) for mean in means]
    value = math.exp(means[0]) if len(means) == 1 else weights[0] / sum(weights)
    if not math.isfinite(value):
        raise ConfigError(f"the likelihood is {value}; expected a number. Load the model in another dtype.")
    return value


def clock(seconds: float) -> str:
    """Minutes and seconds, and hours from the first on, as a person writes a time of a video."""
    minutes, rest = divmod(math.floor(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def event_of(given: Mapping[str, Any]) -> Event:
    """An event out of a saved file; raises where there is none in it."""
    end, cut = given["end"], checks.switch("cut", given["cut"])
    begin, peak = checks.real("begin", given["begin"]), checks.real("peak", given["peak"], 0, 1)
    return Event(checks.text("question", given["question"]), begin, _maybe("end", end), peak, cut)


def phase_of(given: Mapping[str, Any]) -> Phase:
    """A phase out of a saved file; raises where there is none in it."""
    event = given["event"]
    return Phase(
        mark=checks.whole("mark", given["mark"], -1),
        event=None if event is None else event_of(event),
        ended=_maybe("ended", given["ended"]),
        seen=_maybe("seen", given["seen"]),
        likelihood=_maybe("likelihood", given["likelihood"]),
        looks=checks.whole("looks", given["looks"], 0),
    )


def note_of(given: Mapping[str, Any]) -> Note:
    """A note out of a saved file; raises where there is none in it."""
    begin, end = (checks.real(name, given[name]) for name in ("begin", "end"))
    return Note(begin, end, checks.text("a note", given["text"]))


def plain(data: Event | Phase | Note | Terms) -> dict[str, Any]:
    """What stands in a file of one of these."""
    return asdict(data)


def _maybe(name: str, value: Any) -> float | None:
    return None if value is None else checks.real(name, value)
