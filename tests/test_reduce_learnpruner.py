"""LearnPruner's first half: score, and diversity by the farthest point."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from asked import cosine, random_tokens, some, tokens_of, turns
from torch import Tensor

import pdrop_video as pv
from pdrop_video.reduce import REDUCERS
from pdrop_video.reduce.learnpruner import LearnPruner, farthest


def by_loops(rows: list[Tensor], taken: list[int], count: int, before: list[Tensor] | None = None) -> list[int]:
    """Each time the row whose largest cosine to all that are taken is smallest."""
    taken, more = list(taken), []
    for _ in range(count):
        free = [i for i in range(len(rows)) if i not in taken]
        seen = [rows[j] for j in taken] + (before or [])
        best = min(free, key=lambda i: max(cosine(rows[i], row) for row in seen))
        taken.append(best)
        more.append(best)
    return more


def test_the_specs_example() -> None:
    """Two by score, and then 4 before 2."""
    rows = [[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0.9, 0.2], [0, 0, 1], [0.5, 0.5, 0.5]]
    features = torch.tensor(rows, dtype=torch.float64)
    scores = torch.tensor([0.9, 0.8, 0.3, 0.2, 0.1, 0.4])
    taken = tokens_of(features, (2, 3)).best(scores, 2)
    assert taken.tolist() == [0, 1]
    assert farthest(features, taken, 2, torch.arange(6)).tolist() == [4, 2]
    largest = [max(cosine(features[i], features[j]) for j in (0, 1)) for i in (2, 3, 4, 5)]
    assert largest == pytest.approx([0.1104, 0.1078, 0, 0.6376], abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_farthest_by_loops(seed: int) -> None:
    """With rows from before, and without."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    before = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    taken = torch.tensor([3, 8, 21])
    order = torch.randperm(30, generator=generator)
    assert farthest(rows, taken, 27, order).tolist() == by_loops(list(rows), taken.tolist(), 27)
    got = farthest(rows, taken, 9, order, before)
    assert got.tolist() == by_loops(list(rows), taken.tolist(), 9, list(before))
    assert got.tolist() != farthest(rows, taken, 9, order).tolist()


def test_equals_go_by_their_turn() -> None:
    """And noise does not choose among them, nor do rows of zeros upset it."""
    rows = torch.tensor([[1.0, 0, 0]] * 2 + [[0, 1.0, 0]] * 4 + [[0, 0, 0]] * 2, dtype=torch.float64)
    turn = torch.tensor([0, 1, 5, 4, 3, 2, 7, 6])
    assert farthest(rows, torch.tensor([0]), 7, turn).tolist() == [5, 7, 6, 1, 4, 3, 2]
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        noise = 1 + 1e-15 * torch.randn(rows.shape, generator=generator, dtype=torch.float64)
        assert farthest(rows * noise, torch.tensor([0]), 7, turn).tolist() == [5, 7, 6, 1, 4, 3, 2]


def residual(rows: Tensor, rank: int) -> Tensor:
    """What the leading directions leave, by a whole decomposition."""
    centred = rows - rows.mean(0)
    directions = torch.linalg.svd(centred).Vh[:rank]
    return (centred - centred @ directions.mT @ directions).norm(dim=1)


@pytest.mark.parametrize("score", ["residual", "length"])
@pytest.mark.parametrize("keep, diverse", [(0.5, 0.1), (0.4, 0.5), (0.7, 0.0), (0.3, 1.0), (1.0, 0.2), (0.01, 0.1)])
def test_a_chunk_by_loops(keep: float, diverse: float, score: str) -> None:
    for seed, holes in ((0, False), (1, True)):
        tokens = random_tokens(seed, holes=holes)
        rows = tokens.features
        scores = residual(rows, 4) if score == "residual" else rows.norm(dim=1)
        count = max(int(len(tokens) * keep), 1)
        by_score = max(count - int(count * diverse), 1)
        taken = scores.argsort(descending=True)[:by_score].tolist()
        want = sorted(taken + by_loops(list(rows), taken, count - by_score))
        reducer = LearnPruner(keep, diverse, score, rank=4)
        reduced, carried = reducer(tokens, {})
        assert reduced.kept.tolist() == want and reduced.weights is None and not carried
        assert reducer.left(len(tokens)) == count


