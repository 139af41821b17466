"""Streams that count what they cost, and the recency baseline in the same clothes.

Knows the streaming interface and the library's analytic FLOPs. Refuses to know tasks and records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape, decode_flops, layer_flops, prefill_flops

from .clock import Clock


@dataclass(slots=True)
class Metered:
    """A `VideoStream` that counts.

    Attributes
    ----------
    stream : VideoStream
    shape : DecoderShape
        Of its model.
    clock : Clock
        Where its time goes.
    flops : float
        Analytic FLOPs of the language model so far, ranking included and the vision tower left out.
    prefill : float
        Seconds spent on frames so far.
    visual_tokens : int
        That entered the language model so far.
    """

    stream: pv.VideoStream
    shape: DecoderShape
    clock: Clock
    flops: float = 0.0
    prefill: float = 0.0
    visual_tokens: int = 0
    _kept: list[int] | None = None

    def push(self, frames: pv.FrameChunk) -> None:
        """Watch frames."""
        self._kept = None
        with self.clock.part("model"):
            pushed = self.stream.push(frames)
        self.prefill += pushed.seconds
        self.visual_tokens += pushed.visual_tokens
        if not pushed.visual_tokens:
            return
        schedule = self.stream.loop.schedule
        new = [pushed.kept[schedule.stage(layer)] for layer in range(schedule.num_layers)]
        past = tuple(max(held - n, 0) for held, n in zip(self.stream.cache_tokens, new, strict=True))
        self.flops += prefill_flops(self.shape, schedule, pushed.visual_tokens, 0, past)

    def tell(self, text: str) -> None:
        """Let text enter at this moment."""
        before, self._kept = self.stream.cache_tokens, None
        with self.clock.part("model"):
            self.stream.tell(text)
        rows = _tokens(self.stream.lm, text)
        self.flops += sum(layer_flops(self.shape, rows, past) for past in before)

    def fork(self) -> Metered:
        """The same past, another future."""
        return replace(self, stream=self.stream.fork())

    def at_question(self) -> Metered:
        """What a question is put to: this stream itself."""
        return self

    def rows(self, text: str) -> int:
        """Tokens of a user's text in its turn, the template's own included."""
        return _tokens(self.stream.lm, text) + _template_tokens(self.stream.lm)

    def asking_flops(
        self, rows: int, tokens: int, pyramid: pv.Pyramid | None = None, retrieve: int | None = None
    ) -> float:
        """FLOPs of a question over what it attends to.

        Parameters
        ----------
        rows : int
            Tokens of the question.
        tokens : int
            Tokens generated.
        pyramid, retrieve
            As for `attended`.
        """
        past = [visual + text for visual, text in self.attended(pyramid, retrieve)]
        read = sum(layer_flops(self.shape, rows, held) for held in past) + 2 * self.shape.hidden * self.shape.vocabulary
        return float(read + decode_flops(self.shape, tuple(held + rows for held in past), max(tokens - 1, 0)))

    def attended(self, pyramid: pv.Pyramid | None = None, retrieve: int | None = None) -> list[tuple[int, int]]:
        """Visual tokens and tokens of text that a question attends to in each layer.

        Parameters
        ----------
        pyramid : Pyramid, optional
            What drops from the memory first.
        retrieve : int, optional
            Archived steps that each layer gets back before that; counted at their mean size.
        """
        own, kept = self.stream.loop.schedule, self.kept
        visual = [kept[own.stage(layer)] for layer in range(own.num_layers)]
        text = [length - held for length, held in zip(self.stream.cache_tokens, visual, strict=True)]
        if retrieve is not None:
            back = [self._brought_back(layer, retrieve) for layer in range(own.num_layers)]
            visual = [held + more for held, (more, _) in zip(visual, back, strict=True)]
            text = [held + more for held, (_, more) in zip(text, back, strict=True)]
        if pyramid is not None:
            asking = pyramid.resolve(own.num_layers)
            most = asking.counts(visual[0])  # a layer with less than its share of the first one's drops nothing
            shares = asking.per_layer_shares()
            visual = [
                held if share == 1 else min(held, most[asking.stage(layer)])
                for layer, (held, share) in enumerate(zip(visual, shares, strict=True))
            ]
        return list(zip(visual, text, strict=True))

    def _brought_back(self, layer: int, steps: int) -> tuple[int, int]:
        archive = self.stream._state.cache.archive
        assert archive is not None  # the settings say so
        there, visual, text = archive.extent(layer)
        share = min(steps, there) / there if there else 0.0
        return round(visual * share), round(text * share)

    @property
    def kept(self) -> list[int]:
        """Visual tokens remembered in each stage, shallow to deep; counted once for all questions of a moment."""
        if self._kept is None:
            tables = self.stream._state.cache.tables  # `held` would sort them
            spans = self.stream.loop.schedule.spans
            self._kept = [int(tables[span[0]].visual.sum()) if span else 0 for span in spans]
        return self._kept


def _tokens(lm: pv.VideoLM, text: str) -> int:
    return len(lm.tokenizer(text, add_special_tokens=False)["input_ids"])


@lru_cache(maxsize=8)
def _template_tokens(lm: pv.VideoLM) -> int:
    return len(lm.prompt.after("a")) - _tokens(lm, "a")


class LastFrames:
    """The recency baseline: no memory; each question sees the last few frames, with all their tokens.

    On several streaming benchmarks it beats most memories (arXiv 2604.02317), so a memory that does not beat it is not
    worth its cost.

    Parameters
    ----------
    begin : callable
        Opens a stream that drops and forgets nothing.
    frames : int
        How many.
    """

    def __init__(self, begin: Callable[[], Metered], frames: int) -> None:
        self._begin, self._frames = begin, frames
        self._last: deque[tuple[torch.Tensor, float]] = deque(maxlen=frames)

    def push(self, frames: pv.FrameChunk) -> None:
        """Keep the newest frames."""
        pictures = frames.frames[-self._frames :].clone()  # not the whole chunk with them
        self._last.extend(zip(pictures, frames.seconds[-self._frames :], strict=True))

    def tell(self, text: str) -> None:
        """Forget it: this baseline sees frames only."""

    def fork(self) -> LastFrames:
        """The same frames, free to go its own way."""
        twin = LastFrames(self._begin, self._frames)
        twin._last = self._last.copy()
        return twin

    def at_question(self) -> Metered:
        """A new stream that has seen the kept frames and nothing else."""
        stream = self._begin()
        if self._last:
            pictures, seconds = zip(*self._last, strict=True)
            stream.push(pv.FrameChunk(torch.stack(pictures), seconds))
        return stream
