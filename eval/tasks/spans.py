"""Stretches of time in what a model said: as two harnesses read them, and as they were meant.

Knows text and seconds. As in `letters`, what is not sure is not read by `span_in`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from .said import plain, without_thoughts

Span: TypeAlias = tuple[float, float]
"""Begin and end, in seconds."""

Reader: TypeAlias = Callable[[str], Span | None]

_CUED = re.compile("start|end|happen")
_SENTENCE_ENDS = re.compile(r"[!?\n]")
_DASH = "[–-]"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2})?"
_PLAIN = r"\d+(?:\.\d+)?"
_LOOSE = r"\d+\.?\d*"

_HARNESS_RANGES = (
    re.compile(rf"\b({_CLOCK})\s*{_DASH}\s*({_CLOCK})\b"),
    re.compile(rf"({_PLAIN})\s*{_DASH}\s*({_PLAIN})"),
)
_HARNESS_CLOCK = re.compile(rf"\b({_CLOCK})\b")
_HARNESS_NUMBER = re.compile(rf"\b({_PLAIN})\b")
_HARNESS_UNITS = re.compile(rf"({_PLAIN})\s*s?\s*{_DASH}\s*({_PLAIN})\s*s?")

_TIMELENS_CLOCK = re.compile(rf"\b({_CLOCK}(?:\.\d+)?)\b")
_TIMELENS_RANGES = (re.compile(rf"({_LOOSE})\s*-\s*({_LOOSE})"), re.compile(rf"({_LOOSE})\s+to\s+({_LOOSE})"))
_TIMELENS_NUMBER = re.compile(r"\b(\d+\.\d+|\d+)\b")

_SECONDS, _MINUTES, _HOURS = r"s(?:ec(?:ond)?s?)?\b", r"m(?:in(?:ute)?s?)?\b", r"h(?:(?:ou)?rs?)?\b"
_TIME = re.compile(
    r"(?<![\w.:])(?:"
    r"(?P<clock>\d{1,3}(?::\d{2}){1,2}(?:\.\d+)?)"
    rf"|(?:(?P<hours>\d+)\s*{_HOURS}[\s,]*)?(?P<minutes>\d+)\s*{_MINUTES}"
    rf"(?:[\s,]*(?:and\s+)?(?P<more>\d+(?:\.\d+)?)\s*{_SECONDS})?"
    rf"|(?P<seconds>\d+(?:\.\d+)?|\.\d+)(?:\s*{_SECONDS})?"
    r")(?![\d:]|\.\d|\w)",
    re.IGNORECASE,
)
_BETWEEN = re.compile(
    r"\s*(?:seconds?|s|mark)?\s*[\])]?\s*(?:[-–—~]+|,|;|\.\.+|->|→"
    r"|(?:,?\s*and\s+)?(?:ends?|ending|finish(?:es|ing)?|stops?)\s+(?:at|by|around)"
    r"|,?\s*(?:and|to|until|till|through|up to))\s*(?:about\s+|around\s+|the\s+)?[\[(]?\s*",
    re.IGNORECASE,
)
_BEGINS = re.compile(r"\b(?:start|begin|from|onset)\w*\b[^.!?\n\d]{0,40}$", re.IGNORECASE)
_ENDS = re.compile(r"\b(?:end|finish|stop|until|till)\w*\b[^.!?\n\d]{0,40}$", re.IGNORECASE)
_KEYS = (("start", "end"), ("start_time", "end_time"), ("begin", "end"), ("from", "to"))


def overlap(said: Span | None, truth: Span) -> float:
    """Intersection over union of two stretches of time; 0 for one that was not read.

    Examples
    --------
    >>> overlap((0.0, 6.0), (3.0, 9.0)), overlap((9.0, 3.0), (3.0, 9.0)), overlap(None, (3.0, 9.0))
    (0.3333333333333333, 0.0, 0.0)
    """
    if said is None:
        return 0.0
    whole = max(said[1], truth[1]) - min(said[0], truth[0])
    return 0.0 if whole <= 0 else max(min(said[1], truth[1]) - max(said[0], truth[0]), 0.0) / whole


def harness_span(response: str) -> Span | None:
    """Read as lmms-eval's Charades-STA does: times that follow on each other in sentences of start, end and happen.

    A range of clock times first, then one of numbers, then two clock times, then the first number of two sentences,
    then a range with "s" behind its numbers; in the order of time.
    """
    text = response.lower().replace("a specific example is : 20.8 - 30.0 seconds", "").replace("to", "-")
    sentences = _SENTENCE_ENDS.split(text)
    about = [sentence for sentence in sentences if _CUED.search(sentence)] or sentences
    pairs = [_first(pattern, about) for pattern in _HARNESS_RANGES]
    pairs.append(_pair([time for sentence in about for time in _HARNESS_CLOCK.findall(sentence)]))
    firsts = [_HARNESS_NUMBER.search(sentence) for sentence in about]
    pairs.append(_pair([found[1] for found in firsts if found]))
    pairs.append(_first(_HARNESS_UNITS, about))
    pair = next((pair for pair in pairs if pair is not None), None)
    return None if pair is None else (min(pair), max(pair))


def timelens_span(response: str) -> Span | None:
    """Read as TimeLens does, to whole seconds: two clock times, else a range of numbers, else two numbers."""
    text = response.lower()
    pairs = [_pair(_TIMELENS_CLOCK.findall(text))]
    pairs += [_first(pattern, [text]) for pattern in _TIMELENS_RANGES]
    pairs.append(_pair(_TIMELENS_NUMBER.findall(text)))
    pair = next((pair for pair in pairs if pair is not None), None)
    return None if pair is None else (float(round(pair[0])), float(round(pair[1])))


def _first(pattern: re.Pattern[str], texts: Iterable[str]) -> Span | None:
    """The first range in the first text that has one."""
    found = next((match for match in map(pattern.search, texts) if match), None)
    return None if found is None else (_seconds(found[1]), _seconds(found[2]))


def _pair(times: Sequence[str]) -> Span | None:
    return (_seconds(times[0]), _seconds(times[1])) if len(times) > 1 else None


def _seconds(time: str) -> float:
    return sum(float(part) * 60**power for power, part in enumerate(reversed(time.split(":"))))


def span_in(response: str) -> Span | None:
    """The only stretch of time that a response names; None where it names none, or several.

    Examples
    --------
    >>> span_in("The event 'turn 2 lights on' happens in 24.3 - 30.4 seconds.")
    (24.3, 30.4)
    >>> span_in("It starts at 1 min 5 s and ends at 01:10."), span_in('{"start": 3, "end": "0:07"}')
    ((65.0, 70.0), (3.0, 7.0))
    >>> span_in("From 3 to 5 s, or from 7 to 9 s."), span_in("At 5 s."), span_in("From 9 s to 3 s.")
    (None, None, None)
    """
    kept = without_thoughts(response).strip()
    found = _in_json(kept)
    if found is None:
        found = _in_text(plain(kept) or kept)
    spans = set(found)
    span = spans.pop() if len(spans) == 1 else None
    return None if span is None or span[1] < span[0] else span


def _in_json(text: str) -> list[Span] | None:
    """Spans in a text that is JSON as a whole; None if it is none, or no pair of times."""
    if text[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _of_value(value)


def _of_value(value: Any) -> list[Span] | None:
    if isinstance(value, dict):
        pair = next(([value[a], value[b]] for a, b in _KEYS if a in value and b in value), None)
        return _of_value(pair if pair is not None else next(iter(value.values())) if len(value) == 1 else None)
    if isinstance(value, list) and len(value) == 2 and not any(isinstance(one, list | dict) for one in value):
        times = [_TIME.fullmatch(str(one).strip()) for one in value]
        return [(_of_match(times[0]), _of_match(times[1]))] if times[0] and times[1] else None
    if isinstance(value, list):
        each = [_of_value(one) for one in value]
        return [span for spans in each if spans for span in spans] if all(each) else None
    return None


def _in_text(text: str) -> list[Span]:
    """Ranges; else a beginning and an end that are said to be such; else the two times that there are."""
    times = list(_TIME.finditer(text))
    pairs = [(one, two) for one, two in pairwise(times) if _BETWEEN.fullmatch(text, one.end(), two.start())]
    if not pairs:
        begins = [time for time in times if _BEGINS.search(text[: time.start()])]
        ends = [time for time in times if _ENDS.search(text[: time.start()])]
        pairs = [(begins[0], ends[0])] if len(begins) == len(ends) == 1 else []
    if not pairs and len(times) == 2:
        pairs = [(times[0], times[1])]
    return [(_of_match(one), _of_match(two)) for one, two in pairs]


def _of_match(time: re.Match[str]) -> float:
    if time["clock"]:
        return _seconds(time["clock"])
    if time["minutes"]:
        return 3600.0 * float(time["hours"] or 0) + 60.0 * float(time["minutes"]) + float(time["more"] or 0)
    return float(time["seconds"])
