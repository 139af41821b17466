"""Gates and reducers beside everything else that a stream may have: saved, forked, failed, bit for bit.

`test_front.py` proves each method by itself on two families. Here each meets every evictor, and beside it other gates,
families, types, pyramids, scorers, storages and ways to use a stream: not the full product, but a design in which every
method has met each of them, or nearly so.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from any_reducer import BY_THEMSELVES, text_half
from families import budget, build, video
from test_exact import next_logits
from test_front import assert_equal
from torch import Tensor

import pdrop_video as pv
from pdrop_video.gate import GATES
from pdrop_video.memory import EVICTORS, STORAGES
from pdrop_video.pyramid import ALLOCATORS, SCORERS
from pdrop_video.reduce import REDUCERS
from pdrop_video.stream import watching

FAMILIES = ("qwen2_5_vl", "llava_onevision", "internvl", "qwen3_vl", "qwen2_vl", "llava_next_video", "smolvlm")
LINES: tuple[str | None, ...] = (
    None,
    *(name for name, each in BY_THEMSELVES.items() if not each.needs),
    *(name for name, each in BY_THEMSELVES.items() if each.needs),
    "aot:anchors=features,keep=0.5,unit=2",
    "learnpruner:seeded=true",
    "lrcp:merge=false",
    "omnirefine:centre=true,least=0.3",
    "holitom:unit=3",
)
GATE_LINES = (None, *GATES, "static:parts=true")
PYRAMIDS: tuple[dict[str, Any], ...] = (
    {"layers": (2, 4), "ratios": (0.5, 0.25)},
    {"layers": (0, 3), "ratios": (0.6, 0.3)},
    {"layers": (0,), "ratios": (0.4,)},
    {"stages": 1},
    {"average": 0.6},
)
DTYPES = (torch.float32, torch.bfloat16, torch.float64)
QUESTION = "what is shown first ?"
EACH = 13
"""Streams for each line."""


@dataclass(frozen=True)
class Case:
    """One stream of the design."""

    number: int
    reducer: str | None
    gate: str | None
    evictor: str
    family: str
    dtype: torch.dtype
    pyramid: int
    scorer: str | None
    allocator: str
    storage: str
    archive: int | None
    question: str | None
    resized: bool

    def open(self) -> pv.VideoStream:
        lm = model(self.family, self.dtype)
        line = self.reducer
        if line == "desap":
            line = f'desap:text_tower="{text_half()}"'
        memory = pv.Memory(tokens=budget(lm, 5), evictor=self.evictor, storage=self.storage, archive=self.archive)
        pyramid = pv.Pyramid(scorer=self.scorer, allocator=self.allocator, **PYRAMIDS[self.pyramid])
        return lm.stream(pyramid, memory, gate=self.gate, reducer=line, standing_question=self.question)


def design() -> list[Case]:
    """Each line with every evictor; the rest is drawn, evenly: of each axis what this line has had least often."""
    lot, cases = random.Random(18), []
    axes: dict[str, tuple[Any, ...]] = {
        "gate": GATE_LINES,
        "family": FAMILIES,
        "dtype": DTYPES,
        "pyramid": tuple(range(len(PYRAMIDS))),
        "scorer": (None, *SCORERS),
        "allocator": tuple(ALLOCATORS),
        "storage": ("full", *STORAGES),
        "archive": (None, 20_000, 400_000),
        "question": (None, QUESTION),
        "resized": (False, True),
    }
    overall: dict[str, Counter[Any]] = {name: Counter() for name in axes}
    for at, line in enumerate(LINES):
        own: dict[str, Counter[Any]] = {name: Counter() for name in axes}
        for turn in range(EACH):
            chosen = {}
            for name, axis in axes.items():
                least = min(
                    axis, key=lambda each, n=name, now=turn: (own[n][each], overall[n][now, each], lot.random())
                )
                own[name][least] += 1
                overall[name][turn, least] += 1
                chosen[name] = least
            needs = () if line is None else REDUCERS[line.partition(":")[0]].needs
            if needs and "=features" not in line:
                able = [family for family in FAMILIES if {*needs} <= {*model(family, torch.float32).adapter.knows}]
                chosen["family"] = able[turn % len(able)]
            if line == "desap":
                chosen["question"] = QUESTION
            evictor = list(EVICTORS)[(turn + at) % len(EVICTORS)]
            cases.append(Case(len(cases), line, evictor=evictor, **chosen))
    return cases


_MODELS: dict[tuple[str, torch.dtype], pv.VideoLM] = {}


def model(family: str, dtype: torch.dtype) -> pv.VideoLM:
    if (family, dtype) not in _MODELS:
        _MODELS[family, dtype] = build(family, dtype=dtype)
    return _MODELS[family, dtype]


CASES = design()


QUICK = [case for case in CASES if case.number % EACH == 0]
"""Those that are not slow: a stream for each method."""


def named(case: Case) -> str:
    return f"{case.reducer}-{case.gate}-{case.evictor}-{case.family}"


PARAMETERS = [pytest.param(case, id=named(case), marks=[] if case in QUICK else pytest.mark.slow) for case in CASES]


# -- the story of a stream ---------------------------------------------------------------------------------------------


def shown(case: Case) -> list[tuple[Tensor, list[float]]]:
    """Pushes: a picture that changes twice, stands still, moves in part, and may be of another size in between."""
    still = video(2, seed=case.number).repeat_interleave(3, 0)
    moving = still[-1:].repeat(4, 1, 1, 1)
    for number, frame in enumerate(moving):
        frame[8 * number : 8 * number + 16, 20:40] = 30 * number
    height, width = (48, 100) if case.resized else (60, 72)
    other = video(3, seed=case.number + 1, height=height, width=width)
    back = video(2, seed=case.number + 2).repeat_interleave(2, 0)
    parts = [still[:3], torch.cat([still[3:], moving]), other, back]
    if case.number % 2:
        parts = [still, moving, other[:1], torch.cat([other[1:], other[:1]]), back]
    begin, pushes = 0.0, []
    for number, part in enumerate(parts):
        pushes.append((part, [begin + 0.5 * i for i in range(len(part))]))
        begin += 0.5 * len(part) + 40 * (number == 1)  # a long pause
    return pushes


def between(case: Case, at: int) -> Callable[[pv.VideoStream], object] | None:
    """What is done to a stream between two pushes."""
    return {
        0: lambda stream: stream.add_text("red blue seven"),
        1 + case.number % 2: lambda stream: stream.ask("how many red ?", 2, keep=True),
    }.get(at)


class Boom(Exception):
    pass


def fails_at_the_end(stream: pv.VideoStream, frames: Tensor, seconds: list[float]) -> None:
    """A push that does all of its work, and then fails."""
    calls = [watching.perf_counter()]

    def clock() -> float:
        if len(calls) == 2:
            raise Boom
        calls.append(calls[0])
        return calls[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "perf_counter", clock)
        with pytest.raises(Boom):
            stream.push(frames, seconds)


def ready(stream: pv.VideoStream) -> bool:
    """Whether something was watched, so that it can be asked, saved and compared."""
    return stream.span is not None


def archived_logits(stream: pv.VideoStream) -> Tensor | None:
    """What an answer begins with when forgotten steps are brought back; None where there are none."""
    return None if stream.memory.archive is None else stream.next_logits(QUESTION, retrieve=2)


def assert_all_equal(one: pv.VideoStream, other: pv.VideoStream) -> None:
    assert_equal(one, other)
    brought, same = archived_logits(one), archived_logits(other)
    assert (brought is None) == (same is None)
    assert brought is None or same is None or torch.equal(brought, same)
    assert next_logits(one).isfinite().all()


@pytest.mark.parametrize("case", PARAMETERS)
def test_nothing_leaves_a_trace(case: Case, tmp_path: Path) -> None:
    """Told, asked and kept turns, pauses and sizes; saved, forked, asked and failed meanwhile, or never."""
    plain, other = case.open(), case.open()
    lm, saved = other.lm, 0
    for at, (frames, seconds) in enumerate(shown(case)):
        turn = (at + case.number // EACH + case.number % EACH) % 4
        if turn == 0:
            fails_at_the_end(other, frames, seconds)
        if ready(other) and turn == 1:
            fork = other.fork()
            fork.push(frames.flip(0), seconds)
            fork.ask(QUESTION, 1, keep=True)
        for stream in (plain, other):
            stream.push(frames, seconds)
        if turn == 2:
            other.ask("where is red ?", 1)
        if turn == 3:
            other.save(tmp_path / "a.pdrop")
            other, saved = lm.resume(tmp_path / "a.pdrop"), saved + 1
        doing = between(case, at)
        if doing is not None:
            doing(plain)
            doing(other)
    assert saved
    assert_all_equal(plain, other)
    assert plain.memory.tokens is None or max(plain.cache_tokens) <= plain.memory.tokens


# -- the design --------------------------------------------------------------------------------------------------------


def met(cases: list[Case], one: str, other: str) -> dict[Any, set[Any]]:
    pairs: dict[Any, set[Any]] = {}
    for case in cases:
        pairs.setdefault(getattr(case, one), set()).add(getattr(case, other))
    return pairs


def test_who_meets_whom() -> None:
    """Of all streams every method has met all of everything but scorers; of the quick ones each has met some method."""
    assert {*BY_THEMSELVES} <= {line.partition(":")[0] for line in LINES if line}
    axes: dict[str, set[Any]] = {
        "evictor": {*EVICTORS},
        "gate": {*GATE_LINES},
        "pyramid": {*range(len(PYRAMIDS))},
        "dtype": {*DTYPES},
        "allocator": {*ALLOCATORS},
        "storage": {*STORAGES},
        "resized": {False, True},
    }
    for axis, every in axes.items():
        assert all(seen == every for seen in met(CASES, "reducer", axis).values()), axis
        room = min(2, len(LINES) // len(every))
        assert all(len(seen) >= room for seen in met(QUICK, axis, "reducer").values()), axis
        assert {*met(QUICK, axis, "reducer")} == every, axis
    assert {*met(CASES, "scorer", "reducer")} == {None, *SCORERS}
    assert all(len(seen) >= len(LINES) // 3 for seen in met(CASES, "scorer", "reducer").values())
    assert {*met(QUICK, "family", "reducer")} == {*FAMILIES}
    assert len({case.scorer for case in QUICK}) > len(SCORERS) // 2
    for gate in GATES:
        assert met(CASES, "gate", "evictor")[gate] == {*EVICTORS}
        assert met(CASES, "gate", "family")[gate] == {*FAMILIES}
