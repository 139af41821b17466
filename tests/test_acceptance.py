"""Which decoders are served: with nothing dropped they compute, and attend to, what the model does; or are refused."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import accelerate
import peft
import pytest
import torch
import transformers as tf
from decoders import tiny
from families import FAMILIES, QWEN_IDS, QWEN_TEXT, QWEN_VISION, SIGLIP, TEXT, TOWER, build, tokenizer, video
from reference import full_prompt, masked
from test_one_shot import PYRAMID, QUESTION, llama, masks_of
from torch import Tensor

import pdrop_video as pv
from pdrop_video.models import Pixels, adapter_for
from pdrop_video.pyramid import acceptance
from pdrop_video.pyramid.acceptance import accept

SERVED = """
    arcee aria_text cohere ernie4_5 ernie4_5_moe exaone4 gemma gemma3_text glm4 helium hy_v3 llama mixtral nemotron olmo
    phimoe qwen2
    qwen2_moe qwen3 qwen3_moe seed_oss starcoder2
""".split()  # noqa: SIM905
REFUSED = {  # what is said of each
    "granite": "rows that enter layer 0 differ .* by 0.92 of their size",  # (12 - 1) / 12
    "granitemoe": "rows that enter layer 0 differ",
    "mistral": "sliding_window=4",
    "nanochat": "rows that enter layer 0 differ",  # a norm before the first layer
    "cohere2": "queries of layer 0 differ",  # without RoPE
    "smollm3": "queries of layer 3 differ",  # the first without RoPE
    "hunyuan_v1_dense": "queries of layer 0 differ",  # a norm behind RoPE
    "gpt_oss": "attention weights of layer 0 differ",  # sinks
    "gemma2": "attention weights of layer 0 differ",  # a cap
    "doge": "attention weights of layer 0 differ",  # what a column adds
    "diffllama": "values of layer 0 differ",
    "ministral3": "can't be run one by one",
    "minimax_m2": "can't be run one by one",  # a norm over all heads
    "olmo2": "can't be run one by one",  # a norm over all heads
    "apertus": "queries of layer 0 differ",  # an input norm of another name
    "stablelm": "can't be run one by one",  # partial RoPE
    "phi3": "no self_attn with q_proj",
    "llama4_text": "chunked_attention",
    "gpt2": "no `layers`",
    "opt": "no `norm`",
}


def everything(model: Any) -> dict[str, Any]:
    """All that hangs on the modules of a model, by identity, and their configs' text."""
    held: dict[str, Any] = {"": [config.to_dict() for config in (model.config, model.config.get_text_config())]}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            held[f"{name}.{key}"] = [(k, id(v)) for k, v in value.items()] if isinstance(value, dict) else id(value)
        held |= {f"{name}:{key}": buffer.clone() for key, buffer in module._buffers.items() if buffer is not None}
    return held


def same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return before.keys() == after.keys() and all(
        torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]
        for name, value in before.items()
    )


