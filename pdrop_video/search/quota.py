"""A schedule from how much four bits take from each layer: layers that lose little drop more (QUOTA, arXiv 2604.17320).

Knows a model, videos and the formulas. Refuses to know budgets: how much is left in the end is said beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common import checks
from ..costs.decoder import DecoderShape
from ..errors import ConfigError
from ..memory import Memory
from ..pyramid import Pyramid
from ..pyramid.decoder import stack_of
from ..pyramid.scorers import Ranking
from ..pyramid.scorers.quota import four_bits
from ..stream.lm import VideoLM
from .judge import Clip, checked_clip
from .kernels import Kernel

_ETA = 1e-6
_STRONGEST = 10
_COMPARED = 1024
"""Most visual tokens of a chunk that are compared with each other, evenly spaced."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a calibration set says of each layer before which tokens can be ranked.

    Attributes
    ----------
    layers : tuple of int
    sensitivity : tuple of float
        The median over visual tokens of ``|Q(x) - x| / (|x| + 1e-6)``, x the hidden state that enters the layer and
        Q(x) its four bits.
    concentration : tuple of float
        The median over chunks of the median of the ten largest weights that text puts on visual tokens.
    redundancy : tuple of float
        The median over chunks of the median cosine between two visual tokens.
    """

    layers: tuple[int, ...]
    sensitivity: tuple[float, ...]
    concentration: tuple[float, ...]
    redundancy: tuple[float, ...]


def quota_schedule(
    lm: VideoLM,
    clips: Sequence[Clip],
    *,
    least: float = 0.3,
    tau: float = 0.5,
    boundaries: int = 6,
    layers: Sequence[int] | None = None,
    base: Pyramid | None = None,
) -> Pyramid:
    """A pyramid with a boundary before each of several layers in a row, which drops the more the less the layer loses.

    Parameters
    ----------
    lm : VideoLM
    clips : sequence of Clip
        The calibration set, one or more; the first question of each is asked.
    least : float
        Share of the visual tokens that is left in the end, in (0, 1).
    tau : float
        Temperature: the higher, the more alike what boundaries drop.
    boundaries : int
        How many, if `layers` does not say which.
    layers : sequence of int, optional
        Candidate layers. By default those that `candidates` chooses.
    base : Pyramid, optional
        Where scorer, allocator, positions and what else come from; ``Pyramid(scorer="quota")`` by default.

    Returns
    -------
    Pyramid

    Raises
    ------
    ConfigError
        If there are no clips, or a number or a layer is none that fits.

    Notes
    -----
    The paper measures a model that runs in four bits; there is no released code. Ours: hidden states that enter a layer
    as what four bits perturb, token by token, while the model itself runs as it is; `tau`, `least` and `boundaries`;
    how candidates follow from concentration and redundancy; shares of the tokens that there are in place of a count
    noted in calibration. Nothing is claimed of models in four bits. Where sensitivities are alike the schedule hardly
    differs from a straight line: compare it with one.
    """
    least, tau = checks.share("least", least), checks.real("tau", tau, 0, above=True)
    base = checks.instance("base", Pyramid(scorer="quota") if base is None else base, Pyramid, "Pyramid(scorer=...)")
    boundaries = checks.whole("boundaries", boundaries)
    can = DecoderShape.of(lm.model.config).rank_at
    if layers is not None:
        layers = checks.several("layers", layers, lambda name, each: checks.whole(name, each, 0, lm.num_layers - 1))
        replace(base, layers=layers, stages=None, ratio=None, ratios=None, average=None)  # in order, without repeats
        if not layers or (other := [each for each in layers if each not in can]):
            raise ConfigError(
                f"layers is {checks.shown(layers)}; expected some of {', '.join(map(str, can))}, before which this "
                f"model's tokens can be ranked{'' if not layers else f', and not {other[0]}'}."
            )
    measured = measure(lm, clips)
    layers = candidates(measured, lm.num_layers, boundaries) if layers is None else layers
    found = [measured.sensitivity[measured.layers.index(layer)] for layer in layers]
    ratios = shares_left(found, tau=tau, least=least)
    return replace(base, stages=None, ratio=None, average=None, layers=tuple(layers), ratios=ratios)


def quota_kernel(measured: Measured, *, tau: float = 0.5, boundaries: int = 6) -> Kernel:
    """The same as a shape of two numbers, a depth and what is left in the end, for searches at a budget; ours.

    Its boundaries are the first so many layers that can rank from the depth on.

    Parameters
    ----------
    measured : Measured
        By `measure`.
    tau : float
    boundaries : int
    """
    boundaries = checks.whole("boundaries", boundaries)

    def kernel(layers: int, depth: float, ratio: float) -> list[float]:
        places = [n for n, layer in enumerate(measured.layers) if layer >= depth][:boundaries]
        shares = shares_left([measured.sensitivity[n] for n in places], tau=tau, least=ratio) if places else ()
        left = dict(zip((measured.layers[n] for n in places), shares, strict=True))
        now, retention = 1.0, []
        for layer in range(layers):
            now = left.get(layer, now)
            retention.append(now)
        return retention

    return kernel


def shares_left(sensitivity: Sequence[float], *, tau: float = 0.5, least: float = 0.3) -> tuple[float, ...]:
    """Shares of the visual tokens that are left after a boundary before each candidate layer.

    Sensitivities are brought to [.1, .9] by their 10th and 90th percentile; a boundary drops its share of 1 - `least`,
    the softmax over (1 - sensitivity) / `tau`.

    Examples
    --------
    >>> [round(share, 4) for share in shares_left((0.02, 0.05, 0.03, 0.20, 0.04, 0.06))]
    [0.8446, 0.7268, 0.5714, 0.54, 0.3974, 0.3]
    """
    of = torch.tensor(sensitivity, dtype=torch.float64)
    low, high = torch.quantile(of, of.new_tensor([0.1, 0.9]))
    scaled = ((of - low) / (high - low).masked_fill(high == low, 1)).clamp(0.1, 0.9)
    drops = (1 - least) * ((1 - scaled) / tau).softmax(0)
    left = (1 - drops.cumsum(0)).clamp(min=least)
    left[-1] = least  # but for rounding it is
    return tuple(left.tolist())


def candidates(measured: Measured, depth: int, count: int) -> tuple[int, ...]:
    """So many layers in a row, of those that can rank, in which visual tokens are most alike and few are attended to.

    The first two layers of the model and its last eighth are left out, where enough others are there. What is largest
    is the sum of concentration and redundancy, each brought to [0, 1] over all layers; of equals the earliest.
    """
    inside = [n for n, layer in enumerate(measured.layers) if 2 <= layer < depth - depth // 8]
    inside = inside if len(inside) >= count else list(range(len(measured.layers)))
    count = min(count, len(inside))
    worth = _unit(measured.concentration) + _unit(measured.redundancy)
    sums = worth[inside].unfold(0, count, 1).sum(-1)
    first = int((sums >= sums.max() - 1e-9).nonzero()[0, 0])
    return tuple(measured.layers[n] for n in inside[first : first + count])


def _unit(numbers: Sequence[float]) -> Tensor:
    """The smallest at 0, the largest at 1."""
    values = torch.tensor(numbers, dtype=torch.float64)
    span = values.max() - values.min()
    return (values - values.min()) / span.masked_fill(span == 0, 1)


def measure(lm: VideoLM, clips: Sequence[Clip]) -> Measured:
    """Watch clips with all their tokens, and measure what enters each layer before which tokens can be ranked.

    Raises
    ------
    ConfigError
        If there are no clips, or one is none.
    """
    checks.instance("lm", lm, VideoLM, "pdrop_video.load()")
    clips = checks.several("clips", clips, checked_clip)
    if not clips:
        raise ConfigError("clips is empty; expected one or more, by which layers are measured.")
    layers, meter = DecoderShape.of(lm.model.config).rank_at, _Meter()
    pyramid = Pyramid(layers=layers, ratios=(1.0,) * len(layers), scorer=meter)
    for clip in clips:
        with lm.stream(pyramid, Memory(tokens=None), standing_question=clip.questions[0]) as stream:
            for chunk in clip.chunks:
                stream.push(chunk)
    stack = stack_of(lm.model.get_decoder()).layers
    by_layer = [meter.seen[id(stack[layer])] for layer in layers]
    lost, strongest, alike = (
        tuple(float(torch.cat([piece[n] for piece in pieces]).median()) for pieces in by_layer) for n in range(3)
    )
    return Measured(layers, lost, strongest, alike)


@dataclass(frozen=True, slots=True)
class _Meter:
    """A scorer that keeps what it sees, by layer: what is lost of each token, and two medians a chunk; on the host."""

    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = False
    asks: ClassVar[Literal["last", "all"]] = "all"
    seen: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = field(default_factory=dict, compare=False)

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """Equal scores: nothing is dropped."""
        visual = ranking.visual[0]
        rows = ranking.hidden[0, visual].double()
        if len(rows):
            lost = (four_bits(rows) - rows).norm(dim=-1) / (rows.norm(dim=-1) + _ETA)
            asked = ranking.attention()[0][:, visual].double()
            top = asked.flatten().topk(min(_STRONGEST, asked.numel())).values.median()
            unit = F.normalize(rows[:: -(-len(rows) // _COMPARED)], dim=-1)
            above = torch.ones(len(unit), len(unit), dtype=torch.bool, device=rows.device).triu(1)
            alike = (unit @ unit.mT)[above] if len(unit) > 1 else rows.new_ones(1)
            parts = lost.cpu(), top[None].cpu(), alike.median()[None].cpu()
            self.seen.setdefault(id(ranking.layer), []).append(parts)
        return torch.zeros_like(ranking.visual, dtype=torch.float32)
