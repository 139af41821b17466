"""Everything that a push changes, in one place. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..memory import StreamCache
from ..memory.table import time_dtype
from ..models import Place
from ..video import FrameChunk


@dataclass(slots=True)
class StreamState:
    """What a stream has come to; a fork of it can be changed without touching the original.

    Attributes
    ----------
    cache : StreamCache
    place : Place
        Where positions have come to.
    rows : int
        Tokens that entered so far, which is the next token's number in the stream.
    waiting : FrameChunk or None
        An odd frame that waits for its partner.
    told : tuple of str
        Text that goes in front of the next frame.
    answered : tuple of int or None
        After a turn that was kept, and until something follows it: those last tokens of the answer that the cache
        does not hold yet.
    chunks, steps, frames, visual_tokens : int
        What entered so far; a kept turn counts as a chunk and a step.
    first_step : int
        The step with which the running turn's video began.
    span : tuple of float or None
        Times of the first and the last frame.
    push_seconds : float
        Spent on all pushes so far.
    usual : dict of Tensor
        What a scorer that learns knows of the past, by the layer before which it ranks.
    kept : list of int
        How many visual tokens each stage kept of those that the running push brought.
    pieces : tuple of (int, int)
        Visual tokens and glue of each piece in which that push was run.
    """

    cache: StreamCache
    place: Place
    rows: int
    waiting: FrameChunk | None = None
    told: tuple[str, ...] = ()
    answered: tuple[int, ...] | None = None
    chunks: int = 0
    steps: int = 0
    frames: int = 0
    visual_tokens: int = 0
    first_step: int = 0
    span: tuple[float, float] | None = None
    push_seconds: float = 0.0
    usual: dict[int, Tensor] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)
    pieces: tuple[tuple[int, int], ...] = ()

    @property
    def since(self) -> float:
        """From when the tables count seconds: 0, or the first frame where the device has no float64."""
        first = 0.0 if self.span is None else self.span[0]
        return 0.0 if time_dtype(self.cache.tables[0].seconds.device) == torch.float64 else first

    def told_times(self, seconds: Tensor) -> Tensor:
        """A table's seconds as they were told, float64; on the host where the device has none."""
        return seconds if seconds.dtype == torch.float64 else seconds.cpu().double() + self.since

    def fork(self) -> StreamState:
        """The same state, free to go its own way."""
        return replace(self, cache=self.cache.fork(), kept=list(self.kept))
