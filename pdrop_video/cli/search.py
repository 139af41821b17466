"""`pdrop-video search`: find what changes a model's answers least. Parses and prints; the search is the library's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..gate import GATES
from ..memory import EVICTORS
from ..pyramid import ALLOCATORS
from ..reduce import REDUCERS
from ..search.judge import OBJECTIVES, Objective
from ..search.kernels import KERNELS
from ..search.questions import QuestionSet
from ..search.search import checked
from ..video.address import Address
from .arguments import Chunk, Device, Dtype, Model
from .console import clear_errors
from .learning import learn_schedule
from .options import check_choice, check_questions, pyramid_of
from .searching import Asked, find_recipes, find_schedule, measure_oracle

EXAMPLES = """
[bold]Examples[/bold]

  pdrop-video search a.mp4 b.mp4 c.mp4 d.mp4 --question "What happens?" --budget 0.4 --out schedule.json
  pdrop-video search --questions clips.jsonl --budget 0.4 --by gradient --objective answer --out schedule.json
  pdrop-video search --space recipe --questions videomme/ --budget 0.5 --budget 0.25 --bytes 2000000 --out found/
  pdrop-video search --space oracle --questions clips.jsonl --keep 0.1 --scorer contrast --scorer relevance --out far/
"""
SPACES = ("schedule", "recipe", "oracle")
WAYS = ("search", "gradient")


def search(
    out: Annotated[Path, typer.Option(help="The JSON file that --ratios takes; of other spaces a folder.")],
    videos: Annotated[
        list[str] | None, typer.Argument(metavar="[VIDEO]...", help="Two or more; every second is held out.")
    ] = None,
    question: Annotated[list[str] | None, typer.Option(help="Asked of every VIDEO; may be repeated.")] = None,
    questions: Annotated[
        str | None,
        typer.Option(
            help="In place of videos and --question: a folder in Video-MME's layout, or a file of JSON lines such as "
            '{"video": "a.mp4", "question": "What happens?"}.'
        ),
    ] = None,
    space: Annotated[
        str,
        typer.Option(
            help="schedule: where and how much the layers drop. recipe: gate, reducer, schedule, scorer and memory, by "
            "the whole way's FLOPs. oracle: how far scorers are from the best sets of tokens."
        ),
    ] = "schedule",
    model: Model = None,
    budget: Annotated[
        list[float] | None, typer.Option(help="Share of the FLOPs of all visual tokens, .5 by default; recipes: some.")
    ] = None,
    bytes: Annotated[
        list[int] | None, typer.Option(help="Recipes: most bytes that a stream holds; may be repeated.")
    ] = None,
    objective: Annotated[
        str,
        typer.Option(help="What is compared: first, an answer's first token; answer, all of the full model's own."),
    ] = "first",
    answer_tokens: Annotated[int, typer.Option(help="Longest answer that is compared.", min=1, max=4096)] = 32,
    stages: Annotated[int, typer.Option(help="Stages of a schedule, from 2.")] = 4,
    trials: Annotated[int, typer.Option(help="Random schedules, or recipes for each budget.")] = 32,
    steps: Annotated[int, typer.Option(help="Steps of local search from the best of them.")] = 32,
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Shapes of schedules that are tried: {', '.join(KERNELS)}; recipes: or quota; by default all."
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="Schedules: search, by trials and steps; gradient, as VisPCO learns them, in four rounds of --steps "
            "steps, beside the same kind of schedule found without."
        ),
    ] = "search",
    frames: Annotated[int, typer.Option(help="Of each video, evenly spaced.", min=1)] = 32,
    chunk: Chunk = 8,
    gate: Annotated[
        list[str] | None, typer.Option(help=f"Recipes: those that take part, of none, {', '.join(GATES)}.")
    ] = None,
    reducer: Annotated[
        list[str] | None, typer.Option(help=f"Recipes: those that take part, of none, {', '.join(REDUCERS)}.")
    ] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(help="What ranks visual tokens; left out: the best known, or all. Recipes and oracle: some."),
    ] = None,
    evictor: Annotated[
        list[str] | None, typer.Option(help=f"Recipes with --bytes: those that take part, of {', '.join(EVICTORS)}.")
    ] = None,
    storage: Annotated[list[str] | None, typer.Option(help="Recipes with --bytes: how keys are stored.")] = None,
    allocator: Annotated[
        str, typer.Option(help=f"How a schedule's tokens are split over time: {', '.join(ALLOCATORS)}.")
    ] = "joint",
    keep: Annotated[float, typer.Option(help="Oracle: share of the tokens that stays.")] = 0.25,
    layer: Annotated[int, typer.Option(help="Oracle: the layer in front of which the others go.", min=0)] = 0,
    population: Annotated[int, typer.Option(help="Oracle: sets of each generation.", min=2)] = 48,
    generations: Annotated[int, typer.Option(help="Oracle: generations behind the first.", min=0)] = 10,
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Find the stages, or the recipe, that change a model's answers least at a budget. Needs no right answers."""
    with clear_errors():
        check_choice("--space", space, *SPACES)
        check_choice("--objective", objective, *OBJECTIVES)
        check_choice("--by", by, *WAYS)
        if by == "gradient" and (space != "schedule" or kernel):
            raise ConfigError("--by gradient learns schedules of one kernel; leave --space and --kernel out.")
        asked = Asked(_question_set(videos or [], question or [], questions), frames, chunk)
        compared, shares = Objective(objective, answer_tokens), budget or [0.5]  # type: ignore[arg-type]
        loading = (model, device, dtype)
        if space == "schedule":
            if len(shares) > 1 or len(scorer or []) > 1:
                raise ConfigError("a search over schedules has one --budget and one --scorer; see --space recipe.")
            base = pyramid_of("--ratios", None, scorer=scorer[0] if scorer else None, allocator=allocator)
            sizes = checked(len(asked.clips), shares[0], stages, trials, steps)
            if by == "gradient":
                learn_schedule(asked, loading, out, shares[0], steps, base, compared, seed)
            else:
                find_schedule(asked, loading, out, sizes, base, kernel or [], compared, seed)
        elif space == "recipe":
            taking = {
                "gates": gate,
                "reducers": reducer,
                "kernels": kernel,
                "scorers": scorer,
                "evictors": evictor,
                "storages": storage,
            }
            find_recipes(asked, loading, out, shares, bytes or [], taking, compared, trials, steps, seed)
        else:
            size = {"population": population, "generations": generations, "parents": max(population // 4, 1)}
            measure_oracle(asked, loading, out, scorer or ["contrast"], keep, layer, compared, size, seed)


def _question_set(videos: list[str], asked: list[str], path: str | None) -> list[tuple[str, tuple[str, ...]]]:
    """Which videos, and what is asked of each."""
    if path is not None:
        if videos or asked:
            raise ConfigError("--questions was given beside videos or --question; it says both, give one of the two.")
        return list(QuestionSet.read(path).questions.items())
    if not videos or not asked:
        raise ConfigError("there is nothing to ask; give videos with --question, or --questions with a question set.")
    check_questions(asked)
    for video in videos:
        Address.of(video)
    return [(video, tuple(asked)) for video in videos]
