"""`pdrop-video calibrate`: what methods know of one model, found offline and written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

import pdrop_video as pv

from ..search.heads import calibrate
from ..search.judge import Clip
from ..video.address import Address
from .arguments import Chunk, Device, Dtype, Model
from .console import CONSOLE, ERRORS, clear_errors
from .fetching import announced
from .options import check_out, check_questions

EXAMPLES = """
[bold]Example[/bold]

  pdrop-video calibrate hawk a.mp4 b.mp4 --question "What happens?" --out hawk.json

then scorer hawk:weights=hawk.json, with a first boundary before layer 0.
"""

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Find what a method knows of one model, offline.")


@app.callback()
def main() -> None:
    """Of which method."""


@app.command(epilog=EXAMPLES)
def hawk(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="One or more.")],
    out: Annotated[Path, typer.Option(help="The JSON file that the scorer reads.")],
    question: Annotated[list[str], typer.Option(help="Asked of every video; may be repeated.")],
    model: Model = None,
    frames: Annotated[int, typer.Option(help="Of each video, evenly spaced; kept decoded.", min=1)] = 16,
    chunk: Chunk = 8,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Weigh the heads of layer 0 for the scorer hawk, by switching each off. Needs videos and questions, no answers."""
    with clear_errors():
        check_questions(question)
        for video in videos:
            Address.of(video)
        check_out(out)
        lm, clips = pv.load(announced(model).fetch(), device=device, dtype=dtype), []
        for asked in question:
            lm.bounded("one of the questions", asked)
        for video in videos:
            with pv.open_video(video, frames=frames, chunk=chunk) as reader:
                clips.append(Clip(reader.source, list(reader), question))

        def watch(done: int, of: int) -> None:
            ERRORS.print(f"{done} of {of} heads", highlight=False)

        found = calibrate(lm, clips, watch)
        found.save(out, model=lm.name, videos=[clip.name for clip in clips], questions=question)
    best = sorted(range(len(found.weights)), key=lambda head: -found.weights[head])[:5]
    CONSOLE.print(f"the heaviest heads: {', '.join(f'{head} ({found.weights[head]:.3f})' for head in best)}")
    CONSOLE.print(f"written to {escape(str(out))}", highlight=False, soft_wrap=True)
