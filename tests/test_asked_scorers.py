"""Scorers that rank what is remembered when a question asks with a pyramid: by the unmodified model, and by masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import build, cases, video
from plain import build as build_plain
from plain import video as plain_video
from rawkeys import Raw, small
from reference import full_prompt, masked_forward, recorded, stream_masks
from test_asking import asked, shown_to
from test_flops_stream import counting
from test_hawk import WEIGHTS, best, by_hand
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

import pdrop_video as pv
from eval.runner.clock import Clock
from eval.runner.metered import Metered
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.pyramid.decoder import Decoder
from pdrop_video.pyramid.heads import rotate
from pdrop_video.pyramid.scorers.hawk import Hawk

QUESTION = "what is shown first ?"
EVERYTHING = pv.Pyramid(stages=1)
FAMILIES = ("qwen2_5_vl", "llava_onevision", "internvl", "qwen3_vl")


def attention(lm: pv.VideoLM, inputs: dict[str, Any], allowed: Tensor, layer: int, rows: int) -> Tensor:
    """Weights [rows, tokens] of the last rows in a layer of the unmodified eager model, the mean over its heads."""
    caught: list[Tensor] = []
    module = lm.model.get_decoder().layers[layer].self_attn
    hook = module.register_forward_hook(lambda m, a, out: caught.append(out[1][0, :, -rows:].mean(0)))
    masked_forward(lm, inputs, allowed)
    hook.remove()
    return caught[0]


@pytest.mark.parametrize(
    ("family", "scorer"), cases(FAMILIES, ("text_mean", "relevance_max", "learnpruner"), fast=lambda f, s: s == f < 2)
)
def test_all_rows_of_a_question_rank(family: str, scorer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their mean, or the strongest of them, in the eager model; layers that remember the same follow the first."""
    lm = build(family, "eager")
    per = lm.adapter.frames_per_step
    frames, seconds = video(6 * per), [0.5 * i for i in range(6 * per)]
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    snapshots = recorded(monkeypatch, None)
    stream = lm.stream(EVERYTHING, pv.Memory(tokens=None))
    for i in range(3):
        stream.push(frames[2 * per * i : 2 * per * (i + 1)], seconds[2 * per * i : 2 * per * (i + 1)])
    table = stream._state.cache.tables[0].in_time()
    visual, text = table.index[table.visual], table.index[~table.visual]
    got, question = asked(stream, pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.2), scorer=scorer))
    kept, total = [table.index] * lm.num_layers, inputs["input_ids"].shape[1]
    rows = len(lm.prompt.after(QUESTION))
    for layer, ratio in ((2, 0.5), (4, 0.2)):
        weight = attention(lm, inputs, stream_masks(snapshots, prefix, total, kept), layer, rows)
        score = weight.amax(0) if scorer == "relevance_max" else weight.mean(0)
        chosen = visual[score[visual].argsort(descending=True)[: int(len(visual) * ratio)]]
        by_last = visual[weight[-1][visual].argsort(descending=True)[: int(len(visual) * ratio)]]
        assert set(chosen.tolist()) != set(by_last.tolist())
        kept[layer : layer + 2] = [torch.cat([text, chosen]).sort().values] * 2  # deeper ones remember all as yet
        evidence = question.evidence[(layer - 2) // 2 + 1]  # stays what the last row attends to of what is left
        assert sum(evidence.weight) == pytest.approx(float(weight[-1][chosen].sum()), abs=1e-5)
    for shown, index in zip(shown_to(question.state.cache), kept, strict=True):
        assert torch.equal(shown.index.sort().values, index)
    want = masked_forward(lm, inputs, stream_masks(snapshots, prefix, total, kept))[-1]
    torch.testing.assert_close(got, want, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "watching"),
    cases(
        FAMILIES,
        [EVERYTHING, pv.Pyramid(layers=(2, 4), ratios=(0.6, 0.3))],
        fast=lambda f, w: (f + w) % 2 == 0,
    ),
)
def test_hawk_ranks_what_is_remembered(family: str, watching: pv.Pyramid, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the unmodified model's own projections; every layer keeps the same, as far as it remembers it."""
    lm = build(family)
    per = lm.adapter.frames_per_step
    frames, seconds = video(6 * per), [0.5 * i for i in range(6 * per)]
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    snapshots = recorded(monkeypatch, None)
    stream = lm.stream(watching, pv.Memory(tokens=None))
    for i in range(3):
        stream.push(frames[2 * per * i : 2 * per * (i + 1)], seconds[2 * per * i : 2 * per * (i + 1)])
    tables = [table.in_time() for table in stream._state.cache.tables]
    visual = tables[0].index[tables[0].visual].tolist()
    got, question = asked(stream, pv.Pyramid(layers=(0, 3), ratios=(0.5, 0.2), scorer=Hawk(WEIGHTS)))
    total, rows = inputs["input_ids"].shape[1], len(lm.prompt.after(QUESTION))
    (scores,) = by_hand(lm, inputs, [visual], list(range(total - rows, total)), WEIGHTS)
    of = dict(zip(visual, scores, strict=True))
    kept = []
    for layer, table in enumerate(tables):
        count = int(len(visual) * (0.5 if layer < 3 else 0.2))
        held = table.index[table.visual].tolist()
        chosen = {held[j] for j in best([of[n] for n in held], count)}
        kept.append(torch.tensor([n for n in table.index.tolist() if n not in of or n in chosen]))
    if watching is EVERYTHING:
        assert all(torch.equal(kept[0], each) for each in kept[:3])
    for shown, index in zip(shown_to(question.state.cache), kept, strict=True):
        assert torch.equal(shown.index.sort().values, index)
    want = masked_forward(lm, inputs, stream_masks(snapshots, prefix, total, kept))[-1]
    torch.testing.assert_close(got, want, atol=1e-9, rtol=0)


@pytest.mark.parametrize("family", cases(("qwen2_5_vl", "llava_onevision", "internvl"), fast=lambda f: f < 2))
def test_keys_that_moved_are_un_rotated(family: str) -> None:
    """What the projections made, whatever positions were left and moved to since; layers choose apart by then."""
    lm = small(family)
    per = lm.adapter.frames_per_step
    stream = lm.stream(EVERYTHING, pv.Memory(tokens=70, evictor="uniform"))
    raw, prefix, moved = Raw(stream), len(lm.prompt.before()), 0
    for keys, layer in zip(raw.keys, stream._state.cache.layers, strict=True):  # the prompt, which no frame is among
        keys |= {n: torch.zeros_like(layer.keys[0, :, n]) for n in range(prefix)}
    for i in range(24):
        stream.push(video(per, seed=i), [per * i + j + (3600 if i > 12 else 0) for j in range(per)])
        raw.note()
    for i, layer in enumerate(stream._state.cache.layers):
        table = stream._state.cache.tables[i]
        rows = table.index >= prefix
        moved += int((table.now != table.position).any())
        bare = stream.loop.decoder.bare(i, layer.keys[0], table.now)
        want = torch.stack([raw.keys[i][n] for n in table.index[rows].tolist()], 1)
        torch.testing.assert_close(bare[:, rows], want, atol=2e-5, rtol=0)
    assert moved


def test_a_scale_of_rope_is_taken_out() -> None:
    """YaRN makes keys longer as it rotates them."""
    scaled = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)
    config = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, vocab_size=50)
    text = LlamaModel(LlamaConfig(**config, max_position_embeddings=256, rope_parameters=scaled)).double()
    decoder, attention = Decoder(text), text.layers[0].self_attn
    at = torch.tensor([[3, 9, 20, 100]])
    key = torch.randn(1, 2, 4, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rope = decoder.rope(0, key, at)
    assert rope is not None and torch.hypot(*rope).max() > 1.1
    torch.testing.assert_close(decoder.bare(0, rotate(attention, key, rope)[0], at.T), key[0], atol=1e-6, rtol=0)


def test_it_does_not_matter_when_a_token_came() -> None:
    """The same pictures first and last: hawk keeps the same places of both, the attention of the last row does not."""
    lm = build("qwen2_5_vl")
    kept = {}
    for scorer in ("hawk", "relevance"):
        stream = lm.stream(EVERYTHING, pv.Memory(tokens=None))
        for i, seed in enumerate((0, 1, 2, 3, 0)):
            stream.push(video(2, seed=seed), [30.0 * i, 30.0 * i + 0.5])
        _, question = asked(stream, pv.Pyramid(layers=(0,), ratios=(0.4,), scorer=scorer))
        table = shown_to(question.state.cache)[0]
        places = [
            set(zip(*(c[table.visual & (table.step == s)].tolist() for c in (table.row, table.column)), strict=True))
            for s in (0, 4)
        ]
        kept[scorer] = places
    first, last = kept["hawk"]
    assert len(first ^ last) <= 1 and first  # the budget may end between two that tie
    assert kept["relevance"][0] != kept["relevance"][1]


@pytest.mark.parametrize("scorer", ["text_mean", "relevance_max", "hawk"])
@pytest.mark.parametrize("family", ["smolvlm", "llava_onevision"])
def test_what_such_a_question_costs(family: str, scorer: str) -> None:
    """As PyTorch counts it."""
    lm = build(family, "eager", dtype=torch.float32)
    lm.stream().close()
    metered = Metered(
        lm.stream(EVERYTHING, pv.Memory(tokens=None)), DecoderShape.of(lm.model.config), Clock(), causal=False
    )
    metered.push(pv.FrameChunk(video(4), (0.0, 1.0, 2.0, 3.0)))
    layers = (0, 3) if scorer == "hawk" else (2, 4)
    pyramid = pv.Pyramid(layers=layers, ratios=(0.5, 0.25), scorer=scorer)
    with counting() as counted:
        metered.stream.next_logits(QUESTION, pyramid=pyramid)
    assert counted.total == metered.asking_flops(metered.rows(QUESTION), 1, pyramid)


def test_where_a_question_can_t_rank_so() -> None:
    stream = build("qwen2_5_vl").stream(EVERYTHING, pv.Memory(tokens=None))
    stream.push(video(2), [0, 1])
    with pytest.raises(pv.ConfigError, match="weights of 2 heads, but layer 0"):
        stream.ask(QUESTION, pyramid=pv.Pyramid(layers=(0,), ratios=(0.5,), scorer=Hawk((1, 2))))
    with pytest.raises(pv.ConfigError, match="scorer='coast', which asking does not use"):
        stream.ask(QUESTION, pyramid=pv.Pyramid(layers=(0,), ratios=(0.5,), scorer="coast"))
    latent = build_plain("deepseek_v3")
    other = latent.stream(pv.Pyramid(layers=(0,), ratios=(0.5,), scorer="hawk"), pv.Memory(tokens=None))
    other.push(plain_video(2), [0, 1])
    assert other.next_logits(QUESTION, pyramid=pv.Pyramid(ratios=(0.5,), scorer="text_mean")).isfinite().all()
    with pytest.raises(pv.ConfigError, match="un-rotated keys, which this model does not remember, but latents"):
        other.next_logits(QUESTION, pyramid=pv.Pyramid(layers=(0,), ratios=(0.5,), scorer="hawk"))


def test_nothing_of_such_a_question_is_left() -> None:
    lm = build("internvl")
    stream = lm.stream(EVERYTHING, pv.Memory(tokens=None, storage="int8"))
    stream.push(video(3), [0, 1, 2])
    before = stream.next_logits(QUESTION)
    pyramid = pv.Pyramid(layers=(0,), ratios=(0.3,), scorer="hawk")
    first = stream.next_logits(QUESTION, pyramid=pyramid)
    assert not torch.equal(first, before) and torch.equal(stream.next_logits(QUESTION), before)
    assert torch.equal(stream.fork().next_logits(QUESTION, pyramid=pyramid), first)


def test_what_the_first_layer_did_not_remember_goes_first() -> None:
    """Layers remember other tokens, and get others back: each keeps its share, and of what layer 0 has, the same."""
    lm = build("qwen2_5_vl")
    stream = lm.stream(EVERYTHING, pv.Memory(tokens=60, evictor="infinipot_v", archive=10**7))
    for i in range(8):
        stream.push(video(4, seed=i), [4.0 * i + j for j in range(4)])
    question = stream._asked(QUESTION, "", pv.Pyramid(layers=(0,), ratios=(0.3,), scorer="hawk"), 2)
    question.prefill()
    question.close()
    cache, parts = question.state.cache, []
    first = set(cache.tables[0].index[cache.tables[0].visual].tolist())
    target = int(len(first) * 0.3)
    for layer, (table, shown) in enumerate(zip(cache.tables, shown_to(cache), strict=True)):
        held, kept = (set(each.index[each.visual].tolist()) for each in (table, shown))
        assert len(kept) == target
        parts.append((held, kept))
        if layer:
            common = held & first
            assert kept <= common or common <= kept  # who is unknown to layer 0 comes behind
            best_of_first = parts[0][1] & held
            assert best_of_first <= kept  # a token that layer 0 keeps stays wherever it is remembered
    assert any(held != first for held, _ in parts)
