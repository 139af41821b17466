"""AOT: anchors that attention names, and what optimal transport brings to them within a step and across a segment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import choice, real, share, switch, whole
from ..common.ties import comparable, exactly, settled, unlike, working
from ..registry import Facts
from .base import Reduced, Tokens
from .layout import Layout
from .segments import flowing, parts
from .steps import rank
from .transport import cosines, sinkhorn

ATTENTION = "attention", "attention_early"
_TWICE_VARIANCE = 4.5  # of the Gaussian over time, whose sigma is 1.5 steps
_NEVER_ONE = 1e-6  # by how much a cosine between steps stays away from -1 and 1


@dataclass(frozen=True, slots=True)
class AOT:
    """Anchors and optimal transport, arXiv 2603.01400: the rest of a segment flows into its first step's anchors.

    1. *Anchors* of each step: half of them the tokens that receive most attention in an early layer of the tower, as
       many in each window of the picture; the others those that receive most in its last layer.
    2. *Within a step* its other tokens x flow into its anchors y. Costs are 1 - cos(x, y) + spatial * distance, places
       running from 0 to 1 both ways; Sinkhorn's plan T makes y_T = (y + sum T x) / (1 + sum T). y_M is the mean of an
       anchor and all to which it is the nearest by cosine; an anchor becomes (1 - mean) * y_T + mean * y_M.
    3. *Across a segment* of `unit` steps the anchors of each later step, j steps on, flow into those of the first, one
       step after another. Costs are 1 - cos, the smallest taken off, times 1 - exp(-j^2 / 4.5); the plan's rows are
       made to sum to 1. Tokens whose largest share is lowest are what is new: they go on by themselves. Others flow.

    These are the numbers of the released code (TyroneLi/AOT). In the paper `spatial` and `mean` are 0.

    Ours: it works on tokens that enter the language model, not on the tower's patches (the release pools features and
    anchors alike, which leaves no fixed number). So many go on as `keep` says, of each segment; how many anchors a step
    has follows from that and `quantile` (the release's is tuned by hand). Where half of the anchors is no multiple of
    the windows, those of the highest attention have one more. Sinkhorn stops for each step by itself, in float64 (the
    release's frames stop together, in their own precision). A segment begins at its first step that has tokens, if a
    gate left any. Of equal largest shares the least cosine to an anchor is new. Anchors come out once, as means; the
    release puts the first step's tokens, as they are after 2, in front as well (`duplicate_first`). For families that
    say nothing of attention, ``anchors="features"`` takes tokens by 1 - cosine to the mean of their step.

    Nothing is carried. A segment is a unit of the stream's steps: the result depends on no chunk's borders.

    Parameters
    ----------
    keep : float
        Share of the tokens of each segment that goes on: max(1, int(tokens * keep)).
    quantile : float
        About which share of a later step's anchors goes on by itself, from 0 to 1.
    mean, spatial : float
        As above; from 0 to 1, from 0 to 4.
    eps : float
        Weight of the plan's entropy, from 0.02 to 10.
    rounds : int
        Of Sinkhorn, at most; they stop where the scaling of sources moves by less than 0.01 in the mean.
    windows : int
        Along each side of the picture.
    within, across : bool
        Whether 2 and 3 are done. Without 2 what is no anchor is left out, without 3 all steps' anchors go on.
    duplicate_first : bool
        Put the merged anchors where their places are seen last in the segment without being kept, and what they were
        before 3 in front. One whose place is not seen again comes out once, so that fewer than `keep` may go on.
    anchors : str
        "attention" or "features".
    unit : int
        Steps of a segment: 4 in the release for 32 frames, 8 for 64.

    Raises
    ------
    ConfigError
        If one of them is out of its bounds.
    """

    facts: ClassVar[Facts] = Facts(
        says="visual tokens that the vision tower attends to, the others merged into them by optimal transport",
        paper="AOT, arXiv 2603.01400",
        formula=(
            "T = Sinkhorn's transport plan, costs 1 - cos(x, y) + spatial * distance(x, y), entropy weight eps\n"
            "anchor = (1 - mean) * (y + sum T x) / (1 + sum T) + mean * (mean of y and the x nearest to it)\n"
            "over time, j steps on: costs (1 - cos - smallest) * (1 - exp(-j^2 / 4.5))"
        ),
        ours=True,
    )
    keep: float = 0.25
    quantile: float = 0.3
    mean: float = 0.1
    spatial: float = 0.5
    eps: float = 0.1
    rounds: int = 100
    windows: int = 3
    within: bool = True
    across: bool = True
    duplicate_first: bool = False
    anchors: str = "attention"
    unit: int = 4

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name, value in (
            ("keep", share("keep", self.keep)),
            ("quantile", real("quantile", self.quantile, 0, 1)),
            ("mean", real("mean", self.mean, 0, 1)),
            ("spatial", real("spatial", self.spatial, 0, 4)),
            ("eps", real("eps", self.eps, 0.02, 10)),
            ("rounds", whole("rounds", self.rounds, 1, 10_000)),
            ("windows", whole("windows", self.windows, 1, 64)),
            ("within", switch("within", self.within)),
            ("across", switch("across", self.across)),
            ("duplicate_first", switch("duplicate_first", self.duplicate_first)),
            ("anchors", choice("anchors", self.anchors, ("attention", "features"))),
            ("unit", whole("unit", self.unit, 1, 4096)),
        ):
            object.__setattr__(self, name, value)

    @property
    def needs(self) -> tuple[str, ...]:
        """Attention of two layers of the tower, unless anchors go by features."""
        return ATTENTION if self.anchors == "attention" else ()

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Anchors, then who flows into whom, then all of it as one row of weights for each that goes on."""
        # the device is asked how many tokens each step has; how many go on follows from that
        counts = torch.bincount(tokens.step, minlength=len(tokens.seconds)).tolist()
        wanted, going, heads = self._budget(counts)
        lay = Layout.of(tokens, self._anchors(tokens, wanted), counts, wanted, rest=self.within)
        own, given, merged = self._within(tokens, lay)
        faded, taken, stays = self._across(tokens, lay, merged, going, heads)
        head = torch.tensor(heads, device=tokens.step.device)
        begins = head == torch.arange(len(heads), device=head.device)
        # row by row of [steps, anchors], which is the order of the tokens
        stays = torch.where(begins[:, None], lay.anchors, stays).flatten()
        picked = stays.long().argsort(descending=True, stable=True)[: sum(going)]
        step, number = picked // own.shape[1], picked % own.shape[1]
        kept, itself = lay.anchor[step, number], torch.eye(own.shape[1]).to(own)[number]
        rows = lay.rows(step, itself * own[step], given[step, number])
        first = begins[step].nonzero()[:, 0]
        step, number = step[first], number[first]
        means, through = rows[first] * faded[step, number, None], taken @ given
        for behind in range(1, min(self.unit, len(heads))):
            at = (step + behind).clamp(max=len(heads) - 1)
            flows = ((at == step + behind) & (head[at] == step))[:, None]
            means += lay.rows(at, flows * taken[at, number] * own[at], flows * through[at, number])
        if self.duplicate_first:
            kept, rows = self._twice(tokens, kept, rows, first, means, head)
        else:
            rows = rows.index_copy(0, first, means)
        return Reduced(kept, rows), {}

    @staticmethod
    def _twice(
        tokens: Tokens, kept: Tensor, rows: Tensor, first: Tensor, means: Tensor, head: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The merged anchors behind the tokens from which they began, at the latest free one of the same place."""
        of, number = head[tokens.step] * tokens.places + tokens.place(), torch.arange(len(tokens), device=kept.device)
        free = (head[tokens.step] != tokens.step).index_fill(0, kept, False)
        last = torch.full((len(head) * tokens.places,), -1, device=kept.device)
        last = last.scatter_reduce(0, of, torch.where(free, number, -1), "amax")[of[kept[first]]]
        again = last >= 0
        rows = rows.index_copy(0, first[~again], means[~again])
        kept, rows = torch.cat([kept, last[again]]), torch.cat([rows, means[again]])
        order = kept.argsort()
        return kept[order], rows[order]

    def _budget(self, counts: list[int]) -> tuple[list[int], list[int], list[int]]:
        """Of each step: its anchors, how many of them go on, and the step into which the others flow."""
        wanted, going, heads = [0] * len(counts), [0] * len(counts), list(range(len(counts)))
        for begin in range(0, len(counts), self.unit):
            steps = [t for t in range(begin, min(begin + self.unit, len(counts))) if counts[t]]
            left = self.left(sum(counts[t] for t in steps))
            if not self.across or len(steps) < 2:
                for t, some in zip(steps, parts(left, [counts[t] for t in steps]), strict=True):
                    wanted[t] = going[t] = some
                continue
            sizes, times = [counts[t] for t in steps], 2 if self.duplicate_first else 1
            for t, some, new in zip(steps, *flowing(sizes, left, self.quantile, times), strict=True):
                wanted[t], going[t], heads[t] = some, new, steps[0]
        return wanted, going, heads

    def _anchors(self, tokens: Tokens, wanted: list[int]) -> Tensor:
        """Which tokens are anchors [tokens], of each step as many as wanted."""
        early, late = self._scores(tokens)
        many = torch.tensor(wanted, device=tokens.step.device)[tokens.step]
        turn = tokens.turn().argsort(stable=True)
        rows, columns = tokens.grid
        window = tokens.row * self.windows // rows * self.windows + tokens.column * self.windows // columns
        order = turn[early[turn].argsort(descending=True, stable=True)]
        inner = rank(tokens.step * self.windows**2 + window, order)
        # the best of every window before the second best of any
        local = rank(tokens.step, order[inner[order].argsort(stable=True)]) < many // 2
        order = turn[late[turn].argsort(descending=True, stable=True)]
        return rank(tokens.step, order[(~local[order]).long().argsort(stable=True)]) < many

    def _scores(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """What anchors are chosen by [tokens], in windows and in the whole picture: as shares of a step's largest."""
        steps, step = len(tokens.seconds), tokens.step
        if self.anchors == "features":
            features = exactly(tokens.features)
            total = features.new_zeros(steps, features.shape[1]).index_add(0, step, features)
            alike = F.cosine_similarity(features, total[step], dim=-1)
            scores, kinds = [unlike(alike, tokens.features.dtype)], []
        else:
            known = [tokens.tower[name] for name in reversed(ATTENTION)]
            scores, kinds = [exactly(each) for each in known], [each.dtype for each in known]
        coarser = max((tokens.features.dtype, *kinds), key=lambda kind: torch.finfo(kind).eps)
        for i, each in enumerate(scores):
            most = each.new_zeros(steps).scatter_reduce(0, step, each.abs(), "amax")[step]
            scores[i] = settled(each / most.masked_fill(most == 0, 1), coarser)
        return scores[0], scores[-1]

    def _within(self, tokens: Tokens, lay: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Of each step's anchors: their own weight [steps, anchors], those of the others [.., others], and the sums."""
        features = working(tokens.features)
        x, y = features[lay.other], features[lay.anchor]
        cosine = cosines(x, y)
        sides = zip((tokens.row, tokens.column), tokens.grid, strict=True)
        places = [exactly(number) / max(side - 1, 1) for number, side in sides]
        away = [place[lay.other][:, :, None] - place[lay.anchor][:, None] for place in places]
        cost = 1 - cosine + self.spatial * torch.hypot(*away)
        plan = sinkhorn(cost, lay.others, lay.anchors, self.eps, self.rounds)
        # alike as far as products of their type can tell: the first of those is the nearest, on every machine
        nearest = (
            cosine.round(decimals=10 if x.dtype == torch.float64 else 5)
            .masked_fill(~lay.anchors[:, None], -2)
            .argmax(2, keepdim=True)
        )
        joined = torch.zeros_like(plan).scatter(2, nearest, 1) * lay.others[..., None]
        own, given = torch.zeros_like(plan.sum(1)), torch.zeros_like(plan)
        for part, flow in ((1 - self.mean, plan), (self.mean, joined)):
            total = 1 + flow.sum(1)
            own, given = own + part / total, given + part * flow / total[:, None]
        own, given = own.to(x), given.transpose(1, 2).to(x)
        return own, given, own[..., None] * y + given @ x

    def _across(
        self, tokens: Tokens, lay: Layout, merged: Tensor, going: list[int], heads: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is left of each anchor in itself, what it takes of a later step's, and who of these goes on.

        Returns
        -------
        faded : Tensor [steps, anchors]
        taken : Tensor [steps, anchors of the segment's first step, anchors]
        stays : Tensor [steps, anchors], bool
        """
        steps, width = lay.anchors.shape
        now, faded = merged.clone(), merged.new_ones(steps, width)
        taken, stays = merged.new_zeros(steps, width, width), torch.zeros_like(lay.anchors)
        turn = tokens.turn()[lay.anchor]
        turn = turn.masked_fill(~lay.anchors, torch.iinfo(turn.dtype).max).argsort(stable=True)
        head, many = (torch.tensor(each, device=turn.device) for each in (heads, going))
        for behind in range(1, self.unit):
            found = [t for t in range(steps) if t - heads[t] == behind]
            if not found:
                continue
            at = torch.tensor(found, device=turn.device)
            into, x, y = head[at], merged[at], now[head[at]]
            there, here = lay.anchors[into], lay.anchors[at]
            cosine = cosines(x, y)
            cost = 1 - cosine.clamp(_NEVER_ONE - 1, 1 - _NEVER_ONE)
            cost = cost - cost.masked_fill(~(here[:, :, None] & there[:, None]), math.inf).amin((1, 2), keepdim=True)
            plan = sinkhorn(cost * (1 - math.exp(-(behind**2) / _TWICE_VARIANCE)), here, there, self.eps, self.rounds)
            rows = plan / plan.sum(2, keepdim=True).clamp(min=1e-9)
            order = turn[at]
            nearest = cosine.masked_fill(~there[:, None], -1).amax(2)
            for each in (nearest, rows.amax(2)):  # of equal shares, all where one anchor takes everything, by cosine
                low = comparable(each, here, tokens.features.dtype).masked_fill(~here, math.inf)
                order = order.gather(1, low.gather(1, order).argsort(stable=True))
            new = torch.zeros_like(here).scatter(1, order, torch.arange(width, device=at.device) < many[at, None])
            rows = (rows * ~new[..., None]).to(x).transpose(1, 2)
            fade = 1 / (1 + rows.sum(2))
            stays[at], now[into] = new, (y + rows @ x) * fade[..., None]
            every = torch.ones_like(faded).index_copy(0, into, fade)
            faded, taken = faded * every, taken * every[head][..., None]
            taken[at] = rows * fade[..., None]
        return faded, taken, stays

    def left(self, tokens: int) -> int:
        """The share of a segment's tokens, one at least."""
        return max(int(tokens * self.keep), 1)

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Nothing."""
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        """Of one segment of even steps, with all rounds."""
        steps, kept = min(self.unit, tokens), self.left(tokens)
        places = tokens / steps
        times = 1 + self.quantile * (steps - 1) + self.duplicate_first if self.across else steps
        anchors = min(places, kept / times)
        pairs = steps * anchors * (places - anchors) * self.within
        matches = (steps - 1) * anchors * anchors * self.across
        # cosines and sums of features, two products a round; lengths; one transport behind another; the means
        flops = (pairs + matches) * 4 * (hidden + self.rounds) + 2 * tokens * hidden + 2 * anchors * pairs
        return int(flops) + 2 * kept * tokens * hidden
