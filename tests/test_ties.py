"""Ties: what is equal in exact arithmetic leads to the same choice, whatever the last bits say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from families import build, video
from torch import Tensor

import pdrop_video as pv
from pdrop_video.common.ties import settled, spread, unlike
from pdrop_video.memory.archive import Archive, Piece
from pdrop_video.memory.evictors import EVICTORS, Held, Merger, choose
from pdrop_video.memory.table import TokenTable
from pdrop_video.pyramid import LayerLoop, Layout, Rows
from pdrop_video.pyramid.allocators import ALLOCATORS
from pdrop_video.pyramid.ropes import Ropes
from pdrop_video.pyramid.scorers import SCORERS
from pdrop_video.stream.looking.base import narrow

SIDE, WIDE, TEXT = 4, 32, 3
PLACES = SIDE * SIDE


def shaken(states: Tensor, seed: int) -> Tensor:
    """Each number off by 1e-12 of itself in float64, by one unit in the last place or none in bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    if states.dtype == torch.float64:
        return states * (1 + 1e-12 * (2 * torch.rand(states.shape, generator=generator, dtype=states.dtype) - 1))
    by = torch.randint(-1, 2, states.shape, generator=generator, dtype=torch.int16)
    return (states.view(torch.int16) + by).view(states.dtype)


# -- the grid and the order -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, bits", [(torch.float64, 20), (torch.float32, 14), (torch.bfloat16, 6)])
def test_settled_by_hand(dtype: torch.dtype, bits: int) -> None:
    """So many binary digits of each score, and below 2 ** -40 multiples of one number."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(500, generator=generator, dtype=torch.float64) * 10 ** torch.linspace(-16, 3, 500).double()
    special = torch.tensor([0.0, 1.0, 2.0**-7, -0.75, math.inf, -math.inf], dtype=torch.float64)
    scores = torch.cat([special, scores])
    for score, got in zip(scores.tolist(), settled(scores, dtype).tolist(), strict=True):
        if math.isinf(score):
            assert got == score
            continue
        step = 2.0 ** (max(math.frexp(score)[1], -40) - bits)
        assert got == round(score / step) * step
        assert abs(got - score) <= step / 2


def test_sums_of_settled_scores_do_not_depend_on_their_order() -> None:
    scores = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    sums = {settled(scores[torch.randperm(5000)], torch.float32).sum().item() for _ in range(20)}
    assert len(sums) == 1
    assert len({scores[torch.randperm(5000)].sum().item() for _ in range(20)}) > 1  # as they are, they do


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_unlike_is_zero_between_roundings_of_one_state(dtype: torch.dtype) -> None:
    state = torch.randn(200, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eps = torch.finfo(dtype).eps
    noise = 1 + eps * (2 * torch.rand(state.shape, generator=torch.Generator().manual_seed(1)).double() - 1)
    cosine = torch.cosine_similarity(state, state * noise, dim=-1)
    assert not unlike(cosine, dtype).any()
    turned = torch.cosine_similarity(state, state + 0.1 * state.roll(1, 0), dim=-1)  # by six degrees
    assert torch.equal(unlike(turned, dtype), 1 - turned)


@pytest.mark.parametrize("size", [(1, 8, 8, 0), (1, 14, 14, 5), (8, 8, 8, 1000), (16, 13, 17, 77777)])
@pytest.mark.parametrize("share", [0.5, 0.25, 0.125])
def test_what_comes_first_is_spread_evenly(size: tuple[int, int, int, int], share: float) -> None:
    """Steps, rows and columns get what is theirs to within a few tokens; drawn at random they don't."""
    steps, height, width, since = size
    axes = torch.meshgrid(since + torch.arange(steps), torch.arange(height), torch.arange(width), indexing="ij")
    step, row, column = (axis.flatten() for axis in axes)
    first = spread(step, row, column).argsort()[: int(len(step) * share)]
    for axis, count in ((step - since, steps), (row, height), (column, width)):
        got = torch.bincount(axis[first], minlength=count).double()
        assert (got - len(first) / count).abs().max() <= 5
    drawn = torch.randperm(len(step), generator=torch.Generator().manual_seed(0))[: len(first)]
    if steps > 8:
        assert (torch.bincount(step[drawn] - since, minlength=steps) - len(first) / steps).abs().max() > 5


