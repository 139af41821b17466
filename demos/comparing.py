"""One question, the same video, two recipes: what a session watched, beside the same watched again otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import escape

import pdrop_video as pv
from pdrop_video import plots

from .session import Session, SessionError
from .settings import Settings
from .times import clock, rested
from .views import data
from .watching import Opened

_NOTHING = {"ratios": "none", "ask_ratios": "", "gate": "none", "reducer": "none"}
"""Settings that drop nothing."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of two recipes: what it is called, what watched with it, and its answer."""

    title: str
    stream: pv.VideoStream
    album: plots.Album
    answer: pv.Answer


def other(settings: Settings) -> tuple[str, str, Settings]:
    """What the settings and those to compare them with are called, and these."""
    bare = replace(settings, **_NOTHING)  # type: ignore[arg-type]
    if bare != settings:
        return "As watched, with dropping", "Without dropping", bare
    return "As watched, without dropping", "With the usual dropping", replace(settings, ratios=Settings().ratios)


def compare(session: Session, question: str, opener: Callable[[Settings], Callable[[], Opened]]) -> Iterator[str]:
    """Watch a session's video with the other settings, ask both the question, and tell how far that is.

    Parameters
    ----------
    session : Session
        It has watched a file or a video of the web, to its end or until it was stopped.
    question : str
    opener : callable
        Opens the session's source for settings.

    Yields
    ------
    str
        How far it is, and at the end both answers, as HTML.

    Raises
    ------
    SessionError
        If there is nothing to compare, or not any more.
    """
    if not question.strip():
        raise SessionError("The question is empty; write one.")
    stream, watcher = session.stream, session.watcher
    if session.source is None or session.live or watcher is None:
        raise SessionError("Only a file or a video on the web can be watched again; choose one, then compare.")
    if session.progress.running or session.progress.seconds is None:
        raise SessionError("The video is not watched yet; wait for its end or stop watching, then compare.")
    stream.lm.bounded("the question", question)
    until, (here, there, settings) = session.progress.seconds[1], other(session.settings)
    with settings.open(stream.lm) as second:
        album = plots.Album()
        with opener(settings)() as reader:
            for chunk in reader:
                if session.watcher is not watcher:
                    raise SessionError("Another video was chosen; compare again.")
                if chunk.seconds[0] > until:
                    break
                second.push(chunk)
                album.add(second, chunk)
                yield _said(f"Watching {there.lower()}: {clock(chunk.seconds[-1])} of {clock(until)}")
        yield _said("Asking both.")
        sides = (
            Side(here, stream, watcher.album, stream.ask(question, pyramid=session.settings.asking())),
            Side(there, second, album, second.ask(question, pyramid=settings.asking())),
        )
        yield table(sides)


def table(sides: tuple[Side, Side]) -> str:
    """Both answers, what they took, and what each recipe kept of the moments that the first answer rested on."""
    figures: dict[str, Callable[[pv.Answer], str]] = {
        "Answer": lambda answer: f"<b>{escape(answer.text.strip()) or '(without a word)'}</b>",
        "Pieces remembered by the deepest layers": lambda answer: f"{answer.kept[-1]:,} of {answer.visual_tokens:,}",
        "Tokens remembered, all layers together": lambda answer: f"{sum(answer.cache_tokens):,}",
        "Memory": lambda answer: f"{answer.cache_bytes / 1e6:.2f} MB",
        "Watching took": lambda answer: _milliseconds(answer.timings.push),
        "First word after": lambda answer: _milliseconds(answer.timings.first_token),
        "The rest after": lambda answer: _milliseconds(answer.timings.decode),
    }
    rows = [
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{figure(side.answer)}</td>" for side in sides)}</tr>'
        for name, figure in figures.items()
    ]
    for seconds in rested(sides[0].answer):
        pictures = "".join(f"<td>{_picture(side, seconds)}</td>" for side in sides)
        rows.append(f'<tr><th scope="row">Kept at {clock(seconds)}</th>{pictures}</tr>')
    heads = "".join(f'<th scope="col">{escape(side.title)}</th>' for side in sides)
    asked = escape(sides[0].answer.question)
    return f'<table class="pv-compare"><caption>{asked}</caption><tr><td></td>{heads}</tr>{"".join(rows)}</table>'


def _picture(side: Side, seconds: float) -> str:
    overlay = side.album.at(side.stream, seconds)[-1]
    kept = escape(plots.wording.kept(overlay))
    return f'<img alt="{kept}" src="{data(overlay.picture)}"><br>{kept}'


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms"


def _said(sentence: str) -> str:
    return f'<p class="pv-note" role="status">{escape(sentence)}</p>'
