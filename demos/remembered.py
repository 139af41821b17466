"""What is remembered: a time line of it, and the kept places of one moment. As HTML; all texts are escaped."""

from __future__ import annotations

from html import escape

import numpy as np

import pdrop_video as pv
from pdrop_video import plots
from pdrop_video.plots import Fate

from .session import Session
from .times import clock
from .views import data


def timeline(session: Session) -> str:
    """For each stretch of what was watched, how much of it each stage still remembers; each part leads to its moment.

    Parameters
    ----------
    session : Session
    """
    watcher = session.watcher
    if watcher is None or not watcher.album.seconds:
        return ""
    try:
        parts = watcher.album.remembered(session.stream)
    except pv.PDropError:  # it was cleared meanwhile
        return ""
    bars = []
    for number, (seconds, shares) in enumerate(parts):
        said = f"{clock(seconds)}: remembered {shares[0]:.0%} by the first layers, {shares[-1]:.0%} by the deepest"
        stages = "".join(f'<i style="height:{100 * share:.1f}%"></i>' for share in shares)
        bars.append(
            f'<button type="button" class="pv-stretch" data-at="{seconds:.2f}" tabindex="{0 if number == 0 else -1}" '
            f'title="{said}" aria-label="{said}">{stages}</button>'
        )
    return (
        '<div class="pv-timeline" role="group" aria-label="What is remembered of each stretch; arrows move along it">'
        f'{"".join(bars)}</div><p class="pv-note">What is remembered, from {clock(parts[0][0])} to '
        f"{clock(parts[-1][0])}: the darker, the deeper in the model. Choose a moment to see it.</p>"
    )


def seen(session: Session, seconds: float) -> str:
    """What each stage keeps of a moment, for the page's script to draw over the player.

    Parameters
    ----------
    session : Session
    seconds : float
    """
    watcher = session.watcher
    if watcher is None or not watcher.album.seconds:
        return ""
    overlays = watcher.album.at(session.stream, seconds)
    rows, columns = overlays[0].fates.shape
    buttons, said = [], []
    for number, overlay in enumerate(overlays):
        chosen, places = overlay is overlays[-1], np.flatnonzero(np.isin(overlay.fates, (Fate.KEPT, Fate.MEAN)))
        buttons.append(
            f'<button type="button" data-stage="{number}" data-kept="{",".join(map(str, places))}" '
            f'aria-pressed="{str(chosen).lower()}">Stage {overlay.stage + 1}</button>'
        )
        kept = escape(plots.wording.kept(overlay))
        told = f'<span data-of="{number}"{"" if chosen else " hidden"}>{kept}</span>'
        said.append((told, f'<img data-of="{number}"{"" if chosen else " hidden"} alt="{kept}" '))
    pictures = [f'{image}src="{data(each.picture)}">' for (_, image), each in zip(said, overlays, strict=True)]
    return (
        f'<div class="pv-seen" data-seconds="{overlays[0].seconds:.2f}" data-rows="{rows}" data-columns="{columns}">'
        f'<p class="pv-note" role="status">Kept of the picture at {clock(overlays[0].seconds)} (bright): '
        f"{''.join(told for told, _ in said)}</p>{''.join(buttons)}"
        '<button type="button" data-hide>Hide</button>'
        f"{'' if session.preview else ''.join(pictures)}</div>"
    )
