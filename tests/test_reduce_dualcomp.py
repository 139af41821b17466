"""DualComp: clusters of neighbours, anchors and walks, step by step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import build, video
from test_exact import chunks, next_logits
from torch import Tensor

import pdrop_video as pv
from pdrop_video.reduce import REDUCERS, Tokens
from pdrop_video.reduce.dualcomp import DualComp, anchors, links, roots, walk

STRIP = torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in (0, 10, 80, 85, 20)]).double()
ATTENTION = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.05])
"""Of the specification."""


def tokens_of(features: Tensor, grid: tuple[int, int], since: int = 0, **known: Tensor) -> Tokens:
    number, places = torch.arange(len(features)), grid[0] * grid[1]
    steps = tuple(float(i) for i in range(-(-len(features) // places)))
    row, column = number % places // grid[1], number % grid[1]
    return Tokens(features, number // places, row, column, steps, grid, since, known)


def random(steps: int, grid: tuple[int, int], seed: int = 0, hidden: int = 6) -> Tensor:
    """Patches of two by two that are nearly alike, and of every length."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (-(-side // 2) for side in grid)
    draw = torch.randn(steps, height, width, hidden, generator=generator, dtype=torch.float64)
    draw = draw.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, : grid[0], : grid[1]]
    return (draw + 0.2 * torch.randn(draw.shape, generator=generator, dtype=torch.float64)).reshape(-1, hidden)


# -- the specification's examples --------------------------------------------------------------------------------------


def test_the_strips_clusters() -> None:
    tokens = tokens_of(STRIP, (1, 5), attention=ATTENTION)
    cosines = [float(a @ b) for a, b in zip(STRIP[1:], STRIP[:-1], strict=True)]
    assert cosines == pytest.approx([0.9848, 0.342, 0.9962, 0.4226], abs=5e-5)
    parent = links(STRIP, torch.arange(5).view(1, 1, 5), torch.arange(5), 0.9, torch.float64)
    assert roots(parent, 5).tolist() == [0, 0, 2, 2, 4]
    peaks, _ = DualComp(0.4, geometric=0, tau=0.9)(tokens, {})
    assert peaks.kept.tolist() == [1, 3] and peaks.weights is None
    first, _ = DualComp(0.2, geometric=0, tau=0.9)(tokens, {})
    assert first.kept.tolist() == [3]  # .45 is before .4
    means, _ = DualComp(0.4, geometric=0, tau=0.9, theta=1)(tokens, {})
    assert means.kept.tolist() == [1, 3] and means.weights is not None
    want = torch.tensor([[0.988606, 0.130236], [0.125597, 0.991134]], dtype=torch.float64)
    torch.testing.assert_close(means.weights @ STRIP, want, atol=1e-6, rtol=0)


def test_the_walks() -> None:
    plan = [[9.0, 1, 2], [3, 5, 1], [1, 2, 8]]
    assert walk(plan, (0, 0), (2, 2)) == [(0, 0), (1, 1), (2, 2)]
    assert walk(plan, (0, 0), (0, 2)) == [(0, 0), (1, 1), (0, 2)]  # the diagonal 5 beats the straight 1
    assert walk(plan, (2, 2), (2, 2)) == [(2, 2)]


# -- by formula --------------------------------------------------------------------------------------------------------


def mirrored(index: int, size: int) -> int:
    index = abs(index)
    return max(0, min(index if index < size else 2 * size - 2 - index, size - 1))


def normed(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(v - low) / (high - low) if high > low else 0.0 for v in values]


