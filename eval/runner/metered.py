"""Streams that count what they cost, and the recency baseline in the same clothes.

Knows the streaming interface and the library's analytic FLOPs. Refuses to know tasks and records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape, logits_flops
from pdrop_video.costs.inside import inside_flops
from pdrop_video.costs.looking import Looked
from pdrop_video.costs.stream import StreamShape
from pdrop_video.pyramid.scorers import SCORERS, scorer_named
from pdrop_video.stream.cost import pushed_flops, shape_of
from pdrop_video.stream.turns import question_ids

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
        Analytic FLOPs of the language model so far, ranking included and the vision tower left out; without what a
        method inside layers leaves out, masked columns too.
    tower : float or None
        Those of the vision tower; None where the family does not say.
    front : float
        Those of gate and reducer.
    causal : bool
        See `layer_flops`.
    prefill : float
        Seconds spent on frames so far.
    visual_tokens : int
        That entered the language model so far.
    grid : (int, int) or None
        Rows and columns of visual tokens that a frame of the last push has, where none is dropped.
    """

    stream: pv.VideoStream
    shape: DecoderShape
    clock: Clock
    flops: float = 0.0
    tower: float | None = 0.0
    front: float = 0.0
    causal: bool = True
    prefill: float = 0.0
    visual_tokens: int = 0
    grid: tuple[int, int] | None = None
    _kept: list[int] | None = None

    def push(self, frames: pv.FrameChunk) -> None:
        """Watch frames."""
        self._kept = None
        held, before = self.stream.cache_tokens, self.stream._state
        with self.clock.part("model"), self.thinned() as saved:
            pushed = self.stream.push(frames)
        self.prefill += pushed.seconds
        self.visual_tokens += pushed.visual_tokens
        number, height, width = frames.frames.shape[:3]
        self.grid = self.stream.lm.adapter.grid(height, width)
        spent = pushed_flops(self.stream, self.shape, before, held, (number, height, width), self.causal)
        self.flops += (spent.decoder or 0) - saved()
        self.tower = None if self.tower is None or spent.tower is None else self.tower + spent.tower
        self.front += spent.gate + spent.reducer

    @contextmanager
    def thinned(self) -> Iterator[Callable[[], float]]:
        """What says, once the block is over, how many FLOPs a method inside layers saved in it."""
        inner = self.stream.loop.inner
        if inner is None:
            yield lambda: 0.0
        else:
            with inner.counting() as spent:
                yield lambda: inside_flops(self.shape, spent).saved

    def tell(self, text: str) -> None:
        """Let text enter at this moment."""
        with self.clock.part("model"):
            self.stream.add_text(text)

    def fork(self) -> Metered:
        """The same past, another future."""
        return replace(self, stream=self.stream.fork())

    def at_question(self) -> Metered:
        """What a question is put to: this stream itself."""
        return self

    def rows(self, text: str, answer_prefix: str = "") -> int:
        """Tokens of a question in its turn: the template's own, what closes the video and what was told before it."""
        return self._closing + len(question_ids(self.stream.lm, self.stream._state, text, answer_prefix))

    def asking_flops(
        self,
        rows: int,
        tokens: int,
        pyramid: pv.Pyramid | None = None,
        retrieve: int | None = None,
        options: Sequence[str] = (),
        looked: Looked | None = None,
        seen: Sequence[int] | None = None,
    ) -> float:
        """FLOPs of a question over what it attends to, and of an odd frame that it sees without its partner.

        Parameters
        ----------
        rows : int
            Tokens of the question; see `rows`.
        tokens : int
            Tokens generated, an end token included.
        pyramid, retrieve
            As for `attended`.
        options : sequence of str
            Answers whose likelihood was asked for behind that.
        looked : Looked, optional
            What the tokens generated saw and scored, where they look again (`Answer.looked`).
        seen : sequence of int, optional
            Columns that each layer shows to the options; by default all that the question saw, itself, and the tokens.
        """
        cost, own = self._cost(), self.stream.loop.schedule
        past, ranked = ([visual + text for visual, text in self.attended(how, retrieve)] for how in (pyramid, None))
        stages = own if pyramid is None else pyramid.resolve(own.num_layers, self.shape.rank_at)
        filling = 0
        if (piece := self._waiting) is not None:
            held = self.stream.cache_tokens
            left = cost.held(held, *piece)
            filling = cost.piece_flops(left, *piece)
            more = [now - b for now, b in zip(cost.after(left, *piece), held, strict=True)]
            past, ranked = ([n + m for n, m in zip(each, more, strict=True)] for each in (past, ranked))
        firsts = {layer: ranked[layer] for layer in cost.first_of(stages)}
        scorer = "relevance" if pyramid is None or pyramid.scorer is None else pyramid.scorer
        hiding = {i: n for i, n in firsts.items() if past[i] < n and scorer_named(scorer) != SCORERS["relevance"]}
        asks = rows - self._closing
        flops = filling + cost.asking_flops(past, rows, tokens, firsts, scorer, hiding, asks, looked)
        if retrieve is not None:  # each layer with an archive makes the question's queries to search by
            flops += sum(2 * rows * self.shape.attention(layer).asking for layer in self.shape.rank_at)
        shown = [n + rows + tokens - 1 for n in past] if seen is None else seen
        for option in options:
            words = len(self.stream.lm.prompt.words(option)) - 1
            flops += cost.text_flops(shown, words) + logits_flops(self.shape, words)
        return float(flops)

    def asking_tower(self) -> float | None:
        """FLOPs of the vision tower for frames that wait and a question sees all the same; None as for `tower`."""
        waiting = self.stream._state.waiting
        look = 0 if waiting is None else self.stream._ingest.front.look_flops(waiting)
        return None if look is None else float(look)

    @property
    def _waiting(self) -> tuple[int, int] | None:
        """Visual tokens, as if none were reduced, and glue of the steps whose frames wait."""
        state, adapter = self.stream._state, self.stream.lm.adapter
        if state.waiting is None:
            return None
        down, across = adapter.grid(*state.waiting.frames.shape[1:3])
        wording = adapter.wording(state.waiting.seconds, state.steps - state.first_step)
        glue = sum(len(adapter.ids(part)) for said in wording for part in said)
        worth = self.stream._ingest.front.worth(state.waiting)
        return (down * across * self._waiting_steps if worth is None else int(worth.sum())), glue

    @property
    def _waiting_steps(self) -> int:
        waiting = self.stream._state.waiting
        return 0 if waiting is None else -(-len(waiting) // self.stream.lm.adapter.frames_per_step)

    def attended(self, pyramid: pv.Pyramid | None = None, retrieve: int | None = None) -> list[tuple[int, int]]:
        """Visual tokens and tokens of text that a question attends to in each layer.

        Parameters
        ----------
        pyramid : Pyramid, optional
            What drops from the memory first.
        retrieve : int, optional
            Archived steps that each layer gets back before that; counted at their mean size.
        """
        own, visual, can = self.stream.loop.schedule, list(self._visual), self.shape.rank_at
        text = [length - held for length, held in zip(self.stream.cache_tokens, visual, strict=True)]
        if retrieve is not None:
            back = [self._brought_back(i, retrieve) if i in can else (0, 0) for i in range(own.num_layers)]
            visual = [held + more for held, (more, _) in zip(visual, back, strict=True)]
            text = [held + more for held, (_, more) in zip(text, back, strict=True)]
        if pyramid is not None:
            asking = pyramid.resolve(own.num_layers, can)
            most = asking.counts(visual[can[0]])  # a layer with less than its share of the first one's drops nothing
            shares = asking.per_layer_shares()
            visual = [
                held if share == 1 or layer not in can else min(held, most[asking.stage(layer)])
                for layer, (held, share) in enumerate(zip(visual, shares, strict=True))
            ]
        return list(zip(visual, text, strict=True))

    def _cost(self) -> StreamShape:
        """What its cost depends on, with the budget of each layer as it is now."""
        return shape_of(self.stream, self.shape, self.causal)

    @property
    def _closing(self) -> int:
        return len(self.stream.lm.adapter.closing())

    def _brought_back(self, layer: int, steps: int) -> tuple[int, int]:
        archive = self.stream._state.cache.archive
        assert archive is not None  # the settings say so
        there, visual, text = archive.extent(layer)
        share = min(steps, there) / there if there else 0.0
        return round(visual * share), round(text * share)

    @property
    def kept(self) -> list[int]:
        """Visual tokens remembered in each stage, shallow to deep, by its first layer that forgets by the budget."""
        return [0 if at is None else self._visual[at] for at in self.stream.loop.anchors]

    @property
    def _visual(self) -> list[int]:
        """Visual tokens that each layer remembers; counted once for all questions of a moment."""
        if self._kept is None:
            tables = self.stream._state.cache.tables  # `held` would sort them
            counts = {id(table): int(table.visual.sum()) for table in {id(table): table for table in tables}.values()}
            self._kept = [counts[id(table)] for table in tables]
        return self._kept


class LastFrames:
    """The recency baseline: no memory; each question sees the last few frames, with all that gate and reducer let by.

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
        self._last: deque[pv.FrameChunk] = deque(maxlen=frames)

    def push(self, frames: pv.FrameChunk) -> None:
        """Keep the newest frames."""
        newest = range(max(len(frames) - self._frames, 0), len(frames))
        self._last.extend(frames.part(i, i + 1).clone() for i in newest)  # not the whole chunk with them

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
            stream.push(pv.FrameChunk.cat(list(self._last)))
        return stream
