"""`pdrop-video watch`: watch a video, a camera or a stream, and tell when something begins and ends."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

import pdrop_video as pv

from ..common.journal import Journal
from ..costs.decoder import DecoderShape
from ..models import describe
from ..stream.events import Terms, clock
from ..stream.watch import Watch
from ..video import Connection
from ..video.address import Address
from ..video.sampling import Sampling
from .arguments import (
    Chunk,
    Device,
    Dtype,
    End,
    Fps,
    Gate,
    Model,
    Parts,
    Policy,
    Protocols,
    Ratios,
    RecipeFile,
    Reducer,
    Retries,
    Start,
    Timeout,
)
from .console import ERRORS, clear_errors, terminated_likewise, until_interrupted
from .fetching import announced
from .options import check_choice, check_questions, recipe_of
from .webhook import Webhook, check_url

EXAMPLES = """
[bold]Examples[/bold]

  pdrop-video watch clip.mp4 --when "Does a fish appear?" --every 1

  pdrop-video watch rtsp://camera/stream --when "Has somebody fallen?" --when "Is the door open?" --jsonl seen.jsonl

  pdrop-video watch /dev/video0 --when "Is it dark?" --sure 0.8 --clear 0.3 --webhook https://example.org/hook
"""


def _told(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Who is told")


def _away(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Addresses and cameras")


def watch(
    source: Annotated[str, typer.Argument(help="A video file, a camera, or an address: http, https, rtsp, rtmp, ...")],
    when: Annotated[list[str], typer.Option(help="What to look out for, as a question that yes answers; repeatable.")],
    every: Annotated[float, typer.Option(help="Seconds of video between looks.")] = 2.0,
    sure: Annotated[float, typer.Option(help="Likelihood of yes from which on something has begun.")] = 0.7,
    clear: Annotated[float, typer.Option(help="Likelihood of yes down to which it lasts.")] = 0.4,
    cooldown: Annotated[float, typer.Option(help="Seconds after its end in which it does not begin again.")] = 0.0,
    jsonl: Annotated[Path | None, _told("A file to which each event is appended, as one line of JSON.")] = None,
    webhook: Annotated[str | None, _told("An http or https address to which each event is POSTed, as JSON.")] = None,
    webhook_timeout: Annotated[float, _told("Seconds that the webhook may take to answer.")] = 10.0,
    webhook_attempts: Annotated[int, _told("How often each event is tried.")] = 6,
    model: Model = None,
    fps: Fps = None,
    chunk: Chunk = 8,
    start: Start = None,
    end: End = None,
    timeout: Timeout = 10.0,
    retries: Retries = 6,
    policy: Policy = None,
    protocols: Protocols = None,
    recipe: RecipeFile = None,
    gate: Gate = None,
    reducer: Reducer = None,
    parts: Parts = None,
    ratios: Ratios = None,
    memory: Annotated[
        str | None, typer.Option(help="Most tokens that a layer remembers; 'none' for no limit; left out: 6144.")
    ] = None,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Watch, and tell when something begins and ends: on the terminal, in a file, by a webhook. Ctrl-C ends it."""
    with clear_errors(), ExitStack() as over:
        # all that is wrong is said before a model is loaded, and long before a video is watched
        check_questions(when)
        for question in when:
            Terms(question, every=every, sure=sure, clear=clear, cooldown=cooldown)
        opened = recipe_of(recipe, gate=gate, reducer=reducer, ratios=ratios, memory=memory)
        patience = Connection(connect_timeout=timeout, read_timeout=timeout, retries=retries)
        check_choice("policy", policy or "block", "block", "latest")
        Sampling.of(1.0 if fps is None else fps, chunk, start, end, None, None)
        Address.of(source, None, protocols)
        if webhook is not None:
            check_url(webhook)
        coming = announced(model)
        shape = DecoderShape.of(describe(model)[0])
        opened.pyramid.resolve(shape.layers, shape.rank_at)
        journal = None if jsonl is None else over.enter_context(Journal(jsonl))
        poster = None
        if webhook is not None:
            poster = over.enter_context(Webhook(webhook, _warn, timeout=webhook_timeout, attempts=webhook_attempts))
        lm = pv.load(coming.fetch(), device=device, dtype=dtype, parts=parts or ())
        for question in when:
            lm.bounded("one of the questions", question)
        stream = lm.stream(opened)

        def tell(event: pv.Event) -> None:
            said = _said(event, named)
            if journal is not None:
                journal.append(said)
            if poster is not None:
                poster.put(said)
            typer.echo(_line(event))  # last: who reads it finds it in the file

        watches = [stream.watch_for(each, every, sure=sure, clear=clear, cooldown=cooldown) for each in when]
        with pv.open_video(
            source,
            fps=lm.adapter.fps if fps is None else fps,
            chunk=chunk,
            start=start,
            end=end,
            policy=cast(Any, policy),
            protocols=protocols,
            connection=patience,
            motion=opened.uses_motion,
        ) as reader:
            named = source if Path(source).is_file() else reader.source  # an address without its password
            ERRORS.print(escape(f"watching {Path(named).name} with the {lm.name} model"), highlight=False)
            try:
                with until_interrupted(live=True), terminated_likewise():
                    for part in reader:
                        stream.push(part)
                        _give(watches, tell)
            finally:  # whatever ends it, what lasts is cut here and told
                for each in watches:
                    each.cancel()
                _give(watches, tell)
                for sentence in [*reader.warnings, *_failures(watches)]:
                    _warn(sentence)


def _give(watches: list[Watch], tell: Any) -> None:
    """The events of all watches that were not told yet."""
    for each in watches:
        for event in each.poll():
            tell(event)


def _failures(watches: list[Watch]) -> list[str]:
    return [
        f"{each.failed} looks for {each.terms.question!r} came to nothing, the last time because: {each.error}"
        for each in watches
        if each.failed and each.error is not None
    ]


def _line(event: pv.Event) -> str:
    """An event for people."""
    if event.end is None:
        return f"{clock(event.begin)}  began: {event.question}"
    what = "watched to the end of" if event.cut else "ended"
    peak = f"{event.peak:.0%} sure at most"
    return f"{clock(event.end)}  {what}: {event.question} (since {clock(event.begin)}, {peak})"


def _said(event: pv.Event, source: str) -> dict[str, Any]:
    """An event for machines; that of its end has the question and the beginning of that of its beginning."""
    said = {"source": source, "question": event.question, "from": event.begin, "to": event.end}
    return said | {"peak": round(event.peak, 6), "cut": event.cut}


def _warn(sentence: str) -> None:
    ERRORS.print(f"[yellow]warning:[/yellow] {escape(sentence)}", highlight=False, soft_wrap=True)
