"""Where text may stand: what the budget holds, and the positions that the model was trained on.

Knows a stream's place and the window of its cache. Refuses to know models and what a text says.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError
from ..memory import Ahead, Limits, Memory
from ..models import Place
from .state import StreamState


@dataclass(frozen=True, slots=True)
class Reach:
    """The room that text finds.

    What is remembered stays within the window, which ends before the trained range does; a question and its answer may
    use all of the range behind it. Where a question makes what is remembered move, it does so by its own length,
    whatever the length of the answer to come: the answer's first token does not depend on how long it may become.

    Attributes
    ----------
    memory : Memory
        For messages.
    limits : Limits
    trained : int
        Positions that the model was trained on.
    prefix : int
        Tokens up to the video.
    text : int
        The same with those of the probe, as far as it is used.
    """

    memory: Memory
    limits: Limits
    trained: int
    prefix: int
    text: int

    @property
    def room(self) -> int:
        """Most tokens of text that the memory can take at once, should all but prompt and probe make way."""
        window = self.limits.window
        return min([self.trained if window is None else window.limit, *(self.limits.entering or ())]) - self.text

    def check_prompt(self) -> None:
        """Whether prompt and probe leave room for anything."""
        smallest = None if self.limits.entering is None else min(self.limits.entering)
        if smallest is not None and smallest <= self.text:
            raise ConfigError(
                f"{self.memory.said} leaves no room beside {self.text} tokens of prompt and probe: its smallest layer "
                f"may hold {smallest}; give more."
            )
        if self.room < 1:
            raise ConfigError(
                f"{self.text:,} tokens of prompt and probe leave no room in the {self.text + self.room:,} positions "
                f"that a memory may use of the {self.trained:,} that the model was trained on; expected fewer. Shorten "
                "the system prompt or the standing question."
            )

    def check_text(self, tokens: int, what: str = "text") -> None:
        """Whether the memory can hold so many tokens of text."""
        if tokens > self.room:
            raise ConfigError(
                f"{self.memory.said} can't hold {tokens:,} tokens of {what} beside {self.text:,} of prompt and probe, "
                f"with a model that was trained on {self.trained:,} positions: there is room for {self.room:,}; give "
                "more, or keep less text."
            )

    def check_question(self, state: StreamState, tokens: int) -> None:
        """Whether so many tokens find positions in the trained range, behind all that is remembered.

        Where positions never move or nothing is forgotten, whatever the range, there must only not be more of them than
        it has.
        """
        here = text_ahead(state.place, 0)
        if self.limits.window is None or self.limits.tokens is None:
            room = self.trained - self.prefix
        elif all(here.next - shift.text + tokens <= self.trained for shift in state.cache.stood):
            return
        else:
            room = state.cache.room(here, self.trained)
        if tokens > room:
            raise ConfigError(
                f"the question has {tokens:,} tokens, with what was told since the last frame and what the answer "
                f"begins with; there is room for {max(room, 0):,} behind what is remembered, in the {self.trained:,} "
                "positions that the model was trained on. Ask in fewer words, or let less be remembered."
            )


def ahead_of(place: Place, first: int, after: int, end: Place) -> Ahead:
    """Rows that begin at `first` of a video that runs, or not yet, at `place`; text behind them goes to `end`."""
    running = place.start is not None and place.reach
    return Ahead(first, end.next, after, place.start if running else None, place.reach if running else None)


def text_ahead(place: Place, tokens: int) -> Ahead:
    """So many rows of text at `place`."""
    return ahead_of(place, place.next, place.next, Place(place.next + tokens))
