"""Pruning as masks that have gradients, by VisPCO's straight-through rule (arXiv 2604.15188), on any decoder's layers.

All rows run through all layers. Before each layer that can rank, tokens below a threshold are hidden from all rows but
themselves; how many stay is a number with a gradient, which goes through the threshold. Knows layers, rows and masks;
refuses to know what is searched.

Ours: whatever scorer the schedule has ranks, where the paper has FastV's attention; it ranks all tokens of a clip
together, without an allocator; and scores have no gradients themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ModelError
from ..pyramid import LayerLoop, Pyramid
from ..pyramid.decoder import logits_of
from ..pyramid.scorers import Layout, Ranking, Scorer
from ..stream.lm import VideoLM
from .judge import FULL, Clip, Objective, Reference

WIDTH = 5.0
TEMPERATURE = 0.1
PINNED = 1000.0
"""The threshold's width in ranks, squared; of the sigmoid whose gradient is taken; the score of text, which stays."""
TINY = 1e-8
HIDDEN = 1e-6
"""Weight of a hidden column beside one that is seen."""


def threshold(sorted_scores: Tensor, count: Tensor) -> Tensor:
    """The score [] that about `count` [] of falling scores [rows] are above: their mean, weighted by ranks around it.

    Weights are exp(-(rank - count)^2 / 5), ranks counted from 0.

    Examples
    --------
    >>> round(float(threshold(torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor(1.0))), 6)
    1.753193
    """
    rank = torch.arange(len(sorted_scores), dtype=count.dtype, device=count.device)
    weights = torch.exp(-((rank - count) ** 2) / WIDTH)
    return (sorted_scores * weights).sum() / (weights.sum() + TINY)


def straight_through(scores: Tensor, at: Tensor) -> Tensor:
    """1 where a score reaches the threshold, else 0 [rows], with the gradient of sigmoid((score - threshold) / .1)."""
    soft = torch.sigmoid((scores - at) / TEMPERATURE)
    return soft + ((scores >= at).to(soft) - soft).detach()


def kept(scores: Tensor, visual: Tensor, share: Tensor) -> Tensor:
    """Which rows stay [rows], 0 or 1 with gradients: text, and about so much of the visual ones.

    Parameters
    ----------
    scores : Tensor [rows]
        Higher stays; what stands at text does not matter.
    visual : Tensor [rows], bool
    share : Tensor []
        Of the visual rows.
    """
    among = scores[visual].to(share.dtype)
    scaled = torch.full(scores.shape, PINNED, dtype=share.dtype, device=share.device)
    scaled[visual] = (among - among.min()) / (among.max() - among.min() + TINY)
    logs = (scaled + TINY).log()
    count = visual.sum() * share + (~visual).sum()
    return straight_through(logs, threshold(logs.sort(descending=True).values, count))


@dataclass(frozen=True, slots=True, eq=False)
class Laid:
    """A clip and a question in one row after another, as a stream that keeps everything runs them.

    Attributes
    ----------
    hidden : Tensor [1, rows, hidden]
        Input embeddings.
    positions : Tensor [1, rows] or [3, 1, rows]
    visual : Tensor [1, rows], bool
    layout : Layout
        Over the whole clip.
    deepstack : tuple of Tensor [1, rows, hidden]
        What is added behind the first layers.
    group : Tensor [1, rows] or None
        See `LayerLoop.run`.
    reference : Reference
        What the full model says behind the last rows.
    """

    hidden: Tensor
    positions: Tensor
    visual: Tensor
    layout: Layout
    deepstack: tuple[Tensor, ...]
    group: Tensor | None
    reference: Reference

    @property
    def asks(self) -> int:
        """The number of the question's last row."""
        return self.hidden.shape[1] - len(self.reference.known)


def lay_out(lm: VideoLM, clip: Clip, objective: Objective) -> list[Laid]:
    """The rows of a clip with each of its questions, and with the answer's where it is compared."""
    with lm.stream(FULL) as stream:
        noted: list[dict[str, Any]] = []
        run = stream.loop.run

        def note(hidden: Tensor, positions: Tensor, visual: Tensor | None, **given: Any) -> Any:
            noted.append({**given, "hidden": hidden, "positions": positions, "visual": visual})
            return run(hidden, positions, visual, **given)

        stream.loop.run = note  # type: ignore[method-assign]
        with lm.turnstile:
            stream._ingest.begin()  # once more: the prompt's rows
        for chunk in clip.chunks:
            stream.push(chunk)
        watched, laid = list(noted), []
        for question in clip.questions:
            reference = objective.full(stream, question)
            noted.clear()
            stream.answer_logits(question, reference.ids)
            laid.append(_joined([*watched, *noted], reference))
    return laid


