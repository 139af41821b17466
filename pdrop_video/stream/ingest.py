"""Visual tokens and text into a stream's cache: the layer loop with a probe, within the budget.

Knows an adapter's embeddings and positions, the layer loop and the cache. Refuses to know frames, questions and
answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..costs.decoder import DecoderShape
from ..engine import Turnstile
from ..errors import ConfigError
from ..memory import Ahead, Memory, Range, StreamCache, TokenTable
from ..memory.evictors import evictor_named
from ..memory.storages import asks_in, storage_named
from ..models import Hearing, Place, VisualChunk
from ..pyramid import LayerLoop
from ..pyramid.compiled import CompiledStep
from ..pyramid.decoder import logits_of
from ..pyramid.rows import Passage
from ..pyramid.steps import Step, batches, run_steps
from .front import Front
from .limits import Sizes, archive_of, fixed_rope, limits_of, refuse_latent, state_bytes, steps_at_once
from .passage import MemoryPassage
from .reach import Reach, ahead_of, text_ahead
from .records import bound_of, chunk_table, layout_of, sound_of, stage_tables, text_tables
from .state import StreamState


class Ingestor:
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
        self.model, self.adapter, self.loop, self.memory, self.prefix = model, adapter, loop, memory, prefix
        self.front, self.turnstile, self.compiled = front, turnstile or Turnstile(), compiled
        self.stages = len(loop.schedule.layers) + 1
        self.evictor = evictor_named(memory.evictor)
        if memory.needs_scores:
            loop.rank_all_the_same()
        self.storage = storage_named(memory.storage)
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
        self.batches = batches(loop)

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
                f"{self.memory} can't hold one step of {whole + longest + sound} tokens{said} beside "
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

    # -- text -------------------------------------------------------------------------------------------------------

    def text(self, state: StreamState, embeds: Tensor, passage: Passage | None = None) -> Tensor:
        """Run text rows over the cache, without a note in its tables; returns what left the layers [rows, hidden]."""
        positions, state.place = self.adapter.positions.text(len(embeds), state.place)
        cache, passage = state.cache, passage or MemoryPassage(state.cache)
        since = state.rows + self._unnoted(cache)
        given: dict[str, Any] = dict(cache=cache, passage=passage, since=since)
        with self.turnstile.packing():
            rows = self.loop.run(embeds[None], positions.to(embeds.device), None, **given)
        return rows.hidden[0]

    def step(self, state: StreamState, embeds: Tensor, passage: Passage | None = None) -> Tensor:
        """Run one row of text; returns the logits of the token behind it [vocabulary]."""
        if passage is not None or not self.batches:
            return self.logits(self.text(state, embeds, passage))[0]
        positions, state.place = self.adapter.positions.text(1, state.place)
        cache, since = state.cache, state.rows + self._unnoted(state.cache)
        row = embeds[None], positions.to(embeds.device), cache, MemoryPassage(cache), since
        step = Step(self.model, self.loop, *row)
        if self.compiled is not None and (logits := self.compiled(step)) is not None:
            return logits
        with self.turnstile.packing():
            return self.turnstile.gathered(run_steps, step)

    def logits(self, hidden: Tensor) -> Tensor:
        """Of the token after each row [rows, vocabulary]."""
        with self.turnstile.packing():
            return logits_of(self.model, self.loop.decoder.norm(hidden))

    def room_for_text(self, state: StreamState, tokens: int) -> Ahead:
        """Move positions, if need be, so that so many tokens of text stay in the window; returns where they will be.

        Raises
        ------
        ConfigError
            If no move makes room for them.
        """
        self.reach.check_question(state, tokens)
        ahead = text_ahead(state.place, tokens)
        state.cache.fit(ahead)
        return ahead

    def go_on(self, state: StreamState, tokens: int) -> bool:
        """Move positions, with those of the question and its answer, to go on by so many tokens; False if none can."""
        cache, ahead = state.cache, text_ahead(state.place, tokens)
        if not any(cache.leaving(ahead)):
            return True
        self._note(state, self._unnoted(cache))
        if self.limits.tokens is not None and cache.room(text_ahead(state.place, 0)) < tokens:
            return False
        cache.fit(ahead)
        return True

    def remember(self, state: StreamState, embeds: Tensor, role: Literal["turn", "note", "glue"] = "turn") -> None:
        """Run text within the budget and put it into the tables.

        A turn is a step of its own, behind which a new video begins; a note is one, too, and the video goes on; glue
        belongs to the next step.

        Raises
        ------
        ConfigError
            If the budget can't hold it.
        """
        tokens = len(embeds)
        self.reach.check_text(tokens)
        state.cache.make_room([tokens] * self.loop.schedule.num_layers, text_ahead(state.place, tokens))
        before = state.place
        self.text(state, embeds)
        self._note(state, tokens, self.adapter.positions.text(tokens, before)[0])
        state.cache.slide()
        if role != "glue":  # a step of its own, which shows nothing
            state.steps, state.chunks = state.steps + 1, state.chunks + 1
            # a video that follows a turn is counted anew; one that a note stands in goes on without that step
            state.first_step = state.steps if role == "turn" else state.first_step + 1

    def _unnoted(self, cache: StreamCache) -> int:
        """Tokens of text that were run and stand in no table yet."""
        return cache.lengths()[cache.anchor] - (len(cache.tables[cache.anchor]) if cache.tables else 0)

    def _note(self, state: StreamState, tokens: int, positions: Tensor | None = None) -> None:
        """Note in the tables the text that was run last, one position a token unless they are said."""
        device = self.probe.device
        index = torch.arange(state.rows, state.rows + tokens, device=device)
        if positions is None:
            positions = torch.arange(state.place.next - tokens, state.place.next, device="cpu").expand(
                self.loop.axes, 1, -1
            )
        position = positions.reshape(-1, tokens).T.to(device)
        state.cache.record(text_tables(index, position, state.chunks, state.steps, state.cache.shifts))
        state.rows += tokens
