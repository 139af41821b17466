"""Streams whose rows are computed together give what they give alone: logits, memory, files; whatever others do."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, budget, build, cases, video
from hybrids import HYBRIDS, exact_linear_attention
from hybrids import build as build_hybrid
from more_families import MORE, OTHERS
from torch import Tensor

import pdrop_video as pv
from eval.bench import threads

pytestmark = pytest.mark.usefixtures("watchdog")
STREAMS = 5
EVICTORS = ("pyramid", "window", "uniform", "fluxmem", "stream_mem", "hermes")
SCORERS = ("contrast", "relevance", "hawk", "coast", "value_norm")


def shared(lm: pv.VideoLM, lanes: int = STREAMS) -> pv.VideoLM:
    """The same model behind an engine."""
    return pv.VideoLM(lm.model, lm.adapter, lm.prompt, lm.name, batch=lanes)


def at_once(lm: pv.VideoLM, jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """What jobs give or raise, each in a thread of its own; all of them come to the engine before the first goes on."""
    results: list[Any] = [None] * len(jobs)

    def run(number: int) -> None:
        try:
            results[number] = jobs[number]()
        except Exception as error:
            results[number] = error

    threads.at_once([partial(run, number) for number in range(len(jobs))], lm.engine)
    return results


def drawn(lm: pv.VideoLM, seed: int) -> dict[str, Any]:
    """A way to watch, drawn at random; what a family refuses is drawn again."""
    draw = random.Random(seed)
    while True:
        layers = sorted(draw.sample(range(1, 6), draw.choice((1, 2, 3))))
        ratios = sorted((draw.uniform(0.1, 0.9) for _ in layers), reverse=True)
        how = dict(
            pyramid=pv.Pyramid(layers=tuple(layers), ratios=tuple(ratios), scorer=draw.choice(SCORERS)),
            memory=pv.Memory(tokens=budget(lm, draw.choice((2, 3, 4, None))), evictor=draw.choice(EVICTORS)),
            standing_question=draw.choice((None, "what is shown ?")),
        )
        try:
            lm.stream(**how).push(video(2), [0, 0.5])  # some budgets are too small for what stands in words
        except pv.PDropError:
            continue
        return how


def life(lm: pv.VideoLM, how: dict[str, Any], seed: int) -> dict[str, Any]:
    """Watch, ask, compare options, watch on; everything that can be seen of it."""
    stream, draw, at = lm.stream(**how), random.Random(seed), 0.0
    seen: dict[str, Any] = {"logits": [], "answers": []}
    for turn in range(3):
        count = draw.choice((2, 4, 6))
        stream.push(video(count, seed=seed + turn), [at + 0.5 * i for i in range(count)])
        at += 0.5 * count
        seen["logits"].append(stream.next_logits("what is shown first ?"))
        seen["answers"].append(stream.ask("how many ?", draw.choice((2, 5))).token_ids)
        seen["logits"].append(torch.tensor(stream.likelihood("what is red ?", ["blue", "red red", "how many user"])))
    cache = stream._state.cache
    seen["keys"] = [layer.keys for layer, kind in zip(cache.layers, cache.kinds, strict=True) if kind.holds]
    seen["index"] = [table.index for table in cache.tables]
    return seen


def assert_same(got: Any, wanted: dict[str, Any], tolerance: float = 1e-9) -> None:
    if isinstance(got, Exception):
        raise got
    assert got["answers"] == wanted["answers"]
    for name in ("logits", "keys"):
        for mine, theirs in zip(got[name], wanted[name], strict=True):
            assert mine.shape == theirs.shape
            torch.testing.assert_close(
                mine, theirs, atol=tolerance if mine.dtype == torch.float64 else 1e-5, rtol=tolerance
            )
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(got["index"], wanted["index"], strict=True))


@pytest.mark.parametrize(
    ("family", "seed"),
    cases(
        [*FAMILIES, *MORE, *OTHERS],
        range(3),
        fast=lambda family, seed: seed == 0 and family % 4 == 0,
    ),
)
def test_each_stream_is_as_alone(family: str, seed: int) -> None:
    lm = build(family)
    together = shared(lm)
    hows = [drawn(lm, 100 * seed + number) for number in range(STREAMS)]
    got = at_once(together, [lambda n=n: life(together, hows[n], n) for n in range(STREAMS)])
    for number, how in enumerate(hows):
        assert_same(got[number], life(lm, how, number))


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[] if name in ("qwen3_5_moe", "gemma4") else pytest.mark.slow) for name in HYBRIDS],
)
def test_states_windows_and_lent_keys_are_as_alone(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exact_linear_attention(monkeypatch)
    lm = build_hybrid(family)
    hows = [drawn(lm, number) for number in range(STREAMS)]
    wanted = [life(lm, how, number) for number, how in enumerate(hows)]
    together = shared(lm)
    for got, alone in zip(
        at_once(together, [lambda n=n: life(together, hows[n], n) for n in range(STREAMS)]), wanted, strict=True
    ):
        assert_same(got, alone, tolerance=1e-4 if family == "muse_spark_moe" else 1e-9)  # its router is in float32


@pytest.mark.parametrize("inside", ["adaspark", pytest.param("adaspark:half=ffn", marks=pytest.mark.slow)])
def test_methods_inside_layers_keep_to_their_own_rows(inside: str) -> None:
    lm = build("qwen2_5_vl")
    together = shared(lm)
    how = dict(pyramid=pv.Pyramid(inside=inside), memory=pv.Memory(tokens=budget(lm, 3)))
    got = at_once(together, [lambda n=n: life(together, how, n) for n in range(3)])
    for number in range(3):
        assert_same(got[number], life(lm, how, number))


def calls_of(module: Any) -> list[int]:
    """The rows of each product of a linear map, from now on."""
    rows: list[int] = []

    class Counted(type(module)):  # type: ignore[misc]
        def forward(self, given: Tensor) -> Tensor:
            rows.append(given.shape[:-1].numel())
            return super().forward(given)

    module.__class__ = Counted
    return rows


def test_weights_are_read_once_for_all_answers() -> None:
    """A token of each answer is one product, with a row of each stream in it."""
    lm = build("qwen2_5_vl")
    together = shared(lm)
    streams = [together.stream() for _ in range(STREAMS)]
    for number, stream in enumerate(streams):
        stream.push(video(4, seed=number), [0, 0.5, 1, 1.5])
    answers = [stream.ask("what is shown first ?", 12, stream=True) for stream in streams]
    for each in answers:
        next(each)
    seen = calls_of(lm.model.get_decoder().layers[3].mlp.down_proj)
    for _ in range(8):
        at_once(together, [lambda each=each: next(each) for each in answers])
    assert seen == [STREAMS] * 8


def test_a_failure_in_the_middle_of_a_forward_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One stream's attention fails in a deep layer, in every one of its pushes; the others never notice."""
    lm = build("qwen2_5_vl")
    together = shared(lm)
    how = dict(memory=pv.Memory(tokens=budget(lm, 3)))
    broken = together.stream(**how)
    broken.push(video(4), [0, 0.5, 1, 1.5])
    before = broken.next_logits("how many ?")
    cache = broken._state.cache

    def push() -> None:
        fork = type(cache.layers[4])
        real = fork.update

        def update(layer: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == me:
                raise RuntimeError("fallen")
            return real(layer, *args, **kwargs)

        me = threading.get_ident()
        with monkeypatch.context() as patch:
            patch.setattr(fork, "update", update)
            for _ in range(3):
                with pytest.raises(RuntimeError, match="fallen"):
                    broken.push(video(4), [2, 2.5, 3, 3.5])

    hows = [drawn(lm, number) for number in range(4)]
    got = at_once(together, [push, *(lambda n=n: life(together, hows[n], n) for n in range(4))])
    assert got[0] is None, got[0]
    for number in range(4):
        assert_same(got[1 + number], life(lm, hows[number], number))
    torch.testing.assert_close(broken.next_logits("how many ?"), before, atol=1e-9, rtol=0)
    broken.push(video(4), [2, 2.5, 3, 3.5])


def test_what_is_too_much_for_all_is_computed_one_by_one() -> None:
    """A product that fails beyond some rows, as without memory, fails for nobody who fits alone."""
    lm = build("llava_onevision")
    hows = [drawn(lm, number) for number in range(STREAMS)]
    wanted = [life(lm, how, number) for number, how in enumerate(hows)]
    together = shared(lm)
    module, failed = lm.model.get_decoder().layers[2].self_attn.o_proj, []

    class Narrow(type(module)):  # type: ignore[misc]
        def forward(self, rows: Tensor) -> Tensor:
            if len(together.engine._members) > 1 and rows.shape[1] in packed:
                failed.append(rows.shape[1])
                raise RuntimeError("no memory for so many rows")
            return super().forward(rows)

    packed: set[int] = set()
    real = together.engine._compute

    def compute(me: Any) -> None:
        packed.clear()
        if len(me.leads) > 1 and getattr(me.asked, "module", None) is module:
            packed.add(sum(each.asked.size for each in me.leads))
        real(me)
        packed.clear()

    together.engine._compute = compute  # type: ignore[method-assign]
    module.__class__ = Narrow
    got = at_once(together, [lambda n=n: life(together, hows[n], n) for n in range(STREAMS)])
    assert failed
    for number in range(STREAMS):
        assert_same(got[number], wanted[number])


def test_an_answer_that_is_closed_is_gone_at_the_next_forward() -> None:
    lm = build("qwen2_5_vl")
    together = shared(lm)
    streams = [together.stream() for _ in range(3)]
    for stream in streams:
        stream.push(video(4), [0, 0.5, 1, 1.5])
    answers = [stream.ask("what is shown first ?", 60, stream=True) for stream in streams]
    wanted = lm.stream()
    wanted.push(video(4), [0, 0.5, 1, 1.5])
    alone = wanted.ask("what is shown first ?", 60)

    def break_off() -> None:
        next(answers[0])
        answers[0].close()

    got = at_once(together, [break_off, answers[1].finish, answers[2].finish])
    assert got[0] is None
    assert [answer.token_ids for answer in got[1:]] == [alone.token_ids] * 2
    assert not together.engine._members
    assert not together.engine._ready
    assert not together.engine._waiting


def test_never_more_turns_than_lanes_and_everybody_comes_through() -> None:
    lm = build("qwen2_5_vl")
    together = shared(lm, lanes=2)
    engine, most = together.engine, 0
    take = engine._take

    def counted(gate: Any) -> None:
        nonlocal most
        take(gate)
        most = max(most, sum(not member.hurries for member in engine._members.values()))

    engine._take = counted  # type: ignore[method-assign]

    def watch(model: pv.VideoLM, number: int) -> Tensor:
        stream = model.stream(memory=pv.Memory(tokens=budget(lm, 3)))
        for at in range(4):
            stream.push(video(2, seed=number), [at, at + 0.5])
        return stream.next_logits("how many ?")

    got = at_once(together, [lambda n=n: watch(together, n) for n in range(6)])
    assert most == 2
    for number in range(6):
        torch.testing.assert_close(got[number], watch(lm, number), atol=1e-9, rtol=0)


def test_a_stream_goes_on_from_its_file_alone_or_together(tmp_path: Path) -> None:
    lm = build("qwen2_5_vl")
    together = shared(lm)
    hows = [drawn(lm, number) for number in range(4)]

    def watch(model: pv.VideoLM, number: int, name: str) -> tuple[Tensor, Any]:
        stream = model.stream(**hows[number])
        stream.push(video(4, seed=number), [0, 0.5, 1, 1.5])
        stream.save(tmp_path / f"{name}{number}")
        again = model.resume(tmp_path / f"{name}{number}")
        for each in (stream, again):
            each.push(video(4, seed=9 + number), [2, 2.5, 3, 3.5])
        return stream.next_logits("how many ?"), again.next_logits("how many ?")

    got = at_once(together, [lambda n=n: watch(together, n, "together") for n in range(4)])
    for number in range(4):
        first, again = got[number]
        alone, _ = watch(lm, number, "alone")
        torch.testing.assert_close(first, alone, atol=1e-9, rtol=0)
        torch.testing.assert_close(again, alone, atol=1e-9, rtol=0)


def test_with_nobody_else_the_model_is_called_as_without_an_engine() -> None:
    """Bit for bit: nothing is packed, not even with itself."""
    lm = build("qwen2_5_vl", dtype=torch.float32)
    how = drawn(lm, 3)
    alone, packed = life(lm, how, 3), life(shared(lm), how, 3)
    for name in ("logits", "keys", "index"):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(alone[name][:1], packed[name][:1], strict=True))


def test_modules_that_mix_rows_are_left_alone() -> None:
    lm = build("qwen2_5_vl")
    layer = lm.model.get_decoder().layers[2]

    class MixingNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, rows: Tensor) -> Tensor:
            return (rows - rows.mean(dim=1, keepdim=True)) * self.weight

    plain = shared(lm).engine.places
    layer.input_layernorm = MixingNorm()
    assert shared(lm).engine.places == plain - 1
    assert "forward" not in vars(layer.input_layernorm)


def test_load_takes_it() -> None:
    assert pv.load().engine is None
    assert pv.load(batch=4).engine.lanes == 4
    with pytest.raises(pv.ConfigError, match="batch"):
        pv.load(batch=0)
