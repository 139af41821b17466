"""Two tiers of memory: whole steps in a window, n columns of each older step, chosen once; and as means."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES, build, cases, video
from reference import full_prompt, masked_forward, recorded, stream_masks
from test_memory import PREFIX, held, table
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import EVICTORS, Held, KeyValueLayer, TokenTable
from pdrop_video.memory.evictors import choose
from pdrop_video.memory.evictors.pyramid import Pyramid as PyramidEvictor
from pdrop_video.memory.evictors.two_tier import TwoTier, TwoTierMeans

QUESTION = "what is shown first ?"


def columns_of(scores: list[list[float]]) -> TokenTable:
    """A table of steps without a prompt, a row of columns each."""
    wide = len(scores[0])
    count = len(scores) * wide
    step = torch.arange(count) // wide
    return table(
        index=torch.arange(count),
        seconds=step.double(),
        until=step.double(),
        chunk=step,
        step=step,
        row=torch.zeros(count, dtype=torch.long),
        column=torch.arange(count) % wide,
        score=torch.tensor(scores).flatten(),
        visual=torch.ones(count, dtype=torch.bool),
    )


def alone(tokens: TokenTable) -> Held:
    """A layer that holds these, and nothing in its keys."""
    nothing = torch.zeros(1, len(tokens), 2)
    return Held(nothing, nothing, tokens, 0, 1)


def test_the_example_of_the_specification() -> None:
    """Six steps of four columns, a budget of 12, a window of 8, n = 1; then a seventh step."""
    scores = [[0.1, 0.4, 0.2, 0.3], [0.9, 0.1, 0.2, 0.3], [0.1, 0.2, 0.3, 0.8], [0.5, 0.6, 0.7, 0.4]]
    tokens = columns_of([*scores, [0.1, 0.2, 0.4, 0.3], [0.3, 0.9, 0.1, 0.2], [0.0, 0.0, 0.0, 0.1]])
    evictor = TwoTier(window=8 / 12, n=1)
    six = tokens.take(torch.arange(24))
    stay = choose(evictor(alone(six), 12), six, 12)
    assert stay.tolist() == [1, 4, 11, 14, *range(16, 24)]
    seven = six.take(stay).append(tokens.take(torch.arange(24, 28)))
    left = seven.take(choose(evictor(alone(seven), 12), seven, 12))
    assert left.index.tolist() == [4, 11, 14, 18, *range(20, 28)]


def by_hand(layer: Held, keep: int, window: float, n: int) -> tuple[list[int], list[int], list[int]]:
    """The rows of the window, of the bank with the best first, and the rest by score: number by number."""
    tokens = layer.table
    rows = [r for r in range(len(tokens)) if bool(tokens.visual[r])]
    recent: list[int] = []
    for step in sorted({int(tokens.step[r]) for r in rows}, reverse=True):
        members = [r for r in rows if int(tokens.step[r]) == step]
        if recent and len(recent) + len(members) > int(window * keep):
            break
        recent += members
    bank = []
    for step in sorted({int(tokens.step[r]) for r in rows if r not in recent}, reverse=True):
        members = [r for r in rows if int(tokens.step[r]) == step]
        bank += sorted(members, key=lambda r: -float(tokens.score[r]))[:n]
    rest = [r for r in rows if r not in recent and r not in bank]
    return recent, bank, sorted(rest, key=lambda r: -float(tokens.score[r]))


@pytest.mark.parametrize("name", ["two_tier", "two_tier_means"])
@pytest.mark.parametrize(("keep", "window", "n"), [(40, 0.125, 2), (40, 0.4, 1), (30, 0.3, 3), (17, 0.5, 1)])
def test_by_its_rule(name: str, keep: int, window: float, n: int) -> None:
    """Also where room is left, where the bank overflows, and where steps have lost columns already."""
    kind = type(EVICTORS[name])
    for seed in range(5):
        layer = held(seed=seed, drop=0.3)
        recent, bank, rest = by_hand(layer, keep, window, n)
        want = sorted([*range(PREFIX), *[*recent, *bank, *rest][: keep - PREFIX]])
        evictor: Any = kind(window=window, n=n)
        assert choose(evictor(layer, keep), layer.table, keep).tolist() == want


def test_the_control_takes_columns_from_all_over_the_picture() -> None:
    """Whatever they scored: of a row of 16 any n stand apart, and which they are does not hang on what is left."""
    scores = torch.rand(4, 16, generator=torch.Generator().manual_seed(0)).tolist()
    tokens = columns_of(scores)
    for n in (2, 4, 8):
        evictor = TwoTier(window=0.01, n=n, by="place")
        keep = 16 + 3 * n
        left = tokens.take(choose(evictor(alone(tokens), keep), tokens, keep))
        for step in range(3):
            at = sorted(left.column[left.step == step].tolist())
            assert len(at) == n
            gaps = [b - a for a, b in zip(at, [*at[1:], at[0] + 16], strict=True)]
            assert min(gaps) >= 16 // n // 2 and max(gaps) <= 2 * 16 // n
        fewer = left.take(choose(evictor(alone(left), keep - n), left, keep - n))
        assert sorted(set(fewer.step.tolist())) == [1, 2, 3]  # the oldest went, and nobody else lost anything
        assert torch.equal(fewer.index, left.index[left.step > 0])


def test_a_step_is_decided_once_and_goes_as_the_oldest() -> None:
    """Over a stream of many steps: from the moment on at which a step left the window it has the same columns."""
    evictor, keep, generator = TwoTier(window=0.25, n=3), 48, torch.Generator().manual_seed(1)
    tokens = columns_of(torch.rand(60, 6, generator=generator).tolist())
    memory = tokens.take(torch.arange(0))
    chosen: dict[int, list[int]] = {}
    for step in range(60):
        memory = memory.append(tokens.take(torch.arange(6 * step, 6 * step + 6)))
        if len(memory) > keep:
            memory = memory.take(choose(evictor(alone(memory), keep), memory, keep))
        if step < 20:
            continue
        steps = sorted(set(memory.step.tolist()))
        assert steps[-1] == step and steps == list(range(steps[0], step + 1))
        for each in steps[1:-2]:  # the oldest may have begun to go
            members = memory.index[memory.step == each].tolist()
            want = chosen.setdefault(each, members)
            assert members == want and len(members) == 3
            best = tokens.score[6 * each : 6 * each + 6].topk(3).indices + 6 * each
            assert sorted(members) == sorted(best.tolist())
        assert [len(memory.index[memory.step == each]) for each in steps[-2:]] == [6, 6]
    assert sorted(chosen) == list(range(8, 58))


def test_it_is_not_the_pyramid() -> None:
    """One old step scores highest everywhere: there it stays whole and others go, here each step has its n."""
    scores = torch.rand(20, 8, generator=torch.Generator().manual_seed(2))
    scores[3] += 10
    tokens = columns_of(scores.tolist())
    kept = {}
    for name, evictor in (("ours", PyramidEvictor(recent=0.25, floor=0.0)), ("two", TwoTier(window=0.25, n=2))):
        left = tokens.take(choose(evictor(alone(tokens), 46), tokens, 46))
        kept[name] = torch.bincount(left.step, minlength=20)
    assert kept["ours"][3] == 8 and kept["ours"].min() < 2
    assert kept["two"].tolist() == [2] * 19 + [8]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_means_by_their_formula(dtype: torch.dtype) -> None:
    """What goes joins the chosen column of its step with the likest key, weighted by the likeness."""
    keep, evictor, merged_steps = 34, TwoTierMeans(window=0.3, n=2), 0
    for seed in range(6):
        layer = held(seed=seed, drop=0.2)
        layer = Held(layer.keys.to(dtype), layer.values.to(dtype), layer.table, 0, 1)
        tokens = layer.table
        priority = evictor(layer, keep)
        stay = choose(priority, tokens, keep)
        _, bank, _ = by_hand(layer, keep, 0.3, 2)
        gone = [r for r in range(PREFIX, len(tokens)) if r not in stay.tolist()]
        losing = {int(tokens.step[r]) for r in gone}
        slots = [r for r in bank if r in stay.tolist() and int(tokens.step[r]) in losing]

        def cosine(a: int, b: int, layer: Held = layer) -> float:
            one, other = layer.keys[:, a].double().flatten(), layer.keys[:, b].double().flatten()
            return float(one @ other / (one.norm() * other.norm()))

        merged = evictor.merge(layer, stay, priority)
        assert merged is not None and sorted(merged[0].tolist()) == sorted(slots)
        for slot, key, value in zip(merged[0].tolist(), merged[1].unbind(1), merged[2].unbind(1), strict=True):
            peers = [r for r in slots if tokens.step[r] == tokens.step[slot]]
            weights = {slot: 1.0}
            for r in gone:
                if tokens.step[r] == tokens.step[slot] and max(peers, key=lambda p: cosine(p, r)) == slot:
                    weights[r] = max(cosine(slot, r), 0.0)
            total = sum(weights.values())
            for mine, states in ((key, layer.keys), (value, layer.values)):
                want = sum(w / total * states[:, r] for r, w in weights.items())
                torch.testing.assert_close(mine, want, atol=2e-4, rtol=2e-4)  # likeness is settled, by 14 digits
            merged_steps += len(weights) > 1
    assert merged_steps > 8


def test_means_are_what_the_cache_holds_and_a_push_that_fails_takes_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stream whose positions move; a mean stands where its column stood, at the positions of now."""
    lm = build("qwen2_5_vl")
    lm.model.config.get_text_config().max_position_embeddings = 48
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=90, evictor="two_tier_means:n=2"))
    overwrite, merges = KeyValueLayer.overwrite, 0

    def checked(layer: KeyValueLayer, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        nonlocal merges
        merges += len(slots)
        before = layer.keys.clone()
        overwrite(layer, slots, keys, values)
        assert torch.equal(layer.keys[0, :, slots], keys) and torch.equal(layer.values[0, :, slots], values)
        others = [c for c in range(before.shape[-2]) if c not in slots.tolist()]
        assert torch.equal(layer.keys[:, :, others], before[:, :, others])

    monkeypatch.setattr(KeyValueLayer, "overwrite", checked)
    for i in range(16):
        stream.push(video(4, seed=i), [4 * i + j for j in range(4)])
        assert max(stream.cache_tokens) <= 90
    assert merges > 20 and any(layer.entered is not None for layer in stream._state.cache.layers)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in stream._state.cache.layers]
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(lm.model.get_decoder().layers[5], "forward", lambda *a, **k: 1 / 0)
        stream.push(video(4), [100, 101, 102, 103])
    for layer, (keys, values) in zip(stream._state.cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)


