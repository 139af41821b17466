"""LRCP: residuals outside the leading directions, running moments, and merging."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import pdrop_video as pv
from pdrop_video.reduce import REDUCERS, Tokens
from pdrop_video.reduce.lrcp import LRCP, fold, leading, members, residuals

EXAMPLE = torch.tensor([[1.0, 0, 0], [3, 0, 1], [6, 0, 0], [4, 2, 1]], dtype=torch.float64)
"""Of the specification."""


def tokens_of(features: Tensor, grid: tuple[int, int], since: int = 0) -> Tokens:
    number, places = torch.arange(len(features)), grid[0] * grid[1]
    steps = tuple(float(i) for i in range(-(-len(features) // places)))
    return Tokens(features, number // places, number % places // grid[1], number % grid[1], steps, grid, since)


def scene(steps: int, places: int, hidden: int, seed: int = 0, directions: int | None = None) -> Tensor:
    """Random tokens of a spectrum that falls off, beside a mean [steps * places, hidden]."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(steps * places, hidden, generator=generator, dtype=torch.float64)
    spectrum = torch.arange(1, hidden + 1).double() ** -1
    if directions is not None:
        spectrum[directions:] = 0
    turned = torch.linalg.qr(torch.randn(hidden, hidden, generator=torch.Generator().manual_seed(99)).double()).Q
    return (draw * spectrum) @ turned + 0.5


def by_formula(rows: Tensor, weight: Tensor, rank: int) -> list[float]:
    """Residuals outside the leading directions of weighted rows, by SVD and plain loops."""
    mean = sum(w * row for w, row in zip(weight, rows, strict=True)) / weight.sum()
    centred = rows - mean
    directions = torch.linalg.svd(centred * weight.sqrt()[:, None], full_matrices=False).Vh[:rank]
    scores = []
    for row in centred:
        left = row.clone()
        for direction in directions:
            left = left - (row @ direction) * direction
        scores.append(float(left @ left))
    return scores


# -- the specification's example ---------------------------------------------------------------------------------------


def test_the_examples_directions() -> None:
    mean = EXAMPLE.mean(0)
    assert mean.tolist() == [3.5, 0.5, 0.5]
    found = leading(EXAMPLE - mean, 3)
    want = torch.tensor([13.099828, 3.326462, 0.573709], dtype=torch.float64)
    torch.testing.assert_close(found.square().sum(1), want, atol=1e-6, rtol=0)
    first = found[0] / found[0].norm() * found[0, 0].sign()
    torch.testing.assert_close(first, torch.tensor([0.995021, 0.099331, 0.008209]).double(), atol=1e-6, rtol=0)


RESIDUALS = {
    0: ([2.598076, 0.866025, 2.598076, 1.658312], None),
    1: ([0.540078, 0.674591, 0.909236, 1.525354], [2, 3]),
    2: ([0.342602, 0.639927, 0.184892, 0.112433], [0, 1]),  # the order is the other way round
}


@pytest.mark.parametrize("rank", RESIDUALS)
def test_the_examples_residuals(rank: int) -> None:
    want, keeps = RESIDUALS[rank]
    mean = EXAMPLE.mean(0)
    directions = torch.nn.functional.normalize(leading(EXAMPLE - mean, rank), dim=1)
    got = residuals(EXAMPLE, mean, directions, torch.float64)
    torch.testing.assert_close(got.sqrt(), torch.tensor(want, dtype=torch.float64), atol=1e-6, rtol=0)
    if keeps is not None:
        for running in (False, True):  # one chunk is all of the stream: the same
            lrcp = LRCP(keep=0.5, rank=rank, running=running)
            assert lrcp(tokens_of(EXAMPLE, (2, 2)), {})[0].kept.tolist() == keeps


def test_the_examples_merge() -> None:
    """A kept token without members is itself, and not half of it."""
    unit = torch.nn.functional.normalize(EXAMPLE, dim=1)
    want = torch.tensor([[1.0, 0.872872], [0.948683, 0.897085]], dtype=torch.float64)
    torch.testing.assert_close(unit[:2] @ unit[2:].mT, want, atol=1e-6, rtol=0)
    reduced, _ = LRCP(keep=0.5, rank=1)(tokens_of(EXAMPLE, (2, 2)), {})
    assert reduced.weights is not None
    torch.testing.assert_close(reduced.weights, torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 1]]).double())
    means = torch.tensor([[10 / 3, 0, 1 / 3], [4, 2, 1]], dtype=torch.float64)
    torch.testing.assert_close(reduced.weights @ EXAMPLE, means)
    assert LRCP(keep=0.5, rank=1, merge=False)(tokens_of(EXAMPLE, (2, 2)), {})[0].weights is None


