"""`pdrop-video info`: what a recipe means for a model."""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from rich.markup import escape
from rich.table import Table

import pdrop_video as pv

from ..costs.decoder import DecoderShape, prefill_flops
from ..models import describe
from .arguments import Ratios
from .console import CONSOLE, clear_errors

EXAMPLES = """
[bold]Examples[/bold]

  pdrop-video info

  pdrop-video info Qwen/Qwen2.5-VL-7B-Instruct --ratios 0.6,0.3,0.1
"""


def info(
    model: Annotated[
        str | None, typer.Argument(help="Folder or name on the hub; left out: the built-in model.")
    ] = None,
    ratios: Ratios = None,
    height: Annotated[int, typer.Option(help="Height of the frames, in pixels.", min=1, max=8192)] = 720,
    width: Annotated[int, typer.Option(help="Width of the frames, in pixels.", min=1, max=8192)] = 1280,
) -> None:
    """Show what a schedule means for a model: boundaries, tokens, FLOPs, bytes. Reads no weights."""
    with clear_errors():
        pyramid = pyramid_of("--ratios", ratios)
        config, adapter = describe(model)
        shape = DecoderShape.of(config)
        schedule = pyramid.resolve(shape.layers)
        step = adapter.frames_per_step
        _, (t, h, w) = adapter.preprocess(torch.zeros(step, height, width, 3, dtype=torch.uint8))
        minute = int(60 * adapter.fps / step) * t * h * w
        full = prefill_flops(shape, pv.Pyramid(stages=1).resolve(shape.layers), minute, 0)
        kept = prefill_flops(shape, schedule, minute, 0)
    table = Table(title=escape(model or "built-in model"), show_header=False)
    for name, value in (
        ("family", config.model_type),
        ("decoder layers", shape.layers),
        ("drops before layers", ", ".join(map(str, schedule.layers)) or "none"),
        ("visual tokens left", ", ".join(f"{r:.3g}" for r in (1.0, *schedule.ratios))),
        (f"visual tokens per {step} frame(s) of {width} x {height}", f"{t * h * w} ({h} x {w})"),
        (f"visual tokens per minute at {adapter.fps:g} fps", f"{minute:,}"),
        ("mean over the layers", f"{schedule.average(minute):,.0f}"),
        ("prefill of that minute", f"{full / 1e12:.4g} -> {kept / 1e12:.4g} TFLOPs ({kept / full:.0%})"),
        ("KV cache per token (16 bit)", f"{shape.kv_bytes_per_token():,} bytes"),
        ("trained positions", f"{config.get_text_config().max_position_embeddings:,}"),
    ):
        table.add_row(name, str(value))
    CONSOLE.print(table)
