"""What the page shows of a session besides its panel, and which buttons there is a use for. All texts are escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from .gallery import Clip, suggestions
from .remembered import timeline
from .session import Session
from .standing import Standing
from .times import chip
from .views import data


def around(session: Session | None, clips: Sequence[Clip], built_in: bool) -> list[Any]:
    """Last picture of a stream, time line, alerts, the buttons that stop, start over and watch again, and suggestions.

    Parameters
    ----------
    session : Session or None
    clips : sequence of Clip
        Those of which it is known what may be asked.
    built_in : bool
        Whether it is the built-in model that watches.
    """
    opened, running = session is not None and bool(session.title), session is not None and session.progress.running
    source = None if session is None else session.source
    what = session.title if session is not None and source is None and session.watcher is not None else source
    return [
        "" if session is None else last_picture(session),
        "" if session is None else timeline(session),
        "" if session is None else alerts(session.standing),
        gr.Button(interactive=running),
        gr.Button(interactive=opened or bool(session and session.standing)),
        gr.Button(interactive=source is not None),
        suggestions(what, clips, built_in),
    ]


def last_picture(session: Session) -> str:
    """The newest picture of a stream that no browser plays itself; nothing of a file, or of the browser's camera."""
    watcher = session.watcher
    if watcher is None or not session.live or session.source is None or watcher.newest is None:
        return ""  # of a camera of the browser not when it was stopped either: it can be started again where it stands
    picture, seconds = watcher.newest
    said = f"The last picture of {session.title}, at {seconds:.1f} s"
    return f'<img class="pv-last" alt="{escape(said)}" src="{data(picture)}">'


def alerts(questions: Sequence[Standing]) -> str:
    """Those standing questions that are true now."""
    rows = []
    for item in questions:
        if item.true and item.events:
            asked = f"{escape(item.question)} <b>{escape(item.wanted)}</b>"
            rows.append(f"<li>{asked}, since {chip(item.events[-1].begin)}</li>")
    return f'<ul class="pv-alert" role="alert">{"".join(rows)}</ul>' if rows else ""
