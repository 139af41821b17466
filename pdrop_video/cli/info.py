"""`pdrop-video info`: what a recipe means for a model."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

import pdrop_video as pv

from ..costs.decoder import DecoderShape
from ..models import describe
from ..models.number_type import chosen, default_device, own_type
from ..stream.cost import recipe_flops
from .arguments import Gate, Ratios, RecipeFile, Reducer
from .console import CONSOLE, clear_errors
from .fetching import looked_up
from .fetching import said as said_of
from .options import recipe_of

EXAMPLES = """
[bold]Examples[/bold]

  pdrop-video info

  pdrop-video info Qwen/Qwen2.5-VL-7B-Instruct --ratios 0.6,0.3,0.1 --reducer evs:keep=0.5

  pdrop-video info --recipe recipe.yaml
"""


def info(
    model: Annotated[
        str | None, typer.Argument(help="Folder or name on the hub, as --model; left out: the built-in model.")
    ] = None,
    named: Annotated[str | None, typer.Option("--model", hidden=True)] = None,
    recipe: RecipeFile = None,
    gate: Gate = None,
    reducer: Reducer = None,
    ratios: Ratios = None,
    memory: Annotated[str | None, typer.Option(help="Most tokens that a layer remembers; 'none' for no limit.")] = None,
    chunk: Annotated[int, typer.Option(help="Frames per push.", min=1)] = 8,
    height: Annotated[int, typer.Option(help="Height of the frames, in pixels.", min=1, max=8192)] = 720,
    width: Annotated[int, typer.Option(help="Width of the frames, in pixels.", min=1, max=8192)] = 1280,
) -> None:
    """Show what a recipe means for a model: boundaries, tokens, FLOPs, bytes. Reads no weights."""
    with clear_errors():
        opened = recipe_of(recipe, gate=gate, reducer=reducer, ratios=ratios, memory=memory)
        model = model or named
        coming = looked_up(model)
        config, adapter = describe(model)
        shape = DecoderShape.of(config)
        asked, schedule = opened.pyramid.resolve(shape.layers), opened.pyramid.resolve(shape.layers, shape.rank_at)
        step, grid = adapter.frames_per_step, adapter.grid(height, width)
        frames, places = int(60 * adapter.fps), grid[0] * grid[1]
        minute = frames // step * places
        said = opened.as_dict()
        everything = pv.Recipe(pyramid=pv.Pyramid(stages=1), memory=opened.memory)
        full, cut = (
            recipe_flops(each, config, adapter, frames=frames, height=height, width=width, chunk=chunk)
            for each in (everything, opened)
        )
    table = Table(title=escape(model or "built-in model"), show_header=False)
    for name, value in (
        ("family", config.model_type),
        *([] if coming is None else [("to fetch before it is used", said_of(coming))]),
        (f"computed on {default_device()} in", _number_type(config)),
        ("decoder layers", _kinds(shape)),
        ("gate, before the vision tower", said.get("gate", "none")),
        ("reducer, behind it", said.get("reducer", "none")),
        ("drops before layers", _boundaries(schedule.layers, asked.layers)),
        ("visual tokens left", ", ".join(f"{r:.3g}" for r in (1.0, *schedule.ratios))),
        ("remembered a layer", _remembered(opened.memory)),
        (f"visual tokens per {step} frame(s) of {width} x {height}", f"{places} ({grid[0]} x {grid[1]})"),
        (f"visual tokens per minute at {adapter.fps:g} fps", f"{minute:,}"),
        ("mean over the layers", f"{schedule.average(minute):,.0f}"),
        ("watching that minute: gate", _compared(full.gate, cut.gate)),
        ("vision tower", _compared(full.tower, cut.tower)),
        ("reducer", _compared(full.reducer, cut.reducer)),
        ("layers, ranking included", _compared(full.decoder, cut.decoder)),
        ("all of it", _compared(full.total, cut.total)),
        ("KV cache per token (16 bit)", f"{shape.kv_bytes_per_token():,} bytes"),
        *_beside(shape),
        ("trained positions", f"{config.get_text_config().max_position_embeddings:,}"),
    ):
        table.add_row(name, str(value))
    CONSOLE.print(table)
    if shape.uncounted:
        CONSOLE.print(f"FLOPs of the layers are not counted: {shape.uncounted}.")
    if opened.gate is not None:
        CONSOLE.print("A gate leaves out what a video does not change; counted is a video that always does.")


def _number_type(config: Any) -> str:
    """What `load` takes, as far as the size of the weights does not matter, and why."""
    own = own_type(config)
    name, why = chosen(own if default_device() == "cpu" else None, lambda: 0)
    name = str(own).removeprefix("torch.") if name == "auto" else name
    return why if own is None else f"{name}: {why}"


def _kinds(shape: DecoderShape) -> str:
    """How many layers of each kind there are."""
    names = []
    for i in range(shape.layers):
        kind = shape.kind(i)
        name = f"with a window of {kind.window:,}" if kind.window else kind.name
        if not kind.holds:
            name = shape.mixers[i].name if shape.mixers else "with a state"
        names.append(name)
    counts = Counter(names)
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    lent = sum(shape.kind(i).source is not None for i in range(shape.layers))
    beside = f"; {lent} attend to keys of others" if lent else ""
    return str(shape.layers) if set(counts) == {"full"} else f"{shape.layers}: {said}{beside}"


def _boundaries(layers: tuple[int, ...], asked: tuple[int, ...]) -> str:
    """Where tokens are dropped, and where that was to be."""
    said = ", ".join(map(str, layers)) or "none"
    if layers == asked:
        return said
    return f"{said}; asked for {', '.join(map(str, asked))}: moved on to layers that can rank"


def _beside(shape: DecoderShape) -> list[tuple[str, str]]:
    """Bytes of what no budget evicts."""
    windows, states = shape.window_bytes(), sum(shape.state_bytes())
    rows = [("windows, at most (16 bit)", windows), ("states, whatever was seen (16 bit)", states)]
    return [(name, f"{size:,} bytes") for name, size in rows if size]


def _compared(full: int | None, cut: int | None) -> str:
    """FLOPs without and with the recipe."""
    if full is None or cut is None:
        return "not counted"
    if not full:
        return f"{cut / 1e12:.4g} TFLOPs"
    return f"{full / 1e12:.4g} -> {cut / 1e12:.4g} TFLOPs ({cut / full:.0%})"


def _remembered(memory: pv.Memory) -> str:
    if memory.bytes is not None:
        return f"{memory.bytes:,} bytes in all layers"
    return "everything" if memory.tokens is None else f"{memory.tokens:,} tokens"
