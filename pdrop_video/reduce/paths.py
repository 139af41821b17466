"""DualComp's clusters and paths within one step: links, their ends, anchors, walks. Knows grids, no budgets."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .likeness import apart

_REGIONS = 4
"""Regions along each side of the picture."""


def links(rows: Tensor, at: Tensor, spot: Tensor, tau: float, dtype: torch.dtype) -> Tensor:
    """The earlier neighbour, left or above, that each token links to [tokens]; itself where none is alike enough.

    `at` [steps, rows, columns] says which token stands where, -1 for none; `spot` [tokens] where each stands in it,
    flattened. Cosines are compared as far as the rows' first `dtype` can tell them apart.
    """
    unit, number = F.normalize(rows, dim=1), torch.arange(len(rows), device=rows.device)
    first = torch.zeros(1, dtype=torch.int64, device=at.device)
    above, left = (at.roll(1, axis).index_fill(axis, first, -1).flatten()[spot] for axis in (1, 2))
    changes = []
    for before in (above, left):
        change = apart((unit * unit[before.clamp(min=0)]).sum(1), dtype)
        changes.append(change.masked_fill(before < 0, torch.inf))
    nearest = torch.where(changes[0] <= changes[1], above, left)  # of equals the earlier one
    return torch.where(torch.minimum(*changes) < 1 - tau, nearest, number)


def roots(parent: Tensor, places: int) -> Tensor:
    """The first token of the cluster that each is in [tokens]: where its links end."""
    for _ in range(places.bit_length()):
        parent = parent[parent]
    return parent


def means(kept: Tensor, merged: Tensor, root: Tensor, attention: Tensor) -> Tensor:
    """Weights [kept, tokens], float64: each token itself, those `merged` by the attention within their clusters."""
    weights = torch.zeros(len(kept), len(root), dtype=attention.dtype, device=kept.device)
    weights[torch.arange(len(kept), device=kept.device), kept] = 1
    inside = root[merged][:, None] == root
    own = torch.where(inside, attention, 0)
    total = own.sum(1, keepdim=True)
    own = torch.where(total > 0, own / total, inside / inside.sum(1, keepdim=True))
    weights[torch.searchsorted(kept, merged)] = own
    return weights


def anchors(out: np.ndarray, cells: np.ndarray, grid: tuple[int, int], turn: np.ndarray) -> np.ndarray:
    """The token of each region that stands out most, 4 x 4 regions in snake order; `cells` are rows and columns."""
    row, column = (cells * _REGIONS // np.array(grid)).T
    region = row * _REGIONS + np.where(row % 2, _REGIONS - 1 - column, column)
    order = np.lexsort((turn, -out))
    return order[np.unique(region[order], return_index=True)[1]]


def walk(plan: list[list[float]], start: tuple[int, int], goal: tuple[int, int]) -> list[tuple[int, int]]:
    """Cells from start to goal, both included: on to the largest neighbour nearer to the goal, of equals the first."""
    (row, column), (to_row, to_column) = start, goal
    path = [start]
    while (row, column) != goal:
        far = max(abs(row - to_row), abs(column - to_column))
        nearer = [
            (r, c)
            for r in range(max(row - 1, 0), min(row + 2, len(plan)))
            for c in range(max(column - 1, 0), min(column + 2, len(plan[0])))
            if max(abs(r - to_row), abs(c - to_column)) < far
        ]
        row, column = max(nearer, key=lambda cell: plan[cell[0]][cell[1]])
        path.append((row, column))
    return path
