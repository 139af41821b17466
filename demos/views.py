"""What the page shows of a session, as HTML: progress, standing questions, pictures. All texts are escaped here."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pdrop_video as pv
from pdrop_video import plots

from .session import Session
from .standing import Standing
from .times import chip, clock, rested
from .turn import Turn
from .watching import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADINGS = {
    "idle": "Nothing is being watched yet",
    "queued": "In the line",
    "opening": "Opening",
    "watching": "Watching",
    "done": "Watched",
    "stopped": "Stopped",
    "failed": "Not watched",
}
_HELP = {
    "Frames": "Pictures taken from the video so far; how many a second is a setting.",
    "Left out": "Pictures among them that showed nothing new, so that the model never looked at them; a setting.",
    "Remembered": "Pieces of picture (tokens) that its deepest layers still remember, of all that it read.",
    "Memory": "What the model remembers, in megabytes, and the most that it may take.",
    "Speed": "Seconds of video watched in one second; above 1 the model keeps up with a live camera.",
    "Skipped": "Pictures of a live source that came while the model was busy.",
}
_SILENCE = 3.0
"""Seconds without a picture of a live source from which on the page says so."""
_CHART = 4.3
"""Inches: narrow, so that texts can be read on a phone, too."""
Message = dict[str, Any]


def chat(turns: Sequence[Turn]) -> list[Message]:
    """Messages for the chat, which takes them for HTML."""
    messages: list[Message] = []
    for turn in turns:
        messages.append({"role": "user", "content": escape(turn.question)})
        said = turn.text.strip()
        if turn.error:
            said = f"{said}\n{turn.error}".strip()
        elif turn.done and turn.answer is None:
            said = f"{said} (stopped)".strip()
        elif turn.done and not said:
            said = "(The model ended its answer without a word.)"
        text = f'<span class="pv-said">{escape(said) or "…"}</span>'
        messages.append({"role": "assistant", "content": text + ("" if turn.answer is None else _times(turn.answer))})
    return messages


def _times(answer: pv.Answer) -> str:
    """Below an answer: up to when it had watched, and which moments it rested on."""
    chips = "".join(chip(seconds) for seconds in rested(answer))
    looked = f"looked most at {chips}" if chips else ""
    watched = f"watched up to {clock(answer.seconds[1])}"
    return f'<span class="pv-times">{looked} <span>{watched}</span></span>'


def progress(now: Progress, title: str = "") -> str:
    """The panel under the video."""
    share = 1.0 if now.state == "done" else 0.0
    if now.state != "done" and now.total and now.seconds:
        share = min(now.seconds[1] / now.total, 1.0)
    waiting = _waits(now)
    moving = " pv-moving" if now.state in ("opening", "watching") and not now.total and not waiting else ""
    facts = [] if not now.frames else _facts(now)
    notes = [f'<p class="pv-error" role="alert">{escape(now.message)}</p>'] if now.message else []
    notes += [f'<p class="pv-note" role="status">{_wait(now)}</p>'] if waiting else []
    notes += [f'<p class="pv-note">{escape(sentence[:1].upper() + sentence[1:])}.</p>' for sentence in now.warnings]
    return (
        f'<div class="pv-progress" data-state="{now.state}" data-waiting="{str(waiting).lower()}">'
        f'<p class="pv-heading" role="status">{escape(_heading(now, title))}</p>'
        f'<div class="pv-bar{moving}" role="progressbar" aria-label="Share of the video watched" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{100 * share:.0f}"><i style="width:{100 * share:.1f}%"></i></div>'
        f'<dl class="pv-facts">{"".join(facts)}</dl>{"".join(notes)}</div>'
    )


def explained() -> str:
    """What the figures in the panel mean, for those who can't point at them."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _HELP.items())
    return f'<details class="pv-help"><summary>What do the figures mean?</summary><dl>{rows}</dl></details>'


def standing(questions: Sequence[Standing]) -> str:
    """A list of the standing questions and when they were true."""
    if not questions:
        return '<p class="pv-note">No question yet.</p>'
    rows = []
    for item in questions:
        spans = ", ".join(
            f"since {event.begin:.1f} s" if event.end is None else f"from {event.begin:.1f} s to {event.end:.1f} s"
            for event in list(item.events)
        )
        state = f"<b>{escape(spans)}</b>" if spans else "not yet"
        rows.append(
            f'<li data-true="{str(item.true).lower()}"><span>{escape(item.question)} '
            f'<span class="pv-wanted">{escape(item.wanted)}</span><br>{state}; {escape(item.now)}</span>'
            f'<button type="button" class="pv-remove" data-remove="{item.key}" '
            f'aria-label="Remove: {escape(item.question)}">Remove</button></li>'
        )
    return f'<ul class="pv-standing">{"".join(rows)}</ul>'


