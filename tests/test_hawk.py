"""`hawk`: the release's numbers, the unmodified model's own projections, masks, streams, and where it is refused."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from families import build, cases, video
from reference import full_prompt, masked_forward
from test_boundary_zero import masks, noted
from test_one_shot import masks_of
from test_session import same
from torch import Tensor, nn

import pdrop_video as pv
from pdrop_video.pyramid import SCORERS, LayerLoop, Layout
from pdrop_video.pyramid.scorers import Ranking
from pdrop_video.pyramid.scorers.hawk import Hawk
from pdrop_video.registry import name_of, named

QUESTION = "what is shown first ?"
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "hawk.json").read_text(encoding="utf-8"))
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl")
WEIGHTS = (0.1, 0.4, 0.2, 0.3)


class Known(nn.Module):
    """A layer that makes these queries [heads, rows, dim] and keys [kv_heads, rows, dim] of one-hot rows."""

    def __init__(self, query: Tensor, key: Tensor) -> None:
        super().__init__()
        rows, dim = query.shape[1:]
        self.self_attn = nn.Module()
        self.self_attn.head_dim, self.self_attn.scaling = dim, dim**-0.5
        for name, states in (("q", query), ("k", key)):
            linear = nn.Linear(rows, len(states) * dim, bias=False, dtype=states.dtype)
            linear.weight.data = states.transpose(0, 1).flatten(1).T.contiguous()
            setattr(self.self_attn, f"{name}_proj", linear)
        self.self_attn.o_proj = nn.Linear(len(query) * dim, rows)


def scored(hawk: Hawk, queries: Any, keys: Any) -> Tensor:
    """Scores of visual rows with these keys [kv_heads, visual, dim], asked by rows [heads, text, dim] behind them."""
    query, key = (torch.as_tensor(states).double() for states in (queries, keys))
    count, text = key.shape[1], query.shape[1]
    query = nn.functional.pad(query, (0, 0, count, 0), value=9.0)  # what visual rows would ask does not matter
    key = nn.functional.pad(key, (0, 0, 0, text), value=9.0)
    rows = torch.arange(count + text)
    probe, visual = torch.cat([torch.tensor([-1]), rows[count:]])[None], (rows < count)[None]
    hidden = torch.eye(count + text, dtype=torch.float64)[None]
    layer = Known(query, key)
    return hawk(Ranking(layer, hidden, None, probe, visual, Layout.one_picture(visual)))[0, :count]


@pytest.mark.parametrize(
    ("normalisation", "want"),
    [
        ("l2", (0.545412, 0.351763, 0.660004, -0.272706)),
        ("softmax", (0.29799, 0.233669, 0.365168, 0.103172)),
        ("minmax", (0.8125, 0.625, 0.916667, 0)),
    ],
)
def test_the_specs_example(normalisation: str, want: tuple[float, ...]) -> None:
    queries = [[[2, 0], [0, 1]], [[1, 1], [1, 0]]]
    keys = [[[1, 0], [0, 1], [1, 1], [-1, 1]], [[0, 2], [1, 0], [1, -1], [0, -1]]]
    got = scored(Hawk((0.75, 0.25), normalisation), queries, keys)
    assert got.tolist() == pytest.approx(want, abs=2e-6)
    assert sorted(got.topk(2).indices.tolist()) == [0, 2]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["normalisation"])
def test_golden_traces_of_the_release(case: dict[str, Any]) -> None:
    """Grouped heads, one row that asks or several, and the released weights of Qwen2.5-VL-7B."""
    queries, keys = (torch.tensor(case[name]) / 1000 for name in ("queries", "keys"))
    hawk = Hawk(case["weights"], case["normalisation"])
    got = scored(hawk, queries, keys)
    want = torch.tensor(case["scores"], dtype=torch.float64)
    torch.testing.assert_close(got, want * 1000 / sum(case["weights"]), atol=5e-6, rtol=0)
    assert sorted(got.topk(len(case["kept"])).indices.tolist()) == case["kept"]


def test_facts_about_the_released_weights() -> None:
    raw = [weight / 10_000 for weight in GOLDEN["cases"][-1]["weights"]]
    assert len(raw) == 28 and sum(raw) == pytest.approx(1.2616, abs=1e-4)
    assert raw[1] / sum(raw) == pytest.approx(0.238, abs=5e-4) and raw[26] == 0
    assert sum(sorted(raw)[-7:]) / sum(raw) == pytest.approx(0.52, abs=5e-3)


@pytest.mark.parametrize("wrong", [torch.inf, -torch.inf, torch.nan])
def test_numbers_that_are_none_count_nothing(wrong: float) -> None:
    keys, visual = torch.ones(1, 1, 3, 2), torch.ones(1, 3, dtype=torch.bool)
    keys[0, 0, 1] = wrong
    scores = Hawk()._scores(torch.ones(1, 2, 2), keys, visual, torch.float32)
    assert scores[0].tolist() == pytest.approx([0.5**0.5, 0, 0.5**0.5], abs=1e-4)
    assert scored(Hawk(), torch.zeros(2, 1, 2), torch.ones(1, 3, 2)).tolist() == [0, 0, 0]


def test_sums_that_cancel_tie() -> None:
    """Two heads of opposite sign: what is left of their sums is noise, by which no token goes first."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(1, 40, 8, generator=generator, dtype=torch.float64)
    query = torch.randn(1, 3, 8, generator=generator, dtype=torch.float64)
    noise = 1 + 1e-13 * torch.rand(1, 40, 8, generator=generator, dtype=torch.float64)
    scores = scored(Hawk(), torch.cat([query, -query]), torch.cat([keys, keys * noise]))
    assert (scores == scores[0]).all() and abs(float(scores[0])) < 1e-9


