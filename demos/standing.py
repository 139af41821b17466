"""Standing questions, "tell me when ...": watches of the library, with what the page shows of them."""

from __future__ import annotations

import secrets
from collections import deque

import pdrop_video as pv

_EVERY = 1.0
"""Seconds of video between looks."""
_YES = ("Yes", "No")
"""As models begin such an answer; the built-in one's words have no capitals. Nothing is added to the question."""
_SHOWN = 5
"""Events that the page lists."""


class Standing:
    """One such question.

    Parameters
    ----------
    question : str
        For example "Is a dog in the picture?".
    wanted : str
        The answer to wait for, empty for yes; behind commas, what else may be answered.

    Attributes
    ----------
    key : str
        Tells it from others that ask the same.
    options : tuple of str
        What may be answered; the first is waited for.
    events : deque of Event
        The newest, oldest first.
    """

    def __init__(self, question: str, wanted: str = "") -> None:
        if not question.strip():
            raise pv.ConfigError("The question is empty; write what to look out for.")
        self.key = secrets.token_hex(4)
        self.question, self.wanted = question.strip(), wanted.strip() or "yes"
        given = tuple(each for part in self.wanted.split(",") if (each := part.strip()))
        if not given or len({option.lower() for option in given}) < len(given):
            raise pv.ConfigError(
                f"The answers are {self.wanted!r}; expected some that differ, with commas between: yes, or red, blue."
            )
        alone = given[0].lower() if len(given) == 1 else ""
        self.options = {"yes": _YES, "no": _YES[::-1]}.get(alone, given)
        self.events: deque[pv.Event] = deque(maxlen=_SHOWN)
        self._watch: pv.Watch | None = None

    def again(self) -> Standing:
        """The same question, of another video."""
        return Standing(self.question, self.wanted)

    def begin(self, stream: pv.VideoStream) -> None:
        """Look out from now on."""
        self._watch = stream.watch_for(self.question, _EVERY, options=self.options, call=self._note)

    def cancel(self) -> None:
        """Look out no more."""
        if self._watch is not None:
            self._watch.cancel()

    @property
    def true(self) -> bool:
        """Whether it is so at the newest look."""
        return self._watch is not None and self._watch.event is not None

    @property
    def now(self) -> str:
        """What the newest look found, in words."""
        watch = self._watch
        if watch is None or (watch.likelihood is None and watch.error is None):
            return "not asked yet"
        if watch.error is not None:
            return f"could not be asked: {watch.error}"
        return f"now {watch.likelihood:.0%} likely"

    def _note(self, event: pv.Event) -> None:
        if event.end is not None and self.events:
            self.events.pop()  # as it began
        self.events.append(event)