@pytest.mark.parametrize(("family", "by"), cases(FAMILIES, ("score", "place"), fast=lambda f, b: f == 1 + 2 * b))
def test_a_stream_equals_masks(family: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass of the unmodified model, each layer of which sees what the stream's held; and the tiers are there."""
    lm = build(family)
    step = lm.adapter.frames_per_step
    frames, seconds = video(8 * step), [0.5 * i for i in range(8 * step)]
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    size = len(lm.adapter.look(frames[:step], tuple(seconds[:step]), first=9))
    tokens = prefix + 40 + 3 * size
    snapshots = recorded(monkeypatch, tokens)
    memory = pv.Memory(tokens=tokens, evictor=TwoTier(window=0.25, n=2, by=by))  # type: ignore[arg-type]
    stream = lm.stream(pv.Pyramid(stages=3), memory)
    for i in range(8):
        stream.push(frames[i * step : (i + 1) * step], seconds[i * step : (i + 1) * step])
    got = stream.next_logits(QUESTION)
    allowed = stream_masks(snapshots, prefix, inputs["input_ids"].shape[1], snapshots[-1])
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=1e-9, rtol=0)
    deep = stream.held(0)
    counts = torch.bincount(deep.step[deep.visual], minlength=8)
    assert counts[-1] == counts.max() and (counts[counts > 0] >= 2).sum() >= 5 and counts.min() < counts.max()


@pytest.mark.parametrize(
    "wrong", [dict(window=0), dict(window=1.5), dict(n=0), dict(n=2.5), dict(by="chance")], ids=str
)
def test_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(pv.ConfigError, match=next(iter(wrong))):
        TwoTier(**wrong)
    with pytest.raises(pv.ConfigError):
        pv.Memory(evictor="two_tier:" + ",".join(f"{k}={v}" for k, v in wrong.items()))
