"""`pdrop-video search`: find the stages that change a model's answers least."""

from __future__ import annotations

from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

import pdrop_video as pv

from ..costs.decoder import DecoderShape
from ..models import describe
from ..pyramid import ALLOCATORS
from ..search.search import Clip, Tried, checked, enough
from ..search.search import search as find_schedule
from ..video.address import Address
from .arguments import Model
from .console import CONSOLE, ERRORS, clear_errors
from .options import check_out, check_questions, pyramid_of

EXAMPLES = """
[bold]Example[/bold]

  pdrop-video search a.mp4 b.mp4 c.mp4 d.mp4 --question "What happens?" --budget 0.4 --out schedule.json
"""


def search(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Two or more; every second is held out.")],
    out: Annotated[Path, typer.Option(help="The JSON file that Pyramid.load reads.")],
    question: Annotated[list[str], typer.Option(help="Asked of every video; may be repeated.")],
    model: Model = None,
    budget: Annotated[float, typer.Option(help="Share of the FLOPs of all visual tokens.")] = 0.5,
    stages: Annotated[int, typer.Option(help="Stages, from 2.")] = 4,
    trials: Annotated[int, typer.Option(help="Random schedules.")] = 32,
    steps: Annotated[int, typer.Option(help="Steps of local search from the best of them.")] = 32,
    frames: Annotated[int, typer.Option(help="Of each video, evenly spaced; kept decoded.", min=1)] = 32,
    chunk: Annotated[int, typer.Option(help="Frames per push.", min=1)] = 8,
    scorer: Annotated[str | None, typer.Option(help="What ranks visual tokens; left out: the best known.")] = None,
    allocator: Annotated[str, typer.Option(help=f"How they are split over time: {', '.join(ALLOCATORS)}.")] = "joint",
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    device: Annotated[str | None, typer.Option(help="For example cuda or cpu; left out: the best there is.")] = None,
    dtype: Annotated[
        str,
        typer.Option(help="auto: the checkpoint's own, or float32 on a CPU that is slower in it."),
    ] = "auto",
) -> None:
    """Find the stages that change a model's answers least at a FLOPs budget. Needs videos and questions, no answers."""
    with clear_errors():
        base = pyramid_of("--ratios", None, scorer=scorer, allocator=allocator)
        budget, stages, trials, steps = checked(len(videos), budget, stages, trials, steps)
        check_questions(question)
        for video in videos:
            Address.of(video)
        check_out(out)
        enough(DecoderShape.of(describe(model)[0]), stages)
        lm, clips = pv.load(model, device=device, dtype=dtype), []
        for asked in question:
            lm.bounded("one of the questions", asked)
        for video in videos:
            with pv.open_video(video, frames=frames, chunk=chunk) as reader:
                clips.append(Clip(reader.source, list(reader), question))
        number = count(1)

        def watch(tried: Tried) -> None:
            ERRORS.print(
                f"{next(number)} of at most {1 + trials + steps}: {tried.divergence:.4f} nats", highlight=False
            )

        found = find_schedule(
            lm, clips, budget, stages=stages, trials=trials, steps=steps, base=base, seed=seed, watch=watch
        )
        rows = {"chosen": found.chosen, "paper's shape": found.paper, f"best of {trials} random": found.best_random}
        notes = {"model": lm.name, "budget": budget, "seed": seed, "videos": [clip.name for clip in clips]}
        found.chosen.pyramid.save(out, search=notes | {name: asdict(tried) for name, tried in rows.items()})
    table = Table("", "before layers", "left", "FLOPs", "KL, searched on", "KL, held out")
    for name, tried in rows.items():
        layers, ratios = tried.pyramid.layers or (), tried.pyramid.ratios or ()
        shares = " ".join(f"{ratio:.3f}" for ratio in ratios)
        figures = (f"{tried.flops:.1%}", f"{tried.divergence:.4f}", f"{tried.held_out:.4f}")
        table.add_row(name, " ".join(map(str, layers)), shares, *figures)
    CONSOLE.print(table)
    CONSOLE.print(f"written to {escape(str(out))}", highlight=False, soft_wrap=True)
