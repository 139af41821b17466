"""`pyramid_drop` around all that `generate` offers: batches, sampling, beams, pipelines, hooks; or a clear refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from families import FAMILIES, build, cases, tokenizer, video
from PIL import Image
from reference import full_prompt, masked_forward
from test_one_shot import PYRAMID, llama, masks_of
from torch import Tensor

import pdrop_video as pv
from pdrop_video import Pyramid, pyramid_drop
from pdrop_video.pyramid.rows import CACHE

MODES: dict[str, dict[str, Any]] = {
    "greedy": dict(do_sample=False),
    "sampling": dict(do_sample=True, top_k=20),
    "beams": dict(num_beams=3, do_sample=False, num_return_sequences=2),
    "sampled beams": dict(num_beams=2, do_sample=True),
}


def padded_batch(lm: pv.VideoLM) -> dict[str, Any]:
    """Two videos with questions of different lengths, padded on the left; positions are transformers' own."""
    questions = ("what is shown first ?", "how many red ? what is shown last")
    rows = [full_prompt(lm, video(4, seed=s), [0, 1, 2, 3], q)[0] for s, q in enumerate(questions)]
    length = max(row["input_ids"].shape[1] for row in rows)
    made: dict[str, Any] = {}
    for name in rows[0].keys() - {"input_ids", "position_ids"}:
        made[name] = torch.cat([row[name] for row in rows])
    left = [length - row["input_ids"].shape[1] for row in rows]
    ids = [torch.nn.functional.pad(row["input_ids"], (p, 0), value=1) for row, p in zip(rows, left, strict=True)]
    made["input_ids"] = torch.cat(ids)
    made["attention_mask"] = torch.stack([(torch.arange(length) >= p).long() for p in left])
    if "position_ids" in rows[0]:
        token = lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)
        made["mm_token_type_ids"] = (made["input_ids"] == token).int() * 2
    return made


