"""OmniRefine's video half: the spec's examples, the rules as plain loops, bounds, holes, units however they come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_reduce_forest import angles, filmed, laid, part
from torch import Tensor

import pdrop_video as pv
from pdrop_video.common.ties import spread
from pdrop_video.reduce import Tokens
from pdrop_video.reduce.omnirefine import OmniRefine
from pdrop_video.reduce.quadtree import quadtree

FIRST = [0, 0, 10, 10, 0, 0, 10, 10, 80, 80, 20, 20, 80, 80, 20, 90]
SECOND = [5, 5, 12, 12, 5, 5, 12, 12, 5, 5, 22, 22, 5, 5, 22, 88]


def test_two_frames_by_hand() -> None:
    tokens = laid(angles(*FIRST, *SECOND).view(2, 16, 2), (4, 4))
    reduced, carried = OmniRefine()(tokens, {})
    assert reduced.kept.tolist() == [0, 2, 8, 10, 11, 14, 15] and not carried
    weights = reduced.weights
    assert weights is not None
    assert (weights > 0).sum(1).tolist() == [4, 20, 4, 1, 1, 1, 1]
    merged = weights @ tokens.features
    torch.testing.assert_close(merged[1], torch.tensor([0.9319, 0.2173], dtype=torch.float64), atol=5e-5, rtol=0)
    assert weights[1].nonzero()[:, 0].tolist() == [2, 3, 6, 7, *range(16, 32)]


def test_a_small_thing_is_lost_but_when_looked_for() -> None:
    """15 cells at 0 degrees, one at 90: the root is .9676 like its quadrant, and .0665 like the odd cell."""
    tokens = laid(angles(*[0] * 15, 90)[None], (4, 4))
    free = {"least": 1 / 16, "most": 1.0}
    assert OmniRefine(**free)(tokens, {})[0].kept.tolist() == [5]  # the first of four that are nearest to the centre
    assert 15 in OmniRefine(deep=True, **free)(tokens, {})[0].kept.tolist()
    # what was lost most comes back where too little is left
    reduced, _ = OmniRefine(least=2 / 16)(tokens, {})
    assert reduced.kept.tolist() == [5, 15] and reduced.weights is not None
    assert (reduced.weights > 0).sum(1).tolist() == [15, 1]


@pytest.mark.parametrize("grid, regions", [((1, 1), 1), ((1, 3), 5), ((3, 2), 9), ((4, 4), 21)])
def test_regions(grid: tuple[int, int], regions: int) -> None:
    tree = quadtree(*grid)
    assert len(tree.cell) == regions and tree.member[0].all()
    for numbers in tree.levels:
        for number in numbers:
            parts = [each for each in tree.children[number] if each < regions]
            assert (tree.member[parts].sum(0) == tree.member[number]).all() and len(parts) in (2, 4)
    assert sorted(tree.cell[tree.cell >= 0]) == list(range(grid[0] * grid[1]))
    if grid == (3, 2):  # the first half takes the odd row
        assert tree.member[1].nonzero()[0].tolist() == [0, 2] and tree.member[3].nonzero()[0].tolist() == [4]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))


def plainly(tokens: Tokens, method: OmniRefine) -> dict[int, list[int]]:
    """One unit by loops: what goes on, and which tokens each is a mean of."""
    x = tokens.features.numpy()
    at = {
        (int(s), int(r), int(c)): i
        for i, (s, r, c) in enumerate(zip(tokens.step, tokens.row, tokens.column, strict=True))
    }

    def cut(step: int, top: int, bottom: int, left: int, right: int) -> list[dict[str, Any]]:
        here = [at[key] for r in range(top, bottom) for c in range(left, right) if (key := (step, r, c)) in at]
        if not here:
            return []
        mean = x[here].mean(0)
        centre = ((top + bottom - 1) / 2, (left + right - 1) / 2)
        anchor = min(here, key=lambda i: (tokens.row[i] - centre[0]) ** 2 + (tokens.column[i] - centre[1]) ** 2)
        middle, half = top + (bottom - top + 1) // 2, left + (right - left + 1) // 2
        boxes = [(a, b, c, d) for a, b in ((top, middle), (middle, bottom)) for c, d in ((left, half), (half, right))]
        parts = []
        for a, b, c, d in boxes:
            inside = [at[key] for r in range(a, b) for k in range(c, d) if (key := (step, r, k)) in at]
            parts += [x[inside].mean(0)] if inside else []
        parts = [x[i] for i in here] if method.deep else parts
        if (bottom - top) * (right - left) == 1 or all(cosine(mean, each) >= method.tau_s for each in parts):
            return [{"anchor": anchor, "of": here}]
        return [node for box in boxes for node in cut(step, *box)]

    layer: list[dict[str, Any]] = []
    everything: list[dict[str, Any]] = []
    for step in range(len(tokens.seconds)):
        nodes = sorted(cut(step, 0, tokens.grid[0], 0, tokens.grid[1]), key=lambda node: node["anchor"])
        means, survivors, joined = [x[old["of"]].mean(0) for old in layer], [], []
        for node in nodes:
            alike = [cosine(x[node["of"]].mean(0), mean) for mean in means]
            best = int(np.argmax(alike)) if alike else -1
            if alike and alike[best] >= method.tau_t:
                joined.append((best, node["of"]))
            else:
                survivors.append(node)
        for best, of in joined:
            layer[best]["of"] = layer[best]["of"] + of
        everything += survivors
        layer = survivors or layer
    turn = spread(tokens.step + tokens.since, tokens.row, tokens.column).tolist()
    high = max(int(len(tokens) * method.most), 1)
    low = min(high, max(int(np.ceil(len(tokens) * method.least - 1e-9)), 1))
    everything = sorted(everything, key=lambda node: (-len(node["of"]), turn[node["anchor"]]))[:high]
    groups = {node["anchor"]: node["of"] for node in everything}
    if len(groups) < low:
        lost = {i: 1 - cosine(x[i], x[of].mean(0)) for a, of in groups.items() for i in of if i != a}
        for i in sorted(lost, key=lambda i: (-lost[i], turn[i]))[: low - len(groups)]:
            for of in groups.values():
                if i in of:
                    of.remove(i)
            groups[i] = [i]
    return {anchor: sorted(groups[anchor]) for anchor in sorted(groups)}


METHODS = {
    "default": OmniRefine(),
    "deep": OmniRefine(deep=True),
    "strict": OmniRefine(tau_s=0.97, tau_t=0.97),
    "loose": OmniRefine(tau_s=0.5, tau_t=0.3),
    "fixed": OmniRefine(least=0.3, most=0.3),
}


def groups(reduced: Any) -> dict[int, list[int]]:
    return {k: w.nonzero()[:, 0].tolist() for k, w in zip(reduced.kept.tolist(), reduced.weights, strict=True)}


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("seed, grid", [(1, (5, 4)), (2, (6, 7)), (3, (1, 9))])
@pytest.mark.parametrize("name", METHODS)
def test_units_as_plain_loops(name: str, seed: int, grid: tuple[int, int], holes: bool) -> None:
    video = laid(torch.from_numpy(filmed(seed, 7, *grid, 10, 0.25, 5, 0.9)), grid)
    whole, carried = METHODS[name](part(video, 0, 7, holes), {})
    want: dict[int, list[int]] = {}
    done = 0
    for first, last in ((0, 4), (4, 7)):
        unit = part(video, first, last, holes)
        plain = plainly(unit, METHODS[name])
        want |= {done + kept: [done + i for i in of] for kept, of in plain.items()}
        done += len(unit)
    assert groups(whole) == want and not carried
    assert whole.weights is not None
    torch.testing.assert_close(whole.weights.sum(1), torch.ones(len(want), dtype=torch.float64))


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_units_may_come_one_by_one_or_together(dtype: torch.dtype, centre: bool) -> None:
    video = laid(torch.from_numpy(filmed(4, 14, 6, 6, 12, 0.3, 6, 0.9) + 2.0).to(dtype), (6, 6))
    method = OmniRefine(centre=centre)
    found = []
    for sizes in ([14], [4, 4, 4, 2], [8, 6], [4, 10]):
        carried: dict[str, Tensor] = {}
        begin, done, got = 0, 0, {}
        for size in sizes:
            tokens = part(video, begin, begin + size, holes=True)
            before = {name: tensor.clone() for name, tensor in carried.items()}
            reduced, after = method(tokens, carried)
            assert all(torch.equal(carried[name], tensor) for name, tensor in before.items())
            got |= {done + k: [done + i for i in of] for k, of in groups(reduced).items()}
            carried, begin, done = after, begin + size, done + len(tokens)
        assert sum(tensor.nbytes for tensor in carried.values()) == method.most_bytes(36, 12, 2) * centre
        found.append((got, carried))
    assert all(got == found[0][0] for got, _ in found)
    assert all(torch.equal(carried["sum"], found[0][1]["sum"]) for _, carried in found if centre)


def test_the_mean_hides_what_differs() -> None:
    """Two kinds of things that share a large part are one without `centre`, and two with it."""
    kinds = torch.tensor([[1.0, 0, 9], [-1.0, 0, 9]], dtype=torch.float64)
    tokens = laid(kinds[[0, 0, 1, 1] * 4][None], (4, 4))
    free: dict[str, Any] = {"least": 1 / 16, "most": 1.0}
    assert len(OmniRefine(**free)(tokens, {})[0].kept) == 1
    reduced, _ = OmniRefine(**free, centre=True)(tokens, {})
    assert [of[0] % 4 // 2 for of in groups(reduced).values()] == [0, 1, 0, 1]


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_and_nothing_at_all(dtype: torch.dtype, centre: bool) -> None:
    method = OmniRefine(centre=centre)
    for value, count in ((1.0, 12), (0.0, 35)):  # zeros are like nothing, not even zeros
        features = torch.full((4, 16, 8), value)
        reduced, carried = method(laid(features.to(dtype), (4, 4)), {})
        assert len(reduced.kept) == count
        noise = torch.rand(4, 16, 8, generator=torch.Generator().manual_seed(0))
        shaken = features * (1 + torch.finfo(dtype).eps * noise)
        again, _ = method(laid(shaken.to(dtype), (4, 4)), {})
        assert torch.equal(reduced.kept, again.kept)
        assert not any(tensor.isnan().any() for tensor in (reduced.weights, *carried.values()) if tensor is not None)
        one = Tokens(features[0, :1].to(dtype), *torch.tensor([[2], [1], [0]]), (3.0, 4.0, 5.0), (4, 4), 4)
        assert method(one, carried)[0].kept.tolist() == [0]


def test_parameters_are_checked() -> None:
    for wrong in ({"tau_s": 2}, {"tau_t": -2}, {"least": 0}, {"most": 1.5}, {"least": 0.6}, {"deep": 1}, {"centre": 0}):
        with pytest.raises(pv.ConfigError):
            OmniRefine(**wrong)  # type: ignore[arg-type]
