"""Score a model on held-out synthetic videos through the real streaming path: mp4, decode, push in chunks, ask.

`python -m eval.synthetic.score --seed 4 --questions 500 --json`; with `--json` the last line is one JSON object.
Answers are read in words (generated), by the options' likelihoods, or by letters (generated after Video-MME's prompt).
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import pdrop_video as pv

from ..stats.intervals import clustered_mean
from .lessons import multiple_choice
from .make import Video, quiz
from .moving import moving_clip
from .puzzles import PUZZLES
from .quiz import KINDS, Question, questions
from .render import write_clip
from .tokenizer import LETTERS
from .world import sample_clip

ARCHIVE = 2**30
"""Bytes, with --retrieve."""
GREY = 110
EACH = 10
"""Questions about one video of the third set, as in a set that `make` writes."""
EVERY = 10
"""Plain progress lines come once in so many videos."""


@dataclass(frozen=True)
class Marked:
    """One answered question: which video, what was asked, what was said."""

    video: int
    question: Question
    said: str

    @property
    def right(self) -> bool:
        """Whether the normalised words are the same."""
        return normalise(self.said) == self.question.answer


def normalise(text: str) -> str:
    """Lower case, letters and digits only, single blanks."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def pick(available: list[Question], counts: Counter[str], room: int) -> list[Question]:
    """Up to `room` questions of one video, those of the kinds asked least so far."""
    return sorted(available, key=lambda q: counts[q.kind])[:room]


def say(stream: pv.VideoStream, question: Question, answers: str, **asking: Any) -> str:
    """A question's answer in words: as generated, the most likely option, or the option whose letter was generated."""
    if answers == "words":
        return stream.ask(question.text, max_new_tokens=8, **asking).text
    if answers == "likelihood":
        return question.options[int(np.argmax(stream.likelihood(question.text, question.options, **asking)))]
    said = stream.ask(multiple_choice(question), max_new_tokens=4, **asking).text.strip()
    return dict(zip(LETTERS, question.options, strict=True)).get(said, said)


def clips(
    seed: int, wanted: int, split: str, lettered: bool = False, seconds: int | None = None, moving: bool = False
) -> Iterator[tuple[int, Path, list[Question]]]:
    """Clip after clip until `wanted` questions are asked: its index, its file (gone afterwards) and its questions.

    With `moving` they are of the third set, and each is asked `EACH` questions at most.
    """
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        index = 0
        while counts.total() < wanted:
            room = wanted - counts.total()
            if moving:
                clip = moving_clip(split, seed, index, seconds)
                asked = quiz(Video("short", clip), min(EACH, room), counts)
            else:
                clip = sample_clip(split, seed, index, seconds)
                able = [q for q in questions(clip) if not lettered or len(q.options) == len(LETTERS)]
                asked = pick(able, counts, room)
                counts.update(q.kind for q in asked)
            path = Path(folder) / f"{index}.mp4"
            write_clip(clip, path)
            yield index, path, asked
            path.unlink()
            index += 1


def watch(
    lm: pv.VideoLM, pyramid: pv.Pyramid, path: Path, chunk: int, memory: pv.Memory | None = None, blind: bool = False
) -> pv.VideoStream:
    """A stream that has seen a clip, or nothing but grey for as long; it forgets nothing unless a memory is given."""
    stream = lm.stream(pyramid, memory or pv.Memory(tokens=None))
    with pv.open_video(path, fps=2, chunk=chunk) as video:
        for frames in video:
            stream.push(replace(frames, frames=torch.full_like(frames.frames, GREY)) if blind else frames)
    return stream


@dataclass(frozen=True)
class Way:
    """How videos are watched and questions are put.

    Attributes
    ----------
    pyramid, memory, chunk
        Of the streams; frames a push.
    asking, retrieve
        A question's own pyramid, and the steps of time that it gets back from the archive.
    read : {"words", "likelihood", "letters"}
        How answers are read; see `say`.
    blind : bool
        Nothing but grey is shown.
    """

    pyramid: pv.Pyramid
    memory: pv.Memory
    chunk: int = 8
    asking: pv.Pyramid | None = None
    retrieve: int | None = None
    read: str = "words"
    blind: bool = False


def answers(
    lm: pv.VideoLM, way: Way, seed: int, wanted: int, split: str, seconds: int | None = None, moving: bool = False
) -> Iterator[list[Marked]]:
    """Render, push and ask, video after video, until `wanted` questions are answered; yields each video's answers."""
    for index, path, asked in clips(seed, wanted, split, way.read == "letters", seconds, moving):
        stream = watch(lm, way.pyramid, path, way.chunk, way.memory, way.blind)
        said = [say(stream, q, way.read, pyramid=way.asking, retrieve=way.retrieve) for q in asked]
        yield [Marked(index, q, text) for q, text in zip(asked, said, strict=True)]