@pytest.mark.parametrize(("family", "mode"), cases(FAMILIES, MODES, fast=lambda f, m: m == 2 or (f + m) % 3 == 0))
@torch.no_grad()
def test_ratios_of_one_change_nothing(family: str, mode: str) -> None:
    """Token for token what plain transformers generates; and with drops, other layers' caches are smaller."""
    lm = build(family)
    inputs = padded_batch(lm)

    def generate() -> Any:
        torch.manual_seed(0)
        return lm.model.generate(
            **inputs, **MODES[mode], max_new_tokens=6, pad_token_id=0, return_dict_in_generate=True
        )

    want = generate().sequences
    with pyramid_drop(lm.model, Pyramid(layers=(2, 4), ratios=(1.0, 1.0))):
        assert torch.equal(generate().sequences, want)
    with pyramid_drop(lm.model, PYRAMID) as trace:
        cache = generate().past_key_values
    visual = int((inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)).sum())
    assert {len(kept) for kept in trace.kept[0]} == {visual // 2}
    assert [cache.get_seq_length(i) - cache.get_seq_length(0) for i in (1, 2, 5)] == [
        0,
        visual // 2 - visual,
        visual // 4 - visual,
    ]
    assert torch.equal(generate().sequences, want)  # nothing is left behind


@pytest.mark.parametrize(("family", "seed"), [("smolvlm", 0), ("qwen3_vl", 1)])
@torch.no_grad()
def test_beams_under_drops_equal_a_search_with_masks(family: str, seed: int) -> None:
    """The search written out, every hypothesis scored by the unmodified model that may not see what was dropped."""
    lm, beams, length = build(family, seed=seed), 3, 4
    inputs, _, _ = full_prompt(lm, video(4), [0, 1, 2, 3], "what is shown first ?")
    visual = inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)
    if family == "qwen3_vl":
        del inputs["position_ids"]
        inputs["mm_token_type_ids"] = visual[None].int() * 2
    real = torch.ones_like(inputs["input_ids"])
    with pyramid_drop(lm.model, PYRAMID) as trace:
        got = lm.model.generate(
            **inputs, attention_mask=real, num_beams=beams, do_sample=False, max_new_tokens=length, pad_token_id=0
        )

    def scores(tokens: list[int]) -> Tensor:
        more = dict(inputs, input_ids=torch.cat([inputs["input_ids"], torch.tensor([tokens]).long()], 1))
        if "mm_token_type_ids" in inputs:
            more["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(tokens)))
        seen = torch.nn.functional.pad(visual, (0, len(tokens)))
        return masked_forward(lm, more, masks_of(trace, seen, lm.num_layers))[-1].float().log_softmax(-1)

    hypotheses: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(length):
        grown = []
        for total, tokens in hypotheses:
            best = scores(tokens).topk(beams)
            grown += [(total + s, [*tokens, t]) for s, t in zip(best[0].tolist(), best[1].tolist(), strict=True)]
        hypotheses = sorted(grown, reverse=True)[:beams]
    assert got[0, len(visual) :].tolist() == hypotheses[0][1]
    greedy: list[int] = []
    for _ in range(length):
        greedy.append(int(scores(greedy).argmax()))
    assert greedy != hypotheses[0][1]  # the case does need beams


def prompt() -> tuple[Any, Tensor, Tensor]:
    model, ids, visual = llama(), torch.arange(1, 21)[None], torch.zeros(1, 20, dtype=torch.bool)
    visual[:, 3:15] = True
    return model, ids, visual


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "static cache": (dict(cache_implementation="static"), "static caches"),
    "hidden states": (dict(output_hidden_states=True, return_dict_in_generate=True), "output_hidden_states=True"),
    "attentions": (dict(output_attentions=True, return_dict_in_generate=True), "output_attentions=True"),
    "prompt lookup": (dict(prompt_lookup_num_tokens=3), "prompt lookup"),
    "prompt lookup by config": (dict(generation_config=tf.GenerationConfig(prompt_lookup_num_tokens=3)), "lookup"),
    "an assistant": (dict(assistant_model=llama(1)), "assisted generation"),
    "prefill in chunks": (dict(prefill_chunk_size=8), "prefill_chunk_size"),
    "no cache": (dict(use_cache=False), "use_cache=False"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    model, ids, visual = prompt()
    arguments, said = REFUSED[case]
    want = model.generate(input_ids=ids, max_new_tokens=3, do_sample=False)
    ran: list[Any] = []
    hook = model.model.layers[0].register_forward_hook(lambda *_: ran.append(1))
    with pyramid_drop(model, PYRAMID, visual=visual), pytest.raises(pv.ModelError, match=said):
        model.generate(input_ids=ids, **dict(dict(max_new_tokens=3, do_sample=False), **arguments))
    assert not ran  # at once: no layer was run
    hook.remove()
    assert torch.equal(model.generate(input_ids=ids, max_new_tokens=3, do_sample=False), want)


def test_a_refusal_reads_the_models_own_generation_config() -> None:
    model, ids, visual = prompt()
    model.generation_config.prompt_lookup_num_tokens = 3
    with pyramid_drop(model, PYRAMID, visual=visual), pytest.raises(pv.ModelError, match="prompt lookup"):
        model.generate(ids)


@torch.no_grad()
def test_a_mask_of_one_prompt_serves_all_its_beams() -> None:
    model, ids, visual = prompt()
    with pyramid_drop(model, PYRAMID, visual=visual) as trace:
        got = model.generate(input_ids=ids, num_beams=3, do_sample=False, max_new_tokens=4)
        assert [len(kept) for kept in trace.kept[1]] == [3, 3, 3]
    with pyramid_drop(model, PYRAMID, visual=visual.expand(3, -1)):
        assert torch.equal(model.generate(input_ids=ids, num_beams=3, do_sample=False, max_new_tokens=4), got)


@torch.no_grad()
def test_a_second_turn_goes_on_with_the_pruned_cache() -> None:
    """Text, then another picture, over the cache of the first turn: what each turn's picture lost stays hidden."""
    model, first, visual = prompt()
    model.config.image_token_id = 59
    more = torch.tensor([[21, 22, 23], [24, 59, 25]])
    picture = torch.tensor([[30, *[59] * 8, 31, 32]])
    with pyramid_drop(model, PYRAMID, visual=visual) as trace:
        cache = model(input_ids=first, use_cache=True).past_key_values
        kept = [of[0] for of in trace.kept]
        model(input_ids=more[:1], past_key_values=cache)
        assert all(torch.equal(of[0], before) for of, before in zip(trace.kept, kept, strict=True))  # nothing to drop
        out = model(input_ids=picture, past_key_values=cache)
        again = [of[0] for of in trace.kept]
        assert [len(of) for of in again] == [4, 2]
        last = model(input_ids=more[1:, :1], past_key_values=out.past_key_values).logits[0, -1]
    whole = torch.cat([first, more[:1], picture, more[1:, :1]], 1)
    allowed = torch.ones(6, whole.shape[1], whole.shape[1], dtype=torch.bool).tril()
    for boundary, one, two in zip(PYRAMID.layers, kept, again, strict=True):
        for start, count, stays in ((3, 12, one), (24, 8, two)):
            gone = torch.ones(count, dtype=torch.bool)
            gone[stays] = False
            allowed[boundary:, :, start:][..., :count][..., gone] = False
    allowed |= torch.eye(whole.shape[1], dtype=torch.bool)
    model = SimpleNamespace(model=model)
    torch.testing.assert_close(masked_forward(model, {"input_ids": whole}, allowed)[-1], last, atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_padded_second_turn_over_a_pruned_cache() -> None:
    """Two prompts of one length, then two turns of unequal length: the padding is the new turn's alone."""
    model, first, visual = prompt()
    both, turns = torch.cat([first, first.flip(1)]), torch.tensor([[21, 22, 23, 24], [1, 1, 33, 34]])
    alone = []
    for row, turn in zip(both, (turns[:1], turns[1:, 2:]), strict=True):
        with pyramid_drop(model, PYRAMID, visual=visual):
            cache = model(input_ids=row[None], use_cache=True).past_key_values
            alone.append(model(input_ids=turn, past_key_values=cache).logits[0, -1])
    real = torch.ones(2, 24, dtype=torch.long)
    real[1, 20:22] = 0
    positions = torch.tensor([[20, 21, 22, 23], [0, 0, 20, 21]])
    with pyramid_drop(model, PYRAMID, visual=visual.expand(2, -1)):
        cache = model(input_ids=both, use_cache=True).past_key_values
        got = model(input_ids=turns, attention_mask=real, position_ids=positions, past_key_values=cache).logits[:, -1]
    torch.testing.assert_close(got, torch.stack(alone), atol=1e-12, rtol=0)


def test_what_would_be_silently_wrong_is_refused() -> None:
    """Rows that transformers would part into samples, rows by number, pages: by `forward`, not by `generate`."""
    model, ids, visual = prompt()
    packed = torch.cat([torch.arange(9), torch.arange(11)])[None]
    with torch.no_grad():
        apart = model(input_ids=ids[:, 9:], use_cache=False).logits
        torch.testing.assert_close(model(ids, position_ids=packed, use_cache=False).logits[:, 9:], apart)
    with pyramid_drop(model, PYRAMID, visual=visual):
        want = model(ids).logits
        for refused in (dict(position_ids=packed, use_cache=False), dict(cu_seq_lens_q=torch.tensor([0, 9, 20]))):
            with pytest.raises(pv.ModelError, match="pad them into a batch"):
                model(ids, **refused)
        with pytest.raises(pv.ModelError, match="logits_to_keep"):
            model(ids, logits_to_keep=torch.tensor([3, 19]))
        torch.testing.assert_close(model(ids, logits_to_keep=2).logits, want[:, -2:])
        torch.testing.assert_close(model(ids, position_ids=torch.arange(20)[None], use_cache=False).logits, want)
        with pytest.raises(pv.ModelError, match="continuous batching"):
            model.generate_batch([ids[0].tolist()], progress_bar=False)
    assert not {"generate", "forward", "init_continuous_batching"} & vars(model).keys()


@torch.no_grad()
def test_a_cropped_cache_is_refused() -> None:
    """As assisted generation cropped it until lately, to one length: the deeper layers would keep a rejected token."""
    model, ids, visual = prompt()
    with pyramid_drop(model, PYRAMID, visual=visual):
        cache = model(input_ids=ids, use_cache=True).past_key_values
        once = model(input_ids=ids[:, :1], past_key_values=cache).logits
        cache.crop(-1)  # the same number off every layer is no trouble
        assert torch.equal(model(input_ids=ids[:, :1], past_key_values=cache).logits, once)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, :20], layer.values[:, :, :20]
        with pytest.raises(pv.ModelError, match="cache was cropped"):
            model(input_ids=ids[:, :1], past_key_values=cache)


@torch.no_grad()
def test_a_press_prunes_what_is_left() -> None:
    """A hook that shortens each layer's cache, as kvpress does in its own block inside or around this one.

    With nothing dropped it gives what it gives without this library; with drops both savings add up.
    """
    model, ids, visual = prompt()

    def press(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        cache = kwargs[CACHE]
        layer = cache.layers[module.layer_idx]
        if kwargs["hidden_states"].shape[1] > 1:
            best = layer.keys.norm(dim=-1).topk(layer.keys.shape[2] // 2, largest=False).indices.sort().values
            layer.keys = layer.keys.take_along_dim(best[..., None], 2)
            layer.values = layer.values.take_along_dim(best[..., None], 2)
        return output

    @contextmanager
    def pressed() -> Iterator[None]:
        handles = [layer.self_attn.register_forward_hook(press, with_kwargs=True) for layer in model.model.layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def run() -> tuple[list[int], Tensor]:
        cache = model(input_ids=ids, use_cache=True).past_key_values
        logits = [model(input_ids=ids[:, :1], position_ids=torch.tensor([[20 + i]]), past_key_values=cache).logits
                  for i in range(3)]  # fmt: skip
        return [layer.keys.shape[2] for layer in cache.layers], torch.cat(logits)

    with pressed():
        held, want = run()
    assert held == [13] * 6
    for ratios, left in (((1.0, 1.0), [13] * 6), ((0.5, 0.25), [13, 13, 10, 10, 8, 8])):
        block = pyramid_drop(model, Pyramid(layers=(2, 4), ratios=ratios), visual=visual)
        with pressed(), block:
            inside, outside = run(), None
        with pyramid_drop(model, Pyramid(layers=(2, 4), ratios=ratios), visual=visual), pressed():
            outside = run()
        assert inside[0] == outside[0] == left and torch.equal(inside[1], outside[1])
        assert torch.equal(inside[1], want) == (ratios == (1.0, 1.0))
    assert not any(layer.self_attn._forward_hooks for layer in model.model.layers)


@torch.no_grad()
def test_an_error_in_the_middle_of_a_call_leaves_nothing_behind() -> None:
    """A hook of another library that fails between two boundaries, in a block of its own inside or outside."""
    model, ids, visual = prompt()
    want = model(input_ids=ids, labels=ids)
    before = {id(module): dict(vars(module)) for module in model.modules()}

    def broken(*_: Any) -> None:
        raise FloatingPointError

    hook = model.model.layers[3].self_attn.register_forward_hook(broken)
    with pyramid_drop(model, PYRAMID, visual=visual) as trace:
        with pytest.raises(FloatingPointError):
            model(input_ids=ids, labels=ids)
        with pytest.raises(FloatingPointError):
            model.generate(ids, max_new_tokens=2)
        hook.remove()
        assert model(input_ids=ids).loss is None and [len(kept[0]) for kept in trace.kept] == [6, 3]
    got = model(input_ids=ids, labels=ids)
    assert torch.equal(got.logits, want.logits) and torch.equal(got.loss, want.loss)
    assert all(vars(module).keys() == before[id(module)].keys() for module in model.modules())


def test_blocks_do_not_nest() -> None:
    model, ids, visual = prompt()
    with pyramid_drop(model, PYRAMID, visual=visual):
        want = model(input_ids=ids).logits
        with pytest.raises(pv.ConfigError, match="already"), pyramid_drop(model, PYRAMID, visual=visual):
            pass
        assert torch.equal(model(input_ids=ids).logits, want)
    assert "forward" not in model.get_decoder().__dict__


@torch.no_grad()
def test_hooks_on_attention_see_every_layer() -> None:
    """As kvpress hangs its presses on ``self_attn``: with the cache, the rows and their positions' cos and sin."""
    model, ids, visual = prompt()
    seen: list[tuple[int, int, int]] = []

    def press(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        rows = kwargs["hidden_states"].shape[1]
        assert kwargs["position_embeddings"][0].shape[-2] == rows
        seen.append((module.layer_idx, rows, kwargs[CACHE].get_seq_length(module.layer_idx)))
        return output

    handles = [layer.self_attn.register_forward_hook(press, with_kwargs=True) for layer in model.model.layers]
    with pyramid_drop(model, PYRAMID, visual=visual):
        model(input_ids=ids, use_cache=True)
    assert seen == [(0, 20, 20), (1, 20, 20), (2, 14, 14), (3, 14, 14), (4, 11, 11), (5, 11, 11)]
    assert all(len(layer.self_attn._forward_hooks) == 1 for layer in model.model.layers)
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", ["torch.compile", "the wrapper given", "model.compile"])
@torch.no_grad()
def test_compiled_models_drop_too(how: str, backend: str) -> None:
    """A model that ran compiled before the block, runs inside and runs after it: no stale graph, in or out."""
    model, ids, visual = prompt()
    model = model.float()  # inductor's float64 is less exact than its float32
    plain = model(input_ids=ids).logits
    with pyramid_drop(model, PYRAMID, visual=visual):
        want = model(input_ids=ids).logits
    if how == "model.compile":
        model.compile(backend=backend)
    compiled: Any = model if how == "model.compile" else torch.compile(model, backend=backend)
    torch.testing.assert_close(compiled(input_ids=ids).logits, plain, atol=1e-4, rtol=0)
    with pyramid_drop(compiled if how == "the wrapper given" else model, PYRAMID, visual=visual) as trace:
        got = compiled(input_ids=ids).logits
        assert [len(kept[0]) for kept in trace.kept] == [6, 3]
        torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    torch.testing.assert_close(compiled(input_ids=ids).logits, plain, atol=1e-4, rtol=0)
    torch.compiler.reset()


@torch.no_grad()
def test_a_whole_graph_is_refused_by_the_compiler() -> None:
    model, ids, visual = prompt()
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    with pyramid_drop(model, PYRAMID, visual=visual), pytest.raises(RuntimeError, match=r"compiler\.disable"):
        compiled(input_ids=ids)
    torch.compiler.reset()


@torch.no_grad()
def test_pipeline() -> None:
    """``pipeline("image-text-to-text")`` with a processor that runs without torchvision: LLaVA's, for pictures."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = tokenizer(["<image>"], "{% for m in messages %}<image> what is shown ?{% endfor %} <im_start> assistant")
    words.pad_token = words.eos_token = "<im_end>"
    config = tf.LlavaConfig(
        vision_config=build("llava_next_video").model.config.vision_config,
        text_config=build("llava_next_video").model.config.text_config,
        image_token_index=190,
    )
    torch.manual_seed(0)
    model = tf.LlavaForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    strategy = dict(patch_size=8, vision_feature_select_strategy="default")
    processor = tf.LlavaProcessor(pictures, words, **strategy, chat_template=words.chat_template)
    processor.num_additional_image_tokens = 1
    pipe: Any = tf.pipeline("image-text-to-text", model=model, processor=processor)
    picture = Image.fromarray(video(1)[0].numpy())
    messages = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "?"}]}]
    whole = pipe(text=messages, max_new_tokens=8, return_full_text=False, do_sample=False)[0]["generated_text"]
    with pyramid_drop(model, PYRAMID) as trace:
        dropped = pipe(text=messages, max_new_tokens=8, return_full_text=False, do_sample=False)[0]["generated_text"]
    assert [len(kept[0]) for kept in trace.kept] == [32, 16]
    assert whole != dropped
    more = Image.fromarray(video(1, seed=1)[0].numpy())
    shown = [{"type": "image", "image": more}, {"type": "text", "text": "?"}]
    both = [messages, [{"role": "user", "content": shown}]]
    words.padding_side = "left"
    options: dict[str, Any] = dict(max_new_tokens=8, return_full_text=False, do_sample=False)
    with pyramid_drop(model, PYRAMID) as trace:
        alone = [pipe(text=one, **options)[0]["generated_text"] for one in both]
        together = [answers[0]["generated_text"] for answers in pipe(text=both, batch_size=2, **options)]
    assert together == alone and together[0] == dropped != together[1]
    assert len(trace.kept[0]) == 2  # they were one batch
    again = pipe(text=messages, max_new_tokens=8, return_full_text=False, do_sample=False)[0]["generated_text"]
    assert again == whole
