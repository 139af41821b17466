"""Ranking and selection: equal to what the next layer's own attention then sees, for any batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from families import FAMILIES, build, video
from test_one_shot import llama
from torch import Tensor
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import pdrop_video as pv
from pdrop_video.pyramid import LayerLoop
from pdrop_video.pyramid.rank import attention_scores, distinct_rows
from pdrop_video.pyramid.scorers import relevance
from pdrop_video.pyramid.select import keep_best


@pytest.fixture
def tapped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Tensor, Tensor, float]]:
    """(layer, queries, keys, scaling) of every call of the "tapped" attention: the exact q and k after RoPE."""
    seen: list[tuple[int, Tensor, Tensor, float]] = []

    def tap(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any):
        if hasattr(module, "layer_idx"):
            seen.append((module.layer_idx, query, key, module.scaling))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, **kwargs)

    AttentionInterface.register("tapped", tap)
    AttentionMaskInterface.register("tapped", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    return seen


def transcription(query: Tensor, key: Tensor, scaling: float, row: int) -> Tensor:
    """The formula, head by head: mean over heads of softmax(q_row . k), over the columns that the row may see."""
    heads, group = query.shape[1], query.shape[1] // key.shape[1]
    columns = key.shape[2] - query.shape[2] + row + 1
    total = torch.zeros(columns, dtype=query.dtype)
    for head in range(heads):
        logits = key[0, head // group, :columns] @ query[0, head, row] * scaling
        total += torch.softmax(logits, 0)
    return total / heads


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_next_layers_attention(family: str, tapped: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a stream with a memory behind it, the ranking before a layer equals what its own attention then sees."""
    lm = build(family)
    ranked: dict[int, Tensor] = {}

    def recording(layer: Any, *args: Any, **kwargs: Any) -> Tensor:
        scores = attention_scores(layer, *args, **kwargs)
        ranked[layer.self_attn.layer_idx] = scores
        return scores

    monkeypatch.setattr(relevance, "attention_scores", recording)
    lm.model.get_decoder().set_attn_implementation("tapped")
    # the last boundary drops the probe before its layer runs, so one more boundary stands behind the two examined
    stream = lm.stream(pv.Pyramid(layers=(2, 3, 5), ratios=(1.0, 1.0, 0.5), scorer="relevance"), pv.Memory(tokens=None))
    stream.push(video(4), [0, 1, 2, 3])
    tapped.clear()
    stream.push(video(4, seed=1), [4, 5, 6, 7])
    for at in (2, 3):
        (_, query, key, scaling), *_ = (call for call in tapped if call[0] == at)
        rows = query.shape[2]
        want = transcription(query, key, scaling, rows - 1)[-rows:]
        torch.testing.assert_close(ranked[at][0], want, atol=1e-12, rtol=0)


