"""Select and rescore: the best within groups, and groups whose votes are taken away once selected."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import pdrop_video as pv
from pdrop_video.reduce import REDUCERS, Tokens, select_rescore
from pdrop_video.reduce.select_rescore import SelectRescore, asked_within, best_within, between, select

ATTENTION = torch.tensor(
    [
        [0.2, 0.3, 0.1, 0.1, 0.1, 0.05, 0.1, 0.05],
        [0.3, 0.2, 0.1, 0.1, 0.1, 0.05, 0.1, 0.05],
        [0.2, 0.4, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05],
        [0.3, 0.3, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05],
        [0.1, 0.1, 0.05, 0.05, 0.3, 0.3, 0.05, 0.05],
        [0.1, 0.1, 0.05, 0.05, 0.4, 0.2, 0.05, 0.05],
        [0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.5, 0.2],
        [0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.4, 0.3],
    ],
    dtype=torch.float64,
)
VOXELS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
"""Of the specification."""


def tokens_of(features: Tensor, grid: tuple[int, int], since: int = 0, voxel: Tensor | None = None) -> Tokens:
    number, places = torch.arange(len(features)), grid[0] * grid[1]
    steps = tuple(float(i) for i in range(-(-len(features) // places)))
    tower = {} if voxel is None else {"voxel": voxel}
    row, column = number % places // grid[1], number % grid[1]
    return Tokens(features, number // places, row, column, steps, grid, since, tower)


def random(tokens: int, hidden: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(tokens, hidden, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- the specification's example ---------------------------------------------------------------------------------------


def test_the_examples_best_within_voxels() -> None:
    sizes = torch.bincount(VOXELS)
    scores = asked_within(ATTENTION, VOXELS, VOXELS) / sizes[VOXELS]
    want = torch.tensor([0.25, 0.3, 0.1, 0.1, 0.35, 0.25, 0.45, 0.25], dtype=torch.float64)
    torch.testing.assert_close(scores, want)
    stays = best_within(scores, VOXELS, sizes, 0.5, torch.arange(8))
    assert stays.nonzero().flatten().tolist() == [0, 1, 4, 6]
    for share, counts in ((0.3, [2, 1, 1]), (0.75, [3, 2, 2]), (0.01, [1, 1, 1]), (1.0, [4, 2, 2])):  # rounded up
        assert torch.bincount(VOXELS[best_within(scores, VOXELS, sizes, share, torch.arange(8))]).tolist() == counts


def test_the_examples_rounds() -> None:
    some = torch.tensor([0, 1, 4, 6])
    held = torch.tensor([2, 1, 1])
    table = between(ATTENTION[some][:, some], VOXELS[some], VOXELS[some], 3) / held[:, None]
    torch.testing.assert_close(table.sum(0), torch.tensor([0.8, 0.45, 0.65], dtype=torch.float64))
    torch.testing.assert_close(table[1:].sum(0)[1:], torch.tensor([0.35, 0.55], dtype=torch.float64))
    turn = torch.arange(3)
    assert select(table, held, turn, 3, 1, torch.float64).tolist() == [True, False, True]
    assert select(table, held, turn, 2, 1, torch.float64).tolist() == [True, False, False]
    assert select(table, held, turn, 1, 1, torch.float64).tolist() == [False, False, True]  # the largest doesn't fit


def test_votes_of_what_was_selected_no_longer_count() -> None:
    """Without rescoring the second one would be the one that the first voted for."""
    table = torch.tensor([[5.0, 4, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.float64)
    turn, ones = torch.arange(4), torch.ones(4, dtype=torch.int64)
    assert select(table, ones, turn, 2, 1, torch.float64).tolist() == [True, False, True, False]
    assert select(table, ones, turn, 2, 2, torch.float64).tolist() == [True, True, False, False]


# -- by formula --------------------------------------------------------------------------------------------------------


def by_formula(features: Tensor, groups: list[int], keep: float, at_once: int, temperature: float) -> list[int]:
    """Both rules as plain loops over tokens [tokens, hidden]."""
    n = len(features)
    attention = []
    unit = [[x / math.hypot(*row) for x in row] for row in features.tolist()]
    for one in unit:
        weights = [math.exp(sum(x * y for x, y in zip(one, other, strict=True)) / temperature) for other in unit]
        attention.append([w / sum(weights) for w in weights])
    members = {g: [i for i in range(n) if groups[i] == g] for g in set(groups)}
    score = [sum(attention[j][i] for j in members[groups[i]]) / len(members[groups[i]]) for i in range(n)]
    stays = {g: sorted(own, key=lambda i: -score[i])[: math.ceil(len(own) / 2)] for g, own in members.items()}
    budget, selected, passed = max(1, int(n * keep)), [], []
    while len(selected) + len(passed) < len(members):
        votes = {
            target: sum(
                sum(attention[j][i] for j in stays[source] for i in stays[target]) / len(stays[source])
                for source in members
                if source not in selected
            )
            for target in members
            if target not in selected and target not in passed
        }
        new = []
        for group in sorted(votes, key=lambda g: -votes[g]):
            if len(new) == at_once:
                break
            if len(stays[group]) <= budget:
                new.append(group)
                budget -= len(stays[group])
            else:
                passed.append(group)
        selected += new
    kept = [i for group in selected for i in stays[group]]
    others = sorted((i for g in passed for i in stays[g]), key=lambda i: -score[i])
    rest = sorted((i for g in members for i in members[g] if i not in stays[g]), key=lambda i: -score[i])
    return sorted((kept + others + rest)[: max(1, int(n * keep))])


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.45, 0.7, 1.0])
@pytest.mark.parametrize("at_once", [1, 3])
def test_cells_by_hand(keep: float, at_once: int) -> None:
    for seed in range(2):
        features, grid = random(5 * 12, seed=seed), (3, 4)
        number = range(60)
        cells = {
            (1, None): [i % 12 for i in number],
            (2, 2): [(i // 12 + 3) // 2 * 100 + i % 12 // 4 // 2 * 10 + i % 4 // 2 for i in number],
        }
        for (side, steps), groups in cells.items():
            method = SelectRescore(keep, groups=at_once, temperature=0.2, side=side, steps=steps)
            reduced, carried = method(tokens_of(features, grid, since=3), {})
            assert reduced.kept.tolist() == by_formula(features, groups, keep, at_once, 0.2)
            assert reduced.weights is None and carried == {}


def test_voxels_by_hand() -> None:
    """Any numbers of any order."""
    features = random(40)
    voxel = torch.randint(-3, 9, (40,), generator=torch.Generator().manual_seed(0)) * 1000
    reduced, _ = SelectRescore(0.4, groups=2)(tokens_of(features, (4, 5), voxel=voxel), {})
    assert reduced.kept.tolist() == by_formula(features, voxel.tolist(), 0.4, 2, 0.1)


def test_large_chunks_are_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tokens_of(random(60), (3, 4))
    want = SelectRescore(0.3)(tokens, {})[0].kept
    monkeypatch.setattr(select_rescore, "_BLOCK", 7 * 60)
    assert torch.equal(SelectRescore(0.3)(tokens, {})[0].kept, want)


def test_products_by_halves() -> None:
    rows = random(1101)
    torch.testing.assert_close(select_rescore._products(rows), rows @ rows.mT)


def test_a_share_of_a_group_is_not_rounded_up_for_the_last_bit() -> None:
    group = torch.zeros(100, dtype=torch.int64)
    assert math.ceil(100 * 0.07) == 8  # as floats have it
    assert int(best_within(torch.arange(100), group, torch.tensor([100]), 0.07, group).sum()) == 7


# -- ties, ragged, at the door -----------------------------------------------------------------------------------------


def test_a_still_picture_is_kept_by_the_rule_of_ties() -> None:
    """Whatever the rounding, and whatever the picture: within a cell the same token at all times."""
    picture = random(6).expand(1, 6, 8).repeat(5, 1, 1).reshape(30, 8)
    noise = 1 + 1e-14 * torch.randn(30, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for method in (SelectRescore(0.3), SelectRescore(0.3, steps=2), SelectRescore(0.7, side=2)):
        one, other = (method(tokens_of(f, (2, 3)), {})[0].kept for f in (picture, picture * noise))
        assert torch.equal(one, other)
    black = SelectRescore(0.2)(tokens_of(torch.zeros(30, 8), (2, 3)), {})[0].kept
    assert len(black) == 6 and len({int(i) // 6 for i in black}) > 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ragged_steps_and_single_tokens(dtype: torch.dtype) -> None:
    whole = tokens_of(random(24).to(dtype), (2, 3))
    there = torch.tensor([0, 5, 6, 7, 8, 20, 23])  # of steps 0, 1 and 3
    some = Tokens(
        whole.features[there], whole.step[there], whole.row[there], whole.column[there], whole.seconds, whole.grid
    )
    for tokens in (some, tokens_of(whole.features[:1], (1, 1)), whole):
        for keep in (0.01, 0.5, 1.0):
            method = SelectRescore(keep)
            kept = method(tokens, {})[0].kept
            assert len(kept) == method.left(len(tokens)) == max(1, int(keep * len(tokens)))
            assert bool((kept[1:] > kept[:-1]).all())


@pytest.mark.parametrize(
    "bad", [{"within": 0}, {"groups": 0}, {"temperature": 0}, {"side": 0}, {"steps": 0}, {"keep": 2}]
)
def test_bad_settings(bad: dict[str, object]) -> None:
    with pytest.raises(pv.ConfigError, match=f"{next(iter(bad))} is "):
        replace(REDUCERS["select_rescore"], **bad)
