"""What a scorer is given, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...common.kinds import LayerKind
from ...common.ties import exactly, spread
from ..heads import Rope, attention_of, normed, per_head
from ..rank import attention_by_row


@dataclass(frozen=True, slots=True)
class Layout:
    """Where rows stand in time and space.

    Attributes
    ----------
    frame : Tensor [batch, rows]
        Which step of time a visual row shows, counted within the chunk; -1 for text.
    place : Tensor [batch, rows]
        Where in the picture a visual row stands, the same number at the same place; -1 for text.
    steps, places : int
        How many of each the chunk has.
    width : int, optional
        Places in a row of the picture; all of them where left out.
    since : int
        Steps of the stream before this chunk.
    saliency : Tensor [batch, rows], optional
        What a gate said of each visual row; 0 for text. None without such a gate.
    """

    frame: Tensor
    place: Tensor
    steps: int
    places: int
    width: int | None = None
    since: int = 0
    saliency: Tensor | None = None

    @classmethod
    def one_picture(cls, visual: Tensor) -> Layout:
        """Rows of which no more is known than that they are visual [batch, rows]: one frame, a place for each."""
        number = visual.cumsum(1) - 1  # among visual rows, so that padding in front does not matter
        return cls(torch.where(visual, 0, -1), torch.where(visual, number, -1), 1, visual.shape[1])

    def spread(self) -> Tensor:
        """Who goes first among equals [batch, rows]; see `pdrop_video.common.ties.spread`."""
        width = self.width or max(self.places, 1)
        return spread(self.frame + self.since, self.place // width, self.place % width)

    def to(self, device: torch.device) -> Layout:
        """The same on a device."""
        salient = None if self.saliency is None else self.saliency.to(device)
        return replace(self, frame=self.frame.to(device), place=self.place.to(device), saliency=salient)

    def gather(self, index: Tensor) -> Layout:
        """The layout of the rows `index` [batch, kept]."""
        salient = None if self.saliency is None else self.saliency.gather(1, index)
        return replace(self, frame=self.frame.gather(1, index), place=self.place.gather(1, index), saliency=salient)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows that wait at a stage boundary, before the next layer runs.

    Attributes
    ----------
    layer : nn.Module
        That layer.
    hidden : Tensor [batch, rows, hidden]
        Its input.
    rope : (cos, sin) or None
        Of all rows; None before a layer without positions.
    probe : Tensor [batch, probes]
        Rows that ask; negative places are empty.
    visual : Tensor [batch, rows], bool
        Rows that compete.
    layout : Layout
        Where the rows stand in time and space.
    past_keys : Tensor [batch, kv_heads, past, head_dim] or None
        What the layer remembers.
    allowed : Tensor [batch, past + rows] or None
        Columns that are not padding.
    usual : Tensor or None
        What the scorer learned before this layer from earlier chunks, if it learns; see `Learner.learn`.
    wanted : tuple of int
        The budget: how many visual rows of each sample stay here. On the host, so that looking at it waits for no
        device.
    lent : (Tensor, Tensor) or None
        Keys (after RoPE) and values of the rows [batch, kv_heads, rows, head_dim], where the layer uses those of
        another one.
    """

    layer: Any
    hidden: Tensor
    rope: Rope | None
    probe: Tensor
    visual: Tensor
    layout: Layout
    past_keys: Tensor | None = None
    allowed: Tensor | None = None
    usual: Tensor | None = None
    wanted: tuple[int, ...] = ()
    lent: tuple[Tensor, Tensor] | None = None

    def states(self, which: str) -> Tensor:
        """Queries, keys or values ("q", "k", "v") of the rows, RoPE apart [batch, heads, rows, head_dim]."""
        if self.lent is not None and which != "q":
            return self.lent[which == "v"]
        return per_head(attention_of(self.layer), normed(self.layer, self.hidden), which)

    @property
    def saliency(self) -> Tensor | None:
        """What the stream's gate said of each row [batch, rows]; None without such a gate."""
        return self.layout.saliency

    @property
    def past(self) -> dict[str, Tensor | None]:
        """What `attention_scores` has to know of the layer beside its rows."""
        return dict(past_keys=self.past_keys, allowed=self.allowed, lent=None if self.lent is None else self.lent[0])

    def attention(self) -> Tensor:
        """What each row that asks attends to among the rows [batch, probes, rows]; see `attention_by_row`."""
        weights = attention_by_row(self.layer, self.hidden, self.rope, self.probe, **self.past)
        return weights[..., -self.hidden.shape[1] :]

    def places(self) -> Tensor:
        """Each row's place, counted from 1 [batch, rows]; 0 for text."""
        return self.layout.place.masked_fill(~self.visual, -1) + 1