def charts(session: Session | None) -> tuple[str, str, str]:
    """What the last answer rested on, the memory over time, and the cache against its bound."""
    evidence = memory = cache = _empty("Open a video and let it be watched for a moment.")
    watcher = None if session is None else session.watcher  # once: the session may be cleared meanwhile
    if session is not None and watcher is not None and watcher.album.history:
        answer, stream = session.last_answer(), session.stream
        evidence = _empty("Ask a question to see which moments its answer rested on.")
        if answer is not None:
            said = f"{answer.question} → {answer.text}"
            evidence = _chart(answer.plot(), f"Which moments each stage looked at for the last answer: {said}")
        memory = _chart(
            stream.plot_memory(),
            plots.wording.MEMORY,
        )
        cache = _chart(
            plots.cache(watcher.album.history, stream.cache_bound),
            plots.wording.CACHE,
        )
    return evidence, memory, cache


def overlays(session: Session | None, seconds: float) -> str:
    """The frame of a moment, once for each stage."""
    watcher = None if session is None else session.watcher
    if session is None or watcher is None or not watcher.album.seconds:
        return _empty("Open a video and let it be watched for a moment.")
    shown, overlays = [], watcher.album.at(session.stream, seconds)
    for overlay in overlays:
        first, last = overlay.layers
        layers = f"layer {first}" if first == last else f"layers {first} to {last}"
        kept = plots.wording.kept(overlay)
        text = f"stage {overlay.stage + 1} at {overlay.seconds:.1f} s: {kept}"
        shown.append(
            f'<figure><img alt="{text}" src="{data(overlay.picture)}"><figcaption><b>Stage {overlay.stage + 1}</b> '
            f"({layers})<br>{kept}</figcaption></figure>"
        )
    said = "".join(f'<p class="pv-note">{escape(plots.wording.entered(overlay))}</p>' for overlay in overlays[:1])
    return f'<div class="pv-frames">{"".join(shown)}</div>{said}{_legend(overlays)}'


def _legend(overlays: Sequence[plots.Overlay]) -> str:
    """What colours and edges mean, if there are others than bright and dark."""
    keys = plots.wording.keys(overlays)
    if not any(key.edge for key in keys):
        return ""
    rows = []
    for key in keys:
        colour = f"rgb({', '.join(map(str, key.colour))})"
        how = f"border-color: {colour}" + ("" if key.edge else f"; background: {colour}")
        rows.append(f'<li><i style="{how}"></i>{escape(key.said)}</li>')
    return f'<ul class="pv-legend" aria-label="What the colours mean">{"".join(rows)}</ul>'


def _heading(now: Progress, title: str) -> str:
    of = f" {title}" if title and now.state != "idle" else ""
    if now.state == "queued":
        return f"All seats are taken: you are number {now.place} in the line"
    if _waits(now):
        return f"Waiting for {title}" + (f": {clock(now.seconds[1])} watched" if now.seconds else "")
    if now.seconds is None:
        return f"{_HEADINGS[now.state]}{of}"
    total = f" of {clock(now.total)}" if now.total and now.state != "done" else ""
    return f"{_HEADINGS[now.state]}{of}: {clock(now.seconds[1])}{total}"


def _waits(now: Progress) -> bool:
    """Whether a live source keeps one waiting."""
    return now.running and (now.silence >= _SILENCE or not now.connected)


def _wait(now: Progress) -> str:
    if now.connected:
        return f"No picture has come for {now.silence:.0f} s; waiting for more. You can ask meanwhile."
    return f"The connection was lost {now.silence:.0f} s ago and is being made again. You can ask meanwhile."


def _facts(now: Progress) -> list[str]:
    facts = {
        "Frames": f"{now.frames:,}",
        **({"Left out": f"{now.skipped:,}"} if now.skipped else {}),
        "Remembered": f"{now.kept[-1]:,} of {now.entered:,} pieces",
        "Memory": _megabytes(now.cache_bytes, now.bound),
        "Speed": f"{now.speed:.1f} × real time",
    }
    if now.dropped:
        facts["Skipped"] = f"{now.dropped:,}"
    return [
        f'<div title="{escape(_HELP[name])}"><dt>{name}</dt><dd>{escape(value)}</dd></div>'
        for name, value in facts.items()
    ]


def _megabytes(held: int, bound: int | None) -> str:
    """Both in one unit and with the same decimals, so that a bound looks smaller than what is held only if it is."""
    return " of ".join(f"{number / 1e6:,.2f}" for number in (held, bound) if number is not None) + " MB"


def _empty(sentence: str) -> str:
    return f'<p class="pv-empty">{escape(sentence)}</p>'


def data(picture: NDArray[np.uint8], side: int = 640) -> str:
    """A picture as an address that holds it, at most so large."""
    drawn, shown = BytesIO(), Image.fromarray(picture)
    shown.thumbnail((side, side))
    shown.save(drawn, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(drawn.getvalue()).decode()}"


def _chart(figure: Figure, text: str) -> str:
    """A chart below a sentence that says what it shows."""
    figure.set_figwidth(_CHART)
    drawn = BytesIO()
    figure.savefig(drawn, format="svg", transparent=True)
    data = base64.b64encode(drawn.getvalue()).decode()
    image = f'<img class="pv-chart" alt="{escape(text)}" src="data:image/svg+xml;base64,{data}">'
    return f'<p class="pv-note">{escape(text)}</p>{image}'