@pytest.mark.parametrize("config", [LlamaConfig, Qwen3Config])
def test_norms_of_q_and_k_are_applied(config: Any, tapped: list) -> None:
    """Qwen3 normalises queries and keys per head; with random norm weights a forgotten norm shows."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, vocab_size=50, head_dim=8)
    made = config(**sizes, num_attention_heads=4, num_key_value_heads=2)
    model = {LlamaConfig: LlamaForCausalLM, Qwen3Config: Qwen3ForCausalLM}[config](made).double().eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 2.0)
    model.set_attn_implementation("tapped")
    inner, hidden = model.get_decoder(), torch.randn(1, 9, 32, dtype=torch.float64)
    rope = inner.rotary_emb(hidden, torch.arange(9)[None])
    scores = attention_scores(inner.layers[1], hidden, rope, torch.tensor([[6]]))
    with torch.no_grad():
        inner.layers[1](hidden, position_embeddings=rope, attention_mask=None, position_ids=None)
    _, query, key, scaling = tapped[-1]
    torch.testing.assert_close(scores[0, :7], transcription(query, key, scaling, 0 + 6)[:7], atol=1e-12, rtol=0)
    assert torch.equal(scores[0, 7:], torch.zeros(2, dtype=scores.dtype))  # the future scores nothing


def test_several_probes_are_averaged_and_empty_places_ignored() -> None:
    lm = build("llava_onevision")
    text = lm.model.get_decoder()
    hidden = torch.randn(2, 8, 64, dtype=torch.float64)
    rope = text.rotary_emb(hidden, torch.arange(8)[None].expand(2, -1))
    both = attention_scores(text.layers[1], hidden, rope, torch.tensor([[3, 7], [5, -1]]))
    single = [attention_scores(text.layers[1], hidden, rope, torch.tensor([[row], [row]])) for row in (3, 7, 5)]
    torch.testing.assert_close(both[0], (single[0][0] + single[1][0]) / 2, atol=1e-12, rtol=0)
    torch.testing.assert_close(both[1], single[2][1], atol=1e-12, rtol=0)


def test_keep_best_equals_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    for trial in range(50):
        batch, rows = 3, 12
        scores = torch.randint(0, 5, (batch, rows), generator=generator).float()  # many ties: the earlier turn wins
        turn = torch.stack([torch.randperm(rows, generator=generator) for _ in range(batch)])
        first = turn.argsort(1)
        kind = torch.randint(0, 3, (batch, rows), generator=generator)  # 0 text, 1 visual, 2 padding
        counts = [int(torch.randint(0, int((kind[b] == 1).sum()) + 1, (), generator=generator)) for b in range(batch)]
        wanted = []
        for b in range(batch):
            visual = [r for r in range(rows) if kind[b, r] == 1]
            best = sorted(visual, key=lambda r: (-scores[b, r].item(), int(first[b, r])))[: counts[b]]
            wanted.append(sorted(best + [r for r in range(rows) if kind[b, r] == 0]))
        if not max(map(len, wanted)):
            continue
        index, valid = keep_best(scores, kind == 1, kind == 0, [len(w) for w in wanted], turn)
        for b in range(batch):
            row = index[b] if valid is None else index[b][valid[b]]
            assert row.tolist() == wanted[b], trial
            assert valid is None or valid[b].tolist() == sorted(valid[b].tolist())  # padding stands on the left


def test_refused_stacks() -> None:
    lm = build("qwen2_5_vl")
    with pytest.raises(pv.ConfigError, match="M-RoPE"):
        LayerLoop(lm.model.get_decoder(), pv.Pyramid(positions="compact"))
    with pytest.raises(pv.ModelError, match="layers"):
        LayerLoop(torch.nn.Linear(2, 2), pv.Pyramid())
    fused = tf.Phi3Config(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                          num_key_value_heads=2, vocab_size=9, pad_token_id=0)  # fmt: skip
    with pytest.raises(pv.ModelError, match="Phi3DecoderLayer has no self_attn with q_proj"):
        LayerLoop(tf.Phi3Model(fused), pv.Pyramid())


def test_an_answer_right_behind_visual_rows(tapped: list) -> None:
    """As in captions: the row before the first label ranks, which is whichever visual row is the last one left."""
    model = llama(5)
    model.set_attn_implementation("tapped")
    ids, visual = torch.arange(1, 21)[None], torch.zeros(1, 20, dtype=torch.bool)
    visual[:, 3:15] = True
    labels = ids.masked_fill(torch.arange(20)[None] < 15, -100)
    with pv.pyramid_drop(model, pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.5)), visual=visual) as trace:
        tapped.clear()  # of what was seen as the block tried the model
        model(input_ids=ids, labels=labels)
    assert 11 not in trace.kept[0][0]  # the row that ranked at first is gone
    ((query, key, scaling),) = (call[1:] for call in tapped if call[0] == 4)
    want = transcription(query, key, scaling, 3 + 6 - 1)  # behind 3 rows of text and 6 that are left
    torch.testing.assert_close(trace.scores[1][0], want[3:], atol=1e-12, rtol=0)


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_distinct_rows(count: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(count)
    rows = torch.randint(-3, 4, (count, columns), generator=generator) * torch.tensor([1, 1000, 7])[:columns]
    distinct, which = distinct_rows(rows)
    assert torch.equal(distinct[which], rows)
    assert len(distinct) == len(set(map(tuple, rows.tolist())))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_large_numbers_of_sixteen_bits(dtype: torch.dtype, autocast: bool) -> None:
    """Queries and keys whose products leave float16's range before they are scaled, by the formula in float64."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, head_dim=128)
    config = tf.Qwen2Config(**sizes, num_key_value_heads=2, vocab_size=50)
    layer = tf.Qwen2ForCausalLM(config).to(dtype).eval().get_decoder().layers[0]
    for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
        projection.weight.data.mul_(40)
        projection.bias.data.fill_(30)  # all products are large, and their differences what counts
    hidden, row = torch.randn(1, 20, 32).to(dtype), torch.tensor([[17]])
    rope = torch.ones(1, 20, 128, dtype=dtype), torch.zeros(1, 20, 128, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        got = attention_scores(layer, hidden, rope, row)
        normed = layer.input_layernorm(hidden)
        query, key = (layer.self_attn.get_submodule(name)(normed).double() for name in ("q_proj", "k_proj"))
    query, key = (states.view(1, 20, -1, 128).transpose(1, 2) for states in (query, key))
    assert (query[0, :, 17] @ key[0].mT[0]).abs().max() > torch.finfo(torch.float16).max
    want = transcription(query, key, 128**-0.5, 17)
    assert got.dtype == torch.float32 and 0.1 < want.max() < 0.99
    torch.testing.assert_close(got[0, :18].double(), want, atol=2e-3, rtol=1e-2)
