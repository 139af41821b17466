"""The reducer `event_saliency`: filter, floor and budget as plain loops, with the gate's events and without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from families import build, video
from torch import Tensor

import pdrop_video as pv
from pdrop_video.common.ties import spread
from pdrop_video.reduce import Tokens, reducer_named
from pdrop_video.reduce.event_saliency import EventSaliency

ROWS, COLUMNS, WIDE = 4, 5, 8
PLACES = ROWS * COLUMNS


def stream(steps: int, seed: int = 0, left_out: float = 0.0, events: bool = True, dtype: Any = torch.float64) -> Tokens:
    """A whole stream's tokens, some of which a gate left out; half of the places of each step had no events."""
    generator = torch.Generator().manual_seed(seed)
    number = torch.arange(steps * PLACES)
    features = torch.randn(steps, PLACES, WIDE, generator=generator, dtype=torch.float64)
    still = torch.rand(steps, PLACES, generator=generator) < 0.5
    for step in range(1, steps):  # what is still shows what it showed
        features[step, still[step]] = features[step - 1, still[step]]
    salient = torch.rand(steps, PLACES, generator=generator).mul(6).floor().div(2).masked_fill(still, 0)
    salient[0] = 1
    stays = torch.rand(steps * PLACES, generator=generator) >= left_out
    place = number % PLACES
    return Tokens(
        features.flatten(0, 1)[stays].to(dtype),
        (number // PLACES)[stays],
        (place // COLUMNS)[stays],
        (place % COLUMNS)[stays],
        tuple(map(float, range(steps))),
        (ROWS, COLUMNS),
        saliency=salient.flatten()[stays] if events else None,
    )


def part(tokens: Tokens, first: int, end: int) -> Tokens:
    """The steps from `first` to `end` as a chunk."""
    here = (tokens.step >= first) & (tokens.step < end)
    return replace(
        tokens,
        features=tokens.features[here],
        step=tokens.step[here] - first,
        row=tokens.row[here],
        column=tokens.column[here],
        seconds=tokens.seconds[first:end],
        since=first,
        saliency=None if tokens.saliency is None else tokens.saliency[here],
    )


def by_loops(tokens: Tokens, method: EventSaliency, seen: dict[int, Tensor]) -> list[int]:
    """Numbers of the tokens that stay; `seen` is what each place showed last, brought up."""
    scores = []
    for i in range(len(tokens)):
        place = int(tokens.place()[i])
        if tokens.saliency is not None:
            scores.append(float(tokens.saliency[i]))
        elif place not in seen:
            scores.append(float("inf"))
        else:
            cosine = float(torch.cosine_similarity(tokens.features[i], seen[place], dim=0))
            scores.append(round(1 - cosine, 12))
        seen[place] = tokens.features[i]
    turn = spread(tokens.step + tokens.since, tokens.row, tokens.column).tolist()
    best = sorted(range(len(tokens)), key=lambda i: (-scores[i], turn[i]))
    first = [i for i in best if int(tokens.step[i]) + tokens.since == 0]
    passing = set(first) | {i for i in best if scores[i] > method.least}
    for step in range(len(tokens.seconds)):
        here = [i for i in best if int(tokens.step[i]) == step]
        passing |= set(here[: max(1, int(len(here) * method.floor))])
    count = max(1, int(len(tokens) * method.keep), len(first))
    order = first + [i for i in best if i in passing and i not in first]
    return sorted(order[:count])


def chunk_by_chunk(tokens: Tokens, method: EventSaliency, sizes: list[int]) -> list[list[int]]:
    """What stays of each chunk."""
    kept, carried, begin = [], {}, 0
    for size in sizes:
        chunk = part(tokens, begin, begin + size)
        if len(chunk):
            before = {name: tensor.clone() for name, tensor in carried.items()}
            reduced, after = method(chunk, carried)
            assert all(torch.equal(carried[name], tensor) for name, tensor in before.items())
            number = chunk.features.element_size()
            most = 0 if tokens.saliency is not None else method.most_bytes(PLACES, WIDE, number)
            assert sum(tensor.nbytes for tensor in after.values()) <= most
            carried = after
            kept.append(reduced.kept.tolist())
        begin += size
    return kept


METHODS = [
    EventSaliency(),
    EventSaliency(1.0),
    EventSaliency(0.2),
    EventSaliency(1.0, 0.6, 0.35),
    EventSaliency(0.9, 1.2, 0),
]


@pytest.mark.parametrize("events", [True, False], ids=["events", "features"])
@pytest.mark.parametrize("left_out", [0.0, 0.4], ids=["whole", "ragged"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_rule_as_plain_loops(method: EventSaliency, left_out: float, events: bool) -> None:
    for seed in range(3):
        tokens = stream(9, seed, left_out, events)
        seen: dict[int, Tensor] = {}
        sizes = [3, 1, 5]
        want, begin = [], 0
        for size in sizes:
            want.append(by_loops(part(tokens, begin, begin + size), method, seen))
            begin += size
        assert chunk_by_chunk(tokens, method, sizes) == want
        assert any(len(kept) < len(part(tokens, 4, 9)) for kept in want[2:])


@pytest.mark.parametrize("events", [True, False], ids=["events", "features"])
@pytest.mark.parametrize("method", [EventSaliency(1.0), EventSaliency(1.0, 0.4, 0.3)], ids=str)
def test_the_filter_does_not_depend_on_chunks(method: EventSaliency, events: bool) -> None:
    tokens = stream(10, 1, 0.2, events)
    begins = [int((tokens.step < step).sum()) for step in range(10)]
    (want,) = chunk_by_chunk(tokens, method, [10])
    for sizes in ([1] * 10, [4, 6], [2, 3, 1, 4]):
        got, begin = [], 0
        for kept, size in zip(chunk_by_chunk(tokens, method, sizes), sizes, strict=True):
            got += [begins[begin] + number for number in kept]
            begin += size
        assert got == want
    assert len(want) < len(tokens)


def test_inactive_tokens_by_hand() -> None:
    """The specification's keyframes: pixels as tokens, each of the active ones stays, and of a still step a floor."""
    salient = torch.tensor([1.0, 1, 1, 1, 0, 0, 2, 1, 0, 1, 2, 0, 0, 0, 0, 0])
    number = torch.arange(16)
    tokens = Tokens(
        torch.randn(16, 3), number // 4, number * 0, number % 4, (0.0, 2.0, 4.0, 6.0), (1, 4), saliency=salient
    )
    kept = EventSaliency(keep=1)(tokens, {})[0].kept.tolist()
    assert kept[:-1] == [0, 1, 2, 3, 6, 7, 9, 10] and 12 <= kept[-1] < 16
    assert EventSaliency(keep=0.4)(tokens, {})[0].kept.tolist() == [0, 1, 2, 3, 6, 10]  # those with two events


def test_a_floor_is_spread_over_the_picture_and_over_time() -> None:
    """Where nothing happened: as many of each step, and of every row and column about as many."""
    number = torch.arange(8 * 100)
    place = number % 100
    tokens = Tokens(
        torch.zeros(800, 3),
        number // 100,
        place // 10,
        place % 10,
        (0.0,) * 8,
        (10, 10),
        since=5,
        saliency=number * 0.0,
    )
    kept = EventSaliency()(tokens, {})[0].kept
    assert torch.bincount(tokens.step[kept]).tolist() == [10] * 8
    for line in (tokens.row, tokens.column):
        assert (torch.bincount(line[kept], minlength=10) - 8).abs().max() <= 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_noise_does_not_choose(dtype: torch.dtype) -> None:
    """Roundings of what stands still are no change."""
    tokens = stream(6, 2, 0.1, events=False, dtype=dtype)
    off = 1 + torch.finfo(dtype).eps / 4 * (2 * torch.rand(tokens.features.shape, dtype=torch.float64) - 1)
    noisy = replace(tokens, features=(tokens.features.double() * off).to(dtype))
    for method in (EventSaliency(1.0), EventSaliency(0.3)):
        assert chunk_by_chunk(noisy, method, [2, 4]) == chunk_by_chunk(tokens, method, [2, 4])


@pytest.mark.parametrize("events", [True, False])
def test_one_token_and_zeros(events: bool) -> None:
    one = Tokens(
        torch.zeros(1, 4, dtype=torch.bfloat16),
        *torch.tensor([[2], [1], [0]]),
        (0.0, 1.0, 2.0),
        (2, 2),
        since=7,
        saliency=torch.zeros(1) if events else None,
    )
    reduced, carried = EventSaliency(0.1)(one, {})
    assert reduced.kept.tolist() == [0] and reduced.weights is None
    again, carried = EventSaliency(0.1)(one, carried)
    assert again.kept.tolist() == [0] and all(tensor.isfinite().all() for tensor in carried.values())


def test_behind_the_gate_in_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gate counted reaches the tokens of each step, means of its two frames where it has two."""
    calls: list[Tokens] = []
    call = EventSaliency.__call__

    def noted(self: EventSaliency, tokens: Tokens, carried: Mapping[str, Tensor]) -> Any:
        calls.append(tokens)
        return call(self, tokens, carried)

    monkeypatch.setattr(EventSaliency, "__call__", noted)
    lm = build("qwen2_5_vl")
    frames = video(1).repeat(6, 1, 1, 1)
    height, width = frames.shape[1:3]
    frames[3:, : height // 3, : width // 3] = 255 - frames[3:, : height // 3, : width // 3]
    stream = lm.stream(
        pv.Pyramid(stages=1), pv.Memory(tokens=None), gate="event:max_gap=60", reducer="event_saliency:keep=0.6"
    )
    pushed = stream.push(frames, [0.5 * i for i in range(6)])
    (tokens,) = calls
    assert tokens.saliency is not None and pushed.skipped == 2  # pairs: frames 0 and 1, 3 and 4
    first, second = tokens.saliency.view(2, 9)
    assert first.tolist() == [0.5] * 9  # of the first frame everything is new, in the second nothing happened
    assert (second > 0).tolist() == [True] + [False] * 8
    assert pushed.visual_tokens == 10 and "reducer" not in stream.status.carried_bytes
    assert reducer_named("event_saliency:keep=0.3,floor=0.2") == EventSaliency(0.3, floor=0.2)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("keep=0", "keep is 0.0; expected a share"),
        ("least=-1", "least is -1.0; expected a number from 0"),
        ("floor=1.5", "floor is 1.5; expected a number from 0 to 1"),
    ],
)
def test_bad_shares(wrong: str, said: str) -> None:
    with pytest.raises(pv.ConfigError, match=said):
        reducer_named(f"event_saliency:{wrong}")
