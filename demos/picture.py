"""Draw what a stream remembers: the frames of a video, once for each stage, with the forgotten places dimmed.

python -m demos.picture demos/clips/clip.mp4 --out picture.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import pdrop_video as pv
from pdrop_video import plots


def main(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    model: Annotated[str | None, typer.Option(help="Folder or hub name; the built-in model if left out.")] = None,
    moments: Annotated[int, typer.Option(help="How many moments to show, evenly spaced.", min=1)] = 8,
    allocator: Annotated[str, typer.Option(help="How the budget is split over time.")] = "global",
) -> None:
    """Watch a video and draw which places each stage still attends to."""
    lm = pv.load(model)
    stream, album = lm.stream(pv.Pyramid(allocator=allocator)), plots.Album()
    with pv.open_video(video, fps=lm.adapter.fps, chunk=8) as reader:
        for chunk in reader:
            stream.push(chunk)
            album.add(stream, chunk)
    plots.kept(stream, album, moments).savefig(out, dpi=110, facecolor="white")
    typer.echo(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
