"""Visual tokens and text into a stream's cache: the layer loop with a probe, within the budget.

Knows an adapter's embeddings and positions, the layer loop and the cache. Refuses to know frames, questions and
answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError
from .flops import DecoderShape
from .memory import Memory, StreamCache, TokenTable
from .memory.evictors import evictor_named
from .models import Adapter, Place, VisualChunk
from .pyramid import LayerLoop, Layout, Rows
from .video import FrameChunk


@dataclass(slots=True)
class StreamState:
    """Everything that a push changes; a fork of it can be changed without touching the original.

    Attributes
    ----------
    cache : StreamCache
    place : Place
        Where positions have come to.
    rows : int
        Tokens that entered so far, which is the next token's number in the stream.
    waiting : FrameChunk or None
        An odd frame that waits for its partner.
    chunks, steps, frames, visual_tokens : int
        What entered so far.
    span : tuple of float or None
        Times of the first and the last frame.
    usual : Tensor or None
        What a scorer that learns knows of the past.
    kept : list of int
        How many visual tokens each stage kept of those that the running push brought.
    """

    cache: StreamCache
    place: Place
    rows: int
    waiting: FrameChunk | None = None
    chunks: int = 0
    steps: int = 0
    frames: int = 0
    visual_tokens: int = 0
    span: tuple[float, float] | None = None
    usual: Tensor | None = None
    kept: list[int] = field(default_factory=list)

    def fork(self) -> StreamState:
        """The same state, free to go its own way."""
        return replace(self, cache=self.cache.fork())


class Ingestor:
    """Runs rows through the layers into a state's cache.

    Parameters
    ----------
    model : PreTrainedModel
    adapter : Adapter
        Its family.
    loop : LayerLoop
        Its layers and the schedule.
    memory : Memory
        The budget.
    prefix : list of int
        Token ids up to the video.
    probe : list of int
        Token ids that follow each chunk and rank it; their keys and values are thrown away.

    Raises
    ------
    ConfigError
        If the budget can't hold prefix and probe.
    """

    def __init__(
        self, model: Any, adapter: Adapter, loop: LayerLoop, memory: Memory, prefix: list[int], probe: list[int]
    ) -> None:
        self.model, self.adapter, self.loop, self.memory, self.prefix = model, adapter, loop, memory, prefix
        self.stages = len(loop.schedule.layers) + 1
        asks = self.stages > 1 and loop.scorer.uses_probe
        self.probe = torch.cat([adapter.closing(), adapter.embed(probe)]) if asks else adapter.embed([])
        schedule, shape = loop.schedule, DecoderShape.of(model.config)
        self.token_bytes = 2 * shape.kv_heads * shape.head_dim * model.dtype.itemsize
        self.budgets = memory.budgets(schedule.per_layer_shares(), self.token_bytes)
        if self.budgets is not None and min(self.budgets) <= self._text_tokens:
            raise ConfigError(
                f"{memory} leaves no room beside {self._text_tokens} tokens of prompt and probe: its smallest layer "
                f"may hold {min(self.budgets)}; give more."
            )

    @property
    def _text_tokens(self) -> int:
        return len(self.prefix) + len(self.probe)

    def begin(self) -> StreamState:
        """A state that holds the prompt up to the video."""
        layers = self.loop.schedule.num_layers
        state = StreamState(
            StreamCache(layers, self.budgets, evictor_named(self.memory.evictor)), Place(), rows=len(self.prefix)
        )
        if self.prefix:
            self.text(state, self.adapter.embed(self.prefix))
        state.cache.tables = [TokenTable.text(len(self.prefix), self.probe.device)] * layers
        return state

    def visual(self, state: StreamState, chunk: VisualChunk) -> None:
        """Run a chunk through the stages into the cache, in pieces if the budget is small."""
        for piece in chunk.split(self._steps_at_once(chunk)):
            self._prefill(state, piece)
        state.chunks += 1

    def _steps_at_once(self, chunk: VisualChunk) -> int:
        """How many steps of a chunk may be in flight together."""
        if self.budgets is None:
            return len(chunk.steps)
        glue = max(chunk.steps) - math.prod(chunk.size)

        def fits(steps: int, share: float) -> bool:
            """Whether so many steps take at most `share` of the room of every layer."""
            assert self.budgets is not None
            incoming = self._incoming(steps * math.prod(chunk.size), steps * glue)
            text = len(self.prefix)
            return all(n <= (b - text) * share for n, b in zip(incoming, self.budgets, strict=True))

        if fits(len(chunk.steps), 1.0):
            return len(chunk.steps)
        if not fits(1, 1.0):
            raise ConfigError(
                f"{self.memory} can't hold one step of {max(chunk.steps)} tokens beside {self._text_tokens} tokens of "
                "prompt and probe; give more, or smaller frames."
            )
        # a chunk that would push everything else out goes in pieces that leave half of the room to the past
        return max(steps for steps in range(1, len(chunk.steps)) if steps == 1 or fits(steps, 0.5))

    def _incoming(self, visual: int, glue: int) -> list[int]:
        """Columns that each layer takes while so many tokens are in flight, the probe included."""
        last = max(self.loop.schedule.layers, default=0)
        per_layer = self.loop.schedule.per_layer(visual)
        return [n + glue + (len(self.probe) if i < last else 0) for i, n in enumerate(per_layer)]

    def _prefill(self, state: StreamState, piece: VisualChunk) -> None:
        """One run of the layer loop: visual tokens, then the probe, whose keys and values are thrown away."""
        positions, place = self.adapter.place(piece, state.place)
        count, asked, device = len(piece), len(self.probe), piece.embeds.device
        schedule, glue = self.loop.schedule, count - piece.visual_tokens
        table = _table(state, piece)
        per_layer = [n + glue for n in schedule.per_layer(piece.visual_tokens)]
        hidden = torch.cat([piece.embeds, self.probe.to(piece.embeds)])
        positions = torch.cat([positions, self.adapter.positions.text(asked, place)[0]], dim=-1)
        row = torch.arange(len(hidden), device=device)[None]
        state.cache.make_room(self._incoming(piece.visual_tokens, glue))
        before = state.cache.lengths()
        rows = self.loop.run(
            hidden[None],
            positions.to(device),
            torch.nn.functional.pad(piece.visual, (0, asked))[None],
            probe=row[:, -1:],
            transient=row >= count,
            layout=_layout(table, piece, state.steps, asked),
            usual=state.usual,
            cache=state.cache,
            deepstack=[torch.nn.functional.pad(f, (0, 0, 0, asked))[None] for f in piece.deepstack] or None,
        )
        state.usual = rows.usual
        state.cache.truncate([b + n for b, n in zip(before, per_layer, strict=True)])
        state.cache.record(self._tables(table, piece.visual_tokens, rows))
        state.place, state.rows, state.steps = place, state.rows + count, state.steps + len(piece.steps)
        state.visual_tokens += piece.visual_tokens
        kept = schedule.counts(piece.visual_tokens)
        state.kept = [a + b for a, b in zip(state.kept or [0] * self.stages, kept, strict=True)]

    def _tables(self, whole: TokenTable, visual_tokens: int, rows: Rows) -> list[TokenTable]:
        """What each layer now holds more: the rows of its stage, with the score of the stage's closing boundary."""
        schedule, count = self.loop.schedule, len(whole)
        alive, score = torch.arange(count, device=whole.index.device), whole.score
        held = [n + count - visual_tokens for n in schedule.counts(visual_tokens)]
        tables = []
        for stage in range(self.stages):
            if stage > 0:  # the chunk's rows came before the probe, so they are still the first of what was kept
                alive = rows.boundaries[stage - 1].kept[0, : held[stage]]
            if stage < len(rows.boundaries):  # the stage's own tokens are ranked where it ends
                score = score.scatter(0, alive, rows.boundaries[stage].scores[0, : held[stage]].float())
            tables.append(replace(whole, score=score).take(alive))
        return [tables[schedule.stage(layer)] for layer in range(schedule.num_layers)]

    def text(self, state: StreamState, embeds: Tensor) -> Tensor:
        """Run text rows over the cache; returns the last one's logits [vocabulary]."""
        positions, state.place = self.adapter.positions.text(len(embeds), state.place)
        rows = self.loop.run(embeds[None], positions.to(embeds.device), None, cache=state.cache)
        last = self.loop.text.norm(rows.hidden[:, -1:])
        return self.model.get_output_embeddings()(last)[0, -1]


