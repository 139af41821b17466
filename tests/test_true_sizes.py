"""The real checkpoints' sizes, on the meta device and from folders without weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as tf
from rich.console import Console
from true_sizes import TRUE_SIZES
from typer.testing import CliRunner

import pdrop_video as pv
from pdrop_video import cli
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.models import ADAPTERS, describe
from pdrop_video.pyramid import LayerLoop


@pytest.mark.parametrize("name", TRUE_SIZES)
def test_true_sizes(name: str, tmp_path: Path) -> None:
    size = TRUE_SIZES[name]
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
    monkeypatch.setattr(cli, "CONSOLE", Console(width=200))
    size = TRUE_SIZES[name]
    done = CliRunner().invoke(cli.app, ["info", str(size.write(tmp_path))])
    assert done.exit_code == 0, done.output
    rows = [line.strip("│┃ ").split("│") for line in done.stdout.splitlines() if line.count("│") == 3]
    told = {name.strip(): value.strip() for name, value in rows}
    text = size.config.get_text_config()
    layers, hidden, mlp = text.num_hidden_layers, text.hidden_size, text.intermediate_size
    wide = hidden if name != "Qwen3-VL-8B" else 32 * 128
    narrow = size.kv_bytes // 4 // layers
    full = kept = 2 * hidden * text.vocab_size
    tokens, counts = size.minute, []
    for layer in range(layers):
        if layer in size.boundaries:
            kept += 2 * hidden * (tokens * narrow + wide) + 2 * tokens * wide  # keys, a query, their products
            tokens = int(size.minute * 0.5 ** (1 + size.boundaries.index(layer)))
        counts.append(tokens)
        for of, n in (("full", size.minute), ("kept", tokens)):
            cost = 2 * n * (hidden * (2 * wide + 2 * narrow) + 3 * hidden * mlp) + 2 * wide * n * (n + 1)
            full, kept = (full + cost, kept) if of == "full" else (full, kept + cost)
    step = {"Qwen2-VL-7B": 2, "Qwen2.5-VL-7B": 2, "Qwen3-VL-8B": 2}.get(name, 1)
    h, w = size.tokens
    assert told == {
        "family": size.config.model_type,
        "decoder layers": str(layers),
        "drops before layers": ", ".join(map(str, size.boundaries)),
        "visual tokens left": "1, 0.5, 0.25, 0.125",
        f"visual tokens per {step} frame(s) of 1280 x 720": f"{h * w} ({h} x {w})",
        f"visual tokens per minute at {step} fps": f"{size.minute:,}",
        "mean over the layers": f"{sum(counts) / layers:,.0f}",
        "prefill of that minute": f"{full / 1e12:.4g} -> {kept / 1e12:.4g} TFLOPs ({kept / full:.0%})",
        "KV cache per token (16 bit)": f"{size.kv_bytes:,} bytes",
        "trained positions": f"{size.positions:,}",
    }


def test_every_family_is_tested() -> None:
    assert {size.config.model_type for size in TRUE_SIZES.values()} == ADAPTERS.keys()
