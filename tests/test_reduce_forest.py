"""ForestPrune: the spec's examples, the released code's traces, the formula as plain loops, and streams."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pdrop_video as pv
from pdrop_video.common.ties import spread
from pdrop_video.reduce import Tokens
from pdrop_video.reduce.forest import ForestPrune, gprune
from pdrop_video.reduce.trees import join

Plain = list[dict[str, Any]]
GOLDEN = json.loads((Path(__file__).parent / "golden" / "forest.json").read_text())


def laid(features: Tensor, grid: tuple[int, int], since: int = 0, rate: float = 1.0) -> Tokens:
    """Whole steps [steps, places, hidden]."""
    axes = torch.meshgrid(*(torch.arange(n) for n in (len(features), *grid)), indexing="ij")
    step, row, column = (axis.flatten() for axis in axes)
    seconds = tuple((since + i) / rate for i in range(len(features)))
    return Tokens(features.flatten(0, 1), step, row, column, seconds, grid, since)


def part(tokens: Tokens, first: int, last: int, holes: bool = False) -> Tokens:
    """Some of its steps."""
    here = (tokens.step >= first) & (tokens.step < last)
    if holes:
        here &= (tokens.step * 5 + tokens.place() * 3) % 7 != 0
    return Tokens(
        tokens.features[here],
        tokens.step[here] - first,
        tokens.row[here],
        tokens.column[here],
        tokens.seconds[first:last],
        tokens.grid,
        tokens.since + first,
    )


def filmed(seed: int, T: int, H: int, W: int, d: int, noise: float, groups: int, moves: float) -> np.ndarray:
    """What the traces were made of: pictures of a few kinds of things, some of which change [T, H * W, d]."""
    random = np.random.RandomState(seed)  # whose numbers never change
    kinds = random.randn(groups, d)
    place = random.randint(groups, size=(H, W))
    frames = []
    for t in range(T):
        if t and random.rand() < moves:
            place = place.copy()
            a, b = random.randint(H), random.randint(W)
            place[a : a + 2, b : b + 2] = random.randint(groups)
        frame = kinds[place.reshape(-1)] + noise * random.randn(H * W, d)
        frames.append(frame * (0.5 + random.rand(H * W, 1)))
    return np.stack(frames)


def angles(*degrees: float) -> Tensor:
    turned = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([turned.cos(), turned.sin()], dim=-1)


def test_a_scores_by_hand() -> None:
    features = torch.tensor([[1, 0], [0.8, 0.6], [0, 2], [-1, 0]], dtype=torch.float64)
    tokens = laid(features[None], (2, 2))
    scores, _ = gprune(tokens, tokens.features)
    torch.testing.assert_close(
        scores[0], torch.tensor([0.5, 0.333336, 0.999996, 1], dtype=torch.float64), atol=1e-6, rtol=0
    )
    reduced, carried = ForestPrune(keep=0.5)(tokens, {})
    assert carried["table"][:, 1].tolist() == [2, 3] == reduced.kept.tolist()


def in_three() -> Tokens:
    features = angles(0, 90, 10, 60, 20, 65)
    step, place = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 120, 0, 120, 1, 120])
    return Tokens(features, step, place // 11, place % 11, (0.0, 1.0, 2.0), (11, 11))


@pytest.mark.parametrize("keep, depths, kept", [(4, [0, 0, 1, 0, 2, 1], [0, 1, 2, 3]), (2, [0, 0, 1, 1, 2, 2], [0, 1])])
def test_b_trees_by_hand(keep: int, depths: list[int], kept: list[int]) -> None:
    reduced, carried = ForestPrune(keep=keep / 6, nodes=1.0)(in_three(), {})
    assert reduced.kept.tolist() == kept
    assert carried["table"][:, 2].tolist() == [0, 1, 0, 2, 0, 2]
    assert carried["table"][:, 3].tolist() == depths


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
@pytest.mark.parametrize("release", ["none", "grid"])
def test_released_code(case: dict[str, Any], release: str) -> None:
    """Nodes, scores, depths and what is kept, in float64; the long video is where the release's order is another."""
    features = torch.from_numpy(filmed(**case["inputs"]))
    tokens = laid(features, (case["inputs"]["H"], case["inputs"]["W"]))
    keep = case["keep"] if release == "grid" else case["K"] / len(tokens)  # the release counts from the nodes
    method = ForestPrune(keep, case["tau_s"], case["tau_p"], case["nodes"], 2000, release=release)
    reduced, carried = method(tokens, {})
    if case["node"] is None:
        assert (reduced.kept.tolist() == case["kept"]) == (release == "grid")
        return
    assert len(case["kept"]) == case["K"] and reduced.kept.tolist() == case["kept"]
    table = carried["table"]
    assert [table[table[:, 0] == t, 1].tolist() for t in range(len(features))] == case["node"]
    assert table[:, 3].tolist() == case["depth"]
    if case["scores"] is not None:
        scores, _ = gprune(tokens, tokens.features)
        torch.testing.assert_close(scores.flatten(), torch.tensor(case["scores"]).double(), atol=2e-7, rtol=0)


