"""`kept`: frames of a stream, once for each stage, with what became of each of their places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .album import Album, Overlay
from .charts import blank
from .subjects import Watched
from .wording import entered, keys
from .wording import kept as words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ABREAST = 3
"""Entries of the legend in a line."""


def kept(stream: Watched, album: Album, moments: int = 8) -> Figure:
    """Frames once for each stage with layers, with the places dark that it has forgotten: a row a stage.

    Moments are columns. What a gate or a reducer did stands around the places; what the edges mean, below.

    Parameters
    ----------
    stream : VideoStream
    album : Album
    moments : int
        How many, evenly spaced.

    Returns
    -------
    matplotlib.figure.Figure
    """
    columns = _columns(stream, album, moments)
    stages = sum(1 for span in stream.loop.schedule.spans if span)
    lines = _legend([overlay for overlays in columns for overlay in overlays])
    below = 0.2 * -(-len(lines) // _ABREAST) + 0.1 * bool(lines)
    two = any(overlays[0].skipped for overlays in columns)
    figure = blank(1.35 * len(columns) + 1.5, 1.45 * stages + 0.3 + below + 0.15 * two)
    axes = figure.subplots(stages, len(columns), squeeze=False)
    for column, overlays in enumerate(columns):
        for row, overlay in enumerate(overlays):
            axis = axes[row, column]
            axis.imshow(overlay.picture)
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(_title(overlay), fontsize=9)
            if column == 0:
                visual = int(stream.held(overlay.stage).visual.sum())
                left, right = overlay.layers
                axis.set_ylabel(f"layers {left}-{right}\n{visual:,} tokens", fontsize=9)
    if lines:
        handles, words = zip(*lines, strict=True)
        figure.legend(handles, words, loc="outside lower center", ncols=_ABREAST, fontsize=8, frameon=False)
    return figure


def described(stream: Watched, album: Album, moments: int = 8) -> str:
    """The same in words, a line for each moment and stage."""
    said = []
    for overlays in _columns(stream, album, moments):
        said += [f"{overlay.seconds:.1f} s, stage {overlay.stage + 1}: {words(overlay)}." for overlay in overlays]
        said += [entered(overlay) for overlay in overlays[:1] if entered(overlay)]
    return "\n".join(said)


def _columns(stream: Watched, album: Album, moments: int) -> list[list[Overlay]]:
    """What is shown of so many moments, evenly spaced."""
    seconds = np.asarray(album.seconds)
    shown = seconds[np.unique(np.linspace(0, len(seconds) - 1, min(moments, len(seconds))).round().astype(int))]
    return [album.at(stream, moment) for moment in shown]


def _title(overlay: Overlay) -> str:
    if not overlay.skipped:
        return f"{overlay.seconds:.1f} s"
    return f"{overlay.seconds:.1f} s left out" + ("" if overlay.source is None else f"\nsee {overlay.source:.1f} s")


def _legend(overlays: list[Overlay]) -> list[tuple[Any, str]]:
    """What edges mean, if there are any."""
    from matplotlib.patches import Patch

    lines = keys(overlays)
    if not any(key.edge for key in lines):
        return []
    patches = []
    for key in lines:
        colour = "#{:02x}{:02x}{:02x}".format(*key.colour)
        patches.append(Patch(facecolor="none" if key.edge else colour, edgecolor=colour, linewidth=2))
    return [(patch, key.said) for patch, key in zip(patches, lines, strict=True)]
