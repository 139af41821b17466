"""A benchmark in Video-MME's layout: `python -m eval.synthetic.make --out DIR --split test`.

Videos of under a minute, 5 minutes, 30 minutes and 2 hours; questions with four options, `sub_category` their kind,
`domain` how long before the end the answer was last to be seen. `eval.run videomme --data DIR` runs it. With `--hard`
the videos are harder to remember, and only what needs remembering is asked; see `eval.synthetic.hard`. With `--moving`
cameras and things move, and things have near-duplicates; see `eval.synthetic.moving`. With `--lines` the same questions
stand in `lines.jsonl`, too, with their answers in words and the seconds of their evidence: what
`python -m pdrop_video.train_part --data DIR/lines.jsonl` trains on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.progress import track

from .hard import STEPS, Hardness, hard_clip
from .moving import moving_clip
from .puzzles import PUZZLES, SELDOM, TWO_STEPS, puzzle
from .quiz import ENDS, KINDS, Question, question
from .render import FPS, write_clip
from .world import SPLITS, Clip, generator, sample_clip

LENGTHS = {
    "short": (16, 59),
    "medium": (280, 320),
    "long": (1770, 1830),
    "very long": (7170, 7230),
    "hour": (3660, 3900),
}
"""Seconds, both included."""
SLOW = 4
"""Frames a second of videos longer than a minute; of shorter ones `render.FPS`."""
TASK_TYPES = {
    **{kind: "OCR Problems" if kind.startswith("number") else "Temporal Perception" for kind in ENDS},
    "count": "Counting Problem",
    "motion": "Action Recognition",
    "now": "Object Recognition",
    "which": "Object Recognition",
    "absent": "Object Reasoning",
    "before": "Temporal Reasoning",
    "after": "Temporal Reasoning",
    "order": "Temporal Reasoning",
    "where": "Spatial Perception",
    "relation": "Spatial Reasoning",
    "colour_of": "Attribute Perception",
    "code_first": "OCR Problems",
    "code_last": "OCR Problems",
    "code_which": "OCR Problems",
    "code_colour": "Attribute Perception",
    "where_twin": "Spatial Perception",
    "before_twin": "Temporal Reasoning",
    "after_twin": "Temporal Reasoning",
    "which_twin": "Object Recognition",
    "absent_twin": "Object Reasoning",
    **{kind: "Object Reasoning" for kind in TWO_STEPS},
}
"""Of each kind the type that Video-MME would call it; kinds without four options are not here."""
LINES = "lines.jsonl"
"""What parts are trained on, beside the table."""
AGES = ((10, "under 10 s ago"), (60, "10 s to 1 min ago"), (600, "1 to 10 min ago"), (10**9, "over 10 min ago"))


@dataclass(frozen=True)
class Video:
    """One video of a set: how long it is by name, its number among those, and what it shows."""

    duration: str
    clip: Clip

    @property
    def name(self) -> str:
        """Its file's name, without the ending; no other video has it, of whatever set of one split and seed."""
        hard = "-hard" if self.clip.restless else "-moving" if self.clip.moving else ""
        return f"{self.duration.replace(' ', '-')}{hard}-{self.clip.look[1]:05d}"


def video(
    split: str, seed: int, duration: str, number: int, hardness: Hardness | None = None, moving: bool = False
) -> Video:
    """Draw one video of a set; its length and its content follow from the arguments alone."""
    place = 100_000 * list(LENGTHS).index(duration) + number
    low, high = LENGTHS[duration]
    seconds = int(generator(split, seed, place, 3).integers(low, high + 1))
    if moving:
        return Video(duration, moving_clip(split, seed, place, seconds))
    if hardness is not None:
        return Video(duration, hard_clip(split, seed, place, seconds, hardness))
    return Video(duration, sample_clip(split, seed, place, seconds))


