"""Text into a stream's cache: turns, notes, questions, and the tokens of answers.

Knows an adapter's positions, the layer loop and the cache. Refuses to know tokenizers, pictures, and what is said.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ..engine import Turnstile
from ..memory import Ahead, StreamCache
from ..memory.limits import Limits
from ..models import Adapter
from ..pyramid import LayerLoop
from ..pyramid.compiled import CompiledStep
from ..pyramid.decoder import logits_of
from ..pyramid.rows import Passage
from ..pyramid.steps import Step, batches, run_steps
from .passage import MemoryPassage
from .reach import Reach, text_ahead
from .records import text_tables
from .state import StreamState


class TextRows:
    """Runs rows of text through the layers into a state's cache.

    Parameters
    ----------
    model : PreTrainedModel
    adapter : Adapter
        Its family.
    loop : LayerLoop
        Its layers.
    turnstile : Turnstile
        The model's, where rows of a forward may be computed together with those of others.
    compiled : CompiledStep, optional
        Computes tokens of answers, where it can.
    """

    limits: Limits
    reach: Reach

    def __init__(
        self, model: Any, adapter: Adapter, loop: LayerLoop, turnstile: Turnstile, compiled: CompiledStep | None
    ) -> None:
        self.model, self.adapter, self.loop = model, adapter, loop
        self.turnstile, self.compiled, self.batches = turnstile, compiled, batches(loop)

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
        device = state.cache.tables[0].index.device
        index = torch.arange(state.rows, state.rows + tokens, device=device)
        if positions is None:
            positions = torch.arange(state.place.next - tokens, state.place.next, device="cpu").expand(
                self.loop.axes, 1, -1
            )
        position = positions.reshape(-1, tokens).T.to(device)
        state.cache.record(text_tables(index, position, state.chunks, state.steps, state.cache.shifts))
        state.rows += tokens