def by_formula(
    x: Tensor, grid: tuple[int, int], weight: list[float], count: int, share: float, words: Tensor | None
) -> tuple[list[int], list[int], list[int]]:
    """Tokens of the semantic and of the geometric stream of one whole step, and the cluster of each."""
    h, w = grid
    n = h * w
    cosine = lambda a, b: float(torch.cosine_similarity(a, b, dim=0))  # noqa: E731
    cluster = list(range(n))
    for i in range(n):
        before = [j for j in ((i - w) if i >= w else None, (i - 1) if i % w else None) if j is not None]
        best = max(before, key=lambda j: cosine(x[i], x[j]), default=None)
        if best is not None and cosine(x[i], x[best]) > 0.85:
            cluster[i] = cluster[best]
    mass = {c: sum(weight[i] for i in range(n) if cluster[i] == c) for c in set(cluster)}
    best_first = sorted(mass, key=lambda c: -mass[c])[: count - math.floor(count * share + 0.5)]
    semantic = [max((i for i in range(n) if cluster[i] == c), key=lambda i: weight[i]) for c in best_first]
    out = []
    for i in range(n):
        around = [x[mirrored(i // w + r, h) * w + mirrored(i % w + c, w)] for r in (-1, 0, 1) for c in (-1, 0, 1)]
        out.append(float((x[i] - sum(around) / 9).square().sum()))
    plan = normed(out)
    if words is not None:
        near = normed([max(cosine(x[i], word) for word in words) for i in range(n)])
        plan = [p * (1 + r) for p, r in zip(plan, near, strict=True)]
    marks = []
    for row in range(4):
        for column in range(4) if row % 2 == 0 else range(3, -1, -1):
            cells = [i for i in range(n) if i // w * 4 // h == row and i % w * 4 // w == column]
            marks += [max(cells, key=lambda i: out[i])] if cells else []
    path: list[int] = []
    for start, goal in itertools.pairwise(marks):
        at = start
        while at != goal:
            far = max(abs(at // w - goal // w), abs(at % w - goal % w))
            near_by = [j for j in range(n) if max(abs(j // w - at // w), abs(j % w - at % w)) == 1]
            at = max(
                (j for j in near_by if max(abs(j // w - goal // w), abs(j % w - goal % w)) < far),
                key=lambda j: plan[j],
            )
            path.append(at)
    level = {i: 2 if i in marks else int(i in path) for i in range(n) if i not in semantic}
    geometric = sorted(level, key=lambda i: (-level[i], -plan[i]))[: count - len(semantic)]
    return semantic, geometric, cluster


@pytest.mark.parametrize("grid", [(7, 9), (3, 5), (1, 6), (8, 8)])
@pytest.mark.parametrize(
    "keep, share, asking", [(0.1, None, False), (0.5, 0.7, True), (0.85, 0.2, True), (1.0, None, False)]
)
def test_steps_by_hand(grid: tuple[int, int], keep: float, share: float | None, asking: bool) -> None:
    places = grid[0] * grid[1]
    features = random(2, grid)
    words = torch.randn(3, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64) if asking else None
    count = max(1, int(places * keep))
    for told in (False, True):
        weight = torch.rand(2 * places, generator=torch.Generator().manual_seed(7)) if told else features.norm(dim=1)
        tokens = tokens_of(features, grid, **({"attention": weight} if told else {}))
        reduced, carried = DualComp(keep, share)(replace(tokens, question=words), {})
        want, rows = [], []
        for step in range(2):
            at = slice(step * places, (step + 1) * places)
            mass = weight[at].double()
            semantic, geometric, cluster = by_formula(
                features[at], grid, mass.tolist(), count, 0.5 if share is None else share, words
            )
            want += [step * places + i for i in sorted(semantic + geometric)]
            for i in sorted(semantic + geometric):
                row = torch.zeros(2 * places, dtype=torch.float64)
                group = [j for j in range(places) if cluster[j] == cluster[i]]
                if i in semantic and len(group) > 4 and count < places:
                    row[[step * places + j for j in group]] = mass[group] / mass[group].sum()
                else:
                    row[step * places + i] = 1
                rows.append(row)
        assert reduced.kept.tolist() == want and carried == {}
        if reduced.weights is None:
            assert all(float(row.max()) == 1 for row in rows)
        else:
            torch.testing.assert_close(reduced.weights, torch.stack(rows), atol=1e-9, rtol=0)


def test_anchors_go_in_snake_order() -> None:
    cells = np.array([(r, c) for r in range(8) for c in range(8)])
    corner = np.array([1.0 if r % 2 == 0 and c % 2 == 1 else 0.0 for r, c in cells])  # one cell of each region of 2 x 2
    want = [(r, c) for r in (0, 2, 4, 6) for c in ((1, 3, 5, 7) if r % 4 == 0 else (7, 5, 3, 1))]
    assert [tuple(cell) for cell in cells[anchors(corner, cells, (8, 8), np.arange(64))].tolist()] == want


def test_scaled_by_their_streams_share() -> None:
    """As the paper has it: for fidelity, off the model's manifold."""
    tokens = tokens_of(random(1, (6, 6)), (6, 6))
    plain, _ = DualComp(0.5, 0.7)(tokens, {})
    scaled, _ = DualComp(0.5, 0.7, scale=True)(tokens, {})
    assert scaled.weights is not None and torch.equal(plain.kept, scaled.kept)
    sums = [round(float(total), 9) for total in scaled.weights.sum(1)]
    assert sums.count(0.3) == 18 - math.floor(18 * 0.7 + 0.5) and sums.count(0.7) == math.floor(18 * 0.7 + 0.5)


ASKED = {
    "Where is the red car?": 0.7,
    "How many people COUNT to ten?": 0.7,
    "Which road is it?": 0.7,
    "What is on this line?": 0.7,
    "What is she wearing online?": 0.5,  # no word of its own
    "Describe the video.": 0.5,
    "": 0.5,
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_rule_in_place_of_the_router(asked: str) -> None:
    tokens = tokens_of(random(1, (6, 6)), (6, 6))
    assert DualComp().share_of(asked) == ASKED[asked] and DualComp(geometric=0.1).share_of(asked) == 0.1
    got, _ = DualComp()(replace(tokens, asked=asked), {})
    assert torch.equal(got.kept, DualComp(geometric=ASKED[asked])(tokens, {})[0].kept)
    assert DualComp().share_of(None) == 0.5


# -- chunks, ties, ragged steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sizes", [[1] * 7, [3, 4], [2, 5]])
def test_chunks_do_not_matter(sizes: list[int], seed: int, dtype: torch.dtype) -> None:
    """A step is reduced by itself, also where others are a thousand times as long."""
    grid, steps = (5, 6), 7
    loud = (10.0 ** torch.arange(-3, 4)).double().repeat_interleave(30)[:, None]
    features = (random(steps, grid, seed) * loud).to(dtype)
    gone = torch.rand(steps * 30, generator=torch.Generator().manual_seed(1)) < 0.3
    gone[30:60] = True  # a gate left nothing of one step
    method = DualComp(0.4)

    def reduced(first: int, last: int) -> tuple[list[int], Tensor | None]:
        whole = tokens_of(features[first * 30 : last * 30], grid, first)
        there = (~gone[first * 30 : last * 30]).nonzero().flatten()
        some = replace(
            whole,
            features=whole.features[there],
            step=whole.step[there],
            row=whole.row[there],
            column=whole.column[there],
        )
        got = method(some, {})[0]
        means = None if got.weights is None else got.weights @ some.features.to(got.weights)
        means = some.features[got.kept].to(torch.float64) if means is None else means.double()
        return (first * 30 + there[got.kept]).tolist(), means

    want, means = reduced(0, steps)
    got, parts, done = [], [], 0
    for size in sizes:
        if (~gone[done * 30 : (done + size) * 30]).any():
            kept, part = reduced(done, done + size)
            got += kept
            parts.append(part)
        done += size
    assert got == want
    torch.testing.assert_close(torch.cat(parts), means)
    for step in range(steps):
        tokens = int((~gone[step * 30 : step * 30 + 30]).sum())
        assert sum(step * 30 <= i < step * 30 + 30 for i in got) == (max(1, int(tokens * 0.4)) if tokens else 0)


def test_a_streams_chunks_do_not_matter() -> None:
    """From frames to logits, on a family's own grid."""
    lm, logits, held = build("llava_onevision"), [], []
    for sizes in ([6], [1] * 6, [2, 1, 3]):
        stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), reducer="dualcomp:keep=0.4")
        for part, times in chunks(video(6), [0.5 * i for i in range(6)], sizes):
            stream.push(part, times)
        table = stream.held()
        held.append([table.step[table.visual], table.row[table.visual], table.column[table.visual]])
        logits.append(next_logits(stream))
        assert len(held[-1][0]) == 6 * int(16 * 0.4)
    for columns, scores in zip(held[1:], logits[1:], strict=True):
        assert all(torch.equal(*pair) for pair in zip(columns, held[0], strict=True))
        torch.testing.assert_close(scores, logits[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("features", ["zeros", "one colour", "a step of noise"])
def test_equals_go_by_the_rule_of_ties(features: str) -> None:
    rows = {
        "zeros": torch.zeros(60, 6).double(),
        "one colour": torch.ones(60, 1).double() * torch.linspace(0.3, 2, 6).double(),
        "a step of noise": random(2, (5, 6), 3),
    }[features]
    noise = 1 + 1e-14 * torch.randn(60, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for method in (DualComp(0.3), DualComp(0.6, 1.0), DualComp(0.6, 0.0)):
        one, other = (method(tokens_of(f, (5, 6)), {})[0] for f in (rows, rows * noise))
        assert torch.equal(one.kept, other.kept)
        assert len(one.kept) == 2 * method.left(30)
        if one.weights is not None:
            torch.testing.assert_close(one.weights.sum(1), torch.ones(len(one.kept), dtype=torch.float64))


def test_a_question_that_all_are_equally_near_changes_nothing() -> None:
    """However little the rounding makes them differ."""
    angle = 6.28 * torch.rand(81, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.stack([torch.ones(81).double(), angle.cos(), angle.sin()], 1)
    noise = 1 + 1e-14 * torch.randn(81, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    tokens, method = tokens_of(rows * noise, (9, 9)), DualComp(0.3, 1.0)
    near = replace(tokens, question=torch.tensor([[1.0, 0, 0]]).double())
    assert torch.equal(method(tokens, {})[0].kept, method(near, {})[0].kept)
    other = replace(tokens, question=torch.tensor([[0.0, 1, 0]]).double())
    assert not torch.equal(method(tokens, {})[0].kept, method(other, {})[0].kept)


@pytest.mark.parametrize("bad", [{"keep": 0}, {"geometric": 1.1}, {"tau": -2}, {"theta": -1}, {"scale": 1}])
def test_bad_settings(bad: dict[str, object]) -> None:
    with pytest.raises(pv.ConfigError, match=f"{next(iter(bad))} is "):
        replace(REDUCERS["dualcomp"], **bad)
