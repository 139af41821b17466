"""How much faster is a training step? A random decoder of the 0.5 B shape, every weight trained.

    python -m eval.bench.training --json

A step is forward, loss on the answer's tokens and backward, in turns within one run: by the unmodified model, under
the pyramid and with nothing dropped. The optimizer's own step is the same for all of them and left out.

`flops_speedup` is that of the forward pass, logits of every row that reaches the output matrix included: with
gradients a product costs three times its forward one, whichever it is, so the ratio stays.
"""

from __future__ import annotations

from typing import Annotated, Any

import pandas as pd
import torch
import typer

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape, prefill_flops

from .common import AsJson, Out, in_turns, random_model, report

QUESTION, ANSWER = 24, 8
PYRAMID = pv.Pyramid(ratios=(0.5, 0.25, 0.125))
WHOLE = pv.Pyramid(stages=1)


def forward_flops(shape: DecoderShape, pyramid: pv.Pyramid, visual: int) -> int:
    """A prefill's FLOPs, but with the logits of all rows that are left in place of the last one's."""
    schedule, text = pyramid.resolve(shape.layers, shape.rank_at), QUESTION + ANSWER
    more = schedule.per_layer(visual)[-1] + text - 1
    return prefill_flops(shape, schedule, visual, text) + more * 2 * shape.hidden * shape.vocabulary


def measure(model: Any, visual: int, repeats: int) -> dict[str, float | int]:
    """One row of the table."""
    shape, rows = DecoderShape.of(model.config), visual + QUESTION + ANSWER
    ids = torch.randint(1000, (1, rows))  # far below the tokens that stand for pictures
    places = torch.arange(rows)
    mask = ((places >= 4) & (places < 4 + visual))[None]
    labels = torch.where(places >= rows - ANSWER, ids, -100)

    def full() -> None:
        model.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()

    def under(pyramid: pv.Pyramid) -> None:
        with pv.pyramid_drop(model, pyramid, visual=mask):
            full()

    times = in_turns({"full": full, "pruned": lambda: under(PYRAMID), "ratio1": lambda: under(WHOLE)}, repeats)
    flops = [forward_flops(shape, pyramid, visual) for pyramid in (WHOLE, PYRAMID)]
    return {
        "tokens": visual,
        "full_s": times.full.median(),
        "pruned_s": times.pruned.median(),
        "speedup": (times.full / times.pruned).median(),
        "flops_speedup": flops[0] / flops[1],
        "time_saved": 1 - (times.pruned / times.full).median(),
        "ratio1_slowdown": (times.ratio1 / times.full).median(),
    }


def draw(table: pd.DataFrame) -> Any:
    """Measured and promised speed-up beside each other."""
    axes = table.set_index("tokens")[["speedup", "flops_speedup"]].plot.bar(
        rot=0, ylabel="times faster than all tokens"
    )
    axes.legend(["measured", "promised by FLOPs"])
    return axes


def main(
    tokens: Annotated[str, typer.Option(help="Visual tokens, comma-separated.")] = "1024,2048",
    repeats: Annotated[int, typer.Option(help="Timed turns.", min=1)] = 3,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """A training step with and without dropping."""
    model = random_model().train()
    rows = [measure(model, count, repeats) for count in map(int, tokens.split(","))]
    report("training", pd.DataFrame(rows), draw, out, as_json)


if __name__ == "__main__":
    typer.run(main)
