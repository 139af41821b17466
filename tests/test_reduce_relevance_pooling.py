"""Relevance pooling: frames whole or four tokens in one, by the question."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from asked import cosine, random_tokens, some, tokens_of
from torch import Tensor

import pdrop_video as pv
from pdrop_video.common.ties import spread
from pdrop_video.reduce import REDUCERS, Reduced, Tokens
from pdrop_video.reduce.relevance_pooling import RelevancePooling, scaled


def turn(step: int, row: int = 0, column: int = 0) -> int:
    return int(spread(torch.tensor(step), torch.tensor(row), torch.tensor(column)))


def by_loops(tokens: Tokens, reducer: RelevancePooling) -> list[list[int]]:
    """What each token that stays is a mean of, the first of them its place, in the order of places."""
    n, step = len(tokens), tokens.step.tolist()
    words = [0.0] * n
    if tokens.question is not None:
        words = [max(cosine(row, word) for word in tokens.question) for row in tokens.features]
    frames = sorted(set(step))

    def mean(members: list[int]) -> float:
        return sum(words[i] for i in members) / len(members)

    cells: dict[int, list[list[int]]] = {}
    relevance = {}
    for frame in frames:
        mine = [i for i in range(n) if step[i] == frame]
        relevance[frame] = max(words[i] for i in mine) if reducer.relevance == "max" else mean(mine)
        of_cell: dict[tuple[int, int], list[int]] = {}
        for i in mine:
            of_cell.setdefault((int(tokens.row[i]) // 2, int(tokens.column[i]) // 2), []).append(i)
        cells[frame] = list(of_cell.values())
    order = sorted(frames, key=lambda frame: (-relevance[frame], turn(frame + tokens.since)))
    budget = max(int(n * reducer.keep), 1)
    pooled = list(order)
    while len(pooled) > 1 and sum(len(cells[frame]) for frame in pooled) > budget:
        pooled.pop()
    whole: list[int] = []
    if pooled == order:
        spare = budget - sum(map(len, cells.values()))
        for frame in order:
            spare -= step.count(frame) - len(cells[frame])
            if spare < 0:
                break
            whole.append(frame)
    kept = [[i] for i in range(n) if step[i] in whole]
    kept += [cell for frame in pooled if frame not in whole for cell in cells[frame]]
    if len(kept) > budget:
        at = {
            cell[0]: turn(step[cell[0]] + tokens.since, *(int(x[cell[0]]) for x in (tokens.row, tokens.column)))
            for cell in kept
        }
        kept = sorted(kept, key=lambda cell: (-mean(cell), at[cell[0]]))[:budget]
    return sorted(kept)


def made_of(reduced: Reduced, tokens: int) -> list[list[int]]:
    """The same, as a reducer says it; all members of a mean weigh alike, and together 1."""
    if reduced.weights is None:
        return [[i] for i in reduced.kept.tolist()]
    assert reduced.weights.shape == (len(reduced.kept), tokens)
    members = [row.nonzero()[:, 0].tolist() for row in reduced.weights]
    for row, group in zip(reduced.weights, members, strict=True):
        assert row[group].tolist() == pytest.approx([1 / len(group)] * len(group))
    assert [group[0] for group in members] == reduced.kept.tolist()
    return members


@pytest.mark.parametrize("keep", [1.0, 0.9, 0.6, 0.45, 0.3, 0.2, 0.1, 0.01])
@pytest.mark.parametrize("words", [0, 3])
@pytest.mark.parametrize("holes", [False, True], ids=["whole", "holes"])
def test_by_loops(keep: float, words: int, holes: bool) -> None:
    """Odd grids, a step without tokens, budgets for whole frames, pooled ones, and less than one pooled."""
    for seed, grid in ((0, (4, 5)), (1, (3, 3)), (2, (1, 4)), (3, (2, 2))):
        tokens = random_tokens(seed, 4, grid, holes=holes, words=words, since=7 * seed)
        for how in ("mean", "max"):
            reducer = RelevancePooling(keep, how)
            reduced, carried = reducer(tokens, {})
            assert made_of(reduced, len(tokens)) == by_loops(tokens, reducer)
            assert not carried and len(reduced.kept) <= max(int(len(tokens) * keep), 1)


def test_by_hand() -> None:
    """Three frames of 2 x 3, the second is what the question is about: it stays whole, four and two are averaged."""
    features = torch.zeros(18, 4, dtype=torch.float64)
    features[:, 0] = torch.arange(18)
    features[6:12, 1] = 100
    tokens = tokens_of(features, (2, 3), question=torch.tensor([[0, 1.0, 0, 0], [0, 0, 1.0, 0]], dtype=torch.float64))
    reduced, _ = RelevancePooling(keep=10 / 18)(tokens, {})
    assert reduced.kept.tolist() == [0, 2, 6, 7, 8, 9, 10, 11, 12, 14]
    assert reduced.weights is not None
    means = (reduced.weights @ features)[:, 0].tolist()
    assert means == pytest.approx([(0 + 1 + 3 + 4) / 4, (2 + 5) / 2, 6, 7, 8, 9, 10, 11, 14, 15.5])
    fewer, _ = RelevancePooling(keep=9 / 18)(tokens, {})
    assert fewer.kept.tolist() == [0, 2, 6, 8, 12, 14]
    one, _ = RelevancePooling(keep=3 / 18)(tokens, {})
    assert one.kept.tolist() == [6, 8]


def test_scales() -> None:
    """The budget to the token; a frame without tokens takes no part."""
    tokens, pooled, order = np.array([9, 0, 9, 5]), np.array([4, 0, 4, 2]), np.array([1, 2, 3, 0])
    for budget, want in (
        (23, [2, 0, 2, 2]),
        (22, [1, 0, 2, 2]),
        (18, [1, 0, 2, 2]),
        (17, [1, 0, 2, 1]),
        (14, [1, 0, 1, 1]),
        (10, [1, 0, 1, 1]),
        (9, [0, 0, 1, 1]),
        (5, [0, 0, 1, 0]),
        (1, [0, 0, 1, 0]),
    ):
        assert scaled(tokens, pooled, order, budget).tolist() == want, budget


def test_without_a_question_frames_are_spread_evenly() -> None:
    """And by their number in the stream, wherever chunks begin."""
    tokens = random_tokens(0, 20, (2, 2))
    whole = [len(RelevancePooling(0.5)(replace(tokens, since=since), {})[0].kept) for since in range(5)]
    assert set(whole) == {38}  # six of twenty frames whole: 6 * 4 + 14
    reduced, _ = RelevancePooling(0.5)(tokens, {})
    frames = [step for step in range(20) if (tokens.step[reduced.kept] == step).sum() == 4]
    gaps = [b - a for a, b in pairwise(frames)]
    assert len(frames) == 6 and max(gaps) <= 5 and min(gaps) >= 2
    empty = RelevancePooling(0.5)(replace(tokens, question=tokens.features[:0]), {})[0]
    assert torch.equal(empty.kept, reduced.kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_chunk_is_served(dtype: torch.dtype) -> None:
    """One token, zeros, equal ones, in every type; weights are exact enough; nothing that was given changes."""
    tokens, reducer = random_tokens(0, words=2, dtype=dtype), RelevancePooling(0.4)
    chunks: dict[str, Tokens] = {
        "one": some(tokens, torch.tensor([27])),
        "zeros": tokens_of(torch.zeros_like(tokens.features), (4, 5), question=tokens.question),
        "equal": tokens_of(tokens.features[:1].repeat(60, 1), (4, 5), question=tokens.question),
        "random": tokens,
    }
    for name, chunk in chunks.items():
        before: Tensor = chunk.features.clone()
        reduced, _ = reducer(chunk, {})
        assert 0 < len(reduced.kept) <= max(int(len(chunk) * 0.4), 1), name
        assert reduced.weights is None or reduced.weights.dtype == torch.float32
        assert torch.equal(chunk.features, before), name
    zeros, equal = (reducer(chunks[name], {})[0].kept for name in ("zeros", "equal"))
    assert torch.equal(zeros, equal)  # no frame is more relevant than another


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"keep": 0}, "keep is 0; expected a share"),
        ({"relevance": "sum"}, "relevance is 'sum'; choose 'mean' or 'max'"),
    ],
)
def test_bad_parameters(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(pv.ConfigError, match=said):
        RelevancePooling(**wrong)


def test_it_is_listed() -> None:
    assert REDUCERS["relevance_pooling"] == RelevancePooling()
