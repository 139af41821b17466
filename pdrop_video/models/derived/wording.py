"""What a processor writes around a video, around each of its steps and between two, found by having it write some.

Knows a `Scribe`. Refuses to know models.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...errors import ModelError
from .scribe import Scribe

_MOST = 64
"""Frames that a step may have."""


class Unwritten(ModelError):
    """The text of a video can't be written step by step."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the text of a video can't be written step by step by the checkpoint's own processor: {why}; this model "
            "type needs an adapter of its own."
        )


@dataclass(frozen=True, slots=True)
class Wording:
    """How a processor writes a video.

    Attributes
    ----------
    visual : str
        The token that stands for a visual one.
    frames : int
        Frames of a step.
    fills : bool
        Whether a last step that lacks frames has to be filled up before the processor takes it.
    opening, ending : str
        In front of the first step, behind the last one.
    separator : str
        Between two steps, written in front of the second.
    counters : tuple of int
        Which of the numbers in front of a step, counted from its end, count frames.
    closing : int
        Visual tokens behind the last step that belong to the video as a whole.
    plain : bool
        Whether nothing at all is written around steps.
    numbers : int
        Of a whole step; one that lacks frames may have fewer, the last ones of which it lacks.
    """

    visual: str
    frames: int
    fills: bool
    opening: str = ""
    ending: str = ""
    separator: str = ""
    counters: tuple[int, ...] = ()
    closing: int = 0
    plain: bool = False
    numbers: int = 0

    @classmethod
    def of(cls, scribe: Scribe) -> Wording:
        """Have some videos written and compare them.

        Raises
        ------
        Unwritten
            If what is written depends on more than a step's number and time.
        """
        return _found(scribe)

    def tokens(self, text: str) -> int:
        """Visual tokens of a step, from its text."""
        return text.count(self.visual) - self.closing

    def around(self, text: str, number: int) -> tuple[str, str]:
        """Text in front of and behind a stream's step, from the text of a video that is this step alone."""
        lead, _, tail = _cut(text, self.visual)
        if self.plain:
            return "", ""
        if not lead.startswith(self.opening) or not tail.endswith(self.ending):
            raise Unwritten(f"it writes {lead!r} ... {tail!r} around a step, and other text around another one")
        lead = lead[len(self.opening) :]
        lacking = max(self.numbers - len(re.findall(r"\d+", lead)), 0)
        lead = _counted(lead, tuple(c - lacking for c in self.counters if c >= lacking), number * self.frames)
        return (self.separator if number else "") + lead, tail[: len(tail) - len(self.ending)]


def _found(scribe: Scribe) -> Wording:
    write = _writer(scribe)
    visual = _visual(scribe, write(8))
    count = _counter(write, visual)
    frames, fills = _frames_per_step(count)
    one, two, three = (count(n * frames) for n in (1, 2, 3))
    if one is None or two is None or three is None or three - two != two - one or 2 * one < two:
        raise Unwritten(f"one, two and three steps of {frames} frames have {one}, {two} and {three} visual tokens")
    closing = 2 * one - two
    lead, _, tail = _cut(write(frames), visual)
    pieces = _pieces(write(2 * frames), visual)
    if len(pieces) == 2:  # one run of visual tokens, whatever the steps
        return Wording(visual, frames, fills, lead, tail, closing=closing, plain=True)
    if len(pieces) != 3 or closing:
        raise Unwritten(f"two steps of {frames} frames have {len(pieces) - 1} runs of visual tokens")
    # all at one moment first: what differs then is counted, and nothing else
    moment = [3.0] * (2 * frames)
    still, between = _cut(write(frames, moment[:frames]), visual)[0], _pieces(write(2 * frames, moment), visual)[1]
    counters = _counters(still, between, frames)
    known = scribe.tokenizer.get_added_vocab()
    step = _counted(still, counters, frames)
    own = _common(_units(step, known)[::-1], _units(between, known)[::-1])
    inner = "".join(own[::-1])
    if pieces[0] != lead:
        raise Unwritten(f"in front of one step stands {lead!r}, of two {pieces[0]!r}")
    opening, rest = step[: len(step) - len(inner)], between[: len(between) - len(inner)]
    if not lead.startswith(opening):
        raise Unwritten(f"what it writes in front of a video depends on the time, {opening!r} or {lead!r}")
    behind = _cut(write(frames, moment[:frames]), visual)[2]
    kept = "".join(_common(_units(rest, known), _units(behind, known)))
    ending = behind[len(kept) :]
    numbers = len(re.findall(r"\d+", lead[len(opening) :]))
    return Wording(visual, frames, fills, opening, ending, rest[len(kept) :], counters, numbers=numbers)


