"""The decoder's layer loop, run in stages with fewer visual rows in each.

Knows a decoder stack layer by layer, and a transformers cache whose layers may hold different lengths. Refuses to know
model families, pixels and streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ..common.kinds import rank_at
from ..errors import ConfigError
from .allocators import allocator_named
from .decoder import Decoder, stack_of
from .drop import all_asking, competing, drop, standing
from .heads import held_keys
from .inside.inner import inner_of
from .lending import Lenders, run_last
from .masks import Masks, steps_of
from .ropes import Ropes
from .rows import Boundary, Passage, Rows, allowed_columns, count, moved, still_here
from .schedule import Pyramid
from .scorers import Layout, Learner, Ranking, checked, scorer_named
from .sound import Sound
from .stack import refuse_checkpointing
from .stages import Schedule
from .states import run_states


class LayerLoop:
    """Runs rows through a decoder stack and drops visual rows at the schedule's boundaries.

    Parameters
    ----------
    text : nn.Module
        The decoder stack, ``model.get_decoder()``.
    pyramid : Pyramid
        Where and how much to drop. Boundaries move forward to layers that can rank.

    Raises
    ------
    ModelError
        If some of the stack's layers are of a kind that is not supported.
    ConfigError
        If the schedule does not fit the model.
    """

    def __init__(self, text: Any, pyramid: Pyramid) -> None:
        self.decoder = Decoder(stack_of(text))
        self.text, self.axes, self.kinds = self.decoder.text, self.decoder.axes, self.decoder.kinds
        self.turn, self.rank_at = self.decoder.turn, rank_at(self.kinds)
        self.schedule: Schedule = pyramid.resolve(len(self.kinds), self.rank_at)
        self.scorer, self.allocator = scorer_named(pyramid.scorer or "relevance"), allocator_named(pyramid.allocator)
        self.learner = self.scorer if isinstance(self.scorer, Learner) else None
        self.ranks_at: tuple[int, ...] = self.schedule.layers
        checked(self.scorer, self.ranks_at, pyramid.layers, self.decoder.layers, self.kinds)
        # of each stage the first layer that remembers all it is given; None where no layer does
        self.anchors = tuple(next((i for i in span if i in self.rank_at), None) for span in self.schedule.spans)
        self.inner = inner_of(pyramid.inside, self.decoder)
        self.compact = pyramid.positions == "compact"
        if self.compact and self.axes == 3:
            raise ConfigError(
                'positions="compact" renumbers tokens in one dimension, but this model has M-RoPE (time, height, '
                'width), which needs positions="original".'
            )

    def rank_all_the_same(self) -> None:
        """Give tokens scores also where the schedule drops none, at the first boundary of the default one."""
        if not self.ranks_at and self.schedule.num_layers > 1:
            self.ranks_at = (
                Pyramid(layers=(max(1, self.schedule.num_layers // 4),))
                .resolve(self.schedule.num_layers, self.rank_at)
                .layers
            )
            checked(self.scorer, self.ranks_at, None, self.decoder.layers, self.kinds)

    def run(
        self,
        hidden: Tensor,
        positions: Tensor,
        visual: Tensor | None,
        *,
        probe: Tensor | None = None,
        question: Tensor | None = None,
        transient: Tensor | None = None,
        fleeting: int = 0,
        layout: Layout | None = None,
        usual: Mapping[int, Tensor] | None = None,
        valid: Tensor | None = None,
        cache: Cache | None = None,
        cached_valid: list[Tensor | None] | None = None,
        deepstack: list[Tensor] | None = None,
        passage: Passage | None = None,
        sound: Sound | None = None,
        newest: bool = False,
        since: int = 0,
        group: Tensor | None = None,
    ) -> Rows:
        """Run all layers; the final norm is left to the caller.

        Parameters
        ----------
        hidden : Tensor [batch, rows, hidden]
            Input embeddings; wider ones where layers get more of a row, see `Decoder.widened`.
        positions : Tensor [batch, rows] or [3, batch, rows]
            Position ids (ignored for RoPE in compact mode).
        visual : Tensor [batch, rows], bool, or None
            Rows that compete; None drops nothing.
        probe : Tensor [batch, probes], optional
            Rows that rank; negative places are empty, and a sample without any is not dropped.
        question : Tensor [batch, rows], bool, optional
            Rows that ask beside them, for scorers to which all do; by default the text behind the visual rows, up to
            the probe.
        transient : Tensor [batch, rows], bool, optional
            Rows that leave at the last boundary: a probe that nobody needs once it has ranked.
        fleeting : int
            Rows at the end that no state remembers, whether they leave or not: the probe.
        layout : Layout, optional
            Where visual rows stand in time and space, for scorers and allocators that tell them apart; one picture
            when left out.
        usual : mapping of int to Tensor, optional
            What a scorer that learns gave for the chunk before, by the layer before which it ranked.
        valid : Tensor [batch, rows], bool, optional
            False where padding.
        cache : Cache, optional
            Grows by the rows that each layer saw.
        cached_valid : list of Tensor or None, optional
            Per layer the validity [batch, past] of what `cache` holds; brought up to date in place.
        deepstack : list of Tensor [batch, rows, hidden], optional
            Features that Qwen3-VL adds after its first layers.
        passage : Passage, optional
            Where each layer's positions stand, and what happens before it runs.
        sound : Sound, optional
            Rows that compete among themselves, for a budget of their own; they are not among the visual ones.
        newest : bool
            Whether only the last row that leaves is wanted; what the others are then is not said.
        since : int
            Tokens that came before these rows, for windows of decoders whose positions do not count tokens.
        group : Tensor [batch, rows], optional
            Rows of the same number see each other where layers let them, -1 of those that see no row behind them; by
            default visual rows of one step.

        Returns
        -------
        Rows
            What left the last layer.

        Raises
        ------
        ModelError
            If a cache is to grow under gradient checkpointing.
        """
        if cache is not None:
            refuse_checkpointing(self.text)
        hidden, extra = self.decoder.parted(hidden)
        batch, length = hidden.shape[:2]
        origin = torch.arange(length, device=hidden.device).expand(batch, -1)
        drops = visual is not None and probe is not None
        nothing = torch.zeros_like(origin, dtype=torch.bool)
        competes = nothing if visual is None or not drops else visual
        together = None
        if any(kind.mutual for kind in self.kinds):
            together = steps_of(visual, layout) if group is None else group
        layout = layout or Layout.one_picture(competes)
        numbers = origin + since if self.decoder.counts else None
        rows = Rows(hidden, positions, competes, valid, origin, layout, dict(usual or {}), together, numbers)
        n_visual, n_text = count(rows) if drops else ([], [])
        asked = (probe >= 0).any(1).tolist() if probe is not None and drops else []
        if probe is not None and drops and getattr(self.scorer, "asks", "last") == "all":
            probe = all_asking(rows, probe, question)
        ratios = self.schedule.ratios or (1.0,) * len(self.ranks_at)
        ratio_of = dict(zip(self.ranks_at, ratios, strict=True)) if drops else {}
        last = max(ratio_of, default=-1)
        ropes = Ropes(self.decoder, self.compact, rows, cache, passage)
        masks, lenders = Masks(self.text.config), Lenders(self.kinds, self.turn)
        within = None if self.inner is None else self.inner.begin(self, visual is not None, passage)
        alone = max(last, lenders.end) if newest and masks.plain else len(self.kinds)
        home = hidden.device
        for i, (layer, kind) in enumerate(zip(self.decoder.layers, self.kinds, strict=True)):
            if (place := self.decoder.device(i)) is not None and place != rows.hidden.device:
                rows.move(place)
                ropes.clear()
                masks.clear()
            past_valid = cached_valid[i] if cached_valid is not None else None
            if i in ratio_of:
                leaving = transient if i == last else None
                # int() of the float64 product with the *original* count, as the released code has it
                wanted = [int(n * ratio_of[i]) if ask else n for n, ask in zip(n_visual, asked, strict=True)]
                assert probe is not None
                lent = lenders.lent(i, rows, passage)
                stayed = self._drop(rows, i, wanted, n_text, probe, leaving, past_valid, ropes, sound, lent)
                fleeting = fleeting if leaving is None else 0
                ropes.keep(stayed)
                masks.clear()
                if rows.hidden.shape[1] == 0:  # a small chunk at a small ratio: nothing is left for deeper layers
                    none = rows.boundaries[-1].scores[:, :0]
                    nothing_left = Boundary(rows.origin, none, none, rows.origin)
                    rows.boundaries += [nothing_left] * (len(ratio_of) - len(rows.boundaries))
                    break
            if passage is not None:  # it may move positions, so RoPE comes after it, too
                passage.before(i, layer, rows, partial(ropes.of, i, past_valid), lenders.lent(i, rows, passage))
            rope = ropes.of(i, past_valid)
            mask, allowed = masks.of(i, kind, rows, cache, past_valid)
            beside = None if extra is None else still_here(extra[:, :, i], rows)
            lent = lenders.lent(i, rows, passage)
            if within is not None:
                mask = within.enter(i, layer, kind, rows, rope, mask, cache, lent)
            lent = lenders.held(i, lent, cache)
            run = partial(self.decoder.run, i, rope=rope, cache=cache, extra=beside, lent=lent)
            if i >= alone:  # nobody will ask what the other rows came to: their keys and values are lent
                rows.hidden = run_last(run, rows.hidden, mask)
            elif kind.name == "state" and cache is not None:
                rows.hidden = run_states(run, cache.layers[i], rows.hidden, mask, fleeting)
            else:
                rows.hidden, own = run(rows.hidden, mask)
                lenders.note(i, own, rows)
            masks.note(i, kind, cache)
            if cached_valid is not None and kind.holds:
                cached_valid[i] = allowed
            if deepstack is not None and i < len(deepstack):
                rows.hidden = rows.hidden + still_here(deepstack[i], rows)
        rows.move(home)
        return rows

    def _drop(
        self,
        rows: Rows,
        i: int,
        wanted: list[int],
        n_text: list[int],
        probe: Tensor,
        leaving: Tensor | None,
        past_valid: Tensor | None,
        ropes: Ropes,
        sound: Sound | None = None,
        lent: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Rank with layer `i`, and keep the best `wanted` visual rows of each sample, and the best rows of sound.

        Returns the numbers, among the rows before, of those that stay [batch, kept].
        """
        device = rows.hidden.device
        again = self.scorer.once and rows.boundaries and sound is None  # then nobody asks
        asking, leaving = probe if again else standing(rows, probe.to(device)), moved(leaving, device)
        sound = None if sound is None else sound.to(device)
        scores = self._scores(rows, i, wanted, asking, past_valid, ropes, lent)
        exact, left = getattr(self.scorer, "exact", False), None
        if sound is not None:

            def rank(kind: Rows, heard: int) -> Tensor:
                return self._scores(kind, i, [heard] * len(wanted), asking, past_valid, ropes.others(kind), lent)

            share = dict(zip(self.schedule.layers, self.schedule.sound_ratios, strict=True)).get(i, 1.0)
            heard = int(sound.number * share)
            scores, gone = sound.drop(rows, scores, heard, rank, exact)
            left = [sound.number - heard] * len(wanted) if leaving is None else None
            leaving = gone if leaving is None else leaving | gone
        return drop(rows, scores, self.allocator, wanted, n_text, leaving=leaving, left=left, exact=exact)

    def _scores(
        self,
        rows: Rows,
        i: int,
        wanted: list[int],
        probe: Tensor,
        past_valid: Tensor | None,
        ropes: Ropes,
        lent: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Scores [batch, rows] by layer `i`, or what the first boundary gave if the scorer ranks once."""
        if self.scorer.once and rows.boundaries:
            first = rows.boundaries[0]  # its rows are numbered as they entered, 0, 1, ...
            return first.scores.gather(1, rows.origin)
        layer = self.text.layers[i]
        if (unshard := getattr(layer, "unshard", None)) is not None:
            unshard()  # of FSDP (fully_shard), whose layers otherwise have their weights only while they run
        ranking = Ranking(
            layer=layer,
            hidden=rows.hidden,
            rope=ropes.of(i, past_valid),
            probe=probe,
            visual=competing(rows),
            layout=rows.layout,
            past_keys=held_keys(layer, ropes.cache, i),
            allowed=allowed_columns(rows, ropes.cache, i, past_valid),
            usual=rows.usual.get(i),
            wanted=tuple(wanted),
            lent=lent,
        )
        scores = self.scorer(ranking)
        if self.learner is not None:
            rows.usual[i] = self.learner.learn(ranking)
        return scores
