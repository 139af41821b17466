"""ForestPrune's trees: which node hangs on which, how deep, and when its tree was last shown.

Knows whole numbers on the host. Refuses to know features and similarities: `forest.py` says which nodes match.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

_UNDECIDED = np.inf
_NOT = -np.inf
_FIXED = 4  # columns of what is carried


@dataclass
class Forest:
    """Nodes that were remembered, and behind them, from `begin`, those of a chunk, in the order step, row, column.

    Attributes
    ----------
    step, place, tree, depth, parent : ndarray [nodes], int64
        The step is counted over the stream; trees are numbered by age; the parent is -1 for roots, and for what was
        remembered.
    shown : ndarray [trees], float64
        When a node of each tree went on last, in seconds; -inf: it never did, inf: it is not yet decided.
    begin : int
    """

    step: np.ndarray
    place: np.ndarray
    tree: np.ndarray
    depth: np.ndarray
    shown: np.ndarray
    begin: int
    parent: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.parent = np.full(len(self.step), -1)

    @classmethod
    def of(cls, carried: Mapping[str, Tensor], step: np.ndarray, place: np.ndarray) -> Forest:
        """What was carried, and new nodes that are in no tree yet."""
        table = np.zeros((0, _FIXED), np.int64) if "table" not in carried else carried["table"].cpu().numpy()
        new = np.full(len(step), -1)
        steps, places, trees, depths = np.concatenate([table, np.stack([step, place, new, new], axis=1)]).T.copy()
        shown = carried["shown"].cpu().numpy().copy() if "shown" in carried else np.zeros(0)
        return cls(steps, places, trees, depths, shown, len(table))

    def grow(self, node: np.ndarray, match: np.ndarray, seconds: np.ndarray, since: int, refresh: float) -> None:
        """Give every new node its tree, its parent and its depth.

        Parameters
        ----------
        node, match : ndarray [pairs], int64
            A new node, ascending, and an earlier one that matches it best; of several the oldest tree's counts.
        seconds : ndarray [steps]
            Times of the chunk's steps.
        since : int
            The first of them.
        refresh : float
            Seconds without a node that went on after which a tree begins again.
        """
        trees, nodes = len(self.shown), len(self.step)
        shown = np.concatenate([self.shown, np.full(nodes - self.begin, _UNDECIDED)])
        tail = np.full(len(shown), -1)
        tail[self.tree[: self.begin]] = np.arange(self.begin)  # of several the last one is written
        high = self.begin
        while high < nodes:
            end = int(np.searchsorted(self.step, self.step[high] + 1))
            low, up = np.searchsorted(node, (high, end))
            tree = np.full(end - high, nodes + len(shown))
            np.minimum.at(tree, node[low:up] - high, self.tree[match[low:up]])
            found = tree < nodes + len(shown)
            old = tree[found]
            parent = tail[old]
            again = seconds[self.step[high] - since] - shown[old] > refresh
            parent[again] = -1
            shown[old[again]] = _UNDECIDED
            self.parent[high:end][found] = parent
            self.depth[high:end] = 0
            self.depth[high:end][found] = np.where(again, 0, self.depth[parent] + 1)
            new = int((~found).sum())
            tree[~found] = np.arange(trees, trees + new)
            trees += new
            self.tree[high:end] = tree
            tail[tree] = np.arange(high, end)
            high = end
        self.shown = shown[:trees]

    def roots(self) -> np.ndarray:
        """New nodes that hang on nothing, ascending."""
        return self.begin + np.flatnonzero(self.parent[self.begin :] < 0)

    def hang(self, child: np.ndarray, parent: np.ndarray) -> None:
        """Make roots children of others, and count all depths anew."""
        self.parent[child] = parent
        for node in range(self.begin, len(self.step)):  # a parent is older than its children
            up = self.parent[node]
            self.depth[node] = 0 if up < 0 else self.depth[up] + 1

    def shallowest(self, count: int, turn: np.ndarray, since: int | None = None) -> np.ndarray:
        """New nodes of least depth, of equals the earlier step's, then those whose turn it is; counted from `begin`.

        With `since`, the first step, steps count as thousandths of a depth.
        """
        depth, step = self.depth[self.begin :], self.step[self.begin :]
        if since is not None:
            key = depth.astype(np.float32) + (step - since).astype(np.float32) / np.float32(1e3)
            return np.lexsort((turn, key))[:count]
        return np.lexsort((turn, step, depth))[:count]

    def keep(self, kept: np.ndarray, seconds: np.ndarray) -> None:
        """Note which new nodes go on, counted from `begin`, and when each was seen."""
        self.shown[self.shown == _UNDECIDED] = _NOT
        np.maximum.at(self.shown, self.tree[self.begin :][kept], seconds)

    def carried(self, first: int) -> tuple[np.ndarray, np.ndarray]:
        """What is remembered of the nodes from `first` on [nodes, 4], and when their trees were shown [trees]."""
        trees, tree = np.unique(self.tree[first:], return_inverse=True)
        table = np.stack([self.step[first:], self.place[first:], tree.reshape(-1), self.depth[first:]], axis=1)
        return np.ascontiguousarray(table), self.shown[trees]


def join(roots: np.ndarray, change: np.ndarray, times: int) -> tuple[np.ndarray, np.ndarray]:
    """So many times, the most similar pair of those that remain: the later one goes; children, and their parents.

    Parameters
    ----------
    roots : ndarray [roots]
        Numbers, ascending.
    change : ndarray [roots, roots]
        How unlike they are; of equals the pair whose first, then whose second is the smallest.
    times : int
        At most one less than there are roots.
    """
    unlike = np.where(np.tri(len(roots), dtype=bool), np.iinfo(np.int64).max, change.astype(np.int64))
    partner = unlike.argmin(1)
    least = unlike[np.arange(len(roots)), partner]  # of a row whose partner is gone: a bound from below
    gone = np.zeros(len(roots), bool)
    pairs: list[tuple[int, int]] = []
    while len(pairs) < times:
        one = int(least.argmin())
        other = int(partner[one])
        if gone[other]:
            row = np.where(gone, np.iinfo(np.int64).max, unlike[one])
            partner[one] = row.argmin()
            least[one] = row[partner[one]]
            continue
        gone[other] = True
        least[other] = np.iinfo(np.int64).max
        pairs.append((roots[other], roots[one]))
    child, parent = np.array(pairs).T
    return child, parent
