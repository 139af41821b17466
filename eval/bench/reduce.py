"""What gates and reducers cost themselves, and what the whole way from frames to a first token gains by them.

    python -m eval.bench.reduce --json
    python -m eval.bench.reduce --only lrcp --only forest --repeats 3

A turn takes about half an hour on one slow core.

A random model with the decoder of the 0.5 B shape and a tower of 6 layers of width 512 watches 16 frames
of 448 x 448 pixels: 2,048 visual tokens in one push. A question stands from the beginning, and is asked at the end. A
patch moves in the first half of the frames, the second half shows a still picture, noise of two levels over all. All
methods in turns within one run, each beside the way without any; reducers leave a quarter of the tokens where that can
be said (`keep`).

`own_share` is the method's own time, of the time of tower and prefill that it saves: what the way takes without any
method, less what it takes with it besides the method itself. `speedup` is how many times faster the whole way is, and
`flops_speedup` what the FLOPs promise: those of tower, method, decoder and question, as `eval.run` counts them.
Medians over the turns; ratios are paired within them. Seconds are those of the process's processors where there is no
accelerator: what else runs on the machine disturbs them less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Annotated, Any

import pandas as pd
import torch
import typer

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.gate import GATES
from pdrop_video.reduce import REDUCERS

from ..runner.clock import Clock
from ..runner.metered import Metered
from .common import AsJson, Out, in_turns, random_lm, report

FRAMES, SIDE = 16, 448
QUESTION = "What moves in the video?"
KEEP = 0.25
NONE = "none"
CLOCK = time.perf_counter if torch.accelerator.is_available() else time.process_time
TOWER = dict(depth=6, hidden_size=512, intermediate_size=2048, num_heads=8, fullatt_block_indexes=[2, 5])
"""A small one, so that a turn takes minutes on two cores."""


def film(frames: int = FRAMES) -> pv.FrameChunk:
    """Half of it moves in a corner, half of it is still."""
    made = torch.Generator().manual_seed(0)
    coarse = torch.randint(40, 216, (1, 3, 14, 14), generator=made).float()
    picture = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic")[0].permute(1, 2, 0)
    shown = picture.expand(frames, -1, -1, -1).clone()
    for number, frame in enumerate(shown):
        at = 24 * min(number, frames // 2)
        frame[at : at + 96, at : at + 96] = torch.tensor([240.0, 30.0, 30.0])
    shown += torch.randint(-2, 3, shown.shape, generator=made)
    return pv.FrameChunk(shown.clamp(0, 255).to(torch.uint8), tuple(0.5 * i for i in range(frames)))


class Timed:
    """A method with a stopwatch around it."""

    def __init__(self, method: Any) -> None:
        self.method, self.seconds = method, [0.0]

    def __call__(self, *given: Any) -> Any:
        """Decide, and add the time to the last entry."""
        begun = CLOCK()
        decided = self.method(*given)
        for part in decided[1].values():
            _ = part.nbytes
        self.seconds[-1] += CLOCK() - begun
        return decided

    def __getattr__(self, name: str) -> Any:
        """All else is the method's own."""
        return getattr(self.method, name)


def methods(only: Sequence[str]) -> dict[tuple[str, str], Any]:
    """Every listed gate and reducer, by slot and name; reducers at the share that all are compared at."""
    chosen = {}
    slots: dict[str, Mapping[str, Any]] = {"gate": GATES, "reducer": REDUCERS}
    for slot, registry in slots.items():
        for name, method in registry.items():
            if not only or name in only:
                takes = slot == "reducer" and any(field.name == "keep" for field in fields(method))
                chosen[slot, name] = replace(method, keep=KEEP) if takes else method
    return chosen


def measure(lm: pv.VideoLM, chosen: dict[tuple[str, str], Any], repeats: int) -> list[dict[str, Any]]:
    """A row for each method that the model's family can serve."""
    shape = DecoderShape.of(lm.model.config)
    timed = {at: Timed(method) for at, method in chosen.items()}

    def opened(at: tuple[str, str] | None) -> pv.VideoStream:
        front: dict[str, Any] = {} if at is None else {at[0]: timed[at]}
        return lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), standing_question=QUESTION, **front)

    flops: dict[tuple[str, str] | None, float] = {}

    def run(at: tuple[str, str] | None, chunk: pv.FrameChunk) -> None:
        if at is not None:
            timed[at].seconds.append(0.0)
        with opened(at) as stream:
            metered = Metered(stream, shape, Clock())
            metered.push(chunk)
            stream.ask(QUESTION, max_new_tokens=1)
            asking = metered.asking_flops(metered.rows(QUESTION), 1)
            flops[at] = metered.flops + (metered.tower or 0) + metered.front + asking

    run(None, film(4))
    runs: dict[str, Callable[[], None]] = {NONE: partial(run, None, film())}
    refused = {}
    for at in chosen:
        try:
            run(at, film(4))  # warms up, on little
            runs[" ".join(at)] = partial(run, at, film())
        except pv.ConfigError as error:
            refused[at] = str(error)
    times = in_turns(runs, repeats, warming=0)
    if CLOCK is time.process_time:
        times = times.attrs["cpu"]
    rows = []
    for at in chosen:
        slot, name = at
        if at in refused:
            print(f"{name} is left out: {refused[at]}", flush=True)
            continue
        own = pd.Series(timed[at].seconds[-repeats:])  # without what warmed up
        way = times[" ".join(at)]
        saved = times[NONE] - (way - own)
        rows.append(
            {
                "method": name,
                "slot": slot,
                "own_share": float((own / saved).median()),
                "speedup": float((times[NONE] / way).median()),
                "flops_speedup": flops[None] / flops[at],
                "own_ms": 1e3 * float(own.median()),
                "way_s": float(way.median()),
                "full_s": float(times[NONE].median()),
            }
        )
    return rows


def draw(table: pd.DataFrame) -> Any:
    """Measured and promised speed-up beside each other."""
    axes = table.set_index("method")[["speedup", "flops_speedup"]].plot.barh(xlabel="times faster than without")
    axes.legend(["measured", "promised by FLOPs"])
    return axes


def main(
    only: Annotated[list[str] | None, typer.Option(help="Only this method; may be repeated.")] = None,
    repeats: Annotated[int, typer.Option(help="Timed turns.", min=1)] = 1,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """What gates and reducers cost, and what they gain."""
    rows = measure(random_lm(tower=TOWER), methods(only or ()), repeats)
    report("reduce", pd.DataFrame(rows), draw, out, as_json)


if __name__ == "__main__":
    typer.run(main)
