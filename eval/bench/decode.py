"""How long is a decoding step over what a pyramid remembers? A random decoder of the 0.5 B shape.

    python -m eval.bench.decode --json

One token through all layers and the output matrix, in turns within one run: by transformers with its own `DynamicCache`
(`full`), by the library's loop and cache with nothing dropped (`ratio1`) and with the pyramid's share of the tokens in
each layer (`pruned`). Caches hold random numbers, and grow by one token a step as they would.

And what answers cost that look again: `hiding` is a step over a full cache of which each layer shows the pyramid's
share, `dstp` the same while a shift is looked for and none is found, against `hiding`; `fixation` a step with three
focal layers over the full cache, past its warm-up, against `ratio1`; `dstp_cpu` and `fixation_cpu` are the same in
processor time. `shift_s` is what finding a shift costs, once: all columns are scored and more of them are gathered.

A step must read the weights, and the keys and values. `predicted` is the ratio of those bytes, or of FLOPs if that is
higher. Where two heads of keys and values serve fourteen of queries, 4,096 tokens weigh 5 % of the weights, and bytes
promise little; with as many heads of keys as of queries, as in LLaVA-NeXT-Video's Vicuna, they weigh a third. Both are
measured.

    python -m eval.bench.decode --compile --json

The step of a stream with the pyramid, compiled (``load(compile=True)``) to plain: of the 0.5 B shape over 4,096 tokens,
and of the built-in model over 1,024. The first time it compiles for two minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from torch import Tensor
from transformers import DynamicCache

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape, decode_flops
from pdrop_video.memory import Limits, Memory, StreamCache, TokenTable
from pdrop_video.memory.evictors import evictor_named
from pdrop_video.pyramid import LayerLoop
from pdrop_video.pyramid.compiled import CompiledStep
from pdrop_video.pyramid.steps import Step
from pdrop_video.stream.looking import Gaze, Row, decode_named
from pdrop_video.stream.looking.dstp import Dstp, Shifting
from pdrop_video.stream.passage import AnsweringPassage, MemoryPassage

from .common import AsJson, Out, in_turns, random_model, report, seconds, usual_type

PYRAMID = pv.Pyramid(ratios=(0.5, 0.25, 0.125))


def fill(cache: Any, counts: tuple[int, ...], shape: DecoderShape, dtype: torch.dtype | None = None) -> Any:
    """Random keys and values, so many in each layer."""
    dtype = dtype or usual_type()
    for layer, count in enumerate(counts):
        size = (1, shape.kv_heads, count, shape.head_dim)
        cache.update(torch.randn(size, dtype=dtype), torch.randn(size, dtype=dtype), layer)
    return cache


def step_through(model: Any, counts: tuple[int, ...]) -> Callable[[], Tensor]:
    """A step of a stream: the loop over a stream's cache, the final norm, the output matrix."""
    shape, loop = DecoderShape.of(model.config), LayerLoop(model.get_decoder(), pv.Pyramid(stages=1))
    cache = fill(StreamCache(shape.kinds, Limits(), evictor_named(Memory().evictor)), counts, shape)
    ids, place = torch.tensor([[7]]), torch.full((3, 1, 1), max(counts))

    def run() -> Tensor:
        rows = loop.run(model.get_input_embeddings()(ids), place, None, cache=cache)
        return model.get_output_embeddings()(loop.text.norm(rows.hidden))

    return run


def steps_of_both(model: Any, tokens: int) -> dict[str, Callable[[], Any]]:
    """A token of a stream with the pyramid, from its id to the next one's; plain and by the compiled step."""
    shape, loop = DecoderShape.of(model.config), LayerLoop(model.get_decoder(), pv.Pyramid(stages=1))
    counts, compiled = tuple(PYRAMID.resolve(shape.layers).per_layer(tokens)), CompiledStep(model)

    def step(cache: StreamCache) -> Step:
        hidden = model.get_input_embeddings()(torch.tensor([[7]]))
        place = torch.full((3, 1, 1), cache.get_seq_length())
        return Step(model, loop, hidden, place, cache, MemoryPassage(cache), 0)

    caches = [
        fill(StreamCache(shape.kinds, Limits(), evictor_named(Memory().evictor)), counts, shape, model.dtype)
        for _ in range(2)
    ]

    def by_function() -> None:
        logits = compiled(step(caches[1]))
        assert logits is not None
        logits.argmax().item()

    return {"plain": lambda: step(caches[0]).alone().argmax().item(), "compiled": by_function}


