"""What pictures are made of: the figures that a stream and an answer give of themselves. Knows how neither is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

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


class SiftedStep(Protocol):
    """What entered the language model of a step of time; see `VideoStream.sifted`."""

    @property
    def frames(self) -> tuple[float, ...]:
        """Times of the frames that it shows."""

    @property
    def members(self) -> Tensor | None:
        """Of how many tokens that is a mean which entered at each place [rows, columns]; None for 1 everywhere."""

    @property
    def worth(self) -> Tensor | None:
        """Places that the gate found worth having [rows, columns]; None for all."""

    @property
    def merged(self) -> Tensor | None:
        """Places whose token became part of means elsewhere [rows, columns]; None for none."""


class Sifted(Protocol):
    """What became of the frames of a push; see `VideoStream.sifted`."""

    @property
    def skipped(self) -> tuple[tuple[float, float | None], ...]:
        """Times of frames that the gate left out, and of those that stand for them."""

    @property
    def waiting(self) -> tuple[float, ...]:
        """Times of frames that wait."""

    @property
    def steps(self) -> Sequence[SiftedStep]:
        """Steps that entered."""


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

    @property
    def sifted(self) -> Sifted:
        """What gate and reducer made of the last push."""

    def held(self, stage: int = 0) -> TokenTable:
        """What the layers of a stage remember."""
