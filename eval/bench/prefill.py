"""How much faster is a prefill, and is that what the FLOPs promise? A random decoder of the 0.5 B shape.

    python -m eval.bench.prefill --json
    python -m eval.bench.prefill --family qwen3_5 --tokens 2048 --json

`generate` for one token, in turns within one run: by the unmodified model, with tokens dropped by either schedule, with
nothing dropped, and the bare matrix products of the first three. Times are medians over the turns, ratios are paired
within them.

`gemm_fraction` is the rate of the pruned prefill over that of bare products of the same shapes, of as many FLOPs: of
every layer its linear ones with their own weights, each head's two products of attention (queries with keys, weights
with values), and the last row's logits, each by itself and one behind the other. A bare product of attention is square
and has a causal half too many, whose time is not counted. What keeps the fraction below 1 is all that is not a
product: softmax, norms, RoPE, activations, ranking. `full_gemm_fraction` is the same for the unmodified model. Neither
is measured for families whose layers multiply more than that.

`cpu_speedup` and `cpu_ratio1_slowdown` are the ratios of processor seconds instead of seconds: what others do on the
machine disturbs them less.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar

import pandas as pd
import torch
import typer
from torch import Tensor, nn

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape, prefill_flops
from pdrop_video.pyramid.scorers import Ranking
from pdrop_video.pyramid.scorers.relevance import Relevance

from .common import AsJson, Out, in_turns, random_model, report
from .families import FAMILIES, random_of

PLAIN = "qwen2_5_vl"
"""The family that is measured where none is named."""
TEXT_TOKENS = 32
PYRAMIDS = {
    "pyramid": pv.Pyramid(ratios=(0.5, 0.25, 0.125)),
    "fastv": pv.Pyramid(layers=(2,), ratios=(0.25,)),  # FastV (arXiv 2403.06764) is a pyramid with one early boundary
}
WHOLE = pv.Pyramid(stages=1)


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


def bare_linear(model: Any, per_layer: list[int]) -> Callable[[], None]:
    """The products of the linear layers alone, for so many rows in each decoder layer, and of the last row's logits."""
    weights = [
        (rows, part.weight)
        for rows, layer in zip(per_layer, model.get_decoder().layers, strict=True)
        for part in layer.modules()
        if isinstance(part, nn.Linear)
    ]
    weights.append((1, model.get_output_embeddings().weight))
    inputs = {size: torch.randn(size, dtype=model.dtype) for size in {(rows, w.shape[1]) for rows, w in weights}}

    def run() -> None:
        for rows, weight in weights:
            nn.functional.linear(inputs[rows, weight.shape[1]], weight)

    return run


def bare_attention(model: Any, per_layer: list[int]) -> Callable[[], None]:
    """The two products of every head alone, the whole square of each, into one buffer."""
    heads, sizes = DecoderShape.of(model.config), set(per_layer)
    queries, keys, values, found = (
        {rows: torch.randn(rows, heads.head_dim, dtype=model.dtype) for rows in sizes} for _ in range(4)
    )
    squares = {rows: torch.empty(rows, rows, dtype=model.dtype) for rows in sizes}

    def run() -> None:
        for rows in per_layer:
            for _ in range(heads.heads):
                torch.mm(queries[rows], keys[rows].T, out=squares[rows])
                torch.mm(squares[rows], values[rows], out=found[rows])

    return run


