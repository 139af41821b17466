"""`pyramid_drop` inside plain transformers: vision-language models, batches, generation, clean exits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from families import FAMILIES, build, cases, video
from reference import full_prompt, masked_forward
from transformers import LlamaConfig, LlamaForCausalLM

import pdrop_video as pv
from pdrop_video import Pyramid, pyramid_drop

QUESTION = "what is shown first ?"
PYRAMID = Pyramid(layers=(2, 4), ratios=(0.5, 0.25))


def masks_of(trace: pv.Trace, visual: torch.Tensor, layers: int, boundaries: Sequence[int] = (2, 4)) -> torch.Tensor:
    """Per-layer masks [layers, tokens, tokens] that hide what one sample dropped."""
    (tokens,) = visual.shape
    allowed = torch.ones(layers, tokens, tokens, dtype=torch.bool).tril()
    rows = visual.nonzero()[:, 0]
    for boundary, kept in zip(boundaries, trace.kept, strict=True):
        gone = torch.ones(len(rows), dtype=torch.bool)
        gone[kept[0]] = False
        allowed[boundary:, :, rows[gone]] = False
    return allowed | torch.eye(tokens, dtype=torch.bool)


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_prefill_equals_masks(family: str, attn: str) -> None:
    """Proof 2 for one-shot use; visual rows are found by the model's own token ids."""
    lm = build(family, attn)
    inputs, _, _ = full_prompt(lm, video(6), [0.5 * i for i in range(6)], QUESTION)
    visual = inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)
    with pyramid_drop(lm.model, PYRAMID) as trace:
        got = lm.model(**inputs, use_cache=False).logits[0, -1]
    n = int(visual.sum())
    assert [len(kept[0]) for kept in trace.kept] == [n // 2, n // 4]
    want = masked_forward(lm, inputs, masks_of(trace, visual, lm.num_layers))[-1]
    torch.testing.assert_close(got, want, atol=1e-9 if attn == "sdpa" else 2e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "boundaries"),
    cases(FAMILIES, ((1,), (2, 3), (1, 2, 3), (1, 2, 3, 4, 5), (5,)), fast=lambda f, b: f in (2, b)),
)
@torch.no_grad()
def test_stages_anywhere(family: str, boundaries: tuple[int, ...]) -> None:
    """Also before each of Qwen3-VL's layers that add deepstack features, which the survivors must still get."""
    lm = build(family)
    inputs, _, _ = full_prompt(lm, video(6), [0.5 * i for i in range(6)], QUESTION)
    visual = inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)
    pyramid = Pyramid(layers=boundaries, ratios=[0.7 ** (s + 1) for s in range(len(boundaries))])
    with pyramid_drop(lm.model, pyramid) as trace:
        got = lm.model(**inputs).logits[0, -1]
    masks = masks_of(trace, visual, lm.num_layers, boundaries)
    torch.testing.assert_close(got, masked_forward(lm, inputs, masks)[-1], atol=1e-9, rtol=0)
    assert (got - masked_forward(lm, inputs, masks.roll(1, 0))[-1]).abs().max() > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_generate_equals_step_by_step(family: str) -> None:
    lm = build(family)
    inputs, _, _ = full_prompt(lm, video(4), [0, 1, 2, 3], QUESTION)
    ids = inputs["input_ids"]
    with pyramid_drop(lm.model, PYRAMID):
        generated = lm.model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
        out = lm.model(**inputs, use_cache=True)
        cache, tokens = out.past_key_values, []
        for step in range(6):
            tokens.append(out.logits[:, -1].argmax(-1, keepdim=True))
            more: dict[str, Any] = {}
            if "position_ids" in inputs:
                more["position_ids"] = inputs["position_ids"].max() + 1 + torch.full((3, 1, 1), step)
            out = lm.model(input_ids=tokens[-1], past_key_values=cache, use_cache=True, **more)
    assert generated.tolist() == torch.cat(tokens, 1)[0].tolist()
    assert cache.get_seq_length(5) < cache.get_seq_length(0)  # decoding reads the pruned layers, not full ones