def plainly(tokens: Tokens, carried: Plain, method: ForestPrune) -> tuple[list[int], Plain]:
    """The same by loops over tokens, with dictionaries for nodes; trees are lists shared by their nodes."""
    new: list[dict[str, Any]] = []
    height, width = tokens.grid
    scores = [0.0] * len(tokens)
    turn = spread(tokens.step + tokens.since, tokens.row, tokens.column).tolist()
    for t in tokens.step.unique().tolist():
        here = (tokens.step == t).nonzero()[:, 0].tolist()
        x = tokens.features[here].numpy()
        length = np.linalg.norm(x, axis=1)
        cosine = (x @ x.T) / np.outer(length, length)
        flow = np.exp(np.where(cosine >= 0.5, cosine / 0.03, -np.inf))
        flow /= flow.sum(1, keepdims=True)
        handed = length @ np.linalg.matrix_power(flow, 5) / (cosine >= 0.5).sum(1)
        for i, score in zip(here, handed, strict=True):
            scores[i] = score / max(handed)
        best = sorted(here, key=lambda i: -scores[i])[: max(round(len(here) * method.nodes), 1)]
        earlier = [n for n in carried + new if t + tokens.since - n["step"] <= method.window]
        tails = {id(n["tree"]): n for n in earlier}  # the last one of each
        added = []
        for i in sorted(best):
            at = (int(tokens.row[i]) / max(height - 1, 1), int(tokens.column[i]) / max(width - 1, 1))
            x = tokens.features[i].numpy()
            node = {"token": i, "step": t + tokens.since, "x": x, "at": at, "parent": None, "depth": 0}
            options = []
            for n in earlier:
                cos = float(n["x"] @ x / np.linalg.norm(n["x"]) / np.linalg.norm(x))
                apart = max(abs(n["at"][0] - at[0]), abs(n["at"][1] - at[1]))
                if cos >= method.tau_s and apart <= 1 - method.tau_p + 1e-9:
                    options.append((-cos, apart, n["tree"]["born"], n))
            if options:
                tree = min(options, key=lambda option: option[:3])[3]["tree"]
                node["tree"] = tree
                if not tokens.seconds[t] - tree["shown"] > method.refresh:
                    node["parent"], node["depth"] = tails[id(tree)], tails[id(tree)]["depth"] + 1
                else:
                    tree["again"] = True
            else:
                node["tree"] = {"born": (t + tokens.since, i), "shown": math.inf}
            added.append(node)
        for node in added:
            if node["tree"].pop("again", False):
                node["tree"]["shown"] = math.inf
        new += added
    count = method.left(len(tokens))
    assert count is not None
    roots = [n for n in new if n["parent"] is None]
    while len(roots) > count:
        pairs = [(i, j) for i in range(len(roots)) for j in range(i + 1, len(roots))]
        unit = [n["x"] / np.linalg.norm(n["x"]) for n in roots]
        i, j = max(pairs, key=lambda pair: unit[pair[0]] @ unit[pair[1]])
        roots[j]["parent"] = roots[i]
        del roots[j]
    for n in new:
        n["depth"] = 0 if n["parent"] is None else n["parent"]["depth"] + 1
    best = sorted(new, key=lambda n: (n["depth"], n["step"], turn[n["token"]]))[:count]
    for n in new:
        n["tree"]["shown"] = -math.inf if n["tree"]["shown"] == math.inf else n["tree"]["shown"]
    for n in best:
        n["tree"]["shown"] = max(n["tree"]["shown"], tokens.seconds[n["step"] - tokens.since])
    rest = sorted(set(range(len(tokens))) - {n["token"] for n in new}, key=lambda i: -scores[i])
    kept = sorted([n["token"] for n in best] + rest[: count - len(best)])
    last = tokens.since + len(tokens.seconds) - method.window
    return kept, [n for n in carried + new if n["step"] >= last]


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 1, 4, 2]])
def test_a_stream_as_plain_loops(sizes: list[int], holes: bool, keep: float) -> None:
    """Several chunks, a window shorter than the video, trees that are shown again."""
    video = laid(torch.from_numpy(filmed(3, 12, 6, 5, 8, 0.15, 7, 0.7)), (6, 5), since=3, rate=2.0)
    method = ForestPrune(keep=keep, window=4, refresh=1.0)
    carried: dict[str, Tensor] = {}
    plain: list[dict[str, Any]] = []
    begin = 0
    for size in sizes:
        tokens = part(video, begin, begin + size, holes)
        before = {name: tensor.clone() for name, tensor in carried.items()}
        reduced, after = method(tokens, carried)
        kept, plain = plainly(tokens, plain, method)
        assert reduced.kept.tolist() == kept
        assert len(kept) == method.left(len(tokens))
        assert after["table"][:, 3].tolist() == [n["depth"] for n in plain]
        assert all(torch.equal(carried[name], tensor) for name, tensor in before.items())
        assert sum(tensor.nbytes for tensor in after.values()) <= method.most_bytes(30, 8, 8)
        carried, begin = after, begin + size


