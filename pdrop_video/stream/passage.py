"""What the memory has to say while rows pass through the layers: where they stand, what was asked, what is attended to.

Knows the cache and the ranking of its columns. Refuses to know models' families and text.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.ties import comparable
from ..memory import Ahead, StreamCache, TokenTable
from ..memory.evictors.base import lexicographic
from ..pyramid import Rows, Schedule
from ..pyramid.heads import Rope, attention_of, held_keys, normed, per_head, project
from ..pyramid.rank import attention_weights


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
    queries : dict of Tensor [heads, probe, head_dim] or None
        By layer that ranks, with RoPE.
    """

    def __init__(self, cache: StreamCache, visual: Tensor | None = None, probe: int = 0) -> None:
        self.cache, self.visual, self.probe = cache, visual, probe
        self.queries: dict[int, Tensor] | None = {} if probe else None
        self._places: dict[Any, tuple[Any, ...]] = {}

    def where(self, layer: int) -> Hashable:
        """The layer's shift."""
        return self.cache.shifts[layer]

    def positions(self, layer: int, rows: Rows) -> Tensor:
        """Position ids, [batch, rows] or [3, batch, rows]."""
        shift, mrope = self.cache.shifts[layer], rows.positions.ndim == 3
        visual = None if self.visual is None else self.visual[rows.origin]
        moved = shift.move(rows.positions.movedim(0, -1) if mrope else rows.positions[..., None], visual)
        return moved.movedim(-1, 0) if mrope else moved[..., 0]

    def places(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """By the layer's table; text that stands in none yet is text."""
        table, held = self.cache.tables[layer], self.cache.layers[layer]
        key = id(table), id(held.shown), held.length
        if key not in self._places:
            seen, unnoted = held.seeing(), held.length - len(table)
            step, row, column = (F.pad(each, (0, unnoted), value=-1) for each in (table.step, table.row, table.column))
            places = (step, row, column) if seen is None else (step[seen], row[seen], column[seen])
            self._places[key] = places, table, held.shown
        return self._places[key][0]

    def before(
        self,
        layer: int,
        module: Any,
        rows: Rows,
        rope: Callable[[], Rope | None],
        lent: tuple[Tensor, Tensor] | None,
    ) -> None:
        """Note what the probe asks."""
        if self.queries is not None and self.cache.kinds[layer].ranks:
            asking, angles = normed(module, rows.hidden[:, -self.probe :]), rope()
            angles = angles and (angles[0][..., -self.probe :, :], angles[1][..., -self.probe :, :])
            # contiguous, as a resumed stream has it: products of other strides may differ in their last bits
            self.queries[layer] = project(attention_of(module), asking, "q", angles)[0].contiguous()


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

    Layers with a window or a state are left to themselves, and a stage without others attended to nothing.
    """

    def __init__(self, cache: StreamCache, schedule: Schedule, ahead: Ahead | None = None, retrieve: int = 0) -> None:
        super().__init__(cache)
        self.schedule, self.ahead, self.retrieve = schedule, ahead, retrieve
        self._first = [next((i for i in span if cache.kinds[i].ranks), None) for span in schedule.spans]
        self._attended: dict[int, Attended] = {}
        self._target: tuple[int, ...] = ()
        self._decided: dict[tuple[int, int], tuple[Any, ...]] = {}

    @property
    def attended(self) -> list[Attended]:
        """What each stage attended to."""
        table = self.cache.tables[self.cache.anchor]
        nothing = Attended(table.take(table.index[:0]), table.index[:0].float())
        return [self._attended.get(stage, nothing) for stage in range(len(self._first))]

    def before(
        self,
        layer: int,
        module: Any,
        rows: Rows,
        rope: Callable[[], Rope | None],
        lent: tuple[Tensor, Tensor] | None,
    ) -> None:
        """Bring back what this layer may need, hide what it need not attend to, and note what it does."""
        if not self.cache.kinds[layer].ranks:
            return
        if self.retrieve:
            self._bring_back(layer, module, rows)
        if layer == self.cache.anchor:
            self._target = self.schedule.counts(int(self.cache.tables[layer].visual.sum()))
        stage, table = self.schedule.stage(layer), self.cache.tables[layer]
        first = layer == self._first[stage]
        key = id(table), stage
        if key not in self._decided:
            share = (1.0, *self.schedule.ratios)[stage]
            gone = 0 if share == 1 else int(table.visual.sum()) - self._target[stage]
            weight = self._weights(layer, module, rows, rope(), lent) if first or gone > 0 else None
            stay = None if weight is None or gone <= 0 else _narrow(weight, table, gone, rows.hidden.dtype)
            self._decided[key] = stay, weight, table
        stay, weight, _ = self._decided[key]
        if stay is not None:
            self.cache.layers[layer].show(stay)
        if first:
            assert weight is not None
            order = table.index.argsort() if stay is None else stay[table.index[stay].argsort()]
            self._attended[stage] = Attended(table.take(order), weight[order])

    def _bring_back(self, layer: int, module: Any, rows: Rows) -> None:
        assert self.cache.archive is not None
        assert self.ahead is not None
        asked = per_head(attention_of(module), normed(module, rows.hidden), "q")[0].mean(1)
        if (found := self.cache.archive.recall(layer, asked, self.retrieve)) is not None:
            self.cache.bring_back(layer, found, self.ahead)

    def _weights(
        self, layer: int, module: Any, rows: Rows, rope: Rope | None, lent: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """What the last row attends to among the columns held [columns]."""
        last = torch.full((1, 1), rows.hidden.shape[1] - 1, device=rows.hidden.device)
        keys, held = held_keys(module, self.cache, layer), self.cache.lengths()[layer]
        own = None if lent is None else lent[0]
        return attention_weights(module, rows.hidden, rope, last, past_keys=keys, lent=own)[0, :held]


def _narrow(weight: Tensor, table: TokenTable, gone: int, dtype: torch.dtype) -> Tensor:
    """All columns but the `gone` visual tokens of the smallest weights, ascending [kept]."""
    weight = comparable(weight, table.visual, dtype)
    rank = lexicographic(weight.masked_fill(~table.visual, torch.inf), *table.spread())
    return rank.argsort(descending=True)[: len(table) - gone].sort().values