def test_the_order_knows_places_alone() -> None:
    """Not the chunk, the padding in front, or the other rows."""
    frame = torch.tensor([[-1, 0, 0, 1, 1]])
    place = torch.tensor([[-1, 0, 5, 0, 5]])
    whole = Layout(frame, place, 2, 6, width=3, since=7).spread()[0]
    second = Layout(torch.tensor([[0, 0]]), torch.tensor([[0, 5]]), 1, 6, width=3, since=8).spread()[0]
    assert torch.equal(whole[3:], second)
    assert torch.equal(whole[1:], spread(torch.tensor([7, 7, 8, 8]), *torch.tensor([[0, 1, 0, 1], [0, 2, 0, 2]])))
    visual = torch.tensor([[False, False, True, True], [True, True, False, False]])
    one = Layout.one_picture(visual).spread()
    assert torch.equal(one[0, 2:], one[1, :2])


# -- ranking at a boundary --------------------------------------------------------------------------------------------


def black(steps: int) -> Tensor:
    return torch.randn(1, WIDE, generator=torch.Generator().manual_seed(0)).expand(steps * PLACES, -1)


def still(steps: int) -> Tensor:
    return torch.randn(PLACES, WIDE, generator=torch.Generator().manual_seed(0)).repeat(steps, 1)


def lively(steps: int) -> Tensor:
    return torch.randn(steps * PLACES, WIDE, generator=torch.Generator().manual_seed(0))


def loop_for(scorer: str, allocator: str, dtype: torch.dtype) -> LayerLoop:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(hidden_size=WIDE, intermediate_size=32, num_hidden_layers=3, vocab_size=9)
    text = LlamaModel(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1)).to(dtype).eval()
    return LayerLoop(text, pv.Pyramid(layers=(1,), ratios=(0.5,), scorer=scorer, allocator=allocator))


