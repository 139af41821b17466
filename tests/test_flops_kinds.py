"""FLOPs of decoders whose layers are of several kinds: what PyTorch counts in the unmodified model, and in streams."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from families import budget, video
from hybrids import HYBRIDS, build
from rich.console import Console
from test_flops_stream import Watch, counting
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from true_hybrids import TRUE_HYBRIDS
from typer.testing import CliRunner

import pdrop_video as pv
from eval.runner.clock import Clock
from eval.runner.metered import Metered
from pdrop_video import cli
from pdrop_video.costs.decoder import DecoderShape, decode_flops, logits_flops, prefill_flops
from pdrop_video.costs.mixers import Attention
from pdrop_video.search.budget import Costs
from pdrop_video.search.search import _neighbour, _random, boundaries, enough
from pdrop_video.stream.limits import state_bytes

SIZES: dict[str, Any] = dict(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=96,
    num_attention_heads=4,
    num_key_value_heads=2,
    pad_token_id=0,
    max_position_embeddings=512,
)
WINDOWS = dict(layer_types=["sliding_attention", "full_attention"] * 2, sliding_window=16, head_dim=16)
LINEAR = dict(
    head_dim=16,
    layer_types=["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    linear_key_head_dim=8,
    linear_value_head_dim=12,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5, mrope_section=[2, 1, 1]),
)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=24)
GEMMA = dict(WINDOWS, global_head_dim=32, hidden_size_per_layer_input=8, vocab_size_per_layer_input=96)
LATENT = dict(kv_lora_rank=24, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=12, num_key_value_heads=4)
ROUTED = dict(n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1, moe_intermediate_size=32)
MAMBA = dict(mamba_num_heads=4, mamba_head_dim=8, ssm_state_size=16, n_groups=2, chunk_size=16, head_dim=16)

DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear attention, doubled queries": ("qwen3_5_text", LINEAR),
    "linear attention, experts": ("qwen3_5_moe_text", LINEAR | EXPERTS),
    "windows, per-layer inputs, lent keys": (
        "gemma4_text",
        GEMMA | dict(num_kv_shared_layers=2, use_double_wide_mlp=True),
    ),
    "windows, values that are keys, experts": (
        "gemma4_text",
        GEMMA
        | dict(hidden_size_per_layer_input=0, attention_k_eq_v=True, num_global_key_value_heads=1)
        | dict(enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=32),
    ),
    "windows": ("exaone4", dict(WINDOWS)),
    "latents": ("deepseek_v3", LATENT | ROUTED | dict(q_lora_rank=20, first_k_dense_replace=1, n_shared_experts=2)),
    "latents, whole queries": ("deepseek_v3", LATENT | ROUTED | dict(q_lora_rank=None, first_k_dense_replace=0)),
    "convolutions, windows, gates": (
        "lfm3",
        WINDOWS | dict(layer_types=["conv", "sliding_attention", "conv", "full_attention"], conv_L_cache=5),
    ),
    "Mamba, experts": (
        "nemotron_h",
        MAMBA
        | dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, n_group=1, topk_group=1)
        | dict(layers_block_type=["linear_attention", "moe", "full_attention", "mlp"], moe_latent_size=24)
        | dict(moe_shared_expert_intermediate_size=40, conv_kernel=3),
    ),
}
DECODERS = {name: each for name, each in DECODERS.items() if each[0] in CONFIG_MAPPING}  # older transformers lack some


def tiny(kind: str) -> Any:
    """A random model of four layers."""
    name, own = DECODERS[kind]
    config = CONFIG_MAPPING[name](**SIZES | own | dict(num_hidden_layers=4))
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    model.set_experts_implementation("eager")
    return model


@pytest.mark.parametrize("kind", DECODERS)
def test_every_kind_equals_pytorch(kind: str) -> None:
    """A prompt of more than a chunk of rows, a turn behind it, a short one, and a single row, in one cache."""
    model, past, cache = tiny(kind), [0] * 4, None
    shape = DecoderShape.of(model.config)
    schedule = pv.Pyramid(stages=1).resolve(4)
    for rows in (67, 20, 3, 1):
        ids = torch.arange(rows)[None] + 4
        with counting() as counted:
            cache = model(input_ids=ids, past_key_values=cache, use_cache=True).past_key_values
        want = prefill_flops(shape, schedule, rows, 0, tuple(past), causal=False)
        assert counted.total == want + logits_flops(shape, rows - 1)
        with counting() as counted:  # as `generate` asks it
            model(input_ids=ids, logits_to_keep=1)
        assert counted.total == prefill_flops(shape, schedule, rows, 0, causal=False, newest=True)
        if rows == 1:
            held = tuple(n if shape.kind(i).holds else 0 for i, n in enumerate(past))
            assert want == decode_flops(shape, held, causal=False)
        past = [n + rows for n in past]
        for i in range(4):  # a window's layer keeps one column less than it sees
            if (window := shape.kind(i).window) is not None:
                past[i] = min(past[i], window - 1)


@pytest.mark.parametrize("kind", DECODERS)
def test_ranking_by_the_layer_behind_a_boundary(kind: str) -> None:
    """Its own queries and keys, or those that it borrows, or unfolds."""
    model = tiny(kind)
    shape, visual = DecoderShape.of(model.config), torch.zeros(1, 40, dtype=torch.bool)
    visual[:, 5:33] = True
    for scorer in ("relevance", "value_norm"):
        pyramid = pv.Pyramid(layers=(2,), ratios=(0.5,), scorer=scorer)
        ids = torch.arange(40)[None] + 4
        with torch.no_grad(), pv.pyramid_drop(model, pyramid, visual=visual):
            with counting() as counted:
                last = model(input_ids=ids, use_cache=True, logits_to_keep=1).logits
            torch.testing.assert_close(last, model(input_ids=ids).logits[:, -1:], atol=1e-5, rtol=1e-5)
        schedule = pyramid.resolve(4, shape.rank_at)
        assert schedule.layers in ((2,), (3,))
        assert counted.total == prefill_flops(shape, schedule, 28, 12, causal=False, scorer=scorer, newest=True)


@pytest.mark.parametrize("family", HYBRIDS)
def test_a_whole_stream(family: str) -> None:
    """Pushes that drop at layers which can rank, evict and slide; a probe that no state remembers; a question."""
    lm = build(family, attn="eager", dtype=torch.float32)
    asked, step = list(HYBRIDS).index(family) % 2, lm.adapter.frames_per_step
    pyramid, memory = pv.Pyramid(layers=(2, 5), ratios=(0.6, 0.3)), pv.Memory(tokens=budget(lm, 7))
    watch = Watch(lm, pyramid, memory, standing_question="how many red" if asked else None)
    assert watch.shape.schedule.layers == (3, 7)
    for steps in (1, 2, 1, 2, 3):
        watch.push(steps * step)
    came = watch.prefix + sum(visual + glue for visual, glue in watch.pieces)
    assert watch.stream.cache_tokens[3] < came and bool(watch.shape.probe) == bool(asked)
    with counting() as measured:  # when it opens, a row through each layer with a state, for its bytes
        state_bytes(watch.stream.loop)
    watch.counted -= measured.total
    watch.check()
    watch.check_question()


@pytest.mark.parametrize("family", HYBRIDS)
def test_bytes_of_states_follow_from_sizes(family: str) -> None:
    lm = build(family, dtype=torch.bfloat16)
    assert DecoderShape.of(lm.model.config).state_bytes() == state_bytes(lm.stream().loop)


@pytest.mark.parametrize("family", [name for name in ("qwen3_5", "gemma4") if name in HYBRIDS])
def test_what_a_run_records(family: str) -> None:
    """Pushes that the budget cuts up, told text, and a question over a memory that it narrows at other layers."""
    lm = build(family, attn="eager", dtype=torch.float32)
    stream = lm.stream(pv.Pyramid(), pv.Memory(tokens=budget(lm, 4)), standing_question="how many red")
    metered = Metered(stream, DecoderShape.of(lm.model.config), Clock(), causal=False)
    pictures = video(21)
    with counting() as watched:
        for first, last in ((0, 3), (3, 21)):
            metered.push(pv.FrameChunk(pictures[first:last], tuple(i / 2 for i in range(first, last))))
            metered.add_text("red blue .")
        metered.push(pv.FrameChunk(pictures[:2], (11.0, 11.5)))
    assert watched.total == metered.flops + metered.tower
    assert [visual + text for visual, text in metered.attended()] == list(stream.cache_tokens)
    pyramid = pv.Pyramid(layers=(1, 6), ratios=(0.5, 0.2))
    with counting() as asked:
        answer = stream.ask("what is shown", 3, pyramid=pyramid, decode="none")
    tokens = len(answer.token_ids) + answer.finished
    flops = metered.asking_flops(metered.rows("what is shown"), tokens, pyramid)
    assert asked.total == flops + (metered.asking_tower() or 0)  # for pairs of frames, one waits for its partner


def test_schedules_are_searched_among_layers_that_can_rank() -> None:
    config = CONFIG_MAPPING["qwen3_5_text"](**SIZES | LINEAR | dict(num_hidden_layers=16, layer_types=None))
    shape, rng = DecoderShape.of(config), random.Random(0)
    assert shape.rank_at == (3, 7, 11, 15) and boundaries(shape) == [3, 7, 11, 15]
    costs = Costs(shape, 1000)
    paper = costs.paper(pv.Pyramid(), 4, 0.6)  # at 4, 8 and 12, moved on
    assert paper is not None and paper.layers == (7, 11, 15) and 0.59 < costs.share(paper) <= 0.6
    drawn = list(_random(rng, costs, pv.Pyramid(), 3, 0.6, 20))
    moved = [found for each in drawn * 3 if (found := _neighbour(rng, costs, each, 0.6)) is not None]
    assert len({each.layers for each in drawn}) > 3 and len(moved) > 20
    for pyramid in (*drawn, *moved):
        assert pyramid.layers is not None and set(pyramid.layers) <= set(shape.rank_at)
    with pytest.raises(pv.ConfigError, match="only layers 3, 7, 11, 15 of 16 can rank tokens; use at most 5"):
        enough(shape, 6)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "Qwen3.5-9B",
            {
                "decoder layers": "32: 24 linear attention, 8 full",
                "drops before layers": "11, 19, 27; asked for 8, 16, 24: moved on to layers that can rank",
                "KV cache per token (16 bit)": "32,768 bytes",
                # 24 layers: four columns of 16 * 2 heads of keys and 32 of values, and a matrix each of 32 in float32
                "states, whatever was seen (16 bit)": f"{24 * (2 * 4 * 64 * 128 + 4 * 32 * 128 * 128):,} bytes",
            },
        ),
        (
            "gemma-4-E4B",
            {
                "decoder layers": "42: 35 with a window of 512, 7 full; 18 attend to keys of others",
                "drops before layers": "11, 23, 35; asked for 10, 21, 31: moved on to layers that can rank",
                "KV cache per token (16 bit)": f"{7 * 2 * 2 * 512 * 2:,} bytes",
                "windows, at most (16 bit)": f"{35 * 512 * 2 * 2 * 256 * 2:,} bytes",
            },
        ),
    ],
)
def test_info(name: str, said: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name not in TRUE_HYBRIDS:
        pytest.skip("this transformers is too old for it")
    monkeypatch.setattr("pdrop_video.cli.info.CONSOLE", Console(width=200))
    done = CliRunner().invoke(cli.app, ["info", str(TRUE_HYBRIDS[name].write(tmp_path))])
    assert done.exit_code == 0, done.output
    rows = [line.strip("│┃ ").split("│") for line in done.stdout.splitlines() if line.count("│") == 3]
    told = {key.strip(): value.strip() for key, value in rows}
    assert said.items() <= told.items() and "not counted" not in done.stdout


def test_a_row_sees_what_its_window_holds() -> None:
    """What fused kernels compute, written out: every row over the columns up to its own, the newest of them."""
    for window in (None, 5, 12, 40):
        attention = Attention.of(8, 2, 1, 4, window=window)
        for rows, past in ((1, 0), (7, 0), (9, 4), (3, 20), (30, 11)):
            assert attention.seen(rows, past) == sum(min(past + row + 1, window or 999) for row in range(rows))