@pytest.mark.parametrize("name", SERVED)
@torch.no_grad()
def test_served(name: str) -> None:
    """Logits with nothing dropped, and the scores at every layer, which are transformers' own eager weights."""
    model, ids = tiny(name), torch.arange(3, 23)[None]
    model.set_attn_implementation("eager")
    visual = torch.zeros(1, 20, dtype=torch.bool)
    visual[:, 3:15] = True
    want = model(input_ids=ids, use_cache=False, output_attentions=True)
    with pv.pyramid_drop(model, pv.Pyramid(layers=(1, 2, 3), ratios=(1.0,) * 3), visual=visual) as trace:
        got = model(input_ids=ids, use_cache=False)
    torch.testing.assert_close(got.logits, want.logits, atol=1e-4, rtol=1e-4)
    for layer, scores in enumerate(trace.scores, 1):
        expected = want.attentions[layer][0, :, -1, 3:15].double().mean(0)
        torch.testing.assert_close(scores[0].double(), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """At the door, with the layer and the figure, in every kind of weights; and the model is what it was."""
    model = tiny(name)
    before = everything(model)
    visual = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(pv.ModelError, match=f"(?s){REFUSED[name]}"), pv.pyramid_drop(model, visual=visual):
        pass
    assert same(before, everything(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["granite", "nanochat", "smollm3", "hunyuan_v1_dense", "cohere2"])
def test_small_weights_of_any_type_hide_nothing(name: str, dtype: torch.dtype) -> None:
    """As a family initialises them, all columns get nearly the same weight, and sixteen bits tell few digits apart."""
    with pytest.raises(pv.ModelError, match=REFUSED[name][:20]):
        accept(tiny(name, dtype, std=None).get_decoder())


@pytest.mark.parametrize("sink", [-4.0, 0.0, 4.0])
def test_a_sink_of_any_size_is_seen(sink: float) -> None:
    """Also where products are so large that no sink shows in them."""
    model = tiny("gpt_oss", std=0.5)
    for layer in model.model.layers:
        layer.self_attn.sinks.data.fill_(sink)
    with pytest.raises(pv.ModelError, match="attention weights of layer 0 differ"):
        accept(model.get_decoder())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_in_every_type(family: str, dtype: torch.dtype) -> None:
    """Nothing is left behind: no hook, flag, buffer, gradient or random number."""
    lm = build(family, dtype=dtype)
    for parameter in lm.model.parameters():  # and where half of the layers overflow
        parameter.grad = torch.zeros_like(parameter)
    lm.model.train()
    before, generator = everything(lm.model), torch.get_rng_state()
    state = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    with torch.inference_mode():
        accept(lm.model.get_decoder(), lm.model)
    assert same(before, everything(lm.model)) and torch.equal(generator, torch.get_rng_state())
    assert all(not parameter.grad.any() for parameter in lm.model.parameters())
    after = lm.model.state_dict()
    assert state.keys() == after.keys() and all(torch.equal(tensor, after[name]) for name, tensor in state.items())


def test_dropout_and_foreign_hooks_play_no_part() -> None:
    """In train() with dropout, under a hook of somebody else, compiled."""
    model = tiny("llama", attention_dropout=0.5, mlp_bias=True).train()
    calls: list[Any] = []
    hook = model.model.layers[1].register_forward_hook(lambda *_: calls.append(_))
    model.model.layers[2].compile(backend="eager", fullgraph=True)
    accept(model.get_decoder())
    assert not calls and model.model.layers[1].self_attn.training
    hook.remove()


def test_angles_that_depend_on_the_length_stay_as_they_are() -> None:
    """What is tried stands far out, where this RoPE puts other angles in its buffer."""
    rope = dict(rope_type="longrope", rope_theta=1e4, factor=4.0, original_max_position_embeddings=64)
    model = tiny("llama", rope_parameters=dict(rope, short_factor=[1.0] * 8, long_factor=[2.0] * 8))
    rotary = model.model.rotary_emb
    with torch.no_grad():
        model(torch.arange(3, 23)[None])
        before = rotary.inv_freq.clone()
        accept(model.get_decoder())
        assert torch.equal(rotary.inv_freq, before)
        rotary(torch.zeros(1, 1, 64), torch.tensor([[200]]))
    assert not torch.equal(rotary.inv_freq, before)


def test_once_for_each_decoder_and_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    trying = acceptance._tried
    monkeypatch.setattr(acceptance, "_tried", lambda *given: (tried.append(1), trying(*given))[1])
    model, visual = llama(), torch.ones(1, 3, dtype=torch.bool)
    for implementation, times in (("sdpa", 1), ("sdpa", 1), ("eager", 2), ("sdpa", 2)):
        model.set_attn_implementation(implementation)
        with pv.pyramid_drop(model, visual=visual):
            pass
        assert len(tried) == times
    held = len(acceptance._ACCEPTED)
    del model
    gc.collect()
    assert len(acceptance._ACCEPTED) < held


def test_a_refusal_is_not_remembered() -> None:
    model, visual = tiny("granite"), torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(pv.ModelError, match=r"0\.92"), pv.pyramid_drop(model, visual=visual):
        pass
    model.model.embedding_multiplier = 1.0
    with pv.pyramid_drop(model, visual=visual):
        pass


def test_what_is_not_finite_is_compared_as_such() -> None:
    """A model that leaves float16's range on a few rows is no other model for that."""
    model = tiny("llama", torch.float16)
    model.model.layers[2].mlp.down_proj.weight.data.mul_(2e4)
    with torch.no_grad():
        assert not model(input_ids=torch.arange(3, 23)[None]).logits.isfinite().all()
    accept(model.get_decoder())


# -- streams ----------------------------------------------------------------------------------------------------------


class ScaledHead(tf.LlavaOnevisionForConditionalGeneration):
    """A model whose logits are not what its output embeddings give."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits / 8
        return output


@pytest.mark.parametrize("text", ["qwen2", "granite", "smollm3", "a scaled head"])
def test_streams(text: str) -> None:
    """The same door; and logits, which a stream takes by the output embeddings alone."""
    kind, extra = ("qwen2", {}) if text == "a scaled head" else (text, {})
    extra = dict(embedding_multiplier=3.0) if text == "granite" else {}
    vision = dict(TOWER, model_type="siglip_vision_model", patch_size=8, image_size=56, vision_use_head=False)
    config = tf.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=dict(TEXT, model_type=kind, **extra),
        image_token_index=190,
        video_token_index=191,
    )
    words = tokenizer(["<image>", "<video>"], build("llava_onevision").tokenizer.chat_template)
    torch.manual_seed(0)
    made = ScaledHead if text == "a scaled head" else tf.LlavaOnevisionForConditionalGeneration
    model = made(config).eval()
    adapter = adapter_for(config.model_type)
    pixels = Pixels.of(dict(size={"height": 56, "width": 56}, **SIGLIP))
    lm = pv.VideoLM(model, adapter(model, pixels, words), adapter.prompt(words), text)
    said = {"granite": "by 0.67 of", "smollm3": "queries of layer 3", "a scaled head": "logits .* by 7 of"}.get(text)
    if said is None:
        lm.stream().push(video(2), [0, 1])
    else:
        with pytest.raises(pv.ModelError, match=said):
            lm.stream()
    if text == "a scaled head":  # inside a block the model takes its logits itself
        with pv.pyramid_drop(model):
            pass


def test_a_stream_may_be_opened_inside_a_block() -> None:
    """Where another function stands in place of the decoder's own."""
    lm = build("qwen2_5_vl")
    with pv.pyramid_drop(lm.model):
        lm.stream().push(video(2), [0, 1])


# -- mixtures of experts, whose models look for what routers said -----------------------------------------------------


@pytest.mark.parametrize("sections", [True, False])
def test_qwen3_vl_moe_equals_masks(sections: bool) -> None:
    """Also where the config leaves M-RoPE's sections to the family."""
    vision = dict(QWEN_VISION, depth=4, hidden_size=32, intermediate_size=64, out_hidden_size=QWEN_TEXT["hidden_size"])
    vision |= dict(num_position_embeddings=64, deepstack_visual_indexes=[1, 2, 3])
    experts = dict(QWEN_TEXT, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
    if not sections:
        experts["rope_parameters"] = dict(rope_type="default", rope_theta=1e4)
    config = tf.Qwen3VLMoeConfig(text_config=experts, vision_config=vision, **QWEN_IDS)
    dense = build("qwen3_vl", dtype=torch.float32)
    inputs, _, _ = full_prompt(dense, video(4), [0, 1, 2, 3], QUESTION)
    torch.manual_seed(0)
    model = tf.Qwen3VLMoeForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    visual = inputs["input_ids"][0] == QWEN_IDS["video_token_id"]
    with torch.no_grad(), pv.pyramid_drop(model, PYRAMID) as trace:
        got = model(**inputs, use_cache=False).logits[0, -1]
        with pytest.raises(pv.ModelError, match="output_router_logits=True"):
            model(**inputs, output_router_logits=True)
    masks = masks_of(trace, visual, 6)
    with torch.no_grad(), masked(model.get_decoder(), masks):
        want = model(**inputs, use_cache=False).logits[0, -1]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    with torch.no_grad(), masked(model.get_decoder(), masks.roll(1, 0)):
        assert (model(**inputs, use_cache=False).logits[0, -1] - got).abs().max() > 1e-2


def test_what_a_decoder_takes_beside_is_not_left_out_in_silence() -> None:
    model, ids = llama(), torch.arange(1, 13)[None]

    class Extra(type(model.model)):
        def forward(self, *args: Any, extra: Any = None, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    model.model.__class__ = Extra
    visual = torch.zeros(1, 12, dtype=torch.bool)
    visual[:, 2:9] = True
    with torch.no_grad(), pv.pyramid_drop(model, PYRAMID, visual=visual):
        want = model(input_ids=ids).logits
        with pytest.raises(pv.ModelError, match="was given extra"):
            model(input_ids=ids, extra=torch.zeros(1))
        assert torch.equal(model(input_ids=ids, extra=None, unheard_of=torch.zeros(1)).logits, want)


# -- weights that are elsewhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_offloaded_models(where: str, tmp_path: Path) -> None:
    """Weights that accelerate brings when a module runs, and takes away again."""
    lm = build("qwen3_vl", dtype=torch.float32)
    inputs, _, _ = full_prompt(lm, video(4), [0, 1, 2, 3], QUESTION)
    with torch.no_grad(), pv.pyramid_drop(lm.model, PYRAMID):
        want = lm.model(**inputs).logits
    device: Any = torch.device("cpu")
    if where == "cpu":
        accelerate.cpu_offload(lm.model, device)
    else:
        accelerate.disk_offload(lm.model, str(tmp_path), device)
    acceptance._ACCEPTED.clear()
    before = everything(lm.model)
    with torch.no_grad(), pv.pyramid_drop(lm.model, PYRAMID):
        got = lm.model(**inputs).logits
    assert torch.equal(got, want) and all(parameter.is_meta for parameter in lm.model.parameters())
    assert before.keys() == everything(lm.model).keys()


def test_weights_without_numbers_are_refused() -> None:
    with torch.device("meta"):
        lm = build("qwen2_5_vl")
    for use in (lambda: pv.pyramid_drop(lm.model).__enter__(), lm.stream):
        with pytest.raises(pv.ModelError, match=r"meta device.*from_pretrained"):
            use()


def test_an_adapter_of_peft_is_tried_with_the_model() -> None:
    """LoRA stands in the projections, by which rows are ranked; a broken one shows in the model's own forward too."""
    model = tiny("qwen3")
    plain = copy.deepcopy(model)
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj"], init_lora_weights=False, lora_dropout=0.5)
    ).train()
    visual = torch.ones(1, 3, dtype=torch.bool)
    with pv.pyramid_drop(wrapped, visual=visual):
        pass
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        assert not torch.allclose(wrapped.eval()(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-2)
