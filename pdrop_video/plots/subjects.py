"""What pictures are made of: the figures that a stream and an answer give of themselves. Knows how neither is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..memory import TokenTable
from ..pyramid import Schedule


class Rested(Protocol):
    """What an answer rested on in one stage; see `pdrop_video.Evidence`."""

    @property
    def seconds(self) -> tuple[float, ...]:
        """The time of each step."""

    @property
    def weight(self) -> tuple[float, ...]:
        """How much the question's last token attended to each."""


class Answered(Protocol):
    """An answer; see `pdrop_video.Answer`."""

    @property
    def seconds(self) -> tuple[float, float]:
        """Times of the first and the last frame watched."""

    @property
    def evidence(self) -> Sequence[Rested]:
        """What each stage rested on, shallow to deep."""


class Scheduled(Protocol):
    """Layers that run in stages."""

    @property
    def schedule(self) -> Schedule:
        """Where the stages end."""


class Watched(Protocol):
    """A stream; see `pdrop_video.VideoStream`."""

    @property
    def lm(self) -> Any:
        """Its model, whose family says how many tokens a frame makes."""

    @property
    def loop(self) -> Scheduled:
        """Its stages."""

    @property
    def span(self) -> tuple[float, float] | None:
        """Times of the first and the last frame watched."""

    @property
    def visual_tokens(self) -> int:
        """Visual tokens that entered the language model so far."""

    @property
    def cache_bytes(self) -> int:
        """Bytes of the keys and values remembered."""

    @property
    def cache_bound(self) -> int | None:
        """Most that they can be."""

    def held(self, stage: int = 0) -> TokenTable:
        """What the layers of a stage remember."""
