"""HoliTom: what stands still over a run of frames is merged, and of the rest the salient stays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import choice, real, share, whole
from ..common.ties import settled
from ..registry import Facts
from .base import Reduced, Tokens
from .density import distances, peaks
from .likeness import apart, line_at, precisely
from .merging import Merged
from .steps import SALIENT, best_of_each, salience, unit_by_unit


@dataclass(frozen=True, slots=True)
class HoliTom:
    """HoliTom's half before the language model, arXiv 2505.21334: runs of frames in which most stands still.

    Two tokens of one place in neighbouring steps are alike above a cosine. Steps are divided into runs so that as many
    tokens as possible are alike throughout their run: each such place becomes one token, the mean over its run, in the
    run's first step. What is left of the budget after that is a share of both kinds. Of the tokens that stand still it
    is the peaks of density (DPC-kNN), each merged with those nearest to it; of the others, step by step, the salient
    ones, and of those between them as many peaks as `context` says (as released it raises above 0). For a chunk that
    holds a whole video this is the release, but for the order of tokens, which here is that of their places.

    How many stay depends on what is shown: shares are rounded run by run, up for tokens that change.

    Ours: salient is what is least like the mean of its step, so that every family can do it; with
    ``salient="attention"`` it is what the release goes by, the attention that a token receives in the tower's last
    layer. Equal densities go by an order spread over the picture, where the release adds random noise; for one peak
    alone density has two neighbours, not one, which is the token itself. A place that a gate left out ends what stands
    still there; at least one token stays.

    Nothing is carried. Runs end with the chunk: what stays depends on where chunks begin and end, within one and a half
    tokens a step of its share. With `unit` it does not depend on chunks; pushes of a frame or two need that to have
    runs at all.

    Parameters
    ----------
    keep : float
        Share of the tokens that stays, about.
    threshold : float
        Cosine above which two tokens are alike.
    context : float
        Share of the tokens that change and stay which stand for others around them: the release's D.
    own : float, optional
        Weight of a peak beside the mean of what is merged into it: the release's beta; None for the mean of all.
    nearest : int
        Neighbours that make density, the token itself among them.
    longest : int
        Steps of a run at most.
    salient : str
        "features", or "attention" that a token receives in the tower's last layer, for families that hand it over.
    unit : int
        Steps that are reduced together, whatever the chunks; 1 for those of a chunk.

    Raises
    ------
    ConfigError
        If one of them is out of range.
    """

    facts: ClassVar[Facts] = Facts(
        says="runs of similar visual tokens merged over time, then density peaks and salient tokens",
        paper="HoliTom, arXiv 2505.21334",
        formula=(
            "runs of steps maximise the number of tokens merged, where all of a place's neighbours in time have\n"
            "    cos > threshold\n"
            "a place that stands still in its run becomes the mean over the run\n"
            "of still ones density peaks stay: exp(-mean d^2 to the nearest) * (distance to the nearest denser\n"
            "    token); of others the least like the mean of their step"
        ),
        ours=True,
    )
    keep: float = 0.25
    threshold: float = 0.8
    context: float = 0.0
    own: float | None = 0.6
    nearest: int = 7
    longest: int = 1024
    salient: str = "features"
    unit: int = 1

    def __post_init__(self) -> None:
        """Check all of them."""
        object.__setattr__(self, "salient", choice("salient", self.salient, SALIENT))
        object.__setattr__(self, "keep", share("keep", self.keep))
        object.__setattr__(self, "threshold", real("threshold", self.threshold, -1, 1))
        object.__setattr__(self, "context", real("context", self.context, 0, 1))
        if self.own is not None:
            object.__setattr__(self, "own", real("own", self.own, 0, 1))
        for name in ("nearest", "longest", "unit"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))

    @property
    def needs(self) -> tuple[str, ...]:
        """The tower's attention, if that is what is salient."""
        return ("attention",) if self.salient == "attention" else ()

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Unit by unit."""
        return unit_by_unit(tokens, self.unit, self._unit), {}

    def _unit(self, tokens: Tokens) -> Reduced:
        features = precisely(tokens.features)
        number = torch.full((len(tokens.seconds), tokens.places), -1, device=tokens.step.device)
        number[tokens.step, tokens.place()] = torch.arange(len(tokens), device=number.device)
        alike = self._alike(features, number, tokens.features.dtype).cpu().numpy()
        runs, saved = runs_of(alike, self.longest)
        rate = min(self.keep / ((len(tokens) - saved) / len(tokens)), 1)
        # which run's still token each is, by its place; -1 for what changes
        still = np.full((len(tokens.seconds), tokens.places), False)
        for first, last in runs:
            if last > first:
                still[first : last + 1] = alike[first:last].all(0)
        changes = ~torch.from_numpy(still).to(number.device)[tokens.step, tokens.place()]
        merged = Merged(tokens)
        self._changing(tokens, features, changes, rate, merged)
        turn = tokens.turn()
        for first, last in runs:
            places = torch.from_numpy(still[first].nonzero()[0] if last > first else np.empty(0, int)).to(number.device)
            count = round(len(places) * rate)
            if count:
                chain = number[first : last + 1, places]  # [steps, places]
                mean = features[chain].mean(0)
                self._cluster(mean, turn[chain[0]], chain, count, tokens.features.dtype, merged)
        return merged.reduced(self.salient)

    def _alike(self, features: Tensor, number: Tensor, dtype: torch.dtype) -> Tensor:
        """Whether each place is alike in a step and the next one [steps - 1, places]."""
        there = (number[:-1] >= 0) & (number[1:] >= 0)
        features = F.normalize(features, dim=-1)
        change = apart((features[number[:-1]] * features[number[1:]]).sum(-1), dtype)
        return (change < line_at(self.threshold, dtype).to(change)) & there

    def _changing(self, tokens: Tokens, features: Tensor, changes: Tensor, rate: float, merged: Merged) -> None:
        """Of what changes, step by step."""
        steps = len(tokens.seconds)
        sizes = tokens.step[changes].bincount(minlength=steps).tolist()
        kept = [math.ceil(size * rate) for size in sizes]
        salient = [round(count * (1 - self.context)) for count in kept]
        counts = torch.tensor([*salient, 0], device=changes.device)
        chosen = best_of_each(tokens, salience(tokens, self.salient), counts, tokens.step.masked_fill(~changes, steps))
        merged.alone(chosen.nonzero()[:, 0])
        if kept == salient:
            return
        rest, turn = changes & ~chosen, tokens.turn()
        for step, count in enumerate(kept):
            if count > salient[step]:
                own = (rest & (tokens.step == step)).nonzero()[:, 0]
                dtype = tokens.features.dtype
                self._cluster(features[own], turn[own], own[None], count - salient[step], dtype, merged)

    def _cluster(
        self, features: Tensor, turn: Tensor, chain: Tensor, count: int, dtype: torch.dtype, merged: Merged
    ) -> None:
        """So many peaks, and what is nearest to each of them; each is a mean over its column of `chain`."""
        distance = distances(features, dtype)
        # with fewer neighbours every token is as dense as any other
        centres = peaks(distance, turn, count, min(self.nearest, max(count, 2)), dtype)
        nearest = settled(distance[:, centres], dtype).argmin(1)
        among = torch.zeros(count, len(features), dtype=features.dtype, device=features.device)
        others = torch.ones(len(features), dtype=torch.bool, device=features.device).index_fill(0, centres, False)
        among[nearest[others], others.nonzero()[:, 0]] = 1
        sizes = among.sum(1)
        if self.own is None:
            own, share_of_each = 1 / (sizes + 1), 1 / (sizes + 1)
        else:
            own = torch.where(sizes > 0, self.own, 1.0).to(sizes)
            share_of_each = (1 - own) / sizes.clamp(min=1)
        among = among * share_of_each[:, None]
        among[torch.arange(count, device=centres.device), centres] = own
        merged.means(chain[0, centres], chain, among)

    def left(self, tokens: int) -> None:
        """Up to what they show."""

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Nothing is carried."""
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        """At most, since the runs depend on what is shown: one distance for each pair, and a cosine."""
        return 2 * tokens * tokens * hidden + 6 * tokens * hidden


def runs_of(alike: np.ndarray, longest: int) -> tuple[list[tuple[int, int]], int]:
    """Steps in runs, first and last of each, so that most tokens are saved by merging what is alike throughout a run.

    Parameters
    ----------
    alike : array [steps - 1, places], bool
    longest : int
        Steps of a run at most.

    Returns
    -------
    runs, saved : list of (first, last), int
        Of divisions that save as much, that of single steps and short runs, as the release decides.
    """
    steps = len(alike) + 1
    gain = np.zeros((steps, steps), np.int64)
    for first in range(steps - 1):
        still = np.logical_and.accumulate(alike[first:]).sum(1)
        gain[first, first + 1 :] = still * np.arange(1, steps - first)
    best, begins = [0], [0]
    for last in range(1, steps):
        most, begin = best[last - 1], last
        for first in range(last - 1, max(last - longest, -1), -1):
            saved = (best[first - 1] if first else 0) + int(gain[first, last])
            if saved > most:
                most, begin = saved, first
        best.append(most)
        begins.append(begin)
    runs, last = [], steps - 1
    while last >= 0:
        runs.append((begins[last], last))
        last = begins[last] - 1
    return runs[::-1], best[-1]
