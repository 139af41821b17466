"""What the memory has to say while rows pass through the layers: where they stand, what was asked, what is attended to.

Knows the cache and the ranking of its columns. Refuses to know models' families and text.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.ties import comparable
from ..memory import Ahead, StreamCache, TokenTable
from ..memory.evictors.base import lexicographic
from ..pyramid import Rows, Schedule
from ..pyramid.rank import Rope, attention_weights, per_head, project


class MemoryPassage:
    """Positions as each layer of a cache counts them.

    Parameters
    ----------
    cache : StreamCache
    visual : Tensor [rows], bool, optional
        Which of the rows that enter are of the running video.
    probe : int
        How many rows at the end ask; what they ask is gathered in `queries`.

    Attributes
    ----------
    queries : list of Tensor [heads, probe, head_dim] or None
        Per layer, with RoPE.
    """

    def __init__(self, cache: StreamCache, visual: Tensor | None = None, probe: int = 0) -> None:
        self.cache, self.visual, self.probe = cache, visual, probe
        self.queries: list[Tensor] | None = [] if probe else None

    def where(self, layer: int) -> Hashable:
        """The layer's shift."""
        return self.cache.shifts[layer]

    def positions(self, layer: int, rows: Rows) -> Tensor:
        """Position ids, [batch, rows] or [3, batch, rows]."""
        shift, mrope = self.cache.shifts[layer], rows.positions.ndim == 3
        visual = None if self.visual is None else self.visual[rows.origin]
        moved = shift.move(rows.positions.movedim(0, -1) if mrope else rows.positions[..., None], visual)
        return moved.movedim(-1, 0) if mrope else moved[..., 0]

    def before(self, layer: int, module: Any, rows: Rows, rope: Callable[[], Rope]) -> None:
        """Note what the probe asks."""
        if self.queries is not None:
            asking = module.input_layernorm(rows.hidden[:, -self.probe :])
            cos, sin = (part[..., -self.probe :, :] for part in rope())
            # contiguous, as a resumed stream has it: products of other strides may differ in their last bits
            self.queries.append(project(module.self_attn, asking, "q", (cos, sin))[0].contiguous())


@dataclass(frozen=True, slots=True)
class Attended:
    """What an answer rested on in one stage.

    Attributes
    ----------
    table : TokenTable
        The remembered tokens that the stage attended to, in the order of time.
    weight : Tensor [tokens], float32
        How much the question's last token attended to each, in the stage's first layer.
    """

    table: TokenTable
    weight: Tensor


class AskingPassage(MemoryPassage):
    """The question ranks the memory: deeper stages attend to less and less of it. For a fork, which hides the rest.

    PyramidDrop (arXiv 2410.17247) with the memory in place of a picture: at the first layer of stage s the visual
    tokens that the question's last token attends to most stay, int(n * ratio_s) of them, where n is what the first
    layer remembers. A layer that remembers no more than that drops nothing, and a ratio of 1 never does. Layers that
    remember the same tokens follow the first of them; others rank their own. With a boundary at 0 stage 0 has no
    layers, and attended to nothing.

    Parameters
    ----------
    cache : StreamCache
        Of a fork, with a table for every column.
    schedule : Schedule
        Whose stages and ratios; one stage drops nothing.
    ahead : Ahead, optional
        Where the question and its answer stand; with `retrieve`.
    retrieve : int
        How many archived steps of time each layer gets back before it ranks: those whose mean un-rotated key is most
        like the question's mean query (ReKV, arXiv 2503.00540), beside what it remembers (LiveVLM, arXiv 2505.15269).

    Attributes
    ----------
    attended : list of Attended
        By stage.
    """

    def __init__(self, cache: StreamCache, schedule: Schedule, ahead: Ahead | None = None, retrieve: int = 0) -> None:
        super().__init__(cache)
        self.schedule, self.ahead, self.retrieve = schedule, ahead, retrieve
        self.attended: list[Attended] = []
        self._target: tuple[int, ...] = ()
        self._decided: dict[tuple[int, int], tuple[Any, ...]] = {}

    def before(self, layer: int, module: Any, rows: Rows, rope: Callable[[], Rope]) -> None:
        """Bring back what this layer may need, hide what it need not attend to, and note what it does."""
        if self.retrieve:
            self._bring_back(layer, module, rows)
        if layer == 0:
            self._target = self.schedule.counts(int(self.cache.tables[0].visual.sum()))
        stage, table = self.schedule.stage(layer), self.cache.tables[layer]
        first = layer == self.schedule.spans[stage][0]
        if layer == 0 and stage > 0:  # what no layer runs attends to nothing
            nothing = table.index[:0]
            self.attended.append(Attended(table.take(nothing), nothing.float()))
        key = id(table), stage
        if key not in self._decided:
            share = (1.0, *self.schedule.ratios)[stage]
            gone = 0 if share == 1 else int(table.visual.sum()) - self._target[stage]
            weight = self._weights(layer, module, rows, rope()) if first or gone > 0 else None
            stay = None if weight is None or gone <= 0 else _narrow(weight, table, gone, rows.hidden.dtype)
            self._decided[key] = stay, weight, table
        stay, weight, _ = self._decided[key]
        if stay is not None:
            self.cache.layers[layer].show(stay)
        if first:
            assert weight is not None
            order = table.index.argsort() if stay is None else stay[table.index[stay].argsort()]
            self.attended.append(Attended(table.take(order), weight[order]))

    def _bring_back(self, layer: int, module: Any, rows: Rows) -> None:
        assert self.cache.archive is not None
        assert self.ahead is not None
        asked = per_head(module.self_attn, module.input_layernorm(rows.hidden), "q")[0].mean(1)
        if (found := self.cache.archive.recall(layer, asked, self.retrieve)) is not None:
            self.cache.bring_back(layer, found, self.ahead)

    def _weights(self, layer: int, module: Any, rows: Rows, rope: Rope) -> Tensor:
        """What the last row attends to among the columns held [columns]."""
        last = torch.full((1, 1), rows.hidden.shape[1] - 1, device=rows.hidden.device)
        keys = self.cache.layers[layer].keys
        return attention_weights(module, rows.hidden, rope, last, past_keys=keys)[0, : keys.shape[-2]]


def _narrow(weight: Tensor, table: TokenTable, gone: int, dtype: torch.dtype) -> Tensor:
    """All columns but the `gone` visual tokens of the smallest weights, ascending [kept]."""
    weight = comparable(weight, table.visual, dtype)
    rank = lexicographic(weight.masked_fill(~table.visual, torch.inf), *table.spread())
    return rank.argsort(descending=True)[: len(table) - gone].sort().values
