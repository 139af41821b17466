"""Standing questions: "tell me when ...", asked after every chunk, with the moments at which it was true."""

from __future__ import annotations

from dataclasses import dataclass, field

import pdrop_video as pv

_LONGEST = 16
"""Tokens of an answer; what is looked for stands at its beginning."""


@dataclass(slots=True)
class Standing:
    """One such question.

    Parameters
    ----------
    question : str
        For example "Is a dog in the picture?".
    wanted : str
        The answer to wait for; empty for yes.

    Attributes
    ----------
    answer : str
        The newest answer.
    asked : int
        How often it was asked.
    spans : list of tuple of float
        From when to when the answer was the wanted one: times of the last frame watched when it was first given, and
        when it was last given.
    """

    question: str
    wanted: str = ""
    answer: str = ""
    asked: int = 0
    spans: list[tuple[float, float]] = field(default_factory=list)
    _true: bool = False

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise pv.ConfigError("The question is empty; write what to look out for.")
        self.question, self.wanted = self.question.strip(), self.wanted.strip() or "yes"

    @property
    def true(self) -> bool:
        """Whether the newest answer is the wanted one."""
        return self._true

    def ask(self, stream: pv.VideoStream) -> None:
        """Ask once, and note the moment if the wanted answer came or went."""
        prompt = self.question if self.wanted.lower() != "yes" else f"{self.question} Answer yes or no."
        answer = stream.ask(prompt, _LONGEST)
        now = answer.seconds[1]
        true = _begins(answer.text, self.wanted)
        if true and self._true:
            self.spans[-1] = self.spans[-1][0], now
        elif true:
            self.spans.append((now, now))
        self.answer, self.asked, self._true = answer.text, self.asked + 1, true


def _begins(text: str, wanted: str) -> bool:
    """Whether an answer begins with the wanted words, whatever their case and the punctuation around them."""
    said, looked_for = _words(text), _words(wanted)
    return said[: len(looked_for)] == looked_for


def _words(text: str) -> list[str]:
    return [word for part in text.lower().split() if (word := part.strip(".,;:!?\"'()*"))]
