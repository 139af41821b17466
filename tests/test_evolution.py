"""EvoComp-style search: the paper's example, sets of a given size, and how far scorers are on a model."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from families import build, video

import pdrop_video as pv
from pdrop_video.search.evolution import Counted, Grouped, Kept, evolve, vocabulary_groups
from pdrop_video.search.judge import FULL, Clip, Objective
from pdrop_video.search.oracle import Given, evo_oracle
from pdrop_video.search.oracles import BEST, RANDOM, RANDOM_BEST, oracles
from pdrop_video.video import FrameChunk

E = torch.tensor([[1.0, 0], [0, 1], [-1, 0]], dtype=torch.float64)
V = torch.tensor([[2, 0.1], [1, 0.5], [0.1, 3], [0.5, 1.2], [-1, 0.2], [1, -0.1]], dtype=torch.float64)


def toy(kept: Kept) -> float:
    return float(((V[list(kept)].mean(0) - V.mean(0)) ** 2).sum())


@pytest.mark.parametrize("block", [1, 2, 8192])
def test_groups_and_the_best_candidate_by_the_numbers(block: int) -> None:
    groups = vocabulary_groups(V, E, block)
    assert groups == [(0, 1, 5), (2, 3), (4,)]
    every = [tuple(sorted(kept)) for kept in itertools.product(*groups)]
    assert len(every) == 6
    assert min(every, key=toy) == (0, 3, 4)
    assert [round(toy(kept), 6) for kept in ((0, 3, 4), (0, 2, 4), (1, 3, 4))] == [0.110278, 0.134722, 0.221389]


@pytest.mark.parametrize("seed", range(8))
def test_the_search_finds_it(seed: int) -> None:
    found = evolve(
        toy, Grouped(vocabulary_groups(V, E)), seed=seed, mutation=1.0, generations=10, population=4, parents=2
    )
    assert found.best == (0, 3, 4) and found.fitness == pytest.approx(0.110278, abs=1e-6)
    assert found.tries <= 6 and len(found.history) == 11
    assert list(found.history) == sorted(found.history, reverse=True) and found.history[-1] == found.fitness


def test_how_groups_breed() -> None:
    sets, rng = Grouped([(0, 3, 6), (1, 4), (2, 5)]), random.Random(3)
    assert sets.cross(rng, (0, 1, 2), (4, 5, 6)) == (0, 4, 5)  # the first half of three groups is one
    for _ in range(50):
        one = sets.draw(rng)
        assert [sum(token in group for token in one) for group in sets.groups] == [1, 1, 1]
        child = sets.mutate(rng, (1, 2, 3), 1.0)
        assert {0, 6} & set(child) and 3 not in child  # to the left or right of the middle one
        assert sets.mutate(rng, one, 0.0) == one


def test_how_sets_of_a_size_breed() -> None:
    sets, rng, one_swap = Counted(20, 6), random.Random(5), 0
    for _ in range(200):
        one, other = sets.draw(rng), sets.draw(rng)
        child, changed = sets.cross(rng, one, other), sets.mutate(rng, one, 0.2)
        for each in (child, changed):
            assert len(set(each)) == 6 and list(each) == sorted(each) and set(each) <= set(range(20))
        assert set(one) & set(other) <= set(child) <= set(one) | set(other)
        assert changed != one
        one_swap += len(set(one) - set(changed)) == 1
    assert 120 < one_swap < 190  # four of five
    assert sets.mutate(rng, one, 0.0) == one and Counted(4, 4).mutate(rng, (0, 1, 2, 3), 1.0) == (0, 1, 2, 3)


def test_a_given_size_beats_as_many_random_sets() -> None:
    """A fitness that adds up: the best set is known, and one in 15,504 is it."""
    worth = [((i * 7919) % 101) / 101 for i in range(20)]
    best = tuple(sorted(sorted(range(20), key=worth.__getitem__)[:5]))
    tries: list[Kept] = []

    def fitness(kept: Kept) -> float:
        tries.append(kept)
        return sum(worth[i] for i in kept)

    found = evolve(fitness, Counted(20, 5), seed=1, generations=20)
    assert found.best == best and len(tries) == found.tries == len(set(tries))
    rng = random.Random(1)
    assert min(fitness(Counted(20, 5).draw(rng)) for _ in range(found.tries)) > found.fitness
    again = evolve(fitness, Counted(20, 5), seed=1, generations=20)
    assert again == found and evolve(fitness, Counted(20, 5), seed=2, generations=1) != found
    begun = evolve(fitness, Counted(20, 5), seed=3, generations=0, begin=[best])
    assert begun.best == best and begun.tries <= 48


@pytest.mark.parametrize(
    "given,said",
    [
        (dict(population=1), "population"),
        (dict(parents=99), "parents"),
        (dict(mutation=2), "mutation"),
        (dict(crossover=-1), "crossover"),
    ],
)
def test_what_can_t_be_searched(given: dict[str, float], said: str) -> None:
    with pytest.raises(pv.ConfigError, match=said):
        evolve(toy, Counted(6, 2), **given)  # type: ignore[arg-type]
    with pytest.raises(pv.ConfigError, match="count"):
        Counted(6, 7)
    with pytest.raises(pv.ConfigError, match="finite"):
        evolve(lambda kept: float("nan"), Counted(6, 2))


@pytest.fixture(scope="module")
def clip() -> Clip:
    whole = FrameChunk.checked(video(6, seed=3), tuple(i / 2 for i in range(6)))
    return Clip("a", [whole.part(0, 4), whole.part(4, 6)], ["what is shown ?"])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl", "qwen3_vl"])
@pytest.mark.parametrize("layer", [0, 2])
def test_a_set_is_that_set_and_nothing_else_stays(family: str, layer: int, clip: Clip) -> None:
    """What the oracle judges is what a stream answers that pushed the frames itself with the same set."""
    lm = build(family)
    found = evo_oracle(
        lm, clip, "what is shown ?", count=5, layer=layer, scorers=("contrast", "relevance"), population=4, parents=2,
        generations=1, seed=2,
    )  # fmt: skip
    assert found.count == 5 and len(found.kept) == 5 and found.layer == layer
    frames = FrameChunk.cat(list(clip.chunks))

    def far(pyramid: pv.Pyramid, standing: str | None = None) -> tuple[float, int]:
        with lm.stream(FULL) as full, lm.stream(pyramid, pv.Memory(tokens=None), standing_question=standing) as kept:
            for stream in (full, kept):
                stream.push(frames)
            p, q = (stream.next_logits("what is shown ?").double().log_softmax(-1) for stream in (full, kept))
            return float((p.exp() * (p - q)).sum()), int(kept.held(-1).visual.sum())

    ratio = 5.5 / found.tokens
    given = pv.Pyramid(layers=(layer,), ratios=(ratio,), scorer=Given(found.kept), allocator="global")
    assert far(given) == (pytest.approx(found.best, rel=1e-5, abs=1e-9), 5)
    for name, value in found.scorers.items():
        pyramid = pv.Pyramid(layers=(layer,), ratios=(ratio,), scorer=name)
        assert far(pyramid, "what is shown ?") == (pytest.approx(value, rel=1e-5, abs=1e-9), 5)
    assert found.best <= min(found.scorers.values()) and found.random_best <= found.random_mean


def test_the_oracle_beats_random_sets_and_counts_groups(clip: Clip) -> None:
    lm = build("qwen2_5_vl")
    found = evo_oracle(lm, clip, "what is shown ?", count=0.25, generations=3, population=16, parents=4, seed=1)
    assert found.count == found.tokens // 4
    assert found.best < found.random_best < found.random_mean
    grouped = evo_oracle(lm, clip, "what is shown ?", count=None, generations=1, population=4, parents=2)
    with lm.stream(FULL) as stream:
        stream.push(FrameChunk.cat(list(clip.chunks)))
        seen = lm.adapter.look(*(lambda c: (c.frames, c.seconds))(FrameChunk.cat(list(clip.chunks))))
    words = lm.model.get_input_embeddings().weight
    nearest = torch.nn.functional.cosine_similarity(seen.embeds[seen.visual][:, None], words[None], dim=-1).argmax(1)
    assert grouped.count == len(set(nearest.tolist()))
    assert len({int(nearest[i]) for i in grouped.kept}) == grouped.count


def test_over_a_question_set_and_again(clip: Clip, tmp_path) -> None:  # type: ignore[no-untyped-def]
    lm, said = build("qwen2_5_vl"), list[str]()
    clips = [clip, Clip("b", [FrameChunk.checked(video(4, seed=9), (0, 1, 2, 3))], ["what ?", "how many red ?"])]
    how = dict(
        objective=Objective("answer", 3),
        notes={},
        count=0.5,
        scorers=["contrast"],
        generations=1,
        population=4,
        parents=2,
    )
    found = oracles(lm, clips, tmp_path, watch=said.append, **how)
    assert [one.name for one in found] == [BEST, "contrast", RANDOM_BEST, RANDOM] and len(said) == 3
    for one in found:
        assert one.behind == pytest.approx(one.mean - found[0].mean)
        assert one.behind >= 0 or one.name == RANDOM_BEST  # so few tries may be no better than as many random ones
    again = oracles(lm, clips, tmp_path, watch=said.append, **how)
    assert again == found and len(said) == 3
    lines = (tmp_path / "oracle.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "oracle.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:20])  # killed in the middle of a line
    assert oracles(lm, clips, tmp_path, watch=said.append, **how) == found and len(said) == 4
    with pytest.raises(pv.ConfigError, match="another search"):
        oracles(lm, clips, tmp_path, **{**how, "count": 0.4})
