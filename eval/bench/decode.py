"""How long is a decoding step over what a pyramid remembers? A random decoder of the 0.5 B shape.

    python -m eval.bench.decode --json

One token through all layers and the output matrix, in turns within one run: by transformers with its own `DynamicCache`
(`full`), by the library's loop and cache with nothing dropped (`ratio1`) and with the pyramid's share of the tokens in
each layer (`pruned`). Caches hold random numbers, and grow by one token a step as they would.

A step must read the weights, and the keys and values. `predicted` is the ratio of those bytes, or of FLOPs if that is
higher. Where two heads of keys and values serve fourteen of queries, 4,096 tokens weigh 5 % of the weights, and bytes
promise little; with as many heads of keys as of queries, as in LLaVA-NeXT-Video's Vicuna, they weigh a third. Both are
measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from torch import Tensor
from transformers import DynamicCache

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape, decode_flops
from pdrop_video.memory import Limits, Memory, StreamCache
from pdrop_video.memory.evictors import evictor_named
from pdrop_video.pyramid import LayerLoop

from .common import AsJson, Out, in_turns, random_model, report, usual_type

PYRAMID = pv.Pyramid(ratios=(0.5, 0.25, 0.125))


def fill(cache: Any, counts: tuple[int, ...], shape: DecoderShape) -> Any:
    """Random keys and values, so many in each layer."""
    for layer, count in enumerate(counts):
        size = (1, shape.kv_heads, count, shape.head_dim)
        cache.update(torch.randn(size, dtype=usual_type()), torch.randn(size, dtype=usual_type()), layer)
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
    with torch.no_grad():
        times = in_turns(
            {
                "full": step_of_transformers(model, full),
                "ratio1": step_through(model, full),
                "pruned": step_through(model, tuple(pruned)),
            },
            repeats,
        )
    return {
        "tokens": tokens,
        "kv_heads": shape.kv_heads,
        "full_s": times.full.median(),
        "pruned_s": times.pruned.median(),
        "step_ratio": (times.pruned / times.full).median(),
        "pruned_to_ratio1": (times.pruned / times.ratio1).median(),
        "predicted": predicted(model, tuple(pruned), full),
        "ratio1_slowdown": (times.ratio1 / times.full).median(),
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
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """A decoding step over a full and over a pruned cache."""
    rows = []
    for heads in map(int, kv_heads.split(",")):
        model = random_model(kv_heads=heads)
        rows += [measure(model, count, repeats) for count in map(int, tokens.split(","))]
    report("decode", pd.DataFrame(rows), draw, out, as_json)


if __name__ == "__main__":
    typer.run(main)
