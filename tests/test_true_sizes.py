"""The real checkpoints' sizes, on the meta device and from folders without weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as tf
from more_families import MORE
from more_true_sizes import MORE_SIZES
from omni import OMNI
from rich.console import Console
from true_hybrids import TRUE_HYBRIDS
from true_sizes import TRUE_SIZES
from typer.testing import CliRunner

import pdrop_video as pv
from pdrop_video import cli
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.models import ADAPTERS, describe
from pdrop_video.models.number_type import default_device
from pdrop_video.pyramid import LayerLoop


@pytest.mark.parametrize("name", TRUE_SIZES | MORE_SIZES)
def test_true_sizes(name: str, tmp_path: Path) -> None:
    size = (TRUE_SIZES | MORE_SIZES)[name]
    with torch.device("meta"):
        model = tf.AutoModelForImageTextToText.from_config(size.config)
    text = model.get_decoder()
    assert LayerLoop(text, pv.Pyramid()).schedule.layers == size.boundaries
    config, adapter = describe(size.write(tmp_path))
    assert config.to_dict() == tf.AutoConfig.from_pretrained(tmp_path).to_dict()
    frames = torch.zeros(adapter.frames_per_step, 720, 1280, 3, dtype=torch.uint8)
    assert adapter.preprocess(frames)[1] == (1, *size.tokens)
    assert DecoderShape.of(config).kv_bytes_per_token() == size.kv_bytes
    attention = text.layers[0].self_attn
    assert 4 * len(text.layers) * attention.k_proj.out_features == size.kv_bytes  # what the model really projects to
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 2) == size.billions


@pytest.mark.parametrize("name", TRUE_SIZES)
def test_info(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pdrop-video info` prints, its FLOPs written out as a loop over the layers."""
    monkeypatch.setattr("pdrop_video.cli.info.CONSOLE", Console(width=200))
    size = TRUE_SIZES[name]
    done = CliRunner().invoke(cli.app, ["info", str(size.write(tmp_path))])
    assert done.exit_code == 0, done.output
    rows = [line.strip("│┃ ").split("│") for line in done.stdout.splitlines() if line.count("│") == 3]
    told = {name.strip(): value.strip() for name, value in rows}
    text = size.config.get_text_config()
    layers, hidden, mlp = text.num_hidden_layers, text.hidden_size, text.intermediate_size
    wide = hidden if name != "Qwen3-VL-8B" else 32 * 128
    narrow = size.kv_bytes // 4 // layers
    step = {"Qwen2-VL-7B": 2, "Qwen2.5-VL-7B": 2, "Qwen3-VL-8B": 2}.get(name, 1)
    h, w = size.tokens
    shares = [0.5 ** sum(layer >= each for each in size.boundaries) for layer in range(layers)]
    costs = []
    for of in ([1.0] * layers, shares):  # pushes of 8 frames over what is held, of which 6,144 tokens stay
        cost, held = 0, [0] * layers
        for first in range(0, size.minute, 8 // step * h * w):
            for layer, share in enumerate(of):
                n = int(min(8 // step * h * w, size.minute - first) * share)
                past = min(held[layer], 6144 - n)
                cost += 2 * n * (hidden * (2 * wide + 2 * narrow) + 3 * hidden * mlp) + 2 * wide * n * (
                    n + 1 + 2 * past
                )
                held[layer] = past + n
        costs.append(cost)
    tower = describe(tmp_path)[1].tower(h, w)
    assert tower is not None  # equal to PyTorch's counter in test_flops_tower
    encoded = tower.flops(size.minute // (h * w))
    assert told == {
        "family": size.config.model_type,
        f"computed on {default_device()} in": "the checkpoint's own",
        "decoder layers": str(layers),
        "drops before layers": ", ".join(map(str, size.boundaries)),
        "visual tokens left": "1, 0.5, 0.25, 0.125",
        f"visual tokens per {step} frame(s) of 1280 x 720": f"{h * w} ({h} x {w})",
        f"visual tokens per minute at {step} fps": f"{size.minute:,}",
        "mean over the layers": f"{sum(int(size.minute * share) for share in shares) / layers:,.0f}",
        "gate, before the vision tower": "none",
        "reducer, behind it": "none",
        "remembered a layer": "6,144 tokens",
        "watching that minute: gate": "0 TFLOPs",
        "vision tower": compared(encoded, encoded),
        "reducer": "0 TFLOPs",
        "layers, ranking included": compared(*costs),
        "all of it": compared(costs[0] + encoded, costs[1] + encoded),
        "KV cache per token (16 bit)": f"{size.kv_bytes:,} bytes",
        "trained positions": f"{size.positions:,}",
    }


def compared(full: int, cut: int) -> str:
    return f"{full / 1e12:.4g} -> {cut / 1e12:.4g} TFLOPs ({cut / full:.0%})"


def test_every_family_is_tested() -> None:
    sizes = {size.config.model_type for size in (TRUE_SIZES | MORE_SIZES | TRUE_HYBRIDS).values()}
    told = {each for each in ADAPTERS if each in tf.CONFIG_MAPPING} - OMNI.keys()
    assert sizes == (told if "perception_lm" in MORE else told - {"perception_lm"})  # else it wants timm