@dataclass(frozen=True, slots=True)
class RankingSize:
    """The sizes of a ranking, on which its cost depends.

    Attributes
    ----------
    rows : int
        That wait at the boundary, the probe's included.
    past : int
        Columns that the next layer remembers.
    probes : int
        Rows that ask.
    hidden, queries, keys : int
        Numbers in a row, in the queries that the layer makes of it, and in the keys, or values.
    wanted : int
        Visual rows that stay.
    asking, keying : int, optional
        Multiply-adds that make a row's queries, and its keys or its values, where they are not those of one product
        with the row: 0 of keys that another layer lends.
    unfolding : int
        Multiply-adds that make the keys of each column remembered, of a layer that remembers latents.
    """

    rows: int
    past: int
    probes: int
    hidden: int
    queries: int
    keys: int
    wanted: int = 0
    asking: int | None = None
    keying: int | None = None
    unfolding: int = 0

    def making(self) -> int:
        """FLOPs of the keys of all rows, or of their values."""
        return 2 * self.rows * (self.hidden * self.keys if self.keying is None else self.keying)

    def attention(self, probes: int | None = None) -> int:
        """FLOPs of `attention_scores`: keys of all rows, queries of so many of them, and their products."""
        probes = self.probes if probes is None else probes
        asking = self.hidden * self.queries if self.asking is None else self.asking
        products = probes * (self.rows + self.past) * self.queries
        return self.making() + 2 * (probes * asking + self.past * self.unfolding + products)


class Scorer(Protocol):
    """Ranks visual rows: a frozen dataclass that can be called. Higher scores stay.

    Attributes
    ----------
    uses_probe : bool
        Whether it looks at `Ranking.probe`. Streams leave the probe out where nobody does.
    uses_layout : bool
        Whether it needs to know frames and places, which one-shot use does not.
    once : bool
        Whether it ranks at the first boundary only; later boundaries then drop by the same scores.
    asks : {"last", "all"}, optional
        Which rows `Ranking.probe` names: the last one of the question or template ("last", also where it is left out),
        or every row of its text behind the visual ones ("all", ascending, the last of them at the end).
    check : method, optional
        ``check(boundary, asked, layer, kind)`` of each layer before which it ranks, when the schedule meets the model:
        raises `ConfigError` where it can't. See `checked`.
    facts : Facts, optional
        What a catalogue says of it.
    exact : bool, optional
        Whether its scores are the same on every processor. Those of others are compared as
        `pdrop_video.common.ties.settled` has them.
    flops : method, optional
        ``flops(size: RankingSize) -> int``, the matrix products of one ranking, a multiply-add as two. Where left out,
        those of the probe's attention if it looks at the probe, and else none: what is summed, compared or normed row
        by row is not counted, as it is not in the model's own layers.
    """

    uses_probe: ClassVar[bool]
    uses_layout: ClassVar[bool]
    once: ClassVar[bool]

    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores [batch, rows], at least float32; what stands at text rows does not matter."""


def checked(
    scorer: Scorer, ranks_at: Sequence[int], asked: Sequence[int] | None, layers: Any, kinds: Sequence[LayerKind]
) -> None:
    """Let a scorer that wants to look at the layers before which it will rank, at those only.

    Parameters
    ----------
    scorer : Scorer
    ranks_at : sequence of int
        These layers.
    asked : sequence of int or None
        The boundaries by number, where they were asked for so, before they moved to layers that can rank. The scorer is
        told the first.
    layers : sequence of nn.Module
        Of the decoder.
    kinds : sequence of LayerKind

    Raises
    ------
    ConfigError
        If it can't rank there.
    """
    check = getattr(scorer, "check", None)
    if check is None:
        return
    first = asked[0] if asked else None
    for number, at in enumerate(ranks_at[: 1 if scorer.once else None]):
        check(at, None if number else first, layers[at], kinds[at])


@runtime_checkable
class Learner(Protocol):
    """A scorer that carries something from chunk to chunk, for each layer before which it ranks."""

    def learn(self, ranking: Ranking) -> Tensor:
        """What it knows with these rows seen; the next chunk's `Ranking.usual` before this layer."""


def unit_rows(hidden: Tensor) -> Tensor:
    """Rows of length 1 [batch, rows, hidden], exactly enough for cosines to be compared."""
    return F.normalize(exactly(hidden), dim=-1)


def normalised(scores: Tensor, visual: Tensor) -> Tensor:
    """Scores over visual rows moved to [0, 1] by each sample's smallest and largest."""
    low = scores.masked_fill(~visual, scores.new_tensor(float("inf"))).amin(1, keepdim=True)
    high = scores.masked_fill(~visual, scores.new_tensor(float("-inf"))).amax(1, keepdim=True)
    return ((scores - low) / (high - low).clamp(min=1e-12)).masked_fill(~visual, 0)


def standings(scores: Tensor, among: Tensor, layout: Layout) -> Tensor:
    """How many rows of `among` stand before each of them [batch, rows]: 0 for the best; equals as ties are broken.

    Scores must be settled. What stands at the other rows does not matter: they come behind.
    """
    turn = layout.spread().argsort(dim=1, stable=True)
    best_first = scores.masked_fill(~among, -torch.inf).gather(1, turn).argsort(dim=1, descending=True, stable=True)
    place = torch.arange(scores.shape[1], device=scores.device).expand_as(turn)
    return torch.empty_like(turn).scatter(1, turn.gather(1, best_first), place)


def ranks(scores: Tensor, visual: Tensor) -> Tensor:
    """Ranks over visual rows in (0, 1], 1 for the best; equal scores share the rank of the first of them."""
    best_first, order = scores.masked_fill(~visual, -float("inf")).sort(dim=1, descending=True, stable=True)
    place = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    begins = torch.ones_like(visual)
    begins[:, 1:] = best_first[:, 1:] != best_first[:, :-1]
    rank = torch.empty_like(order).scatter(1, order, torch.where(begins, place, 0).cummax(1).values)
    count = visual.sum(1, keepdim=True).clamp(min=1)
    return ((count - rank).to(scores.dtype) / count).masked_fill(~visual, 0)
