"""How much faster is a prefill, and is that what the FLOPs promise? A random decoder of the 0.5 B shape, bf16.

    python -m eval.bench.prefill --json

`generate` for one token, in turns within one run: by the unmodified model, with tokens dropped, with nothing dropped,
and the bare matrix products. The measured figures of a row are medians over the turns, ratios are paired within them.

`gemm_fraction` compares two rates. One is that of the pruned prefill: all its matrix products, attention included, over
all its time. The other is what this machine reaches where nothing but products is asked of it: every linear layer of
the decoder, each with its own weights and as many rows as the schedule leaves it, one behind the other. What keeps it
below 1 is attention, whose kernel is slower than a product, and all that is not a product (norms, RoPE,
activations). `full_gemm_fraction` is the same for the unmodified model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import pandas as pd
import torch
import typer
from torch import Tensor, nn

import pdrop_video as pv
from pdrop_video.flops import DecoderShape, prefill_flops
from pdrop_video.pyramid import Schedule
from pdrop_video.pyramid.scorers import Ranking
from pdrop_video.pyramid.scorers.relevance import Relevance

from .common import AsJson, Out, in_turns, random_model, report

TEXT_TOKENS = 32
PYRAMIDS = {
    "pyramid": pv.Pyramid(ratios=(0.5, 0.25, 0.125)),
    "fastv": pv.Pyramid(layers=(2,), ratios=(0.25,)),  # FastV (arXiv 2403.06764) is a pyramid with one early boundary
}


class TimedRelevance:
    """PyramidDrop's score with a stopwatch around it: the seconds of every call."""

    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = False

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, ranking: Ranking) -> Tensor:
        """Score and note the time."""
        begun = time.perf_counter()
        scores = Relevance()(ranking)
        self.seconds.append(time.perf_counter() - begun)
        return scores


def bare_products(layers: nn.ModuleList, rows: list[int]) -> tuple[Callable[[], None], int]:
    """The linear layers' products alone, layer by layer for so many rows each, and how many FLOPs they are."""
    linear = [[part for part in layer.modules() if isinstance(part, nn.Linear)] for layer in layers]
    weights = [[part.weight for part in parts] for parts in linear]
    sizes = {(n, weight.shape[1]) for n, parts in zip(rows, weights, strict=True) for weight in parts}
    inputs = {size: torch.randn(size, dtype=weights[0][0].dtype) for size in sizes}

    def run() -> None:
        for n, parts in zip(rows, weights, strict=True):
            for weight in parts:
                nn.functional.linear(inputs[n, weight.shape[1]], weight)

    return run, sum(2 * n * weight.numel() for n, parts in zip(rows, weights, strict=True) for weight in parts)


def measure(model: Any, name: str, visual: int, repeats: int) -> dict[str, float | int | str]:
    """One row of the table."""
    layers, shape = model.get_decoder().layers, DecoderShape.of(model.config)
    scorer = TimedRelevance()
    pyramid = pv.Pyramid(layers=PYRAMIDS[name].layers, ratios=PYRAMIDS[name].ratios, scorer=scorer)
    schedule: Schedule = pyramid.resolve(len(layers))
    rows = visual + TEXT_TOKENS
    ids = torch.randint(1000, (1, rows))  # far below the tokens that stand for pictures
    places = torch.arange(rows)
    mask = ((places >= 4) & (places < 4 + visual))[None]

    def generate() -> Any:
        return model.generate(ids, max_new_tokens=1, do_sample=False)

    def dropped(schedule_of: pv.Pyramid) -> Callable[[], Any]:
        def run() -> Any:
            with pv.pyramid_drop(model, schedule_of, visual=mask):
                return generate()

        return run

    pruned_products, pruned_count = bare_products(layers, [n + TEXT_TOKENS for n in schedule.per_layer(visual)])
    full_products, full_count = bare_products(layers, [rows] * len(layers))
    with torch.no_grad():
        times = in_turns(
            {
                "full": generate,
                "pruned": dropped(pyramid),
                "ratio1": dropped(pv.Pyramid(stages=1)),
                "pruned_products": pruned_products,
                "full_products": full_products,
            },
            repeats,
        )
    pruned_flops = prefill_flops(shape, schedule, visual, TEXT_TOKENS)
    full_flops = prefill_flops(shape, pv.Pyramid(stages=1).resolve(len(layers)), visual, TEXT_TOKENS)
    full, pruned = times.full.median(), times.pruned.median()
    ranking = sum(scorer.seconds[-repeats * len(schedule.layers) :])  # without the turn that warms up
    return {
        "schedule": name,
        "tokens": visual,
        "full_s": full,
        "pruned_s": pruned,
        "predicted_s": full * pruned_flops / full_flops,
        "speedup": (times.full / times.pruned).median(),
        "flops_speedup": full_flops / pruned_flops,
        "gemm_fraction": pruned_flops / pruned_count * (times.pruned_products / times.pruned).median(),
        "full_gemm_fraction": full_flops / full_count * (times.full_products / times.full).median(),
        "ranking_fraction": ranking / times.pruned.sum(),
        "ratio1_slowdown": (times.ratio1 / times.full).median(),
    }


def draw(table: pd.DataFrame) -> Any:
    """Measured and promised speed-up beside each other."""
    named = table.set_axis([f"{row.schedule}, {row.tokens:,}" for row in table.itertuples()])
    axes = named[["speedup", "flops_speedup"]].plot.bar(rot=30, ylabel="times faster than all tokens")
    axes.legend(["measured", "promised by FLOPs"])
    return axes


def main(
    tokens: Annotated[str, typer.Option(help="Visual tokens, comma-separated.")] = "1024,2048,4096",
    repeats: Annotated[int, typer.Option(help="Timed turns.", min=1)] = 5,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Prefill with and without dropping, against what FLOPs predict."""
    model = random_model()
    rows = []
    for name in PYRAMIDS:
        for visual in map(int, tokens.split(",")):
            rows.append(measure(model, name, visual, repeats))
            print(f"{name}, {visual} visual tokens: {rows[-1]['speedup']:.2f} x", flush=True)
    report("prefill", pd.DataFrame(rows), draw, out, as_json)


if __name__ == "__main__":
    typer.run(main)
