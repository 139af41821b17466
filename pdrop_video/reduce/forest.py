"""ForestPrune: what has not been shown for long stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import choice, real, share, whole
from ..common.ties import comparable, working
from ..registry import Facts
from .base import Reduced, Tokens
from .cosines import inverse, level, levels, steps
from .trees import Forest, join

_SIMILAR, _TEMPERATURE, _ROUNDS = 0.5, 0.03, 5
"""G-Prune's own: what counts as an edge, how sharply, and how often mass is handed on."""
_NEVER = -1e9
_STEP = 256
"""Tokens of a step, for FLOPs alone."""


@dataclass(frozen=True, slots=True)
class ForestPrune:
    """ForestPrune, arXiv 2603.22911, as its code has it: the tokens that stand nearest to the root of their tree stay.

    1. Nodes. Of each step the share `nodes` of highest G-Prune score: lengths of the features are handed on five times
       over a graph of the step's tokens (edges: cosine of .5 and more, softmax at .03) and divided by the number of
       neighbours.
    2. Trees. A node belongs to the tree of the earlier node that is most like it, among those of cosine `tau_s` and
       more that are at most 1 - `tau_p` away (the larger of both distances, height and width being 1); of equals the
       nearer one, then the older tree. It hangs on the newest node that the tree had before this step, one deeper. A
       node without such an earlier one is the root of a new tree, depth 0.
    3. Budget. K = round(tokens * keep), of all tokens and not of the nodes. Of more roots than K the most similar pair
       becomes parent and child again and again. The K nodes of least depth go on, of equals the earlier step's.

    The paper's text has other rules (Euclidean distance, a score less lambda times the distance, pruning from the
    leaves); its numbers come from the code, whose defaults these are. Its script for VideoMME has tau_s .8, tau_p .5.

    Ours: nodes of a step are taken in the order of rows and columns, where the release has whatever order `torch.topk`
    leaves; equals go in an order that is spread evenly over time and space, and 1 - cosine is compared in steps of what
    the features' type can tell apart; where there are fewer nodes than K, the tokens of highest G-Prune score among the
    others go on as well; a step has one node at least; `keep` is .25 by default where the release has .1, because here
    a pyramid drops further tokens behind it.

    Streams are ours as well. What the last `window` steps had of nodes is carried: features, places, trees, depths; a
    tree ends with its last node there. K is a chunk's. A tree that goes on although none of its nodes went on in the
    last `refresh` seconds, or ever in earlier chunks, begins again: its next nodes are roots, so that an object which
    stays in the picture is shown again in time. Depth then means for how long this has been shown. One chunk that holds
    a whole video of at most window + 1 steps gives what the release gives. What goes on depends on where chunks begin
    and end, because each has a budget of its own; how many go on does not, but for rounding.

    Bound: window * max(1, round(nodes * places)) * (hidden * bytes a number + 40) + 16 bytes.

    Parameters
    ----------
    keep : float
        Share of the tokens of each chunk that stays.
    tau_s : float
        Least cosine within a tree, from 0 to 1.
    tau_p : float
        1 - the farthest that two nodes of a tree may be apart, from 0 to 1.
    nodes : float
        Share of each step's tokens that become nodes.
    window : int
        Steps that a node is remembered for.
    refresh : float
        Seconds after which a tree that still goes on is shown again.
    release : str
        "none" is the method. "grid" is what the release runs for LLaVA-Video: steps count as thousandths of a depth, so
        that beyond 1,000 steps they are mixed up, K is counted from the nodes, and nothing fills up. "one_token" is
        what it runs for LLaVA-OneVision: its result is thrown away, and all tokens go on.

    Raises
    ------
    ConfigError
        If a parameter is out of its bounds.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[Facts] = Facts(
        says="visual tokens nearest to the root of the tree that similar tokens form over time",
        paper="ForestPrune, arXiv 2603.22911",
        formula=(
            "parent of x = the most similar earlier token with cos >= tau_s and distance <= 1 - tau_p; without\n"
            "    one x is a root\n"
            "depth(root) = 0, depth(x) = depth(newest token of its tree in an earlier step) + 1; the\n"
            "    round(tokens * keep) of least depth stay"
        ),
        ours=True,
        carries="the nodes of the last `window` steps",
    )
    keep: float = 0.25
    tau_s: float = 0.9
    tau_p: float = 0.8
    nodes: float = 0.5
    window: int = 16
    refresh: float = 8.0
    release: str = "none"

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name in ("keep", "nodes"):
            object.__setattr__(self, name, share(name, getattr(self, name)))
        for name in ("tau_s", "tau_p"):
            object.__setattr__(self, name, real(name, getattr(self, name), 0, 1))
        object.__setattr__(self, "window", whole("window", self.window, 1, 2**20))
        object.__setattr__(self, "refresh", real("refresh", self.refresh, 0))
        object.__setattr__(self, "release", choice("release", self.release, ("none", "grid", "one_token")))

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Nodes, their trees, and the best of them; the choice itself is made on the host, out of whole numbers."""
        device = tokens.features.device
        if self.release == "one_token":
            return Reduced(torch.arange(len(tokens), device=device)), {}
        features = working(tokens.features)
        shares = central(tokens, features).cpu().numpy()
        turn = tokens.turn()
        step, place, turn = torch.stack([tokens.step, tokens.place(), turn]).cpu().numpy()
        chosen = self._chosen(step, shares, turn)
        picked = torch.from_numpy(chosen).to(device)

        known = carried if _fits(carried, tokens) else {}
        forest = Forest.of(known, step[chosen] + tokens.since, place[chosen])
        nodes = tokens.features[picked]
        nodes = torch.cat([known["features"].to(nodes), nodes]) if known else nodes
        forest.grow(*self._matches(tokens, nodes, forest), np.array(tokens.seconds), tokens.since, self.refresh)

        roots, count = forest.roots(), self._count(len(tokens), len(chosen))
        if len(roots) > count:
            unit = F.normalize(features[picked[torch.from_numpy(roots - forest.begin).to(device)]], dim=-1)
            change = levels(unit @ unit.T, tokens.features.dtype)
            forest.hang(*join(roots, change.cpu().numpy(), len(roots) - count))
        best = forest.shallowest(count, turn[chosen], tokens.since if self.release == "grid" else None)
        forest.keep(best, np.array(tokens.seconds)[step[chosen[best]]])
        best = chosen[best]
        if len(best) < count:
            rest = np.setdiff1d(np.arange(len(tokens)), chosen)
            best = np.concatenate([best, rest[np.lexsort((turn[rest], -shares[rest]))[: count - len(best)]]])
        kept = torch.from_numpy(np.sort(best)).to(device)
        return Reduced(kept), self._carried(tokens, nodes, forest)

    def _chosen(self, step: np.ndarray, shares: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Numbers of the tokens that are nodes, ascending."""
        order = np.lexsort((turn, -shares, step))
        size = np.bincount(step)
        rank = np.arange(len(step)) - (size.cumsum() - size)[step[order]]
        nodes = np.maximum(np.rint(size * self.nodes), 1)
        return np.sort(order[rank < nodes[step[order]]])

    def _matches(self, tokens: Tokens, nodes: Tensor, forest: Forest) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (node, earlier node) of those that are most alike and nearest, as numbers of nodes, by the first.

        Row by row of the picture: only what lies in rows within reach is multiplied.
        """
        dtype, device, width = tokens.features.dtype, nodes.device, tokens.grid[1]
        ranks, table = self._near(*tokens.grid)
        most = (level(self.tau_s, dtype) + 1) * ranks
        kind, far = (torch.int32, 2**30) if 4 * steps(dtype) * ranks < 2**30 else (torch.int64, 2**60)
        near = torch.from_numpy(np.where(table < 0, far, table)).to(device, kind)
        reach = int((table[:, 0].reshape(tokens.grid)[:, 0] >= 0).sum()) - 1

        row = forest.place // width
        order = np.argsort(row, kind="stable")  # within a row by time
        begins = np.searchsorted(row[order], np.arange(tokens.grid[0] + 1))
        there = torch.from_numpy(order).to(device)
        features = working(nodes[there])
        scale = inverse(features)
        step, place = torch.from_numpy(np.stack([forest.step, forest.place])[:, order]).to(device)
        step = (step - int(forest.step[0])).int()
        equal, spans = [], []
        for each in np.unique(row[forest.begin :]):
            high, end = begins[each], begins[each + 1]
            high += np.searchsorted(order[high:end], forest.begin)
            low, up = begins[max(each - reach, 0)], begins[min(each + reach, tokens.grid[0] - 1) + 1]
            cosine = (features[high:end] * scale[high:end, None]) @ features[low:up].T
            keys = (
                levels(cosine.mul_(scale[low:up]), dtype)
                .to(kind)
                .mul_(ranks)
                .add_(near[place[high:end]][:, place[low:up]])
            )
            ago = step[high:end, None] - step[low:up]
            keys.masked_fill_((ago <= 0).logical_or_(ago > self.window), far)
            best = keys.amin(1, keepdim=True)
            equal.append(((keys == best) & (best < most)).flatten())
            spans.append((low, up, high, end))
        found = np.flatnonzero(torch.cat(equal).cpu().numpy())  # one answer of the device, whatever the rows
        low, up, high, end = np.array(spans).T
        ends = ((end - high) * (up - low)).cumsum()
        part = np.searchsorted(ends, found, side="right")
        within, wide = found - np.concatenate([[0], ends])[part], (up - low)[part]
        node, match = order[high[part] + within // wide], order[low[part] + within % wide]
        by = np.argsort(node, kind="stable")
        return node[by], match[by]

    def _near(self, height: int, width: int) -> tuple[int, np.ndarray]:
        """How many distances there are within reach, and which of them lies between two places; -1 if none does."""
        row, column = np.arange(height) / max(height - 1, 1), np.arange(width) / max(width - 1, 1)
        rows = abs(row[:, None] - row)[:, None, :, None]
        columns = abs(column[:, None] - column)[None, :, None, :]
        apart = np.maximum(rows, columns).reshape(height * width, -1).round(9)
        near, rank = np.unique(apart, return_inverse=True)
        within = near <= 1 - self.tau_p + 1e-9
        return int(within.sum()), np.where(within, np.arange(len(near)), -1)[rank.reshape(apart.shape)]

    def _count(self, tokens: int, nodes: int) -> int:
        """K."""
        if self.release == "grid":
            return min(max(round(nodes * self.keep / self.nodes), 1), nodes)
        return self._share(tokens)

    def _share(self, tokens: int) -> int:
        return max(round(tokens * self.keep), 1)

    def _carried(self, tokens: Tokens, nodes: Tensor, forest: Forest) -> dict[str, Tensor]:
        """What the last `window` steps had of nodes."""
        first = int(np.searchsorted(forest.step, tokens.since + len(tokens.seconds) - self.window))
        table, shown = forest.carried(first)
        return {
            "features": nodes[first:].clone(),  # of its own, so that it holds no others alive
            "table": torch.from_numpy(table),
            "shown": torch.from_numpy(shown),
            "grid": torch.tensor(tokens.grid),
        }

    def left(self, tokens: int) -> int | None:
        """The share of them, one at least; as the release counts it depends on the steps."""
        return {"none": self._share(tokens), "grid": None, "one_token": tokens}[self.release]

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """A row of features and five numbers for each node, and the grid."""
        return self.window * max(round(self.nodes * places), 1) * (hidden * bytes_per_number + 40) + 16

    def flops(self, tokens: int, hidden: int) -> int:
        """Tokens with those of their step, nodes with those of the window, as if steps had 256 tokens at most."""
        if self.release == "one_token":
            return 0
        step = min(tokens, _STEP)
        return int(2 * tokens * step * hidden * (1 + self.nodes**2 * self.window))


def central(tokens: Tokens, features: Tensor) -> Tensor:
    """G-Prune's scores as shares of the highest of their step, comparable [tokens]."""
    ranked, slot = gprune(tokens, features)
    among = torch.zeros_like(ranked, dtype=torch.bool).view(-1)
    among[slot] = True
    among = among.view(ranked.shape)
    return comparable(ranked, among, tokens.features.dtype).view(-1)[slot]


def gprune(tokens: Tokens, features: Tensor) -> tuple[Tensor, Tensor]:
    """G-Prune's scores [steps, places], 0 where there is no token, and where in it each token stands [tokens]."""
    many, places = len(tokens.seconds), tokens.places
    slot = tokens.step * places + tokens.place()
    length = features.norm(dim=-1)
    unit = features.new_zeros(many * places, features.shape[1])
    unit[slot] = F.normalize(features, dim=-1)
    weight, there = features.new_zeros(2, many * places)
    weight[slot], there[slot] = length, 1
    unit, weight, there = unit.view(many, places, -1), weight.view(many, 1, -1), there.view(many, 1, -1) > 0
    cosine = unit @ unit.mT
    alike = levels(cosine, tokens.features.dtype) <= level(_SIMILAR, tokens.features.dtype)
    flow = torch.where(alike, cosine / _TEMPERATURE, -5000.0).masked_fill(~there, _NEVER).softmax(-1)
    degree = (flow > 0).sum(-1)
    for _ in range(_ROUNDS):
        weight = weight @ flow
    return weight[:, 0] / degree.clamp(min=1), slot


def _fits(carried: Mapping[str, Tensor], tokens: Tokens) -> bool:
    """Whether what was carried is of pictures of this size."""
    if "grid" not in carried:
        return False
    return tuple(carried["grid"].tolist()) == tokens.grid and carried["features"].shape[1] == tokens.features.shape[1]


__all__ = ["ForestPrune", "central", "gprune"]
