"""Draw what a stream remembers: the frames of a video, once for each stage, with the forgotten places dimmed.

python -m demos.picture demos/clips/clip.mp4 --out picture.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import typer
from matplotlib.figure import Figure
from numpy.typing import NDArray

import pdrop_video as pv

mpl.use("Agg")
DIMMED = 0.18
"""Brightness of a place whose token was dropped."""


def main(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    model: Annotated[str | None, typer.Option(help="Folder or hub name; the built-in model if left out.")] = None,
    steps: Annotated[int, typer.Option(help="How many steps of time to show, evenly spaced.", min=1)] = 8,
    allocator: Annotated[str, typer.Option(help="How the budget is split over time.")] = "global",
) -> None:
    """Watch a video and draw which places each stage still attends to."""
    lm = pv.load(model)
    stream = lm.stream(pv.Pyramid(allocator=allocator))
    frames: list[NDArray[np.uint8]] = []
    seconds: list[float] = []
    with pv.open_video(video, fps=lm.adapter.fps, chunk=8) as reader:
        for chunk in reader:
            stream.push(chunk)
            frames += list(chunk.frames.numpy())
            seconds += chunk.seconds
    every = lm.adapter.frames_per_step
    draw(stream, frames[::every], seconds[::every], steps).savefig(out, dpi=110)
    typer.echo(f"wrote {out}")


def draw(stream: pv.VideoStream, frames: list[NDArray[np.uint8]], seconds: list[float], steps: int) -> Figure:
    """One column for a step of time, one row for a stage."""
    shown = np.unique(np.linspace(0, len(frames) - 1, min(steps, len(frames))).round().astype(int))
    stages = len(stream.loop.schedule.layers) + 1
    whole = stream.held(0)
    rows, columns = int(whole.row.max()) + 1, int(whole.column.max()) + 1
    figure = Figure(figsize=(1.35 * len(shown) + 1.5, 1.45 * stages + 0.3), layout="constrained")
    axes = figure.subplots(stages, len(shown), squeeze=False)
    first_layers = (0, *stream.loop.schedule.layers, stream.loop.schedule.num_layers)
    for stage in range(stages):
        table = stream.held(stage)
        for axis, step in zip(axes[stage], shown, strict=True):
            here = (table.step == step) & table.visual
            kept = np.zeros((rows, columns), bool)
            kept[table.row[here].numpy(), table.column[here].numpy()] = True
            axis.imshow(masked(frames[step], kept))
            axis.set(xticks=[], yticks=[])
            if stage == 0:
                axis.set_title(f"{seconds[step]:.1f} s", fontsize=9)
        left, right = first_layers[stage], first_layers[stage + 1] - 1
        visual = int(table.visual.sum())
        axes[stage, 0].set_ylabel(f"layers {left}-{right}\n{visual} tokens", fontsize=9)
    return figure


def masked(frame: NDArray[np.uint8], kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A frame with the places that were dropped made dark."""
    height, width = frame.shape[:2]
    down = np.arange(height) * kept.shape[0] // height
    across = np.arange(width) * kept.shape[1] // width
    light = np.where(kept[np.ix_(down, across)], 1.0, DIMMED)
    return (frame * light[..., None]).astype(np.uint8)


if __name__ == "__main__":
    typer.run(main)