def age(asked: Question, clip: Clip) -> str:
    """How long before the end of the video the answer was to be seen; of several moments the earliest one counts."""
    if not asked.moments:
        return "no single moment"
    ago = clip.seconds - 1 - asked.moments[0]
    return next(name for limit, name in AGES if ago < limit)


def quiz(made: Video, wanted: int, counts: Counter[str], kinds: Sequence[str] | None = None) -> list[Question]:
    """Up to so many questions about one video, of the kinds asked least so far; `counts` is brought up to date.

    Those of `SELDOM` are asked less. With `kinds` only these are asked, each as often as need be, no sentence twice.
    """
    clip = made.clip
    asked: list[Question] = []
    if clip.moving:
        for kind in sorted(PUZZLES, key=lambda kind: (counts[kind] + 0.5) * SELDOM.get(kind, 1)):
            rng = generator(clip.split, *clip.look, 17, PUZZLES.index(kind))
            if len(asked) < wanted and (one := puzzle(clip, kind, rng, clip.split)):
                asked.append(one)
        counts.update(q.kind for q in asked)
        return asked
    if kinds is not None:
        for kind, again in sorted(product(kinds, range(wanted)), key=lambda each: (each[1], counts[each[0]])):
            one = question(clip, kind, generator(clip.split, *clip.look, 17, KINDS.index(kind), again), clip.split)
            if len(asked) < wanted and one is not None and one.text not in {q.text for q in asked}:
                asked.append(one)
        counts.update(q.kind for q in asked)
        return asked
    for kind in sorted((kind for kind in TASK_TYPES if kind in KINDS), key=lambda kind: counts[kind]):
        rng = generator(clip.split, *clip.look, 17, KINDS.index(kind))
        if len(asked) < wanted and (one := question(clip, kind, rng, clip.split)):
            asked.append(one)
    counts.update(q.kind for q in asked)
    return asked


def row(made: Video, number: int, asked: Question) -> dict[str, Any]:
    """A question as a row of Video-MME's table."""
    return {
        "video_id": made.name,
        "duration": made.duration,
        "domain": age(asked, made.clip),
        "sub_category": asked.kind,
        "url": "synthetic:" + "/".join(map(str, (made.clip.split, *made.clip.look))),
        "videoID": made.name,
        "question_id": f"{made.name}-{number + 1}",
        "task_type": TASK_TYPES[asked.kind],
        "question": asked.text,
        "options": [f"{letter}. {option}" for letter, option in zip("ABCD", asked.options, strict=True)],
        "answer": "ABCD"[asked.options.index(asked.answer)],
    }


def write_lines(out: Path, asked: Sequence[tuple[Video, Question]]) -> None:
    """Questions as `pdrop_video.training.read_lines` reads them; those whose answer has no moment have no evidence."""
    said = [
        {
            "video": f"data/{made.name}.mp4",
            "question": one.text,
            "answer": one.answer,
            **({"evidence": list(one.moments)} if one.moments else {}),
        }
        for made, one in asked
    ]
    (out / LINES).write_text("".join(json.dumps(line) + "\n" for line in said), encoding="utf-8")


def stepped(asked: Sequence[Question], rng: np.random.Generator) -> Iterator[tuple[Question, Question]]:
    """Each question behind another one about the same video, which rests on other moments, where there is one."""
    for last in asked:
        others = [one for one in asked if one is not last and not set(one.moments) & set(last.moments)]
        if others:
            yield others[int(rng.integers(len(others)))], last


def _write(made: Video, folder: Path) -> None:
    """Render a video, in one step: what is there is whole."""
    path = folder / f"{made.name}.mp4"
    if not path.exists():
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            write_clip(made.clip, file, FPS if made.duration == "short" else SLOW)
        part.rename(path)