def watched(videos: Iterable[list[Marked]], total: int) -> list[Marked]:
    """All answers, with a progress bar on a terminal and plain lines otherwise."""
    console = Console(stderr=True)
    done: list[Marked] = []
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("questions", total=total)
        for number, marked in enumerate(videos, 1):
            done += marked
            progress.advance(bar, len(marked))
            if not console.is_terminal and (number % EVERY == 0 or len(done) == total):
                share = float(np.mean([m.right for m in done]))
                console.print(f"{len(done)}/{total} questions, {number} videos, {share:.1%} right", highlight=False)
    return done


def report(marked: list[Marked], seed: int, split: str) -> dict[str, object]:
    """The figures of a run as one JSON-ready object."""
    by_kind = {
        kind: float(np.mean([m.right for m in marked if m.question.kind == kind]))
        for kind in dict.fromkeys((*KINDS, *PUZZLES))
        if any(m.question.kind == kind for m in marked)
    }
    accuracy = clustered_mean([m.right for m in marked], [m.video for m in marked])
    return {
        "accuracy": accuracy.value,
        "by_kind": by_kind,
        "questions": len(marked),
        "videos": len({m.video for m in marked}),
        "seed": seed,
        "split": split,
        "phrasings": split,
        "standard_error": accuracy.standard_error,
    }


def main(
    seed: Annotated[int, typer.Option(help="Seed of the videos; any number.")] = 1,
    wanted: Annotated[int, typer.Option("--questions", min=1, help="How many questions.")] = 500,
    split: Annotated[str, typer.Option(help="test (fonts, backgrounds, wordings never trained on) or dev.")] = "test",
    model: Annotated[str | None, typer.Option(help="Folder or hub name; the built-in model if left out.")] = None,
    ratios: Annotated[
        str | None, typer.Option(help="Kept share per stage, e.g. .5,.25,.125; all tokens if left out.")
    ] = None,
    scorer: Annotated[str | None, typer.Option(help="With --ratios: what ranks; the default if left out.")] = None,
    allocator: Annotated[str, typer.Option(help="With --ratios: how tokens are split over time.")] = "joint",
    chunk: Annotated[int, typer.Option(min=1, help="Frames a push.")] = 8,
    tokens: Annotated[int | None, typer.Option(help="Memory budget, in tokens a layer; all if left out.")] = None,
    evictor: Annotated[str, typer.Option(help="With --tokens: what is forgotten.")] = "pyramid",
    retrieve: Annotated[int | None, typer.Option(help="Steps that a question gets back from an archive.")] = None,
    ask_ratios: Annotated[str | None, typer.Option(help="What a question keeps of the memory, stage by stage.")] = None,
    read: Annotated[str, typer.Option("--answers", help="words, likelihood or letters.")] = "words",
    seconds: Annotated[int | None, typer.Option(min=4, help="Length of every video; 4 to 32 s if left out.")] = None,
    moving: Annotated[bool, typer.Option("--moving", help="Videos of the third set, of 16 to 59 s.")] = False,
    blind: Annotated[bool, typer.Option(help="Show nothing but grey: what guessing gives.")] = False,
    wrong: Annotated[bool, typer.Option(help="Also list the wrong answers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Accuracy by kind on held-out synthetic videos, pushed in chunks and asked in words."""
    pyramid, asking = pv.Pyramid(stages=1), None
    if ratios is not None:
        pyramid = pv.Pyramid(ratios=tuple(map(float, ratios.split(","))), scorer=scorer, allocator=allocator)
    if ask_ratios is not None:
        asking = pv.Pyramid(ratios=tuple(map(float, ask_ratios.split(","))))
    memory = pv.Memory(tokens=tokens, evictor=evictor, archive=None if retrieve is None else ARCHIVE)
    lm = pv.load(model)
    way = Way(pyramid, memory, chunk, asking, retrieve, read, blind)
    marked = watched(answers(lm, way, seed, wanted, split, seconds, moving), wanted)
    figures = report(marked, seed, split)
    table = Table("kind", "questions", "right")
    for kind, share in figures["by_kind"].items():  # type: ignore[attr-defined]
        table.add_row(kind, str(sum(m.question.kind == kind for m in marked)), f"{share:.1%}")
    table.add_row("all", str(len(marked)), f"{figures['accuracy']:.1%} +- {figures['standard_error']:.1%}")
    Console().print(table)
    for m in marked if wrong else []:
        if not m.right:
            print(f"video {m.video}: {m.question.text} {m.question.answer}, not {m.said!r}")
    if as_json:
        print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
