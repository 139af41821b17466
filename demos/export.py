"""A conversation as a file: Markdown to read, JSON with all that the answers rested on. Knows turns, and no page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .session import Session
from .times import clock, rested
from .turn import Turn

_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~])")


def markdown(session: Session) -> str:
    """Questions, answers and the moments that these rested on.

    Parameters
    ----------
    session : Session
    """
    lines = [f"# {_plain(session.title) or 'A video'}", ""]
    for turn in session.chat:
        lines += [f"**{_plain(turn.question)}**", "", _plain(_said(turn)), ""]
        if turn.answer is not None:
            looked = ", ".join(clock(seconds) for seconds in rested(turn.answer))
            watched = f"watched up to {clock(turn.answer.seconds[1])}"
            lines += [f"*{f'looked most at {looked}; ' if looked else ''}{watched}*", ""]
    return "\n".join(lines)


def as_json(session: Session) -> str:
    """The settings, and of each turn question and answer; of a whole answer all that the library says of it.

    Parameters
    ----------
    session : Session
    """
    turns = [
        {
            "question": turn.question,
            "text": turn.text.strip(),
            "error": turn.error,
            "moments": [] if turn.answer is None else rested(turn.answer),
            "answer": None if turn.answer is None else asdict(turn.answer),
        }
        for turn in session.chat
    ]
    told: dict[str, Any] = {"title": session.title, "settings": asdict(session.settings), "turns": turns}
    return json.dumps(told, indent=2)


def stem(title: str) -> str:
    """A file's name for a title, of plain letters."""
    return re.sub(r"[^A-Za-z0-9]+", "-", title.rsplit("/", 1)[-1].rsplit(".", 1)[0]).strip("-")[:40] or "video"


def _said(turn: Turn) -> str:
    return turn.text.strip() or turn.error or "(no answer)"


def _plain(text: Sequence[str] | str) -> str:
    """A text whose marks stay what they are."""
    return _MARKS.sub(r"\\\1", " ".join(str(text).split()))
