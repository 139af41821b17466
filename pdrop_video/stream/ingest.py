"""Visual tokens and text into a stream's cache: the layer loop with a probe, within the budget.

Knows an adapter's embeddings and positions, the layer loop and the cache. Refuses to know frames, questions and
answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..costs.decoder import DecoderShape
from ..engine import Turnstile
from ..errors import ConfigError
from ..memory import Memory, Range, StreamCache, TokenTable
from ..memory.evictors import evictor_named
from ..memory.storages import asks_in
from ..models import Hearing, Place, VisualChunk
from ..pyramid import LayerLoop
from ..pyramid.compiled import CompiledStep
from .front import Front
from .limits import Sizes, archive_of, fixed_rope, limits_of, refuse_latent, state_bytes, steps_at_once
from .passage import MemoryPassage
from .reach import Reach, ahead_of
from .records import bound_of, chunk_table, layout_of, sound_of, stage_tables
from .state import StreamState
from .text_rows import TextRows


class Ingestor(TextRows):
    """Runs rows through the layers into a state's cache.

    Parameters
    ----------
    model : PreTrainedModel
    front : Front
        Its family, and what stands before and behind the vision tower.
    loop : LayerLoop
        Its layers and the schedule.
    memory : Memory
        The budget.
    prefix : list of int
        Token ids up to the video.
    probe : list of int
        Token ids that follow each chunk and rank it; their keys and values are thrown away.
    turnstile : Turnstile, optional
        The model's, where rows of a forward may be computed together with those of others.
    compiled : CompiledStep, optional
        Computes tokens of answers, where it can.

    Raises
    ------
    ConfigError
        If the budget can't hold prefix and probe, or the model was not trained on so many positions.
    """

    def __init__(
        self,
        model: Any,
        front: Front,
        loop: LayerLoop,
        memory: Memory,
        prefix: list[int],
        probe: list[int],
        turnstile: Turnstile | None = None,
        compiled: CompiledStep | None = None,
    ) -> None:
        adapter = front.adapter
        super().__init__(model, adapter, loop, turnstile or Turnstile(), compiled)
        self.memory, self.prefix, self.front = memory, prefix, front
        self.stages = len(loop.schedule.layers) + 1
        self.evictor = evictor_named(memory.evictor)
        if memory.needs_scores:
            loop.rank_all_the_same()
        self.storage = memory.stored
        self.looks = self.evictor.uses_query or asks_in(self.storage)
        asks = self.looks or (bool(loop.ranks_at) and loop.scorer.uses_probe)
        shape = DecoderShape.of(model.config)
        self.sizes = Sizes.of(self.storage, shape, model.dtype, state_bytes(loop))
        refuse_latent(loop, memory, self.evictor)
        self.trained: int = model.config.get_text_config().max_position_embeddings
        rope = fixed_rope(model)
        self.limits = limits_of(loop, memory, self.sizes, self.trained, rope)
        self.range = Range(None if rope else self.trained)
        self.glue = adapter.longest_glue()
        self.archive = archive_of(loop, memory, rope)
        closing = adapter.closing()
        hush = adapter.ids(adapter.ears.ending) if isinstance(adapter, Hearing) else []
        self.hush = adapter.rows(hush)
        text = len(prefix) + (len(hush) + len(closing) + len(probe)) * asks
        self.reach = Reach(memory, self.limits, self.trained, len(prefix), text)
        self.reach.check_prompt()
        self.probe = torch.cat([closing, adapter.rows(probe)]) if asks else adapter.rows([])
        self.closing = len(closing)

    # -- the prompt -------------------------------------------------------------------------------------------------

    def empty_cache(self) -> StreamCache:
        """A cache under the stream's budget that holds nothing yet."""
        loop = self.loop
        return StreamCache(
            loop.kinds, self.limits, self.evictor, self.archive, self.storage, loop.decoder.latent, loop.turn
        )

    def begin(self) -> StreamState:
        """A state that holds the prompt up to the video."""
        state = StreamState(self.empty_cache(), Place(), rows=0)
        if self.prefix:
            self.text(state, self.adapter.rows(self.prefix))
        index = torch.arange(len(self.prefix), device=self.probe.device)
        position = index[:, None].expand(-1, self.loop.axes)
        table, nothing = (
            TokenTable.text(index, position, position),
            TokenTable.text(index[:0], position[:0], position[:0]),
        )
        state.cache.tables = [table if kind.holds else nothing for kind in self.loop.kinds]
        state.cache.slide()
        state.rows = len(self.prefix)
        return state

    # -- visual tokens ----------------------------------------------------------------------------------------------

    def visual(self, state: StreamState, chunk: VisualChunk, between: Callable[[], None] = lambda: None) -> None:
        """Run a chunk through the stages into the cache, in pieces if the budget or the window is small.

        `between` is called before each piece, when the cache is whole.
        """
        for piece in chunk.split(self._steps_at_once(chunk, state)):
            between()
            self._prefill(state, piece)
        state.chunks += 1

    def closing_of(self, state: StreamState) -> Tensor:
        """Embeddings [tokens, hidden] that end the running video, and its sound with it."""
        closing = self.adapter.closing()
        return closing if state.heard is None else torch.cat([self.hush, closing])

    def _probe(self, state: StreamState) -> Tensor:
        """Rows that follow a piece and rank it."""
        return self.probe if state.heard is None or not len(self.probe) else torch.cat([self.hush, self.probe])

    def _steps_at_once(self, chunk: VisualChunk, state: StreamState) -> int:
        """How many steps of a chunk may be in flight together."""
        limits, steps = self.limits.entering, len(chunk.steps)
        visual, most, sound = max(chunk.visual_steps), max(chunk.glue_steps), max(chunk.sound_steps)
        place, asked = state.place, len(self._probe(state))
        # later steps have longer numbers and times, and perhaps all of their tokens, and must fit as well
        longest, whole = max(most, self.glue), chunk.places

        def fits(steps: int, share: float, visual: int = visual, glue: int = most) -> bool:
            """Whether so many steps take at most `share` of the room of every layer."""
            incoming = self._incoming(steps * visual, steps * glue, steps * sound, asked)
            text = len(self.prefix)
            return limits is None or all(n <= (b - text) * share for n, b in zip(incoming, limits, strict=True))

        if not fits(1, 1.0, whole, longest):
            said = f", {longest} of them for its number or time in words," if longest else ""
            raise ConfigError(
                f"{self.memory.said} can't hold one step of {whole + longest + sound} tokens{said} beside "
                f"{self.reach.text} tokens of prompt and probe; give more, or smaller frames."
            )
        if self.limits.window is not None:
            ids, after = self.adapter.place(chunk, place)
            first = int(ids[0].min()) if len(chunk) else after.next  # on the host: no device waits
            if after.next - first > self.limits.window.limit // 2:
                return 1  # a pause within the chunk, which only whole pieces can close
        return steps_at_once(steps, fits)

    def fill_up(self, state: StreamState) -> None:
        """Let what waits be seen and heard as it is: an odd frame without its partner, sound without its rest."""
        state.sifting = state.sifting.late()
        for taken in self.front.rest(state):
            self.visual(state, self.front.perceive(state, taken))

    def _incoming(self, visual: int, glue: int, sound: int, asked: int) -> list[int]:
        """Columns that each layer takes while so many tokens are in flight, a probe of `asked` included."""
        last = self.loop.schedule.num_layers if self.looks else max(self.loop.ranks_at, default=0)
        per_row = [asked if i < last else 0 for i in range(self.loop.schedule.num_layers)]
        return [n + more for n, more in zip(self._columns(visual, glue, sound), per_row, strict=True)]

    def _columns(self, visual: int, glue: int, sound: int) -> list[int]:
        """Columns that each layer holds of so many tokens."""
        per_layer = self.loop.schedule.per_layer(visual, sound)
        return [n + glue if kind.holds else 0 for kind, n in zip(self.loop.kinds, per_layer, strict=True)]

    def _prefill(self, state: StreamState, piece: VisualChunk) -> None:
        """One run of the layer loop: visual tokens, then the probe, whose keys and values are thrown away."""
        positions, place = self.adapter.place(piece, state.place)
        if not len(piece):  # a gate found nothing in it; time goes on all the same
            state.place, state.steps = place, state.steps + len(piece.steps)
            return
        probe, heard = self._probe(state), piece.sound_tokens
        count, asked, device = len(piece), len(probe), piece.embeds.device
        schedule, cache, glue = self.loop.schedule, state.cache, count - piece.visual_tokens - heard
        per_layer = self._columns(piece.visual_tokens, glue, heard)
        entering = piece.embeds if piece.ids is None else self.adapter.beside(piece.embeds, piece.ids)
        hidden = torch.cat([entering, probe.to(entering)])
        asking, end = self.adapter.positions.text(asked, place)
        ahead = ahead_of(state.place, int(positions[0].min()), place.next, end)
        cache.make_room(self._incoming(piece.visual_tokens, glue, heard, asked), ahead)
        self.range.heed(ahead.end - min(shift.text for shift in cache.stood))
        positions = torch.cat([positions, asking], dim=-1).to(device)
        numbers = dict(index=state.rows, step=state.steps, chunk=state.chunks)
        table = chunk_table(piece, positions[..., :count], **numbers, since=state.since)
        row = torch.arange(len(hidden), device=device)[None]
        before = cache.lengths()
        asks = bool(asked) and self.looks
        passage = MemoryPassage(cache, F.pad(piece.visual, (0, asked)), asked if asks else 0)
        with self.turnstile.packing():
            rows = self.loop.run(
                hidden[None],
                positions,
                F.pad(piece.visual, (0, asked))[None],
                probe=row[:, -1:],
                question=row >= count + asked - len(self.probe) + self.closing,
                transient=None if asks else row >= count,
                fleeting=asked,
                layout=layout_of(table, piece, state.steps, asked),
                usual=state.usual,
                cache=cache,
                deepstack=[F.pad(f, (0, 0, 0, asked))[None] for f in piece.deepstack] or None,
                passage=passage,
                sound=sound_of(piece, state.sound_tokens, asked),
                since=state.rows,
                group=bound_of(self.adapter, piece, asked),
            )
        cache.queries = passage.queries
        state.usual = rows.usual
        cache.truncate([b + n for b, n in zip(before, per_layer, strict=True)])
        cache.record(stage_tables(table, rows, schedule, piece.visual_tokens, heard, cache.shifts))
        cache.slide()
        state.place, state.rows, state.steps = place, state.rows + count, state.steps + len(piece.steps)
        state.visual_tokens, state.sound_tokens = state.visual_tokens + piece.visual_tokens, state.sound_tokens + heard
        state.pieces += ((piece.visual_tokens + heard, glue),)
        kept = schedule.counts(piece.visual_tokens)
        state.kept = [a + b for a, b in zip(state.kept or [0] * self.stages, kept, strict=True)]