# -- by the unmodified model's own projections ------------------------------------------------------------------------


def by_hand(
    lm: pv.VideoLM, inputs: dict[str, Any], chunks: list[list[int]], text: list[int], weights: Any
) -> list[list[float]]:
    """Scores of each chunk's tokens, by what layer 0's projections give in the unmodified model, number by number."""
    attention, caught = lm.model.get_decoder().layers[0].self_attn, {}
    hooks = []
    for name in ("q", "k"):
        module = getattr(attention, f"{name}_norm", None) or getattr(attention, f"{name}_proj")
        hook = lambda _, __, out, name=name: caught.update({name: out[0].reshape(out.shape[1], -1, 16)})  # noqa: E731
        hooks.append(module.register_forward_hook(hook))
    masked_forward(lm, inputs, None)
    for hook in hooks:
        hook.remove()
    query, key = caught["q"].tolist(), caught["k"].tolist()  # [rows][heads][16]
    heads, group = len(query[0]), len(query[0]) // len(key[0])
    found = []
    for chunk in chunks:
        scores = [0.0] * len(chunk)
        for head, weight in zip(range(heads), weights or [1] * heads, strict=True):
            common = [
                sum(sum(a * b for a, b in zip(query[t][head], key[v][head // group], strict=True)) / 4 for t in text)
                / len(text)
                for v in chunk
            ]
            length = math.sqrt(sum(c * c for c in common))
            scores = [
                s + weight / sum(weights or [1] * heads) * c / length for s, c in zip(scores, common, strict=True)
            ]
        found.append(scores)
    return found


def best(scores: list[float], count: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda j: -scores[j])[:count])


@pytest.mark.parametrize(("family", "boundaries"), cases(FAMILIES, [(0,), (0, 3)], fast=lambda f, b: (f + b) % 2 == 0))
@torch.no_grad()
def test_a_prompt(family: str, boundaries: tuple[int, ...]) -> None:
    """Who stays, by the unmodified model's projections; logits, by masks; a later boundary goes by the same scores."""
    lm = build(family)
    inputs, _, _ = full_prompt(lm, video(4), [0, 0.5, 1, 1.5], QUESTION)
    visual = inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)
    ratios = (0.5, 0.2)[: len(boundaries)]
    scorer = Hawk(WEIGHTS) if family != "internvl" else "hawk"
    pyramid = pv.Pyramid(layers=boundaries, ratios=ratios, scorer=scorer, allocator="global")
    with pv.pyramid_drop(lm.model, pyramid) as trace:
        got = lm.model(**inputs).logits[0, -1]
    rows = visual.nonzero()[:, 0].tolist()
    text = list(range(rows[-1] + 1, len(visual)))
    (want,) = by_hand(lm, inputs, [rows], text, WEIGHTS if family != "internvl" else None)
    assert trace.scores[0][0].tolist() == pytest.approx(want, abs=1e-5)
    assert [kept[0].tolist() for kept in trace.kept] == [best(want, int(len(rows) * ratio)) for ratio in ratios]
    allowed = masks_of(trace, visual, lm.num_layers, boundaries)
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=1e-9, rtol=0)


@pytest.mark.parametrize(("family", "standing"), cases(FAMILIES, [QUESTION, None], fast=lambda f, s: (f + s) % 2 == 0))
def test_a_stream(family: str, standing: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Chunk by chunk, by a question or by the template alone; through a failed push, a fork and a file."""
    lm, per = build(family), build(family).adapter.frames_per_step
    seconds = [0.5 * i for i in range(6 * per)]
    inputs, prefix, _ = full_prompt(lm, video(6 * per), seconds, QUESTION)
    pyramid = pv.Pyramid(layers=(0, 3), ratios=(0.6, 0.3), scorer=Hawk(WEIGHTS), allocator="global")
    stream = lm.stream(pyramid, pv.Memory(tokens=None), standing_question=standing)
    with noted(monkeypatch) as (held, ends):
        for i in range(3):
            part = slice(2 * per * i, 2 * per * (i + 1))
            if i == 1:
                with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
                    broken.setattr(LayerLoop, "_drop", lambda *args, **kwargs: 1 / 0)
                    stream.push(video(6 * per)[part], seconds[part])
                stream.fork().push(video(2 * per, seed=7), seconds[part])
                del held[-1], ends[-1]
                stream.save(tmp_path / "a.pdrop")
            stream.push(video(6 * per)[part], seconds[part])
        resumed = lm.resume(tmp_path / "a.pdrop")
        for i in (1, 2):
            resumed.push(video(6 * per)[2 * per * i : 2 * per * (i + 1)], seconds[2 * per * i : 2 * per * (i + 1)])
        del held[3:], ends[3:]
    same(stream, resumed)
    assert resumed.loop.scorer == Hawk(WEIGHTS)
    # the question's rows are the probe's, in a prompt at its end; in a stream without a question, the template's
    asked, _, _ = full_prompt(lm, video(6 * per), seconds, standing or "")
    visual = asked["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)
    total = len(visual)
    text = list(range(total - len(lm.prompt.after(standing or "")), total))
    rows = [r for r in visual.nonzero()[:, 0].tolist() if r < ends[-1]]
    chunks = [[r for r in rows if first <= r < end] for first, end in pairwise([prefix, *ends])]
    for number, (chunk, scores) in enumerate(zip(chunks, by_hand(lm, asked, chunks, text, WEIGHTS), strict=True)):
        for layer, ratio in ((0, 0.6), (3, 0.3)):
            want = {chunk[j] for j in best(scores, int(len(chunk) * ratio))}
            assert set(held[number][layer].tolist()) & set(chunk) == want
    with torch.no_grad():
        got = stream.next_logits(QUESTION)
    allowed = masks(held, ends, prefix, inputs["input_ids"].shape[1], held[-1])
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=1e-9, rtol=0)


# -- weights, in lines and files, and where it is refused -------------------------------------------------------------


def test_weights_in_lines_and_files(tmp_path: Path) -> None:
    path = tmp_path / "hawk.json"
    path.write_text(json.dumps({"hawk": {"weights": list(WEIGHTS)}}))
    want = Hawk(WEIGHTS)
    assert want.heads == WEIGHTS and Hawk(str(path)) == Hawk(path) == want == Hawk("0.1 0.4 0.2 0.3")
    assert named("scorer", SCORERS, f"hawk:weights={path}") == want
    both = Hawk(WEIGHTS, "minmax")
    line = name_of(SCORERS, both)
    path.unlink()  # a line holds the weights themselves
    assert named("scorer", SCORERS, line) == both


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (dict(weights=(0.0, 0.0)), "expected one above 0"),
        (dict(weights=(0.5, -0.1)), "each of weights is -0.1"),
        (dict(weights="a b"), "numbers with spaces between"),
        (dict(weights="none/such.json"), "can't be read"),
        (dict(normalisation="l1"), "normalisation is 'l1'"),
    ],
)
def test_what_is_no_hawk(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(pv.ConfigError, match=told):
        Hawk(**wrong)


@pytest.mark.parametrize(
    "said", ["{", "[]", '{"hawk": {}}', '{"hawk": {"weights": "many"}}', '{"hawk": {"weights": [true]}}']
)
def test_files_that_hold_no_weights(said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(said)
    with pytest.raises(pv.ConfigError, match="holds no weights"):
        Hawk(tmp_path / "a.json")


def test_where_weights_mean_nothing() -> None:
    lm = build("qwen2_5_vl")
    with pytest.raises(pv.ConfigError, match="weights of 3 heads, but layer 0 of this model has 4"):
        lm.stream(pv.Pyramid(layers=(0,), ratios=(0.5,), scorer=Hawk((1, 2, 3))))
    with pytest.raises(pv.ConfigError, match="the first boundary is before layer 2"):
        lm.stream(pv.Pyramid(layers=(2,), ratios=(0.5,), scorer=Hawk(WEIGHTS)))
    LayerLoop(lm.model.get_decoder(), pv.Pyramid(layers=(2,), ratios=(0.5,), scorer=Hawk()))


def test_layers_that_are_not_the_papers() -> None:
    from hybrids import build as build_hybrid

    for family in ("qwen3_5", "gemma4"):
        text = build_hybrid(family).model.get_decoder()
        with pytest.raises(pv.ConfigError, match=r"hawk was to rank before layer 0, .* layer 3 is the first"):
            LayerLoop(text, pv.Pyramid(layers=(0,), ratios=(0.5,), scorer="hawk"))
        LayerLoop(text, pv.Pyramid(layers=(3,), ratios=(0.5,), scorer="hawk"))
    with pytest.raises(pv.ConfigError, match=r"layer 7 uses those of layer 3, with it"):
        LayerLoop(text, pv.Pyramid(layers=(7,), ratios=(0.5,), scorer="hawk"))