def _joined(runs: list[dict[str, Any]], reference: Reference) -> Laid:
    """Rows that were run one after another, as one run."""
    nothing = [torch.zeros_like(each["hidden"][..., 0], dtype=torch.bool) for each in runs]
    visual = [none if each["visual"] is None else each["visual"] for none, each in zip(nothing, runs, strict=True)]
    layouts = [each.get("layout") for each in runs]
    seen = [layout for layout in layouts if layout is not None]
    away = [torch.full_like(none, -1, dtype=torch.long) for none in nothing]

    def over(name: str) -> Tensor:
        since = [0 if layout is None or name != "frame" else layout.since for layout in layouts]
        each = [none if of is None else getattr(of, name) for of, none in zip(layouts, away, strict=True)]
        return torch.cat([torch.where(one < 0, one, one + n) for one, n in zip(each, since, strict=True)], 1)

    steps = max((layout.since + layout.steps for layout in seen), default=1)
    whole = Layout(over("frame"), over("place"), steps, max(x.places for x in seen), seen[0].width)
    depth = max(len(each.get("deepstack") or ()) for each in runs)
    deep = [each.get("deepstack") or [torch.zeros_like(each["hidden"])] * depth for each in runs]
    groups = [each.get("group") for each in runs]
    since = [0 if layout is None else layout.since for layout in layouts]  # the same number is of other steps later on
    numbered = [n if g is None else torch.where(g < 0, g, g + s) for g, n, s in zip(groups, away, since, strict=True)]
    group = torch.cat(numbered, 1)
    return Laid(
        torch.cat([each["hidden"] for each in runs], 1).clone(),
        torch.cat([each["positions"] for each in runs], -1).clone(),
        torch.cat(visual, 1).clone(),
        whole,
        tuple(torch.cat(each, 1).clone() for each in zip(*deep, strict=True)),
        group.clone() if any(g is not None for g in groups) else None,
        replace(reference, known=reference.known.clone()),
    )


class SoftPass:
    """A model's layers under shares of the visual tokens that have gradients.

    Parameters
    ----------
    lm : VideoLM
    base : Pyramid
        Whose scorer ranks.

    Raises
    ------
    ModelError
        If some layers do not attend to columns of their own, or attention takes no mask of numbers.
    """

    def __init__(self, lm: VideoLM, base: Pyramid) -> None:
        self.loop = LayerLoop(lm.model.get_decoder(), replace(base, scorer=base.scorer or "contrast"))
        self.model, self.decoder, self.scorer = lm.model, self.loop.decoder, self.loop.scorer
        if not all(kind.holds and kind.source is None for kind in self.decoder.kinds):
            raise ModelError(
                "a search by gradients hides columns of attention, and some layers of this model carry a state, lend "
                "their keys or attend to nothing; search without gradients."
            )
        if self.decoder.text.config._attn_implementation not in ("eager", "sdpa"):
            raise ModelError('a search by gradients needs masks of numbers; load the model with attn="sdpa".')

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self.decoder.kinds)

    def logits(self, laid: Laid, shares: Tensor | None = None) -> Tensor:
        """Of the rows that are compared [1 + tokens, vocabulary]; of all tokens where no shares [layers] are given."""
        hidden, extra = self.decoder.parted(laid.hidden)
        total, stays = hidden.shape[1], None
        own = torch.eye(total, dtype=hidden.dtype, device=hidden.device)
        for i, layer in enumerate(self.decoder.layers):
            rope = self.decoder.rope(i, hidden, laid.positions)
            if shares is not None and i in self.loop.rank_at and i:
                scores = _scores(self.scorer, layer, hidden, rope, laid, float(shares[i].detach()))
                now = kept(scores, laid.visual[0], shares[i])
                stays = now if stays is None else stays * now
            mask = self._mask(i, laid, hidden)
            if stays is not None:
                mask = mask + (stays + HIDDEN * (1 - stays)).log().to(hidden.dtype) * (1 - own)
            beside = None if extra is None else extra[:, :, i]
            hidden, _ = self.decoder.run(i, hidden, mask, rope=rope, cache=None, extra=beside)
            if i < len(laid.deepstack):
                hidden = hidden + laid.deepstack[i]
        return logits_of(self.model, self.decoder.norm(hidden[0, laid.asks :]))

    def divergence(self, laid: Laid, shares: Tensor) -> Tensor:
        """KL(all tokens || shares) [], in nats, the mean over the rows that are compared."""
        found = self.logits(laid, shares).double().log_softmax(-1)
        return F.kl_div(found, laid.reference.known.to(found), reduction="sum", log_target=True) / len(found)

    def _mask(self, i: int, laid: Laid, hidden: Tensor) -> Tensor:
        """What is added to scores of attention without any pruning [1, 1, rows, rows]."""
        kind, total = self.decoder.kinds[i], hidden.shape[1]
        row = torch.arange(total, device=hidden.device)
        sees = (row[:, None] >= row)[None]
        if kind.window is not None:
            place = row[None] if self.decoder.counts else laid.positions
            sees = sees & (place[..., :, None] - place[..., None, :] < kind.window)
        if kind.mutual and laid.group is not None:
            sees = sees | ((laid.group[..., None] == laid.group[:, None]) & (laid.group[..., None] >= 0))
        least = torch.finfo(hidden.dtype).min / 4
        return torch.zeros(sees.shape, dtype=hidden.dtype, device=hidden.device).masked_fill(~sees, least)[:, None]


@torch.no_grad()
def _scores(scorer: Scorer, layer: Any, hidden: Tensor, rope: Any, laid: Laid, share: float) -> Tensor:
    """What a scorer gives the rows [rows] before a layer; the question's last row asks."""
    asks = torch.tensor([[laid.asks]], device=hidden.device)
    wanted = (max(1, int(share * int(laid.visual.sum()))),)
    ranking = Ranking(layer, hidden.detach(), rope, asks, laid.visual, laid.layout, wanted=wanted)
    return scorer(ranking)[0]
