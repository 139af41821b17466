"""SPpruner: focus by saliency and relevance, then the scan around it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from asked import cosine, random_tokens, some, tokens_of, turns
from torch import Tensor

import pdrop_video as pv
from pdrop_video.reduce import REDUCERS, Tokens
from pdrop_video.reduce.likeness import ranged
from pdrop_video.reduce.sppruner import SPpruner, stands_out, taken


def moved(values: list[float], step: list[int], alike: float) -> list[float]:
    """To [0, 1] by the smallest and largest of each step."""
    out = []
    for value, of in zip(values, step, strict=True):
        same = [v for v, s in zip(values, step, strict=True) if s == of]
        span = max(same) - min(same)
        out.append((value - min(same)) / span if span > 1e-9 else alike)
    return out


def by_loops(tokens: Tokens, reducer: SPpruner, context: bool = True) -> list[int]:
    """The method, cell by cell, in the order of choice."""
    n, step = len(tokens), tokens.step.tolist()
    at = [(s, int(r), int(c)) for s, r, c in zip(step, tokens.row, tokens.column, strict=True)]
    rows = tokens.features
    near = [
        [j for j in range(n) if at[j][0] == s and abs(at[j][1] - r) <= 1 and abs(at[j][2] - c) <= 1] for s, r, c in at
    ]
    raw = [float((rows[i] - rows[near[i]].mean(0)).norm()) for i in range(n)]
    if "attention" in tokens.tower:
        raw = tokens.tower["attention"].tolist()
    salient, relevant = moved(raw, step, 0.0), [1.0] * n
    if tokens.question is not None:
        relevant = moved([max(cosine(row, word) for word in tokens.question) for row in rows], step, 1.0)
    focused = [a * r for a, r in zip(salient, relevant, strict=True)]
    turn, count = turns(tokens), max(int(n * reducer.keep), 1)

    def best(scores: list[float], among: list[int]) -> int:
        return min(among, key=lambda i: (-round(scores[i], 5), turn[i]))

    kept: list[int] = []
    seeds = math.ceil(count * reducer.seeds)
    for number in range(seeds):
        scores = focused if number < math.ceil(seeds * reducer.focus) else salient
        kept.append(best(scores, [i for i in range(n) if i not in kept]))
    while len(kept) < count:
        free = [i for i in range(n) if i not in kept]
        touching = [i for i in free if any(i in near[k] for k in kept)]
        if reducer.across:
            beside = [i for i in free if any(at[i][1:] == at[k][1:] and abs(step[i] - step[k]) == 1 for k in kept)]
            touching = sorted({*touching, *beside})
        worth = [0.0] * n
        for i in touching:
            same = [k for k in kept if step[k] == step[i]]
            worth[i] = salient[i] * (1 - max((cosine(rows[i], rows[k]) for k in same), default=-1) if context else 1)
        kept.append(best(worth, touching) if touching else best(focused, free))
    return kept


def test_the_specs_example() -> None:
    """Seeds by focus alone and no likeness: 4 and 8, then 5, 3, and of 1 and 7, which tie, the earlier one."""
    a, r = [0.1, 0.2, 0.1, 0.3, 0.9, 0.4, 0.1, 0.2, 0.6], [0.2, 0.1, 0.1, 0.2, 0.5, 0.1, 0.1, 0.3, 0.9]
    group = torch.zeros(9, dtype=torch.int64)
    salient, relevant = (ranged(torch.tensor(each).double(), group, 1, torch.float64).numpy() for each in (a, r))
    assert salient.tolist() == pytest.approx([0, 0.125, 0, 0.25, 1, 0.375, 0, 0.125, 0.625], abs=1e-5)
    assert relevant.tolist() == pytest.approx([0.125, 0, 0, 0.125, 0.5, 0, 0, 0.25, 1], abs=1e-5)
    assert (salient * relevant).tolist() == pytest.approx([0, 0, 0, 0.0313, 0.5, 0, 0, 0.0313, 0.625], abs=1e-4)
    number = np.arange(9)
    got = taken(salient, relevant, number, number, (3, 3), 5, seeds=0.4, focus=1.0)
    assert got.tolist() == [8, 4, 5, 3, 1] and sorted(got.tolist()) == [1, 3, 4, 5, 8]
    assert taken(salient, relevant, number, number[::-1], (3, 3), 5, seeds=0.4, focus=1.0).tolist() == [8, 4, 5, 3, 7]


HOW: dict[str, dict[str, Any]] = {
    "half": {},
    "few": {"keep": 0.15},
    "most": {"keep": 0.9, "seeds": 0.2},
    "one seed": {"keep": 0.3, "seeds": 0.01},
    "by saliency": {"focus": 0.0},
    "across": {"across": True, "seeds": 0.1},
    "one token": {"keep": 0.001},
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("holes", [False, True], ids=["whole", "holes"])
@pytest.mark.parametrize("words", [0, 3])
def test_by_loops(how: str, holes: bool, words: int) -> None:
    reducer = SPpruner(**HOW[how])
    for seed in range(2):
        tokens = random_tokens(seed, holes=holes, words=words, since=seed)
        reduced, carried = reducer(tokens, {})
        assert reduced.kept.tolist() == sorted(by_loops(tokens, reducer))
        assert reduced.weights is None and not carried and len(reduced.kept) == reducer.left(len(tokens))


def test_the_towers_attention_in_place_of_what_stands_out() -> None:
    tokens = random_tokens(0, words=2)
    attention = torch.rand(len(tokens), generator=torch.Generator().manual_seed(9))
    told, reducer = replace(tokens, tower={"attention": attention}), SPpruner(0.3)
    got = reducer(told, {})[0].kept.tolist()
    assert got == sorted(by_loops(told, reducer)) != reducer(tokens, {})[0].kept.tolist()
    assert "attention" in reducer.wants and not reducer.needs


def test_likeness_and_the_question_count() -> None:
    """Each part of the rule changes who stays."""
    tokens, reducer = random_tokens(1, words=2), SPpruner(0.4, seeds=0.2)
    got = reducer(tokens, {})[0].kept.tolist()
    assert got != sorted(by_loops(tokens, reducer, context=False))
    assert got != reducer(replace(tokens, question=None), {})[0].kept.tolist()
    assert got != SPpruner(0.4, seeds=0.2, across=True)(tokens, {})[0].kept.tolist()


def test_what_stands_out_by_hand() -> None:
    """In a corner four cells count, at an edge six; a picture of one colour has nothing that stands out."""
    features = torch.zeros(9, 2, dtype=torch.float64)
    features[0, 0], features[4, 1] = 3.0, 9.0
    got = stands_out(features, torch.arange(9), 1, (3, 3))
    corner = torch.tensor([3 - 3 / 4, -9 / 4]).norm()
    edge = torch.tensor([-3 / 6, -9 / 6]).norm()
    middle = torch.tensor([-3 / 9, 9 - 1.0]).norm()
    assert got[[0, 1, 4, 8]].tolist() == pytest.approx([float(corner), float(edge), float(middle), 9 / 4])
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        plain = torch.randn(1, 7, generator=torch.Generator().manual_seed(0)).expand(9, -1)
        shaken = plain * (1 + torch.finfo(dtype).eps * torch.randn(9, 7, generator=torch.Generator().manual_seed(1)))
        assert not stands_out(shaken.to(dtype), torch.arange(9), 1, (3, 3)).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_chunk_is_served(dtype: torch.dtype) -> None:
    """One token, zeros, equal ones; nothing that was given changes; equals are spread."""
    tokens, reducer = random_tokens(0, words=2, dtype=dtype), SPpruner(0.3)
    grid: tuple[int, int] = (4, 5)
    question = tokens.question
    chunks: dict[str, Tokens] = {
        "one": some(tokens, torch.tensor([27])),
        "zeros": tokens_of(torch.zeros_like(tokens.features), grid, question=question),
        "equal": tokens_of(tokens.features[:1].repeat(60, 1), grid, question=question),
        "no words": replace(tokens, question=tokens.features[:0]),
        "random": tokens,
    }
    for name, chunk in chunks.items():
        before: Tensor = chunk.features.clone()
        kept = reducer(chunk, {})[0].kept
        assert len(kept) == reducer.left(len(chunk)), name
        assert torch.equal(chunk.features, before), name
        if name in ("zeros", "equal"):
            assert set(chunk.step[kept].tolist()) == {0, 1, 2}, name


def test_noise_does_not_choose() -> None:
    """Tokens that come three times each, in float64's noise."""
    base = random_tokens(4, words=2)
    features = base.features[:20].repeat(3, 1)
    want = None
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        noise = 1 + 1e-15 * torch.randn(features.shape, generator=generator, dtype=torch.float64)
        kept = SPpruner(0.4)(tokens_of(features * noise, (4, 5), question=base.question), {})[0].kept.tolist()
        want = want or kept
        assert kept == want


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"keep": 2}, "keep is 2; expected a share"),
        ({"seeds": 0}, "seeds is 0; expected a share"),
        ({"focus": -0.1}, "focus is -0.1; expected a number from 0 to 1"),
        ({"across": "yes"}, "across is 'yes'; expected True or False"),
    ],
)
def test_bad_parameters(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(pv.ConfigError, match=said):
        SPpruner(**wrong)


def test_it_is_listed() -> None:
    assert REDUCERS["sppruner"] == SPpruner()
