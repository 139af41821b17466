"""AOT (arXiv 2603.01400) as plain loops over plain numbers, from the formulas in its docstring alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Rows = Sequence[np.ndarray]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    both = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(a @ b) / both if both else 0.0


def sinkhorn(cost: Sequence[Sequence[float]], eps: float, rounds: int) -> list[list[float]]:
    """One problem, number by number."""
    n, m = len(cost), len(cost[0])
    kernel = [[math.exp(-c / eps) for c in row] for row in cost]
    u, v = [1.0] * n, [1.0] * m
    for _ in range(rounds):
        old = u
        u = [(1 / n) / sum(kernel[i][j] * v[j] for j in range(m)) for i in range(n)]
        v = [(1 / m) / sum(kernel[i][j] * u[i] for i in range(n)) for j in range(m)]
        if sum(abs(a - b) for a, b in zip(u, old, strict=True)) / n < 0.01:
            break
    return [[u[i] * kernel[i][j] * v[j] for j in range(m)] for i in range(n)]


def chosen(
    places: Sequence[tuple[int, int]],
    early: Sequence[float],
    late: Sequence[float],
    count: int,
    grid: tuple[int, int],
    windows: int,
) -> list[int]:
    """Anchors of a step, where no two scores are equal."""
    found: list[list[int]] = [[] for _ in range(windows**2)]
    for i, (r, c) in enumerate(places):
        found[r * windows // grid[0] * windows + c * windows // grid[1]].append(i)
    local: list[int] = []
    for nth in range(len(places)):
        level = [sorted(window, key=lambda i: -early[i])[nth] for window in found if len(window) > nth]
        local += sorted(level, key=lambda i: -early[i])
    local = local[: count // 2]
    rest = sorted((i for i in range(len(places)) if i not in local), key=lambda i: -late[i])
    return sorted(local + rest[: count - len(local)])


def within(
    x: Rows, places: Sequence[tuple[int, int]], anchors: Sequence[int], grid: tuple[int, int], **how: float
) -> list[np.ndarray]:
    """The anchors of a step after the others have flown into them."""
    others = [i for i in range(len(x)) if i not in anchors]
    y = [x[a] for a in anchors]
    if not others:
        return y
    where = [(r / max(grid[0] - 1, 1), c / max(grid[1] - 1, 1)) for r, c in places]
    cost = [[1 - cosine(x[i], x[a]) + how["spatial"] * math.dist(where[i], where[a]) for a in anchors] for i in others]
    plan = sinkhorn(cost, how["eps"], int(how["rounds"]))
    nearest = [max(range(len(anchors)), key=lambda j: cosine(x[i], x[anchors[j]])) for i in others]
    merged = []
    for j in range(len(anchors)):
        flow = sum((plan[i][j] * x[o] for i, o in enumerate(others)), np.zeros_like(y[j]))
        transported = (y[j] + flow) / (1 + sum(plan[i][j] for i in range(len(others))))
        joined = [x[o] for i, o in enumerate(others) if nearest[i] == j]
        mean = sum(joined, y[j]) / (1 + len(joined))
        merged.append((1 - how["mean"]) * transported + how["mean"] * mean)
    return merged


def across(y: Rows, x: Rows, behind: int, new: int, **how: float) -> tuple[list[np.ndarray], list[int]]:
    """The segment's anchors after a later step has flown into them, and which of its tokens go on by themselves."""
    cost = [[1 - min(max(cosine(a, b), -1 + 1e-6), 1 - 1e-6) for b in y] for a in x]
    least = min(min(row) for row in cost)
    time = 1 - math.exp(-(behind**2) / 4.5)
    plan = sinkhorn([[(c - least) * time for c in row] for row in cost], how["eps"], int(how["rounds"]))
    shares = [[each / sum(row) for each in row] for row in plan]
    alike = [max(cosine(a, b) for b in y) for a in x]
    stay = sorted(sorted(range(len(x)), key=lambda i: (max(shares[i]), alike[i]))[:new])
    flows = [i for i in range(len(x)) if i not in stay]
    return [
        (b + sum((shares[i][j] * x[i] for i in flows), np.zeros_like(b))) / (1 + sum(shares[i][j] for i in flows))
        for j, b in enumerate(y)
    ], stay