def measure(
    model: Any, visual: int, repeats: int, family: str = "qwen2_5_vl", bare: bool = True
) -> list[dict[str, float | int | str | None]]:
    """The rows of the table for so many visual tokens: one for each schedule, and all in the same turns.

    With `bare`, the bare products are measured, too.
    """
    shape, rows = DecoderShape.of(model.config), visual + TEXT_TOKENS
    ids = torch.randint(16, min(1000, shape.vocabulary), (1, rows))  # none of the tokens that stand for pictures
    places = torch.arange(rows)
    mask = ((places >= 4) & (places < 4 + visual))[None]
    scorers = {name: TimedRelevance() for name in PYRAMIDS}

    def generate() -> Any:
        return model.generate(ids, max_new_tokens=1, do_sample=False)

    def under(pyramid: pv.Pyramid) -> Any:
        with pv.pyramid_drop(model, pyramid, visual=mask):
            return generate()

    schedules = {"full": WHOLE.resolve(shape.layers, shape.rank_at)}
    runs: dict[str, Callable[[], Any]] = {"full": generate, "ratio1": partial(under, WHOLE)}
    for name, pyramid in PYRAMIDS.items():
        schedules[name] = pyramid.resolve(shape.layers, shape.rank_at)
        runs[name] = partial(under, replace(pyramid, scorer=scorers[name]))
    for name, schedule in schedules.items() if bare else ():
        per_layer = [n + TEXT_TOKENS for n in schedule.per_layer(visual)]
        runs[f"{name} linear"], runs[f"{name} attention"] = (
            bare_linear(model, per_layer),
            bare_attention(model, per_layer),
        )
    with torch.no_grad():
        times = in_turns(runs, repeats)
    flops = {
        name: prefill_flops(shape, schedule, visual, TEXT_TOKENS, newest=True) for name, schedule in schedules.items()
    }
    cpu = times.attrs["cpu"]

    def fraction(products: str, whole: str) -> float | None:
        """Of a prefill, what its bare products take."""
        if not bare:
            return None
        return float(((times[f"{products} linear"] + times[f"{products} attention"] / 2) / times[whole]).median())

    return [
        {
            "family": family,
            "schedule": name,
            "tokens": visual,
            "full_s": times.full.median(),
            "pruned_s": times[name].median(),
            "predicted_s": times.full.median() * flops[name] / flops["full"],
            "speedup": (times.full / times[name]).median(),
            "flops_speedup": flops["full"] / flops[name],
            "gemm_fraction": fraction(name, name),
            "full_gemm_fraction": fraction("full", "full"),
            # without the turn that warms up
            "ranking_fraction": sum(scorer.seconds[-repeats * len(schedules[name].layers) :]) / times[name].sum(),
            "ratio1_slowdown": (times.ratio1 / times.full).median(),
            "cpu_speedup": (cpu.full / cpu[name]).median(),
            "cpu_ratio1_slowdown": (cpu.ratio1 / cpu.full).median(),
        }
        for name, scorer in scorers.items()
    ]


def draw(table: pd.DataFrame) -> Any:
    """Measured and promised speed-up beside each other."""
    named = table.set_axis([f"{row.schedule}, {row.tokens:,}" for row in table.itertuples()])
    axes = named[["speedup", "flops_speedup"]].plot.bar(rot=30, ylabel="times faster than all tokens")
    axes.legend(["measured", "promised by FLOPs"])
    return axes


def main(
    tokens: Annotated[str, typer.Option(help="Visual tokens, comma-separated.")] = "1024,2048,4096",
    family: Annotated[str, typer.Option(help=f"Of the random decoder: qwen2_5_vl, {', '.join(FAMILIES)}.")] = PLAIN,
    repeats: Annotated[int, typer.Option(help="Timed turns.", min=1)] = 5,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Prefill with and without dropping, against what FLOPs predict."""
    if family not in (PLAIN, *FAMILIES):
        raise typer.BadParameter(f"{family} is not known here; choose {PLAIN}, {', '.join(FAMILIES)}.")
    model = random_model() if family == PLAIN else random_of(family)
    rows = []
    for visual in map(int, tokens.split(",")):
        rows += measure(model, visual, repeats, family, bare=family == PLAIN)
        print(f"{visual:,} visual tokens: {rows[-2]['speedup']:.2f} x, {rows[-1]['speedup']:.2f} x", flush=True)
    report(
        "prefill" if family == PLAIN else f"prefill_{family}",
        pd.DataFrame(rows).sort_values(["schedule", "tokens"], ascending=[False, True], ignore_index=True),
        draw,
        out,
        as_json,
    )


if __name__ == "__main__":
    typer.run(main)