# -- by formula --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("hidden", [12, 60])
def test_a_chunk_by_itself(hidden: int, rank: int, keep: float) -> None:
    """More tokens than hidden numbers and fewer."""
    for seed in range(5):
        rows = scene(2, 20, hidden, seed)
        scores = by_formula(rows, torch.ones(40, dtype=torch.float64), rank)
        best = sorted(sorted(range(40), key=lambda i: -scores[i])[: max(1, int(40 * keep))])
        reduced, carried = LRCP(keep, rank, running=False)(tokens_of(rows, (4, 5)), {})
        assert reduced.kept.tolist() == best and carried == {}


def test_members_by_hand() -> None:
    rows = scene(1, 30, 12)
    kept = torch.tensor([2, 3, 17, 29])
    owners: dict[int, list[int]] = {int(k): [int(k)] for k in kept}
    for i in range(30):
        if i not in owners:
            owners[max(owners, key=lambda k: float(torch.cosine_similarity(rows[i], rows[k], dim=0)))].append(i)
    want = torch.zeros(4, 30, dtype=torch.float64)
    for line, group in enumerate(owners.values()):
        want[line, group] = 1 / len(group)
    torch.testing.assert_close(members(rows, kept, torch.float64), want)


@pytest.mark.parametrize("decay", [1.0, 0.9, 0.4])
def test_running_moments_are_those_of_all_at_once(decay: float) -> None:
    """Mean, weight and scatter of the whole stream, later steps weighing more; while the sketch can hold it."""
    rows, rank = scene(9, 6, 40, directions=11), 3  # twelve directions are carried
    lrcp, carried, done = LRCP(0.5, rank, decay=decay), {}, 0
    for steps in (2, 1, 4, 2):
        part = rows[6 * done : 6 * (done + steps)]
        reduced, carried = lrcp(tokens_of(part, (2, 3), done), carried)
        done += steps
        seen = rows[: 6 * done]
        weight = decay ** (done - 1 - torch.arange(6 * done) // 6).double()
        mean = (weight[:, None] * seen).sum(0) / weight.sum()
        scatter = sum(w * torch.outer(r - mean, r - mean) for w, r in zip(weight, seen, strict=True))
        torch.testing.assert_close(carried["weight"], weight.sum())
        torch.testing.assert_close(carried["mean"], mean)
        torch.testing.assert_close(carried["sketch"].mT @ carried["sketch"], scatter, atol=1e-10, rtol=0)
        scores = by_formula(seen, weight, rank)[-6 * steps :]
        assert reduced.kept.tolist() == sorted(sorted(range(6 * steps), key=lambda i: -scores[i])[: 3 * steps])


def test_the_sketch_holds_the_leading_directions_of_a_long_stream() -> None:
    """Ten chunks through 16 directions: the first four are those of all rows at once."""
    rows, lrcp, carried = scene(10, 30, 64), LRCP(rank=4, decay=1.0), {}
    for number, part in enumerate(rows.split(30)):
        _, carried = lrcp(tokens_of(part, (5, 6), number), carried)
    true = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    torch.testing.assert_close(carried["sketch"][:4].norm(dim=1), true.S[:4], rtol=1e-4, atol=0)
    overlap = torch.nn.functional.normalize(carried["sketch"][:4], dim=1) @ true.Vh[:4].mT
    assert float(torch.linalg.svdvals(overlap).min()) > 1 - 1e-5


@pytest.mark.parametrize("sizes", [[9], [1] * 9, [4, 5], [1, 7, 1]])
def test_what_is_carried_does_not_depend_on_chunks(sizes: list[int]) -> None:
    """While the stream has no more directions than the sketch."""
    rows, lrcp = scene(9, 6, 40, directions=11), LRCP(rank=3)
    want = fold(rows, 0.9 ** (8 - torch.arange(54) // 6).double(), torch.tensor(1.0), {}, 12)
    carried: dict[str, Tensor] = {}
    done = 0
    for steps in sizes:
        _, carried = lrcp(tokens_of(rows[6 * done : 6 * (done + steps)], (2, 3), done), carried)
        done += steps
    for name in ("weight", "mean"):
        torch.testing.assert_close(carried[name], want[name])
    torch.testing.assert_close(*(each["sketch"].mT @ each["sketch"] for each in (carried, want)), atol=1e-10, rtol=0)


def test_a_background_that_stays_is_explained_and_what_is_new_is_not() -> None:
    """By itself, a chunk knows no background; this is what running is for."""
    generator = torch.Generator().manual_seed(0)
    still = torch.randn(24, 32, generator=generator, dtype=torch.float64) * 3
    new = torch.randn(6, 32, generator=generator, dtype=torch.float64) * 2

    def step(number: int) -> Tensor:
        moving = torch.randn(24, 32, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        rows = still + 0.01 * moving
        return torch.cat([new, rows[6:]]) if number == 20 else rows

    running, alone, carried = LRCP(0.25, 24), LRCP(0.25, 24, running=False), {}
    for number in range(21):
        tokens = tokens_of(step(number), (4, 6), number)
        (reduced, carried), (single, _) = running(tokens, carried), alone(tokens, {})
    assert reduced.kept.tolist() == [0, 1, 2, 3, 4, 5]
    assert single.kept.tolist() != [0, 1, 2, 3, 4, 5]


def test_large_chunks_find_the_same_directions() -> None:
    """Beyond what is decomposed in full."""
    rows = scene(1, 700, 400)
    rows = rows - rows.mean(0)
    true = torch.linalg.svd(rows, full_matrices=False)
    found = leading(rows, 8)
    torch.testing.assert_close(found.norm(dim=1), true.S[:8], rtol=1e-5, atol=0)
    left = residuals(rows, rows.mean(0), torch.nn.functional.normalize(found, dim=1), torch.float64)
    want = (rows - rows @ true.Vh[:8].mT @ true.Vh[:8]).square().sum(1)
    torch.testing.assert_close(left, want, rtol=1e-2, atol=0)
    assert torch.equal(found, leading(rows.clone(), 8))  # from a fixed start


# -- degenerate, ragged, equal -----------------------------------------------------------------------------------------


def test_without_residuals_distances_count_and_without_these_all_are_even() -> None:
    rows = scene(1, 6, 16)
    far = [float((row - rows.mean(0)).norm()) for row in rows]
    want = sorted(sorted(range(6), key=lambda i: -far[i])[:2])
    for running in (False, True):  # six tokens have five directions: nothing is left over
        assert LRCP(0.34, 8, running)(tokens_of(rows, (2, 3)), {})[0].kept.tolist() == want
    noise = 1 + 1e-15 * torch.randn(30, 1, dtype=torch.float64)
    same = rows[:1].expand(30, -1)
    kept = [LRCP(0.2, 4)(tokens_of(each, (2, 3)), {})[0].kept for each in (same, same * noise, torch.zeros(30, 16))]
    assert torch.equal(kept[0], kept[1]) and torch.equal(kept[0], kept[2])
    assert len({int(i) // 6 for i in kept[0]}) >= 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ragged_steps_single_tokens_and_zeros(dtype: torch.dtype) -> None:
    """Nothing is ever not a number, and what was given stays as it was."""
    whole = tokens_of(scene(4, 6, 16).to(dtype), (2, 3))
    there = torch.tensor([0, 5, 6, 7, 8, 20, 23])  # of steps 0, 1 and 3
    some = Tokens(
        whole.features[there], whole.step[there], whole.row[there], whole.column[there], whole.seconds, whole.grid
    )
    lrcp, carried = LRCP(0.5, 2), {}
    for tokens in (some, tokens_of(whole.features[:1], (1, 1)), tokens_of(torch.zeros(6, 16, dtype=dtype), (2, 3))):
        before = {name: tensor.clone() for name, tensor in carried.items()}
        reduced, after = lrcp(tokens, carried)
        assert len(reduced.kept) == lrcp.left(len(tokens)) == max(1, len(tokens) // 2)
        assert all(torch.equal(carried[name], tensor) for name, tensor in before.items())
        assert all(bool(tensor.isfinite().all()) for tensor in after.values())
        if reduced.weights is not None:
            torch.testing.assert_close(reduced.weights.sum(1), torch.ones(len(reduced.kept)).to(reduced.weights))
        carried = after
        size = {name: tensor.nbytes for name, tensor in carried.items()}
        assert sum(size.values()) == lrcp.most_bytes(6, 16, dtype.itemsize)  # from the first chunk on
    # three steps of the first chunk had tokens, and each of the others has one
    weights = 0.9**4 * 2 + 0.9**3 * 3 + 0.9**2 * 2 + 0.9 + 6
    assert float(carried["weight"]) == pytest.approx(weights)


def test_equal_neighbours_go_to_the_first() -> None:
    rows = scene(1, 6, 16)
    rows[4] = rows[1] * 2
    rows[5] = rows[1] * (1 + 1e-12)
    assert members(rows, torch.tensor([0, 1, 4]), torch.float64)[:, 5].nonzero().flatten().tolist() == [1]


@pytest.mark.parametrize("bad", [{"rank": 0}, {"keep": 0}, {"decay": 0}, {"decay": 1.5}, {"merge": 1}, {"running": 0}])
def test_bad_settings(bad: dict[str, object]) -> None:
    with pytest.raises(pv.ConfigError, match=f"{next(iter(bad))} is "):
        replace(REDUCERS["lrcp"], **bad)
