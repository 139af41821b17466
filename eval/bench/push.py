"""How much of a push is the library's own? Of the built-in model, and of a random one of the 0.5 B shape.

    python -m eval.bench.push --json

`own_share` is everything but the vision tower's and the decoder layers' own forwards: pixels to patches, positions,
ranking, drops, eviction, tables. The streams are full, so that every push forgets as much as it brings. The built-in
model gets 8 frames of its size; the other one 8 and 2 frames of 224 x 224 (256 and 64 visual tokens), as most of a
push of few tokens does not depend on their number. In processor time, median of `--repeats` pushes.

Three minutes on two cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Annotated, Any

import pandas as pd
import torch
import typer

import pdrop_video as pv

from .common import AsJson, Out, random_lm, report

PYRAMID = pv.Pyramid(ratios=(0.5, 0.25, 0.125))
TOWER = dict(depth=32, hidden_size=512, intermediate_size=2048, num_heads=8)
"""A tower in keeping with a decoder of half a billion weights: about 100 million."""


@contextmanager
def timed(modules: list[Any], spent: list[float]) -> Iterator[None]:
    """Add up the processor time of some modules' forwards, none of which runs within another."""
    begun: list[float] = []

    def end(*_: Any) -> None:
        spent[0] += time.process_time() - begun.pop()

    hooks = [module.register_forward_pre_hook(lambda *_: begun.append(time.process_time())) for module in modules]
    hooks += [module.register_forward_hook(end) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def pushes(lm: pv.VideoLM, frames: int, size: int, budget: int) -> Callable[[], None]:
    """The next push of a stream that is full."""
    torch.manual_seed(0)
    picture = torch.randint(0, 256, (frames, size, size, 3), dtype=torch.uint8)
    stream, clock = lm.stream(PYRAMID, pv.Memory(tokens=budget)), count()

    def push() -> None:
        at = frames * next(clock)
        stream.push(picture, [0.5 * (at + i) for i in range(frames)])

    while stream.visual_tokens < 2 * budget:
        push()
    return push


def measure(name: str, lm: pv.VideoLM, frames: int, size: int, budget: int, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    push, rows = pushes(lm, frames, size, budget), []
    modules = [lm.model.model.visual, *lm.model.get_decoder().layers]
    for _ in range(repeats):
        spent = [0.0]
        with timed(modules, spent):
            begun = time.process_time()
            push()
            rows.append((time.process_time() - begun, spent[0]))
    table = pd.DataFrame(rows, columns=["push", "model"])
    return {
        "what": name,
        "frames": frames,
        "push_ms": 1e3 * table.push.median(),
        "own_ms": 1e3 * (table.push - table.model).median(),
        "own_share": float((1 - table.model / table.push).median()),
    }


def draw(table: pd.DataFrame) -> Any:
    """The shares."""
    return table.plot.bar(x="what", y="own_share", rot=0)


def main(
    repeats: Annotated[int, typer.Option(help="Timed pushes of each.", min=1)] = 10,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """The library's own share of a push."""
    half = random_lm(tower=TOWER)
    rows = [
        measure("built-in", pv.load(device="cpu"), 8, 112, 512, repeats),
        measure("0.5 B", half, 8, 224, 2048, repeats),
        measure("0.5 B, two frames", half, 2, 224, 2048, repeats),
    ]
    names = ("builtin_own_share", "half_b_own_share", "half_b_two_frames_own_share")
    figures = {name: row["own_share"] for name, row in zip(names, rows, strict=True)}
    report("push", pd.DataFrame(rows), draw, out, as_json, figures, "the built-in and a random model")


if __name__ == "__main__":
    typer.run(main)
