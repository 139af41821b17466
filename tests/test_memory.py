"""The memory: storage and forks, budgets, and every evictor against a plain transcription of its rule."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from families import build, video
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import pdrop_video as pv
from pdrop_video.memory import EVICTORS, Held, KeyValueLayer, TokenTable
from pdrop_video.memory.evictors import choose
from pdrop_video.memory.evictors.hermes import Hermes
from pdrop_video.memory.evictors.infinipot_v import InfiniPotV
from pdrop_video.memory.evictors.pyramid import Pyramid as PyramidEvictor
from pdrop_video.memory.evictors.stream_mem import StreamMem
from pdrop_video.memory.evictors.streaming_vlm import StreamingVLM
from pdrop_video.memory.evictors.uniform import Uniform
from pdrop_video.memory.room import Arrangement

PREFIX, STEPS, ROWS, COLUMNS = 4, 12, 2, 3


def held(seed: int = 0, glue: int = 0, drop: float = 0.0, layer: int = 0, layers: int = 1) -> Held:
    """A prefix, then 12 steps of `glue` text and 2 x 3 visual tokens; a share of the visual ones dropped."""
    generator = torch.Generator().manual_seed(seed)
    rows = [dict(chunk=-1, step=-1, row=-1, column=-1, seconds=float("nan"), until=float("nan"), visual=False)] * PREFIX
    for step in range(STEPS):
        common = dict(chunk=step // 3, step=step, seconds=float(step), until=float(step))
        rows += [dict(common, row=-1, column=-1, visual=False)] * glue
        for place in range(ROWS * COLUMNS):
            if torch.rand((), generator=generator) >= drop:
                rows.append(dict(common, row=place // COLUMNS, column=place % COLUMNS, visual=True))
    count = len(rows)
    columns: dict[str, Any] = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
    score = torch.rand(count, generator=generator) * columns["visual"]
    keys, values = (torch.randn(2, count, 4, generator=generator) for _ in range(2))
    query = torch.randn(4, 3, 4, generator=generator)  # two heads share a key; three rows ask
    tokens = table(index=torch.arange(count), score=score, **columns)
    return Held(keys, values, tokens, layer=layer, layers=layers, query=query)


def table(**columns: Tensor) -> TokenTable:
    """A table whose tokens stand where they came."""
    position = columns["index"][:, None]
    return TokenTable(position=position, entered=position, now=position, **columns)


@pytest.mark.parametrize("glue", [0, 2])
@pytest.mark.parametrize("keep", [5, 17, 40, 70])
@pytest.mark.parametrize("evictor", EVICTORS)
def test_every_evictor_keeps_the_bound_and_the_prefix(evictor: str, keep: int, glue: int) -> None:
    layer = held(glue=glue)
    index = choose(EVICTORS[evictor](layer, keep), layer.table, keep)
    assert len(index) == keep
    assert index.tolist() == sorted(set(index.tolist()))
    assert index[:PREFIX].tolist() == [0, 1, 2, 3]
    again = choose(EVICTORS[evictor](layer, keep), layer.table, keep)
    assert torch.equal(index, again)
    if glue:  # glue goes with its step: at most the step at the edge of the budget is torn
        kept = layer.table.take(index)
        torn = 0
        for step in range(STEPS):
            here = kept.step == step
            text = int((here & ~kept.visual).sum())
            torn += text not in (0, glue) or (text == 0) != (int((here & kept.visual).sum()) == 0)
        assert torn <= 1


def test_a_catalogue_finds_what_every_listed_evictor_says_and_asks_nobody_else() -> None:
    named = {name: method.facts.paper for name, method in EVICTORS.items() if method.facts.paper}
    assert named == {
        "streaming_vlm": "StreamingVLM, arXiv 2510.09608",
        "infinipot_v": "InfiniPot-V, arXiv 2506.15745",
        "stream_mem": "StreamMem, arXiv 2508.15717",
        "hermes": "HERMES, arXiv 2601.14724",
        "two_tier": "POINTS-Long, arXiv 2604.11627",
        "two_tier_means": "POINTS-Long, arXiv 2604.11627",
        "fluxmem": "FluxMem, arXiv 2603.02096",
        "standby": "POINTS-Long, arXiv 2604.11627",
    }
    says = [method.facts.says for method in EVICTORS.values()]
    assert all(says) and len(set(says)) == len(says)
    assert {name for name, method in EVICTORS.items() if method.facts.carries} == {
        name for name, method in EVICTORS.items() if method.uses_query
    }

    class Own:
        by_table = True
        uses_query = False

        def __call__(self, held: Held, keep: int) -> Tensor:
            return held.table.index

    assert pv.Memory(evictor=Own()).positions == "window"


def test_oldest_by_a_plain_sort() -> None:
    layer, keep = held(drop=0.3), 30
    rows = range(PREFIX, len(layer.table))
    best = sorted(rows, key=lambda r: (-int(layer.table.chunk[r]), -float(layer.table.score[r]), -r))
    want = sorted([*range(PREFIX), *best[: keep - PREFIX]])
    assert choose(EVICTORS["oldest"](layer, keep), layer.table, keep).tolist() == want


def test_window_keeps_the_newest() -> None:
    layer = held(drop=0.3)
    count = len(layer.table)
    index = choose(EVICTORS["window"](layer, 20), layer.table, 20)
    assert index.tolist() == [0, 1, 2, 3, *range(count - 16, count)]


def test_random_is_spread_and_never_changes_its_mind() -> None:
    layer = held()
    small, large = (set(choose(EVICTORS["random"](layer, k), layer.table, k).tolist()) for k in (20, 50))
    assert small < large  # what stays at a small budget stays at a larger one
    steps = layer.table.step[sorted(small)][PREFIX:]
    assert len(steps.unique()) >= 7


def test_uniform_is_evenly_spaced() -> None:
    layer = held()
    for steps, want in ((3, [0, 4, 8]), (6, [0, 2, 4, 6, 8, 10]), (12, list(range(12)))):
        keep = PREFIX + steps * ROWS * COLUMNS
        table = layer.table.take(choose(Uniform()(layer, keep), layer.table, keep))
        assert table.step[PREFIX:].unique().tolist() == want


def test_infinipot_v_by_its_formula() -> None:
    layer, keep = held(seed=3), 40
    table = layer.table
    steps = list(range(STEPS - int(0.25 * STEPS), STEPS))
    recent = [r for r in range(len(table)) if int(table.step[r]) in steps]
    older = [r for r in range(PREFIX, len(table)) if r not in recent]

    def key(r: int) -> Tensor:
        return layer.keys[:, r].flatten()

    tar = {}
    for r in older:
        same = [q for q in recent if (table.row[q], table.column[q]) == (table.row[r], table.column[r])]
        tar[r] = -sum(float(torch.cosine_similarity(key(r), key(q), dim=0)) for q in same) / len(same)
    left = keep - PREFIX - len(recent)
    chosen = sorted(older, key=lambda r: -tar[r])[: int(0.5 * left)]
    rest = [r for r in older if r not in chosen]
    rest.sort(key=lambda r: -float(layer.values[:, r].flatten().norm()))
    want = sorted([*range(PREFIX), *recent, *chosen, *rest[: left - len(chosen)]])
    assert choose(InfiniPotV()(layer, keep), table, keep).tolist() == want


def attention(layer: Held) -> list[float]:
    """What the probe attends to, head by head and row by row."""
    assert layer.query is not None
    count = len(layer.table)
    mean = [0.0] * count
    for head in range(4):
        for row in range(3):
            logits = [float(layer.query[head, row] @ layer.keys[head // 2, c]) / 2 for c in range(count)]
            total = sum(math.exp(x) for x in logits)
            mean = [m + math.exp(x) / total / 12 for m, x in zip(mean, logits, strict=True)]
    return mean


def test_streaming_vlm_keeps_sinks_and_the_last_seconds() -> None:
    layer, keep = held(drop=0.2), 40
    tokens, count = layer.table, len(layer.table)
    evictor = StreamingVLM(sinks=8, seconds=3.0)
    rows = range(PREFIX, count)
    first = [r for r in rows if float(tokens.seconds[r]) > 8.0 or r < 8]
    rest = sorted((r for r in rows if r not in first), reverse=True)
    want = sorted([*range(PREFIX), *first, *rest[: keep - PREFIX - len(first)]])
    assert choose(evictor(layer, keep), tokens, keep).tolist() == want
    assert pv.Memory(evictor="streaming_vlm").positions == "compact"
    assert pv.Memory(evictor="streaming_vlm", positions="window").positions == "window"
    assert pv.Memory().positions == "window"


def test_stream_mem_by_its_formula() -> None:
    """Attention decides; every frame of the newest chunk leaves one prototype in its least attended place."""
    layer, keep = held(seed=2, drop=0.2), 35
    tokens, weight = layer.table, attention(layer)
    new = [r for r in range(len(tokens)) if int(tokens.chunk[r]) == 3]
    places = {}
    for step in (9, 10, 11):
        frame = [r for r in new if int(tokens.step[r]) == step]
        places[min(frame, key=lambda r: weight[r])] = frame
    rest = sorted((r for r in range(PREFIX, len(tokens)) if r not in places), key=lambda r: -weight[r])
    want = sorted([*range(PREFIX), *places, *rest[: keep - PREFIX - len(places)]])
    evictor = StreamMem()
    priority = evictor(layer, keep)
    stay = choose(priority, tokens, keep)
    assert stay.tolist() == want
    slots, keys, values = evictor.merge(layer, stay, priority)
    assert slots.tolist() == sorted(places)
    for slot, key, value in zip(slots.tolist(), keys.unbind(1), values.unbind(1), strict=True):
        frame = places[slot]
        total = sum(weight[r] for r in frame)
        torch.testing.assert_close(key, sum(weight[r] / total * layer.keys[:, r] for r in frame))
        torch.testing.assert_close(value, sum(weight[r] / total * layer.values[:, r] for r in frame))


@pytest.mark.parametrize(("number", "w"), [(0, 1.0), (1, 1.0), (4, 0.5), (7, 0.0), (9, 0.0)])
def test_hermes_by_its_formula(number: int, w: float) -> None:
    layer, keep = held(seed=4, drop=0.2, layer=number, layers=10), 35
    tokens, weight, count = layer.table, attention(layer), len(layer.table)
    visual = range(PREFIX, count)
    recency = [math.exp(-3.0 * (11 - float(tokens.seconds[r])) / 11) for r in visual]
    low, high = min(weight[r] for r in visual), max(weight[r] for r in visual)
    old, young = min(recency), max(recency)
    score = {
        r: (1 - w) * (weight[r] - low) / (high - low) + w * (recency[r - PREFIX] - old) / (young - old) for r in visual
    }
    # the deeper layer held all but the first ten of these, and one more
    theirs = torch.rand(count - 10, generator=torch.Generator().manual_seed(1))
    shuffled = torch.randperm(count - 10, generator=torch.Generator().manual_seed(2))
    deeper = tokens.take(torch.arange(10, count)[shuffled])
    layer = replace(layer, deeper=(deeper, theirs[shuffled]))
    for r in visual:
        if r >= 10:
            score[r] = 0.7 * score[r] + 0.3 * float(theirs[r - 10])
    best = sorted(visual, key=lambda r: (-score[r], -r))
    want = sorted([*range(PREFIX), *best[: keep - PREFIX]])
    evictor = Hermes()
    priority = evictor(layer, keep)
    stay = choose(priority, tokens, keep)
    assert stay.tolist() == want
    merged = evictor.merge(layer, stay, priority)
    assert (merged is None) == (w > 0)
    if merged is not None:
        slot, keys, values = merged
        last = best[keep - PREFIX - 1]
        assert slot.tolist() == [last]
        gone = [last, *best[keep - PREFIX :]]
        torch.testing.assert_close(keys[:, 0], layer.keys[:, gone].mean(1))
        torch.testing.assert_close(values[:, 0], layer.values[:, gone].mean(1))


@pytest.mark.parametrize("evictor", ["stream_mem", "hermes"])
def test_merged_tokens_are_what_the_cache_holds(evictor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stream whose positions move: the evictor's keys and values stand in the column that it named."""
    lm = build("qwen2_5_vl")
    lm.model.config.get_text_config().max_position_embeddings = 48
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=70, evictor=evictor))
    method, merges = EVICTORS[evictor], 0
    overwrite = KeyValueLayer.overwrite

    def checked(layer: KeyValueLayer, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        nonlocal merges
        merges += len(slots)
        before = layer.keys.clone()
        overwrite(layer, slots, keys, values)
        assert torch.equal(layer.keys[0, :, slots], keys) and torch.equal(layer.values[0, :, slots], values)
        others = [c for c in range(before.shape[-2]) if c not in slots.tolist()]
        assert torch.equal(layer.keys[:, :, others], before[:, :, others])

    monkeypatch.setattr(KeyValueLayer, "overwrite", checked)
    for i in range(20):
        stream.push(video(4, seed=i), [4 * i + j for j in range(4)])
        assert max(stream.cache_tokens) <= 70
        assert all(len(t) == n for t, n in zip(stream._state.cache.tables, stream.cache_tokens, strict=True))
    assert merges > 3 and type(method).uses_query
    assert any(layer.entered is not None for layer in stream._state.cache.layers)
    calm = stream.ask("what ?", max_new_tokens=4)
    with monkeypatch.context() as patch:  # a push that fails after merging takes the merge back
        patch.setattr(lm.model.get_decoder().layers[5], "forward", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stream.push(video(4), [100, 101, 102, 103])
    assert stream.ask("what ?", max_new_tokens=4).token_ids == calm.token_ids


def test_the_probe_asks_what_its_rows_ask_in_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Held.query` against the queries that the layers' own attention gets."""
    lm = build("qwen2_5_vl")
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=200, evictor="stream_mem"))
    seen: list[Tensor] = []

    def tapped(module: Any, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(query.detach().clone())
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, *args, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register("tapped", tapped)
    AttentionMaskInterface.register("tapped", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    lm.model.get_decoder().config._attn_implementation = "tapped"
    for i in range(3):
        seen.clear()
        stream.push(video(4, seed=i), [4 * i + j for j in range(4)])
    queries, probe = stream._state.cache.queries, len(stream._ingest.probe)
    assert queries is not None and len(queries) == len(seen) == 6 and probe > 3
    for mine, theirs in zip(queries.values(), seen, strict=True):
        torch.testing.assert_close(mine, theirs[0, :, -probe:], atol=1e-12, rtol=0)


@pytest.mark.parametrize("half_life", [None, 2.0])
def test_pyramid_by_its_rule(half_life: float | None) -> None:
    layer, keep = held(seed=5, drop=0.2), 40
    table, count = layer.table, len(layer.table)
    evictor = PyramidEvictor(recent=0.25, periods=4, floor=0.5, half_life=half_life)
    newest = list(range(count - 10, count))
    older = [r for r in range(PREFIX, count) if r not in newest]
    granted = []
    for period in range(4):
        members = [r for r in older if min(int(float(table.seconds[r]) / 11 * 4), 3) == period]
        members.sort(key=lambda r: -float(table.score[r]))
        for place, r in enumerate(members):
            floor = 0.5 * keep / 4 * (1 if half_life is None else 0.5 ** ((11 - float(table.seconds[r])) / half_life))
            if place < floor:
                granted.append(r)
    order = [
        *newest,
        *sorted(granted, key=lambda r: -float(table.score[r])),
        *sorted((r for r in older if r not in granted), key=lambda r: -float(table.score[r])),
    ]
    want = sorted([*range(PREFIX), *order[: keep - PREFIX]])
    assert choose(evictor(layer, keep), table, keep).tolist() == want


def test_pyramid_remembers_an_hour_ago() -> None:
    """New tokens score ten times as high as old ones; the floors keep the old periods represented all the same."""
    count = 3600
    zeros = torch.zeros(count, dtype=torch.long)
    tokens = table(
        index=torch.arange(count),
        seconds=torch.arange(count).float(),
        until=torch.arange(count).float(),
        chunk=zeros,
        step=torch.arange(count),
        row=zeros,
        column=zeros,
        score=torch.linspace(0.1, 1, count),
        visual=torch.ones(count, dtype=torch.bool),
    )
    layer = Held(torch.zeros(1, count, 2), torch.zeros(1, count, 2), tokens, 0, 1)
    ours, fading = PyramidEvictor(), PyramidEvictor(half_life=600)
    first_ten_minutes = []
    for evictor in (EVICTORS["oldest"], fading, ours):
        index = choose(evictor(layer, 360), tokens, 360)
        first_ten_minutes.append(int((tokens.seconds[index] < 600).sum()))
    assert first_ten_minutes[0] == 0
    assert 0 < first_ten_minutes[1] < first_ten_minutes[2]


def test_an_evictor_that_goes_by_scores_has_them_where_nothing_is_dropped() -> None:
    """A pyramid of one stage ranks nothing; the evictor would then forget by number. Keys stay what they were."""
    lm = build("qwen2_5_vl")
    whole = pv.Pyramid(stages=1)
    ranked = lm.stream(pv.Pyramid(layers=(1,), ratios=(1.0,)), pv.Memory(tokens=None))
    ours = lm.stream(whole, pv.Memory(tokens=1000, evictor="pyramid"))
    plain = lm.stream(whole, pv.Memory(tokens=None, evictor="pyramid"))
    for stream in (ranked, ours, plain):
        for i in range(3):
            stream.push(video(4, seed=i), [4 * i + j for j in range(4)])
    for layer in range(lm.num_layers):
        wanted, got, unranked = (s._state.cache.tables[layer] for s in (ranked, ours, plain))
        assert torch.equal(wanted.score, got.score) and got.score.unique().numel() > 10
        assert not unranked.score.any()
        assert torch.equal(ours._state.cache.layers[layer].keys, plain._state.cache.layers[layer].keys)


@pytest.mark.parametrize("evictor", EVICTORS)
@pytest.mark.parametrize(
    "memory",
    [dict(tokens=60), dict(tokens=90, shape="pyramid"), dict(bytes=60 * 6 * 2 * 2 * 16 * 8, storage="full")],
    ids=str,
)
def test_the_bound_holds_in_flight(memory: dict[str, Any], evictor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every append of every layer, the probe and the chunk in flight included."""
    lm = build("qwen2_5_vl")
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(**memory, evictor=evictor))
    tokens, ratios = memory.get("tokens", 60), (1, 1, 0.5, 0.5, 0.25, 0.25)
    budgets = [int(tokens * r) for r in ratios] if "shape" in memory else [tokens] * 6
    assert stream._ingest.limits.tokens == tuple(budgets)
    seen, update = [0] * 6, KeyValueLayer.update

    def watched(layer: KeyValueLayer, *args: Any, **kwargs: Any):
        result = update(layer, *args, **kwargs)
        for i, mine in enumerate(stream._state.cache.layers):
            if mine is layer:
                seen[i] = max(seen[i], layer.get_seq_length())
        return result

    monkeypatch.setattr(KeyValueLayer, "update", watched)
    for i in range(12):
        stream.push(video(4, seed=i), [4 * i + j for j in range(4)])
    assert all(most <= budget for most, budget in zip(seen, budgets, strict=True))
    if stream.memory.positions == "window" or "bytes" not in memory:
        assert seen[0] == budgets[0]  # and it is used
    else:  # keys are held twice as soon as the first gap closes
        assert stream.cache_tokens[0] == budgets[0] * 2 // 3
    if "bytes" in memory:
        assert stream.ask("what ?", max_new_tokens=1).cache_bytes <= memory["bytes"]


def test_storage_is_shared_until_someone_must_move() -> None:
    """The worked example of `KeyValueLayer`, with values."""
    parent = KeyValueLayer()
    data = torch.arange(20.0).view(1, 1, 20, 1)
    parent.update(data[:, :, :5], data[:, :, :5])
    fork = parent.fork()
    storage = parent.keys.untyped_storage().data_ptr()
    fork.update(data[:, :, 5:7], -data[:, :, 5:7])
    assert fork.keys.untyped_storage().data_ptr() == storage  # in place, behind the parent's end
    assert fork.keys.flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert fork.values.flatten().tolist() == [0, 1, 2, 3, 4, -5, -6]
    assert parent.keys.flatten().tolist() == [0, 1, 2, 3, 4]
    other = parent.fork()
    other.update(data[:, :, 10:11], data[:, :, 10:11])  # not at the end of what is used: moves
    assert other.keys.untyped_storage().data_ptr() != storage
    assert fork.keys.flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]
    fork.release(parent)
    parent.update(data[:, :, 12:13], data[:, :, 12:13])  # the fork is done: in place again
    assert parent.keys.untyped_storage().data_ptr() == storage
    assert parent.keys.flatten().tolist() == [0, 1, 2, 3, 4, 12]
    assert other.keys.flatten().tolist() == [0, 1, 2, 3, 4, 10]
    parent.keep(Arrangement.of(torch.tensor([0, 3, 5]), 6))  # alone in its storage: in place, one column moves
    assert parent.keys.untyped_storage().data_ptr() == storage
    assert parent.keys.flatten().tolist() == [0, 12, 3]
    sibling = parent.fork()
    parent.keep(Arrangement.of(torch.tensor([1, 2]), 3))  # not alone: in a storage of its own
    assert parent.keys.untyped_storage().data_ptr() != storage
    assert sibling.keys.flatten().tolist() == [0, 12, 3]
    assert parent.keys.flatten().tolist() == [3, 12]
    for size in range(200):  # growth keeps everything
        parent.update(data[:, :, size % 20 : size % 20 + 1], data[:, :, :1])
    assert parent.keys.flatten().tolist() == [3, 12, *(float(i % 20) for i in range(200))]


@pytest.mark.parametrize("moved", [False, True], ids=["first-move", "moved"])
@pytest.mark.parametrize("seed", range(20))
def test_whatever_happened_is_taken_back_bit_for_bit(seed: int, moved: bool) -> None:
    """Random appends, evictions, merges and moves, with and without a fork: first undone, then done and kept."""
    generator = torch.Generator().manual_seed(seed)

    def some(count: int) -> Tensor:
        return torch.randn(1, 2, count, 4, generator=generator)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    def turn(keys: Tensor, by: Tensor) -> Tensor:
        return keys + by

    layer = KeyValueLayer(limit=40)
    layer.update(some(30), some(30))
    if moved:
        layer.rotate(turn, some(30)[0, 0])
    forks = [layer.fork()] if seed % 2 else []
    held = [part[:, :, :30].clone() for part in layer.columns.room.parts]
    columns = held if moved else [*held, held[0]]  # by hand: keys, values, and keys as they came

    def same(layer: KeyValueLayer, want: list[Tensor]) -> bool:
        entered = layer.keys if layer.entered is None else layer.entered
        return all(map(torch.equal, (layer.keys, layer.values, entered), want))

    for taken_back in (True, True, False):
        want = list(columns)
        layer.begin()
        for _ in range(6):
            length, do = want[0].shape[2], number(0, 4)
            if do == 0:
                new = [some(number(1, 12))] * 2
                new[1] = -new[0]
                layer.update(*new)
                want = [torch.cat([old, part], 2) for old, part in zip(want, (*new, new[0]), strict=True)]
            elif do == 1:
                stay = torch.randperm(length, generator=generator)[: number(length // 3, length)].sort().values
                move = Arrangement.of(stay, length)
                assert sorted(move.order.tolist()) == stay.tolist()
                layer.keep(move)
                want = [part[:, :, move.order] for part in want]
            elif do == 2:
                slots, merged = torch.randperm(length, generator=generator)[:3], some(3)[0]
                layer.overwrite(slots, merged, -merged)
                want = [
                    p.index_copy(2, slots, new[None]) for p, new in zip(want, (merged, -merged, merged), strict=True)
                ]
            else:
                by = some(length)[0, 0]
                layer.rotate(turn, by)
                want[0] = want[2] + by
            assert same(layer, want)
        if forks and number(0, 2):  # a question that drops what it need not attend to, meanwhile
            assert same(forks[0], columns)
            asking = forks[0].fork()
            forks.append(asking)
            asking.keep(Arrangement.of(torch.arange(0, 30, 2), 30))
            longer = forks[0].fork()  # and one that makes the storage larger for all who read it
            longer.update(*[some(70)] * 2)
            longer.release(forks[0])
            forks[0].trim()
        if taken_back:
            layer.rollback()
            assert (layer.entered is not None) == moved and same(layer, columns)
        else:
            layer.commit()
            assert same(layer, want)
    assert all(same(fork, columns) for fork in forks[:1])


def test_a_stream_may_come_back_to_what_a_question_narrows() -> None:
    """Evicting beside a fork copies; the fork alone must not take the old storage for its own until that is final."""
    data = torch.arange(20.0).view(1, 1, 20, 1)
    for final in (False, True):
        parent = KeyValueLayer()
        parent.update(data, data)
        fork = parent.fork()
        storage = fork.keys.untyped_storage().data_ptr()
        parent.begin()
        parent.keep(Arrangement.of(torch.arange(5, 20), 20))
        if final:
            parent.commit()
        fork.keep(Arrangement.of(torch.arange(10), 20))
        fork.keep(Arrangement.of(torch.tensor([4, 5, 6]), 10))
        assert (fork.keys.untyped_storage().data_ptr() == storage) == final
        assert sorted(fork.keys.flatten().tolist()) == [4, 5, 6]
        if not final:
            parent.rollback()
            assert parent.keys.flatten().tolist() == list(range(20))


def test_a_push_after_an_answer_need_not_copy_the_memory() -> None:
    """The fork of a finished, an abandoned or a failed question gives the room behind the memory back."""
    lm = build("qwen2_5_vl")
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=None))
    stream.push(video(2), [0, 1])
    place = stream._state.cache.layers[0].keys.untyped_storage().data_ptr()
    stream.ask("what is shown ?", max_new_tokens=3)
    abandoned = stream.ask("what is shown ?", max_new_tokens=3, stream=True)
    next(abandoned)
    del abandoned
    with pytest.raises(pv.FrameError):
        stream.push(video(2), [0, 1])
    stream.push(video(2, seed=1), [2, 3])
    assert stream._state.cache.layers[0].keys.untyped_storage().data_ptr() == place


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(tokens=0), "0"),
        (dict(tokens=-5), "-5"),
        (dict(tokens=1.5), "1.5"),
        (dict(tokens=True), "True"),
        (dict(bytes=0), "bytes=0"),
        (dict(tokens=100, bytes=1000), "both"),
        (dict(shape="round"), "round"),
        (dict(evictor="lru"), "lru"),
    ],
)
def test_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(pv.ConfigError, match=said):
        pv.Memory(**arguments)