def llama(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).double().eval()


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@torch.no_grad()
def test_a_padded_batch_equals_its_samples(attn: str, positions: str) -> None:
    """Rows of different lengths and different visual counts, left padding: prefill and six decoded tokens."""
    model = llama()
    if attn == "eager":  # transformers' eager masks overflow to nan in float64 where a padding row sees nothing
        model = model.float()
    model.set_attn_implementation(attn)
    pyramid = Pyramid(layers=(2, 4), ratios=(0.5, 0.25), positions=positions)
    lengths, spans = [20, 26, 23], [(3, 13), (5, 22), (2, 2)]  # the last sample has no visual token at all
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(1, 60, (n,), generator=generator) for n in lengths]
    masks = [torch.zeros(n, dtype=torch.bool) for n in lengths]
    for mask, (a, b) in zip(masks, spans, strict=True):
        mask[a:b] = True
    alone = []
    for sample, mask in zip(ids, masks, strict=True):
        with pyramid_drop(model, pyramid, visual=mask[None]) as trace:
            tokens = model.generate(
                input_ids=sample[None],
                attention_mask=torch.ones(1, len(sample)),
                max_new_tokens=6,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
            alone.append((tokens, [kept[0] for kept in trace.kept]))
    longest = max(lengths)
    left = [longest - n for n in lengths]
    batch = torch.stack([torch.nn.functional.pad(s, (p, 0)) for s, p in zip(ids, left, strict=True)])
    visual = torch.stack([torch.nn.functional.pad(m, (p, 0)) for m, p in zip(masks, left, strict=True)])
    attention = torch.stack([(torch.arange(longest) >= p).long() for p in left])
    with pyramid_drop(model, pyramid, visual=visual) as trace:
        together = model.generate(
            input_ids=batch,
            attention_mask=attention,
            max_new_tokens=6,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        kept = [[per_sample[b] for per_sample in trace.kept] for b in range(3)]
    for b, (single, kept_alone) in enumerate(alone):
        if kept_alone:
            assert all(torch.equal(x, y) for x, y in zip(kept[b], kept_alone, strict=True))
        assert together.sequences[b, longest:].tolist() == single.sequences[0, lengths[b] :].tolist()
        for step in range(6):
            torch.testing.assert_close(together.logits[step][b], single.logits[step][0], atol=3e-5, rtol=0)


def test_the_model_is_restored_whatever_happens() -> None:
    model = llama()
    visual = torch.zeros(1, 12, dtype=torch.bool)
    visual[:, 2:9] = True
    text = model.get_decoder()

    def of_another_library(*args: Any, **kwargs: Any) -> Any:
        return type(text).forward(text, *args, **kwargs)

    for installed in (None, of_another_library):
        if installed is not None:
            text.forward = installed
        hooks = len(model._forward_hooks), len(model._forward_pre_hooks)
        with pytest.raises(ZeroDivisionError), pyramid_drop(model, PYRAMID, visual=visual):
            assert text.__dict__["forward"] is not installed
            raise ZeroDivisionError
        assert text.__dict__.get("forward") is installed
        assert (len(model._forward_hooks), len(model._forward_pre_hooks)) == hooks


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("asked", ["output_hidden_states", "output_attentions"])
@torch.no_grad()
def test_what_has_no_shape_is_refused(family: str, asked: str) -> None:
    """Rows differ from layer to layer; asked for by argument, and by the config, which gives no argument to see."""
    lm = build(family)
    inputs, _, _ = full_prompt(lm, video(2), [0, 1], QUESTION)
    with pyramid_drop(lm.model, PYRAMID):
        with pytest.raises(pv.ModelError, match=f"{asked}=True"):
            lm.model(**inputs, **{asked: True})
        if asked == "output_hidden_states":  # attentions need the eager implementation to be set in a config
            lm.model.get_decoder().config.output_hidden_states = True
            with pytest.raises(pv.ModelError, match=f"{asked}=True"):
                lm.model(**inputs)


def test_tuples_and_arguments_by_position() -> None:
    """The loss stands first in a tuple, as in transformers, and labels are found wherever they stand."""
    model, ids = llama(), torch.arange(1, 21)[None]
    visual = torch.zeros(1, 20, dtype=torch.bool)
    visual[:, 3:15] = True
    labels = ids.masked_fill(torch.arange(20)[None] < 17, -100)
    with pyramid_drop(model, PYRAMID, visual=visual) as trace:
        want = model(input_ids=ids, labels=labels)
        assert trace.rows is not None
        assert trace.rows[0].tolist() == [0, 1, 2, *(3 + trace.kept[1][0]).tolist(), *range(15, 20)]
        loss, logits, *_ = model(ids, None, None, None, None, labels, return_dict=False)
    assert torch.equal(loss, want.loss) and torch.equal(logits, want.logits)
    by_hand = torch.nn.functional.cross_entropy(logits[0, -4:-1].float(), ids[0, -3:])
    torch.testing.assert_close(loss, by_hand, atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_failing_call_leaves_the_block_usable() -> None:
    model = llama()
    visual = torch.zeros(1, 12, dtype=torch.bool)
    visual[:, 2:9] = True
    ids = torch.arange(1, 13)[None]
    with pyramid_drop(model, PYRAMID, visual=visual):
        want = model(input_ids=ids).logits
        for refused in (dict(output_hidden_states=True), dict(attention_mask=torch.ones(1, 1, 12, 12))):
            with pytest.raises(pv.ModelError):
                model(input_ids=ids, **refused)
        with pytest.raises(pv.ConfigError, match=r"\(1, 12\)"):
            model(input_ids=ids[:, :7])
        assert torch.equal(model(input_ids=ids).logits, want)


def test_visual_rows_must_be_known() -> None:
    model = llama()
    with pytest.raises(pv.ConfigError, match="visual=mask"), pyramid_drop(model):
        pass
    lm = build("qwen2_5_vl")
    with pytest.raises(pv.ConfigError, match="embeddings"), pyramid_drop(lm.model), torch.no_grad():
        lm.model(inputs_embeds=torch.zeros(1, 9, 64, dtype=torch.float64))


def test_training_of_samples_with_and_without_answers() -> None:
    """Samples with different answers in one padded batch: loss and gradients equal those one by one."""
    model = llama().train()
    lengths, labelled = [22, 18], [[(12, 15), (18, 22)], [(14, 18)]]
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(1, 60, (2, 22), generator=generator)
    labels, visual = torch.full((2, 22), -100), torch.zeros(2, 22, dtype=torch.bool)
    for b, spans in enumerate(labelled):
        visual[b, 2:10] = True
        for start, end in spans:
            labels[b, start:end] = ids[b, start:end]
    attention = torch.stack([(torch.arange(22) < n).long() for n in lengths])  # padded on the right, as collators do
    with pyramid_drop(model, PYRAMID, visual=visual):
        together = model(input_ids=ids, attention_mask=attention, labels=labels)
    total, count = 0.0, 0
    for b, n in enumerate(lengths):
        with pyramid_drop(model, PYRAMID, visual=visual[b : b + 1, :n]) as trace:
            out = model(input_ids=ids[b : b + 1, :n], labels=labels[b : b + 1, :n])
        assert [len(kept[0]) for kept in trace.kept] == [4, 2]
        answered = int((labels[b, 1:n] != -100).sum())
        total, count = total + out.loss * answered, count + answered
    torch.testing.assert_close(together.loss, total / count, atol=1e-6, rtol=0)
    with pyramid_drop(model, PYRAMID, visual=visual[:1]) as trace:
        model(input_ids=ids[:1], labels=torch.full((1, 22), -100))
    assert [len(kept[0]) for kept in trace.kept] == [8, 8]  # no answer, no query row: nothing is dropped