def _writer(scribe: Scribe) -> Callable[..., str]:
    """Writes a video of so many frames, each a second behind the one before unless told otherwise."""

    def write(frames: int, times: list[float] | None = None) -> str:
        seconds = tuple(float(i) for i in range(frames)) if times is None else tuple(times)
        return scribe([scribe.noise(frames)], [seconds], scribe.wide)[1][0]

    return write


def _visual(scribe: Scribe, text: str) -> str:
    """The token that stands for a visual one: one of those that the processor names, or else the most repeated."""
    for name in ("video_token", "image_token"):
        token = getattr(scribe.processor, name, None)
        if token and token * 2 in text:
            return str(token)
    added = scribe.tokenizer.get_added_vocab()
    token = max(added, key=lambda token: text.count(token * 2), default="")
    if not token or token * 2 not in text:
        raise Unwritten(f"no token is repeated in {text[:80]!r}")
    return str(token)


def _counter(write: Callable[..., str], visual: str) -> Callable[[int], int | None]:
    """Counts the visual tokens of a video of so many frames; None for a number that the processor refuses."""

    def count(frames: int) -> int | None:
        try:
            return write(frames).count(visual)
        except ValueError:  # Qwen3-VL's takes no video of one frame
            return None

    return count


def _frames_per_step(count: Callable[[int], int | None]) -> tuple[int, bool]:
    fewest = next((n for n in range(1, _MOST) if count(n) is not None), None)
    if fewest is None:
        raise Unwritten(f"it takes no video of up to {_MOST} frames")
    tokens, frames = count(fewest), fewest
    while count(frames + 1) == tokens:
        frames += 1
        if frames == _MOST:
            raise Unwritten(f"videos of {fewest} and of {_MOST} frames have {tokens} visual tokens alike")
    return frames, fewest > 1


def _pieces(text: str, visual: str) -> list[str]:
    """What stands around and between the runs of visual tokens."""
    return re.split(f"(?:{re.escape(visual)})+", text)


def _cut(text: str, visual: str) -> tuple[str, str, str]:
    """In front of the one run of visual tokens, the run, and behind it."""
    pieces = _pieces(text, visual)
    if len(pieces) != 2:
        raise Unwritten(f"a step has {len(pieces) - 1} runs of visual tokens, with text between them")
    return pieces[0], visual * text.count(visual), pieces[1]


def _units(text: str, known: Any) -> list[str]:
    """Special tokens whole, other text by its characters."""
    pattern = "|".join(re.escape(token) for token in sorted(known, key=len, reverse=True))
    return re.findall(f"{pattern}|." if pattern else ".", text, re.DOTALL)


def _common(a: list[str], b: list[str]) -> list[str]:
    """The longest common beginning."""
    length = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:length]


def _counters(lead: str, between: str, frames: int) -> tuple[int, ...]:
    """Which numbers of a step's text, from its end, are larger by `frames` a step later."""
    numbers, later = (re.findall(r"\d+", text)[::-1] for text in (lead, between))
    return tuple(i for i, (a, b) in enumerate(zip(numbers, later, strict=False)) if int(b) - int(a) == frames)


def _counted(lead: str, counters: tuple[int, ...], more: int) -> str:
    """The text with its counting numbers that much larger."""
    if not counters or not more:
        return lead
    pieces = re.split(r"(\d+)", lead)
    for counter in counters:
        at = len(pieces) - 2 - 2 * counter
        pieces[at] = str(int(pieces[at]) + more)
    return "".join(pieces)
