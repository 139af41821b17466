"""What the command line shows: progress, answers as they come, costs, errors. Knows a terminal; decides nothing."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformers.utils import logging as transformers_logging

from ..errors import PDropError
from ..stream.answer import Answer
from ..stream.answering import AnswerStream
from ..stream.lm import VideoLM
from ..stream.stream import VideoStream
from ..video import FrameChunk

CONSOLE, ERRORS = Console(), Console(stderr=True)


def progress(reader: Any, lm: VideoLM) -> Iterator[FrameChunk]:
    """A bar on a terminal, plain lines otherwise."""
    total, name = reader.info.duration, Path(reader.source).name
    if not ERRORS.is_terminal:
        ERRORS.print(escape(f"watching {name} with the {lm.name} model"), highlight=False, soft_wrap=True)
        for part in reader:
            yield part
            of = f" of {total:.1f}" if total else ""
            ERRORS.print(f"  {part.seconds[-1]:.1f}{of} s, {reader.frames_read} frames", highlight=False)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[seen]}"), TimeElapsedColumn())
    with Progress(*columns, console=ERRORS, transient=True) as bar:
        task = bar.add_task(escape(f"watching {name}"), total=total, seen="")
        for part in reader:
            yield part
            seen = f"{part.seconds[-1]:.1f} s, {reader.frames_read} frames"
            bar.update(task, completed=part.seconds[-1], seen=seen)


def print_live(question: str, live: AnswerStream) -> Answer:
    """Question and answer, the answer as it is generated."""
    typer.echo(f"Q: {question}\nA: ", nl=False)
    for piece in live:
        typer.echo(piece, nl=False)
    typer.echo()
    return live.finish()


def print_costs(answer: Answer, stream: VideoStream) -> None:
    """What watching and answering took."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    there = [(kept, span) for kept, span in zip(answer.kept, stream.loop.schedule.spans, strict=True) if span]
    stages = " -> ".join(f"{kept:,}" for kept, _ in there)
    layers = " | ".join(str(span[0]) for _, span in there)
    tokens = sorted(set(answer.cache_tokens), reverse=True)
    timings, skipped = answer.timings, stream.status.skipped
    left_out = f"; {skipped} left out by the gate" if skipped else ""
    for name, value in (
        ("watched", f"{answer.frames} frames, {answer.seconds[0]:.1f} to {answer.seconds[1]:.1f} s{left_out}"),
        ("visual tokens", f"{answer.visual_tokens:,} entered; remembered by stage: {stages} (from layer {layers})"),
        ("cache", f"{answer.cache_bytes / 2**20:.2f} MiB; {' / '.join(f'{n:,}' for n in tokens)} tokens a layer"),
        (
            "time",
            f"watching {timings.push:.2f} s, first token {timings.first_token:.2f} s, rest {timings.decode:.2f} s",
        ),
    ):
        table.add_row(f"[dim]{name}[/dim]", value)
    CONSOLE.print(table, highlight=False)


@contextmanager
def until_interrupted(*, live: bool) -> Iterator[None]:
    """Ctrl-C ends the watching of what has no end, and not the command: the questions are still to be answered."""
    try:
        yield
    except KeyboardInterrupt:
        if not live:
            raise
        ERRORS.print("stopped watching; Ctrl-C again stops the command", highlight=False)


@contextmanager
def terminated_likewise() -> Iterator[None]:
    """What stops a service, SIGTERM, is taken for Ctrl-C: there is something to write yet."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def clear_errors() -> Iterator[None]:
    """One sentence for what went wrong on purpose; anything else is a bug and keeps its traceback.

    Whatever is said in the block can be printed: what the terminal can't write, such as bytes in a file's name that are
    no text, is shown by its code.
    """
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, TextIOWrapper):
            output.reconfigure(errors="backslashreplace")
    transformers_logging.set_verbosity_error()
    if not ERRORS.is_terminal:
        transformers_logging.disable_progress_bar()
    try:
        yield
    except PDropError as error:
        ERRORS.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