def compare_compiled(repeats: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """Compiled steps to plain ones, of the random and of the built-in model."""
    rows, figures = [], {}
    models = {"compiled_over_plain": (random_model(kv_heads=2), 4096)}
    models["builtin_compiled_over_plain"] = pv.load().model, 1024
    for name, (model, tokens) in models.items():
        with torch.no_grad():
            times = in_turns(steps_of_both(model, tokens), repeats)
        figures[name] = float((times.compiled / times.plain).median())
        rows.append({"what": name, "tokens": tokens, **times.median().add_suffix("_s"), "ratio": figures[name]})
    return pd.DataFrame(rows), figures


def table_of(tokens: int) -> TokenTable:
    """Visual tokens of a video, 64 a step."""
    index = torch.arange(tokens)
    position = torch.stack([index // 64, index % 64 // 8, index % 8], dim=-1)
    table = TokenTable.text(index, position, position)
    step, row, column = position.unbind(-1)
    return replace(
        table, step=step, row=row, column=column, seconds=step.double(), visual=torch.ones_like(table.visual)
    )


def step_that_looks(
    model: Any, full: tuple[int, ...], shown: tuple[int, ...] | None, decode: str | None
) -> tuple[Callable[[], Tensor], Gaze | None]:
    """The same step over a cache that hides all but some columns, with a gaze that was told what is hidden."""
    shape, loop = DecoderShape.of(model.config), LayerLoop(model.get_decoder(), pv.Pyramid(stages=1))
    cache = fill(StreamCache(shape.kinds, Limits(), evictor_named(Memory().evictor)), full, shape)
    table, schedule = table_of(full[0]), PYRAMID.resolve(shape.layers)
    cache.tables = [table] * shape.layers
    gaze = None if decode is None else decode_named(decode)(cache)
    ids, place = torch.tensor([[7]]), torch.full((3, 1, 1), max(full))
    hidden = model.get_input_embeddings()(ids)
    stays: dict[int, Tensor] = {}  # layers of a stage share what they show, as those of a stream do
    for i, count in enumerate(shown or full):
        stay = None
        if count < full[i]:
            stay = stays.setdefault(count, torch.randperm(full[i])[:count].sort().values)
            cache.layers[i].show(stay)
        if gaze is not None:
            rope = loop.decoder.rope(i, hidden, place)
            gaze.asked(Row(i, loop.decoder.layers[i], hidden, rope), schedule.stage(i), stay)

    def run() -> Tensor:
        passage = None if gaze is None else AnsweringPassage(cache, gaze)
        rows = loop.run(model.get_input_embeddings()(ids), place, None, cache=cache, passage=passage)
        logits: Tensor = model.get_output_embeddings()(loop.text.norm(rows.hidden))
        logits.argmax().item()  # as whoever decodes waits for each token
        if gaze is not None:
            gaze.after()
        return logits

    return run, gaze


def step_of_transformers(model: Any, counts: tuple[int, ...]) -> Callable[[], Tensor]:
    """The unmodified model's step."""
    cache = fill(DynamicCache(config=model.config.get_text_config()), counts, DecoderShape.of(model.config))
    ids, place = torch.tensor([[7]]), torch.full((3, 1, 1), max(counts))
    return lambda: model(input_ids=ids, position_ids=place, past_key_values=cache, use_cache=True).logits


def predicted(model: Any, pruned: tuple[int, ...], full: tuple[int, ...]) -> float:
    """The higher of the two ratios, of bytes and of FLOPs."""
    shape = DecoderShape.of(model.config)
    weights = sum(parameter.nbytes for parameter in model.get_decoder().layers.parameters())
    weights += model.get_output_embeddings().weight.nbytes
    token = shape.kv_bytes_per_token() // shape.layers
    by_bytes = (weights + token * sum(pruned)) / (weights + token * sum(full))
    return max(by_bytes, decode_flops(shape, pruned) / decode_flops(shape, full))


def measure(model: Any, tokens: int, repeats: int) -> dict[str, float | int]:
    """One row of the table."""
    shape = DecoderShape.of(model.config)
    full, pruned = (tokens,) * shape.layers, PYRAMID.resolve(shape.layers).per_layer(tokens)
    focal = "+".join(str(i * shape.layers // 4) for i in (1, 2, 3))
    with torch.no_grad():
        dstp, gaze = step_that_looks(model, full, tuple(pruned), "dstp:tau=0")
        times = in_turns(
            {
                "full": step_of_transformers(model, full),
                "ratio1": step_through(model, full),
                "pruned": step_through(model, tuple(pruned)),
                "hiding": step_that_looks(model, full, tuple(pruned), None)[0],
                "dstp": dstp,
                "fixation": step_that_looks(model, full, None, f"fixation:focal={focal}")[0],
            },
            repeats,
        )
        busy: pd.DataFrame = times.attrs["cpu"]
        assert isinstance(gaze, Shifting)
        gaze.method = Dstp(tau=1, steps=1)
        shift = [seconds(dstp) + seconds(dstp) for _ in range(max(repeats // 8, 1))]  # found by one, over with the next
    return {
        "tokens": tokens,
        "kv_heads": shape.kv_heads,
        "full_s": times.full.median(),
        "pruned_s": times.pruned.median(),
        "step_ratio": (times.pruned / times.full).median(),
        "pruned_to_ratio1": (times.pruned / times.ratio1).median(),
        "predicted": predicted(model, tuple(pruned), full),
        "ratio1_slowdown": (times.ratio1 / times.full).median(),
        "dstp_to_hiding": (times.dstp / times.hiding).median(),
        "fixation_to_ratio1": (times.fixation / times.ratio1).median(),
        "dstp_cpu": (busy.dstp / busy.hiding).median(),
        "fixation_cpu": (busy.fixation / busy.ratio1).median(),
        "shift_s": pd.Series(shift).median() - 2 * times.dstp.median(),
    }


def draw(table: pd.DataFrame) -> Any:
    """Measured and predicted share of a full step."""
    named = table.set_axis([f"{row.tokens:,} tokens,\n{row.kv_heads} KV heads" for row in table.itertuples()])
    axes = named[["step_ratio", "predicted"]].plot.bar(rot=0, ylabel="of a step over the full cache")
    axes.legend(["measured", "by bytes and FLOPs"])
    return axes


def main(
    tokens: Annotated[str, typer.Option(help="Remembered tokens, comma-separated.")] = "4096,16384",
    kv_heads: Annotated[str, typer.Option(help="Heads of keys and values, comma-separated.")] = "2,14",
    repeats: Annotated[int, typer.Option(help="Timed turns.", min=1)] = 40,
    compile: Annotated[bool, typer.Option("--compile", help="A compiled step against a plain one, alone.")] = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """A decoding step over a full and over a pruned cache."""
    if compile:
        table, figures = compare_compiled(repeats)
        report("decode_compiled", table, lambda shown: shown.plot.bar(x="what", y="ratio"), out, as_json, figures)
        return
    rows = []
    for heads in map(int, kv_heads.split(",")):
        model = random_model(kv_heads=heads)
        rows += [measure(model, count, repeats) for count in map(int, tokens.split(","))]
    report("decode", pd.DataFrame(rows), draw, out, as_json)


if __name__ == "__main__":
    typer.run(main)