def kept_of(loop: LayerLoop, hidden: Tensor, places: Tensor, since: int, usual: dict[int, Tensor]) -> list[int]:
    """Which rows stay where the stage ends, of visual rows that all stand at one position; `usual` is brought up."""
    steps = len(hidden) // places.shape[1]
    visual = torch.tensor([[True] * len(hidden) + [False] * TEXT])
    words = torch.ones(TEXT, WIDE, dtype=hidden.dtype)
    frame = torch.cat([torch.arange(steps).repeat_interleave(places.shape[1]), torch.full((TEXT,), -1)])[None]
    place = torch.cat([places[:steps].flatten(), torch.full((TEXT,), -1)])[None]
    rows = Rows(
        torch.cat([hidden, words])[None],
        torch.zeros(1, len(hidden) + TEXT, dtype=torch.long),
        visual,
        None,
        torch.arange(len(hidden) + TEXT)[None],
        Layout(frame, place, steps, PLACES, SIDE, since),
        usual,
    )
    with torch.no_grad():
        ropes = Ropes(loop.decoder, loop.compact, rows, None, None)
        loop._drop(rows, 1, [len(hidden) * 2 // 5], [TEXT], torch.tensor([[len(hidden)]]), None, None, ropes)
    return rows.origin[0].tolist()


EVERYWHERE = torch.arange(PLACES).expand(8, -1)
ONCE = torch.arange(PLACES).view(4, -1)  # each place is seen in one of four steps

FILMS: dict[str, tuple[Callable[[int], Tensor], Tensor, list[int]]] = {
    # what is shown, at which places of each step, and how many steps come with each push
    "a first frame": (lively, EVERYWHERE, [1]),
    "two first frames": (lively, EVERYWHERE, [2]),
    "frames one by one": (lively, EVERYWHERE, [1, 1, 1, 1]),
    "a still camera": (still, EVERYWHERE, [4, 4]),
    "a still camera, frame by frame": (still, EVERYWHERE, [1, 1, 1, 1]),
    "black": (black, EVERYWHERE, [4, 2]),
    "black, frame by frame": (black, EVERYWHERE, [1, 1, 1]),
    "every place once": (lambda steps: lively(steps)[: steps * 4], ONCE, [4]),
}


def watched(scorer: str, allocator: str, film: str, dtype: torch.dtype, seed: int | None) -> list[list[int]]:
    shows, places, pushes = FILMS[film]
    loop, usual = loop_for(scorer, allocator, dtype), {}
    hidden = shows(sum(pushes)).to(dtype)
    hidden = hidden if seed is None else shaken(hidden, seed)
    kept, since, width = [], 0, places.shape[1]
    for steps in pushes:
        part = hidden[since * width : (since + steps) * width]
        kept.append(kept_of(loop, part, places[since:], since, usual))
        since += steps
    return kept


@pytest.mark.parametrize("film", FILMS)
@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("scorer", SCORERS)
def test_noise_does_not_choose(scorer: str, allocator: str, film: str) -> None:
    """Random states have no near ties: what the noise of float64 could change are exact ties alone."""
    want = watched(scorer, allocator, film, torch.float64, None)
    for seed in range(3):
        assert watched(scorer, allocator, film, torch.float64, seed) == want


BY_LIKENESS = ("contrast", "novelty", "shuffled", "random", "even")


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize(
    "scorer, film",
    [(scorer, film) for scorer in SCORERS for film in ("black", "black, frame by frame")]
    + [(scorer, "a still camera") for scorer in BY_LIKENESS],
)
def test_one_unit_in_the_last_place_of_bfloat16_does_not_choose(scorer: str, allocator: str, film: str) -> None:
    """Where all that competes ties: near ties of bfloat16 are within its noise, and there nothing can be demanded."""
    want = watched(scorer, allocator, film, torch.bfloat16, None)
    for seed in range(3):
        assert watched(scorer, allocator, film, torch.bfloat16, seed) == want


@pytest.mark.parametrize("scorer", ["contrast", "value_norm", "key_norm", "relevance", "even"])
def test_ties_are_spread_over_time_and_space(scorer: str) -> None:
    """Of black frames each keeps its share, every half of the picture too, and not the same places in every frame."""
    kept = watched(scorer, "joint", "black", torch.float64, None)[0]
    rows = torch.tensor([row for row in kept if row < 4 * PLACES])
    step, place = rows // PLACES, rows % PLACES
    per_step = torch.bincount(step, minlength=4)
    halves = torch.bincount(place // (PLACES // 2), minlength=2)
    assert per_step.max() - per_step.min() <= 1
    assert (halves[0] - halves[1]).abs() <= 2
    assert len({tuple(place[step == s].tolist()) for s in range(4)}) > 1


def test_a_first_step_is_ranked_by_what_stands_out_in_it() -> None:
    """One patch unlike the others: it scores the most, and far less than anything that changes later."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        loop, usual = loop_for("contrast", "joint", dtype), {}
        hidden = torch.ones(2 * PLACES, WIDE)
        hidden[6, ::2], hidden[PLACES + 6, ::2], hidden[PLACES + 9, ::2] = -1, -1, -1
        kept = kept_of(loop, hidden[:PLACES].to(dtype), EVERYWHERE, 0, usual)
        assert 6 in kept
        kept = kept_of(loop, hidden[PLACES:].to(dtype), EVERYWHERE[1:], 1, usual)
        assert 9 in kept  # what changed


def test_first_step_scores_by_hand() -> None:
    """A place that was seen once scores its contrast to the mean of its own picture, a thousandth of it."""
    from test_joint import ranking

    from pdrop_video.pyramid.scorers.contrast import Contrast

    right, up = [1.0, 0.0], [0.0, 2.0]
    first = ranking(torch.tensor([[9.0, 9.0], right, up, right]), [-1, 0, 1, 2], [False, True, True, True])
    length = 5**0.5  # of right + up + right, each of length 1: (2, 1)
    want = [(1 - 2 / length) / 1024, (1 - 1 / length) / 1024, (1 - 2 / length) / 1024]
    assert Contrast()(first)[0, 1:].tolist() == pytest.approx(want)
    # place 0 comes again, to the right again; place 1 turns up and place 2 is not seen: three places know their past
    second = replace(first, usual=Contrast().learn(first), hidden=torch.tensor([[[9.0, 9.0], right, right, right]]))
    turned = (0.9**2 + 1) ** 0.5  # of .9 up + right
    assert Contrast()(second)[0, 1:].tolist() == pytest.approx([0, 1 - 1 / turned, 0])


def test_novelty_knows_the_chunk_before() -> None:
    """Steps one by one score as they do in one chunk, at every boundary."""
    lm = build("llava_onevision")
    pyramid = pv.Pyramid(layers=(1, 3), ratios=(1.0, 1.0), scorer="novelty")
    at_once, one_by_one = (lm.stream(pyramid, pv.Memory(tokens=None)) for _ in range(2))
    frames = video(4)
    at_once.push(frames, [0, 1, 2, 3])
    for i in range(4):
        one_by_one.push(frames[i : i + 1], [i])
    for stage in (0, 1):
        want, got = (stream.held(stage) for stream in (at_once, one_by_one))
        torch.testing.assert_close(got.score, want.score, atol=1e-5, rtol=0)
        assert (want.score[want.visual & (want.step == 0)] == 1).all()
        assert (want.score[want.visual & (want.step > 0)] != 1).all()


# -- forgetting, recalling, asking ------------------------------------------------------------------------------------


def memory(steps: int, content: str, dtype: torch.dtype, seed: int | None, order: Tensor | None = None) -> Held:
    """A layer that holds a prefix of 2 and `steps` pictures, all the same or all black, in any order of columns."""
    count = 2 + steps * PLACES
    generator = torch.Generator().manual_seed(0)
    if content == "still":
        keys, values = (torch.randn(2, PLACES, 16, generator=generator).repeat(1, steps, 1) for _ in range(2))
    else:
        keys, values = (torch.randn(2, 1, 16, generator=generator).expand(-1, count - 2, -1) for _ in range(2))
    keys, values = (torch.cat([torch.ones(2, 2, 16), of], 1).to(dtype) for of in (keys, values))
    if seed is not None:
        keys, values = shaken(keys, seed), shaken(values, seed + 100)
    text = torch.full((2,), -1)
    step = torch.cat([text, torch.arange(steps).repeat_interleave(PLACES)])
    place = torch.cat([text, torch.arange(PLACES).repeat(steps)])
    position = torch.arange(count)[:, None]
    table = TokenTable(
        index=torch.arange(count),
        seconds=torch.where(step < 0, torch.nan, step.float()),
        until=torch.where(step < 0, torch.nan, step.float()),
        chunk=torch.where(step < 0, step, step // 2),
        step=step,
        row=torch.where(step < 0, -1, place // SIDE),
        column=torch.where(step < 0, -1, place % SIDE),
        score=torch.zeros(count),
        visual=step >= 0,
        position=position,
        entered=position,
        now=position,
    )
    if order is not None:
        keys, values, table = keys[:, order], values[:, order], table.take(order)
    query = torch.randn(4, 3, 16, generator=generator).to(dtype)
    return Held(keys, values, table, 3, 4, query)


@pytest.mark.parametrize(
    "content, dtype", [("still", torch.float64), ("black", torch.float64), ("black", torch.bfloat16)]
)
@pytest.mark.parametrize("evictor", EVICTORS)
def test_noise_does_not_forget(evictor: str, content: str, dtype: torch.dtype) -> None:
    """Nor does the order of columns, which follows from what went before."""
    method: Any = EVICTORS[evictor]

    def chosen(seed: int | None, order: Tensor | None = None) -> tuple[list[int], list[int]]:
        held = memory(6, content, dtype, seed, order)
        priority = method(held, 50)
        stay = choose(priority, held.table, 50)
        merged = method.merge(held, stay, priority) if isinstance(method, Merger) else None
        slots = [] if merged is None else sorted(held.table.index[merged[0]].tolist())
        return sorted(held.table.index[stay].tolist()), slots

    want = chosen(None)
    assert len(want[0]) == 50
    for seed in range(4):
        assert chosen(seed) == want
    assert chosen(None, torch.randperm(2 + 6 * PLACES, generator=torch.Generator().manual_seed(0))) == want


def test_equals_are_forgotten_evenly() -> None:
    """By score alone: pictures of equal scores keep equally many tokens, from all over the picture."""
    table = memory(6, "still", torch.float64, None).table
    stay = choose(torch.zeros(len(table)), table, 2 + 3 * PLACES)
    left = table.take(stay)
    per_step = torch.bincount(left.step[left.visual], minlength=6)
    assert per_step.sum() == 3 * PLACES
    assert per_step.max() - per_step.min() <= 1
    for place in (left.row, left.column):
        per_line = torch.bincount(place[left.visual], minlength=SIDE)
        assert per_line.max() - per_line.min() <= 4


def test_noise_does_not_recall() -> None:
    """Steps that look the same: which are brought back does not hang on last bits, and they are spread over time."""

    def recalled(seed: int | None) -> list[int]:
        held = memory(12, "still", torch.float64, seed)
        archive = Archive(2**24, lambda layer, keys, by: keys)
        for step in range(12):
            rows = (held.table.step == step).nonzero()[:, 0]
            archive = archive.add({0: Piece(held.table.take(rows), held.keys[:, rows], held.values[:, rows])})
        assert held.query is not None
        found = archive.taken(0, archive.nearest(0, held.query.mean(1), 4))
        assert found is not None
        return found.table.step.unique().tolist()

    want = recalled(None)
    assert len(want) == 4
    assert [sum(step // 4 == third for step in want) for third in range(3)] != [4, 0, 0]
    for seed in range(4):
        assert recalled(seed) == want


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_noise_does_not_narrow(dtype: torch.dtype) -> None:
    """What a question need not attend to, where it attends to all alike."""
    table = memory(6, "black", dtype, None).table
    weights = torch.full((len(table),), 1 / 64, dtype=torch.float64)
    want = narrow(weights, table, 40, dtype).tolist()
    for seed in range(4):
        off = torch.rand(len(table), generator=torch.Generator().manual_seed(seed)).double() - 0.5
        noisy = weights * (1 + torch.finfo(dtype).eps / 4 * off)
        assert narrow(noisy, table, 40, dtype).tolist() == want
    kept = table.take(torch.tensor(want))
    per_step = torch.bincount(kept.step[kept.visual], minlength=6)
    assert per_step.max() - per_step.min() <= 1


# -- streams ----------------------------------------------------------------------------------------------------------


def moved(model: Any) -> None:
    """The same weights at other addresses, none of them aligned."""
    for parameter in model.parameters():
        home = torch.empty(parameter.numel() + 1, dtype=parameter.dtype)[1:].view(parameter.shape)
        parameter.data = home.copy_(parameter.data)


@pytest.mark.parametrize(
    "family, scorer, evictor",
    [
        ("smolvlm", "contrast", "pyramid"),
        ("llava_onevision", "novelty", "stream_mem"),
        ("qwen2_5_vl", "product", "hermes"),
        ("qwen2_5_vl", "random", "infinipot_v"),
        ("llava_onevision", "relevance", "uniform"),
    ],
)
def test_addresses_and_threads_do_not_choose(family: str, scorer: str, evictor: str) -> None:
    """A live camera's frames one by one, some of them the same, some black: the same tokens stay, in float64."""
    lm = build(family)
    frames = torch.cat([video(3), video(1).expand(3, -1, -1, -1), torch.zeros_like(video(2))])
    threads = torch.get_num_threads()

    def held() -> list[list[int]]:
        stream = lm.stream(pv.Pyramid(stages=3, scorer=scorer), pv.Memory(tokens=150, evictor=evictor))
        for i, frame in enumerate(frames):
            stream.push(frame[None], [i])
        return [stream.held(stage).index.tolist() for stage in range(3)]

    try:
        torch.set_num_threads(1)
        want = held()
        torch.set_num_threads(2)
        assert held() == want
        moved(lm.model)
        assert held() == want
    finally:
        torch.set_num_threads(threads)