def _table(state: StreamState, piece: VisualChunk) -> TokenTable:
    """What the tokens of a chunk are, before any is dropped."""
    count, device = len(piece), piece.embeds.device
    height, width = piece.size
    steps = torch.tensor(piece.steps, device=device)
    step = torch.arange(len(piece.steps), device=device).repeat_interleave(steps, output_size=count)
    seconds = torch.tensor(piece.seconds, device=device).repeat_interleave(steps, output_size=count)
    place = (piece.visual.cumsum(0) - 1) % (height * width)  # of a visual token among those of its step
    return TokenTable(
        index=torch.arange(state.rows, state.rows + count, device=device),
        seconds=seconds,
        chunk=torch.full_like(step, state.chunks),
        step=step + state.steps,
        row=torch.where(piece.visual, place // width, -1),
        column=torch.where(piece.visual, place % width, -1),
        score=torch.zeros(count, device=device),
        visual=piece.visual,
    )


def _layout(table: TokenTable, piece: VisualChunk, first: int, text: int) -> Layout:
    """Where a chunk's tokens and the text behind them stand; steps are counted from the stream's step `first`."""
    frame = torch.where(piece.visual, table.step - first, -1)
    place = torch.where(piece.visual, table.row * piece.size[1] + table.column, -1)
    frame, place = (torch.nn.functional.pad(of, (0, text), value=-1)[None] for of in (frame, place))
    return Layout(frame, place, len(piece.steps), math.prod(piece.size))
