"""What the memory has to say while rows pass through the layers: where they stand, what was asked, what is attended to.

Knows the cache and the ranking of its columns. Refuses to know models' families and text.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.ties import comparable
from ..costs.looking import Looked
from ..memory import Ahead, StreamCache, TokenTable
from ..pyramid import Rows, Schedule
from ..pyramid.decoder import Decoder
from ..pyramid.heads import Rope, attention_of, held_keys, normed, per_head, project
from ..pyramid.scorers import Asker, Remembered
from .looking import Gaze, Row
from .looking.base import narrow


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
        visual = None if self.visual is None else self.visual.to(rows.origin.device)[rows.origin]
        moved = shift.move(rows.positions.movedim(0, -1) if mrope else rows.positions[..., None], visual)
        return moved.movedim(-1, 0) if mrope else moved[..., 0]

    def places(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """By the layer's table; text that stands in none yet is text."""
        table, held = self.cache.tables[layer], self.cache.layers[layer]
        key = id(table), id(held.shown), held.length
        if key not in self._places:
            seen, unnoted = held.seeing(), held.length - len(table)
            step, row, column = (F.pad(each, (0, unnoted), value=-1) for each in (table.step, table.row, table.column))
            seen = None if seen is None else seen.to(step.device)
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
class Asked:
    """Who ranks what is remembered, where it is not the attention of the question's last row.

    Attributes
    ----------
    scorer : Asker
    rows : int
        How many of the rows that enter ask, the last ones.
    decoder : Decoder
        Un-rotates keys.
    """

    scorer: Asker
    rows: int
    decoder: Decoder


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
    layers, and attended to nothing. With `asked` another scorer says which stay; one that ranks once does so in the
    first layer that has something to hide, and in others a token has the score that it had there, the least one if it
    was not remembered there.

    Parameters
    ----------
    cache : StreamCache
        Of a fork, with a table for every column.
    schedule : Schedule
        Whose stages and ratios; one stage drops nothing.
    ahead : Ahead, optional
        Where the question and its answer stand; with `retrieve` or `reserve`.
    retrieve : int
        How many archived steps of time each layer gets back before it ranks: those whose mean un-rotated key is most
        like the question's mean query (ReKV, arXiv 2503.00540), beside what it remembers (LiveVLM, arXiv 2505.15269).
    gaze, looked : Gaze, Looked, optional
        What the answer will look at, which is told what the question left; and where its products are noted.
    reserve : int
        How many more archived steps, the next most like it, each layer gets back hidden.
    asked : Asked, optional
        What ranks; by default the attention of the last row.

    Layers with a window or a state are left to themselves, and a stage without others attended to nothing.
    """

    def __init__(
        self,
        cache: StreamCache,
        schedule: Schedule,
        ahead: Ahead | None = None,
        retrieve: int = 0,
        gaze: Gaze | None = None,
        reserve: int = 0,
        asked: Asked | None = None,
        looked: Looked | None = None,
    ) -> None:
        super().__init__(cache)
        self.schedule, self.ahead, self.retrieve, self.gaze, self.reserve = schedule, ahead, retrieve, gaze, reserve
        self.by, self.looked = asked, looked
        self._once: tuple[Tensor, Tensor] | None = None  # numbers of tokens, ascending, and their scores
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
        row = Row(layer, module, rows.hidden, rope(), None if lent is None else lent[0])
        open_ = None  # all columns, but for what is held in reserve
        if self.retrieve or self.reserve:
            open_ = self._bring_back(row)
            row = replace(row, rope=rope())  # positions may have moved
        table = self.cache.tables[layer] if open_ is None else self.cache.tables[layer].take(open_)
        if layer == self.cache.anchor:
            self._target = self.schedule.counts(int(table.visual.sum()))
        stage = self.schedule.stage(layer)
        first = layer == self._first[stage]
        key = id(self.cache.tables[layer]), stage
        if key not in self._decided:
            share = (1.0, *self.schedule.ratios)[stage]
            gone = 0 if share == 1 else int(table.visual.sum()) - self._target[stage]
            weight = stay = None
            if first or gone > 0:
                keys = held_keys(module, self.cache, layer)
                if first or self.by is None:
                    weight = row.attends_to_all(keys, len(table)).to(table.index.device)
                if gone > 0:
                    scores = weight if self.by is None else self._scores(self.by, row, keys, table)
                    assert scores is not None
                    stay = narrow(scores, table, gone, rows.hidden.dtype)
            self._decided[key] = stay, weight, self.cache.tables[layer]
        stay, weight, _ = self._decided[key]
        if first:
            assert weight is not None
            order = table.index.argsort() if stay is None else stay[table.index[stay].argsort()]
            self._attended[stage] = Attended(table.take(order), weight[order])
        if open_ is not None:
            stay = open_ if stay is None else open_[stay]
        if stay is not None:
            self.cache.layers[layer].show(stay)
        if self.gaze is not None:
            self.gaze.asked(replace(row, looked=self.looked), stage, stay)

    def _bring_back(self, row: Row) -> Tensor | None:
        """The columns that the question may attend to, ascending; None for all. The others are shown no more."""
        archive, layer = self.cache.archive, row.layer
        assert archive is not None
        assert self.ahead is not None
        asked = per_head(attention_of(row.module), normed(row.module, row.hidden), "q")[0].mean(1)
        nearest = archive.nearest(layer, asked, self.retrieve + self.reserve)
        found = archive.taken(layer, nearest)
        if found is None:
            return None
        before = len(self.cache.tables[layer])
        self.cache.bring_back(layer, found, self.ahead)
        if not self.reserve:
            return None
        device = self.cache.tables[layer].index.device
        stays = torch.isin(found.table.step, nearest[: self.retrieve]).nonzero()[:, 0].to(device)
        open_ = torch.cat([torch.arange(before, device=stays.device), before + stays])
        self.cache.layers[layer].show(open_)
        return open_

    def _scores(self, by: Asked, row: Row, keys: Tensor | None, table: TokenTable) -> Tensor:
        """By another scorer, of what the question may attend to [columns]."""
        once = getattr(by.scorer, "once", False)
        if once and self._once is not None:
            numbers, scores = self._once
            at = torch.searchsorted(numbers, table.index).clamp(max=len(numbers) - 1)
            return scores[at].masked_fill(numbers[at] != table.index, -2)  # below all shares of the largest

        def bare() -> Tensor:
            assert keys is not None
            return by.decoder.bare(row.layer, keys[0], table.now)[None]

        visual = table.visual.to(row.hidden.device)
        memory = Remembered(row.module, row.hidden, row.rope, by.rows, keys, visual, bare, row.lent)
        scores = by.scorer.remembered(memory).to(table.index.device)
        if once:
            scores, order = comparable(scores, table.visual, row.hidden.dtype), table.index.argsort()
            self._once = table.index[order], scores[order]
        return scores


class AnsweringPassage(MemoryPassage):
    """A token of the answer on its way through the layers, each of which shows it what the answer looks at.

    Parameters
    ----------
    cache : StreamCache
        Of the question's fork.
    gaze, looked : Gaze, Looked, optional
        What it looks at, and where it is noted what is seen and scored.
    """

    def __init__(self, cache: StreamCache, gaze: Gaze, looked: Looked | None = None) -> None:
        super().__init__(cache)
        self.gaze, self.looked = gaze, looked

    def before(
        self,
        layer: int,
        module: Any,
        rows: Rows,
        rope: Callable[[], Rope | None],
        lent: tuple[Tensor, Tensor] | None,
    ) -> None:
        """Let the answer look."""
        if not self.cache.kinds[layer].ranks:
            return
        self.gaze.before(Row(layer, module, rows.hidden, rope(), None if lent is None else lent[0], self.looked))
        if self.looked is not None:
            held, table = self.cache.layers[layer], self.cache.tables[layer]
            self.looked.saw(layer, held.get_seq_length() - held.length + len(table))  # no question, and no answer