def test_by_the_towers_attention() -> None:
    """Which it needs then, and only then."""
    tokens = random_tokens(2)
    attention = torch.rand(60, generator=torch.Generator().manual_seed(1))
    reducer = LearnPruner(0.3, 0.5, "attention")
    assert reducer.needs == ("attention",) and LearnPruner().needs == ()
    taken = attention.argsort(descending=True)[:9].tolist()
    want = sorted(taken + by_loops(list(tokens.features), taken, 9))
    assert reducer(replace(tokens, tower={"attention": attention}), {})[0].kept.tolist() == want


def test_seeded_by_the_step_before() -> None:
    """What the newest step kept counts as taken, whoever kept it, and what is carried stays within its bound."""
    reducer = LearnPruner(0.4, 0.5, rank=4, seeded=True)
    first, second = random_tokens(0), random_tokens(1, since=3)
    second.features[:20] = first.features[40:]  # still, and then something else
    reduced, carried = reducer(first, {})
    kept = [i for i in reduced.kept.tolist() if first.step[i] == first.step[reduced.kept[-1]]]
    assert torch.equal(carried["before"], first.features[kept]) and kept
    assert carried["before"].nbytes <= reducer.most_bytes(20, 12, 8) == 20 * 12 * 8
    got, _ = reducer(second, carried)
    taken = residual(second.features, 4).argsort(descending=True)[:12].tolist()
    want = sorted(taken + by_loops(list(second.features), taken, 12, list(first.features[kept])))
    assert got.kept.tolist() == want != reducer(second, {})[0].kept.tolist()
    assert LearnPruner(0.4, 0.5, rank=4).most_bytes(20, 12, 8) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reducer", [LearnPruner(0.3), LearnPruner(0.3, 0.6, "length", seeded=True)])
def test_every_chunk_is_served(reducer: LearnPruner, dtype: torch.dtype) -> None:
    """One token, zeros, equal ones, in every type; nothing that was given changes."""
    tokens = random_tokens(0, dtype=dtype)
    chunks = {
        "one": some(tokens, torch.tensor([7])),
        "zeros": tokens_of(torch.zeros_like(tokens.features), (4, 5)),
        "equal": tokens_of(tokens.features[:1].repeat(60, 1), (4, 5)),
        "random": tokens,
    }
    carried: dict[str, Tensor] = {}
    for name, chunk in chunks.items():
        before, held = chunk.features.clone(), {key: value.clone() for key, value in carried.items()}
        given = dict(carried)
        reduced, carried = reducer(chunk, given)
        assert len(reduced.kept) == reducer.left(len(chunk)), name
        assert torch.equal(chunk.features, before) and all(torch.equal(given[key], held[key]) for key in held), name
        if name in ("zeros", "equal"):
            assert sorted(turns(chunk))[: len(reduced.kept)] == sorted(turns(some(chunk, reduced.kept))), name


def test_shares_of_bfloat16() -> None:
    """Sixteen bits choose nearly what float64 chooses, and the same among copies."""
    tokens = random_tokens(3, hidden=64)
    short = tokens_of(tokens.features.bfloat16(), (4, 5))
    mine, theirs = (set(LearnPruner(0.5, 0.4)(each, {})[0].kept.tolist()) for each in (short, tokens))
    assert len(mine & theirs) >= 24


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"keep": 0}, "keep is 0; expected a share"),
    ({"diverse": 1.5}, "diverse is 1.5; expected a number from 0 to 1"),
    ({"score": "lpm"}, "score is 'lpm'; choose 'residual' or 'length' or 'attention' or 'trained'"),
    ({"rank": 0}, "rank is 0"),
    ({"seeded": 1}, "seeded is 1; expected True or False"),
]


@pytest.mark.parametrize("wrong, said", WRONG)
def test_bad_parameters(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(pv.ConfigError, match=said):
        LearnPruner(**wrong)


def test_it_is_listed() -> None:
    assert REDUCERS["learnpruner"] == LearnPruner()