def test_what_is_carried_reaches_its_bound() -> None:
    method = ForestPrune(window=3)
    video = laid(torch.randn(5, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), (2, 3))
    _, carried = method(video, {})
    assert sum(tensor.nbytes for tensor in carried.values()) == method.most_bytes(6, 4, 8)


def test_a_still_thing_is_shown_again_in_time() -> None:
    """One place that never changes beside one that always does: without `refresh` the latter alone stays."""
    random = torch.randn(24, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def shown(refresh: float) -> list[float]:
        method, carried = ForestPrune(keep=0.5, nodes=1.0, window=8, refresh=refresh), {}
        times = []
        for t in range(24):
            features = torch.stack([torch.ones(8, dtype=torch.float64), random[t]])[None]
            reduced, carried = method(laid(features, (1, 2), since=t), carried)
            times += [float(t)] if 0 in reduced.kept.tolist() else []
        return times

    rare, often = shown(1000.0), shown(3.0)
    assert len(rare) < 3 < len(often) and max(b - a for a, b in pairwise(often)) <= 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_and_nothing_at_all(dtype: torch.dtype) -> None:
    """Black pictures, zeros, one token; twice the same, however the last bits fall."""
    method = ForestPrune()
    for features in (torch.zeros(3, 16, 8), torch.ones(3, 16, 8)):
        reduced, carried = method(laid(features.to(dtype), (4, 4)), {})
        assert len(reduced.kept) == 12 and not carried["features"].isnan().any()
        noise = torch.rand(3, 16, 8, generator=torch.Generator().manual_seed(0))
        shaken = features * (1 + torch.finfo(dtype).eps * noise)
        again, _ = method(laid(shaken.to(dtype), (4, 4)), {})
        assert torch.equal(reduced.kept, again.kept)
        one = Tokens(features[0, :1].to(dtype), *torch.tensor([[2], [1], [0]]), (3.0, 4.0, 5.0), (4, 4), 3)
        assert method(one, carried)[0].kept.tolist() == [0]
    other = laid(torch.ones(2, 9, 8, dtype=dtype), (3, 3), since=3)  # pictures of another size
    assert torch.equal(method(other, carried)[0].kept, method(other, {})[0].kept)


def test_join_takes_the_most_similar_pair_that_remains() -> None:
    """Among equals the first; against all pairs looked at anew."""
    random = np.random.default_rng(0)
    for count in (2, 5, 30):
        change = random.integers(0, 40, (count, count))
        change = np.minimum(change, change.T)
        roots = np.arange(count) * 3
        for times in (1, count // 2, count - 1):
            remain, want = list(range(count)), []
            for _ in range(times):
                i, j = min(((i, j) for i in remain for j in remain if i < j), key=lambda p: (change[p], p))
                want.append((3 * j, 3 * i))
                remain.remove(j)
            child, parent = join(roots, change, times)
            assert list(zip(child.tolist(), parent.tolist(), strict=True)) == want


def test_one_token_lets_all_through_and_parameters_are_checked() -> None:
    tokens = in_three()
    reduced, carried = ForestPrune(release="one_token")(tokens, {})
    assert reduced.kept.tolist() == list(range(6)) and not carried
    assert ForestPrune(keep=1.0)(tokens, {})[0].kept.tolist() == list(range(6))
    for wrong in ({"keep": 0}, {"tau_s": 1.5}, {"tau_p": -1}, {"nodes": 2}, {"window": 0}, {"release": "frame"}):
        with pytest.raises(pv.ConfigError):
            ForestPrune(**wrong)  # type: ignore[arg-type]