def make(
    out: Path,
    split: str,
    seed: int,
    numbers: dict[str, int],
    each: int,
    workers: int,
    hardness: Hardness | None = None,
    steps: bool = False,
    moving: bool = False,
    lines: bool = False,
) -> pd.DataFrame:
    """Write a set; videos that are there already are kept. Returns the table of questions.

    Parameters
    ----------
    out : Path
        Gets ``videomme/test-00000-of-00001.parquet`` and ``data/*.mp4``.
    split, seed : str, int
        Of the world. Test seeds are for measuring, never for choosing.
    numbers : dict of str to int
        How many videos of each duration.
    each : int
        Questions a video.
    workers : int
        Processes.
    hardness : Hardness, optional
        Makes harder videos.
    steps : bool
        Each question stands behind a first one; see `eval.tasks.steps`.
    moving : bool
        Cameras and things move, and other questions are asked; see `eval.synthetic.moving`.
    lines : bool
        Write ``lines.jsonl`` as well; see `write_lines`.
    """
    (out / "videomme").mkdir(parents=True, exist_ok=True)
    (out / "data").mkdir(exist_ok=True)
    videos = [
        video(split, seed, duration, n, hardness, moving) for duration, most in numbers.items() for n in range(most)
    ]
    counts: Counter[str] = Counter()
    kinds = None if hardness is None else hardness.kinds
    rows, spoken = [], []
    for made in videos:
        asked = quiz(made, each, counts, kinds)
        spoken += [(made, one) for one in asked]
        if not steps:
            rows += [row(made, n, q) for n, q in enumerate(asked)]
            continue
        pairs = stepped(asked, generator(split, *made.clip.look, 19))
        rows += [
            {**row(made, n, last), "first_question": first.text, "first_answer": first.answer}
            for n, (first, last) in enumerate(pairs)
        ]
    table = pd.DataFrame(rows)
    longest_first = sorted(videos, key=lambda made: -made.clip.seconds)
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(_write, made, out / "data") for made in longest_first]
        for job in track(jobs, "rendering", console=Console(stderr=True)):
            job.result()
    if lines:
        write_lines(out, spoken)
    table.to_parquet(out / "videomme" / "test-00000-of-00001.parquet")
    return table


def main(
    out: Annotated[Path, typer.Option(help="Folder for the set.")],
    split: Annotated[str, typer.Option(help=f"One of {', '.join(SPLITS)}.")] = "test",
    seed: Annotated[int, typer.Option(help="Seed of the videos; any number.")] = 1,
    short: Annotated[int, typer.Option(min=0, help="Videos of under a minute.")] = 60,
    medium: Annotated[int, typer.Option(min=0, help="Videos of about 5 minutes.")] = 20,
    long: Annotated[int, typer.Option(min=0, help="Videos of about 30 minutes.")] = 8,
    very_long: Annotated[int, typer.Option(min=0, help="Videos of about 2 hours.")] = 0,
    hour: Annotated[int, typer.Option(min=0, help="Videos of a little over an hour.")] = 0,
    questions: Annotated[int, typer.Option(min=1, help="Questions a video, at most.")] = 10,
    hard: Annotated[
        bool, typer.Option("--hard", help="Videos that are harder to remember; see eval.synthetic.hard.")
    ] = False,
    steps: Annotated[
        bool, typer.Option("--steps", help="Hard videos, two questions in one answer, for the task videomme-steps.")
    ] = False,
    moving: Annotated[
        bool,
        typer.Option("--moving", help="The third set: cameras and things move; see eval.synthetic.moving."),
    ] = False,
    lines: Annotated[bool, typer.Option("--lines", help="Write lines.jsonl, too, on which parts are trained.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 2,
) -> None:
    """Render a benchmark in Video-MME's layout, with right answers known by construction."""
    numbers = {"short": short, "medium": medium, "long": long, "very long": very_long, "hour": hour}
    if moving and (hard or steps):
        raise typer.BadParameter("--moving is a set of its own: leave --hard and --steps out, or make two sets.")
    hardness = STEPS if steps else Hardness() if hard else None
    table = make(out, split, seed, numbers, questions, workers, hardness, steps, moving, lines)
    print(f"{len(table)} questions about {table['videoID'].nunique()} videos in {out}")


if __name__ == "__main__":
    typer.run(main)
