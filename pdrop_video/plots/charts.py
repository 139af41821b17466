"""The charts, each a matplotlib `Figure` that any backend can show or save. Draws numbers and knows no model.

Texts and lines are of a grey that reads on white and on black; backgrounds are left to whoever saves the figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PDropError, StreamError
from .subjects import Answered, Watched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = "#808080"
_COLOURS = ("#4c78d0", "#2a9d8f", "#e08a1e", "#c8553d", "#8e5bb5", "#6b8e23")
_WIDTHS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Seconds of one bar; the smallest that gives few enough bars."""
_MOST_BARS = 48


def evidence(answer: Answered) -> Figure:
    """What an answer rested on: for each stage, the attention that went to each moment.

    Parameters
    ----------
    answer : Answer

    Returns
    -------
    matplotlib.figure.Figure
    """
    first, last = answer.seconds
    parts = list(enumerate(answer.evidence))
    if len(parts) > 1 and not parts[0][1].seconds:
        parts = parts[1:]  # a stage 0 without layers
    edges, width = _bars(first, last, parts[0][1].seconds)
    figure, axes = _rows(len(parts))
    for axis, (stage, part) in zip(axes, parts, strict=True):
        weight, _ = np.histogram(part.seconds, edges, weights=part.weight)
        axis.bar(edges[:-1], 100 * weight, width, align="edge", color=_colour(stage))
        axis.set_ylabel(f"stage {stage + 1}", fontsize=9)
        axis.set_ylim(0, max(100 * weight.max(initial=0) * 1.1, 1))
    axes[-1].set_xlabel(f"seconds of video ({_plain(width)} s a bar)", fontsize=9)
    figure.suptitle("Share of attention by moment, %", fontsize=10, color=GREY)
    return figure


def memory(stream: Watched) -> Figure:
    """How much of each stretch of time a stream still remembers, stage by stage.

    Bars are visual tokens that are remembered; the line is what a stage is given of so much video when it comes, on
    average.

    Parameters
    ----------
    stream : VideoStream

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    StreamError
        If nothing was watched yet.
    """
    if stream.span is None:
        raise StreamError("nothing was watched yet; push at least one frame before drawing the memory.")
    first, last = stream.span
    schedule = stream.loop.schedule
    shares = (1.0, *schedule.ratios)
    stages = [stage for stage, span in enumerate(schedule.spans) if span]
    whole = stream.held(stages[0])
    edges, width = _bars(first, last, whole.seconds[whole.visual].tolist())
    figure, axes = _rows(len(stages))
    for axis, stage in zip(axes, stages, strict=True):
        table, ratio = stream.held(stage), shares[stage]
        count, _ = np.histogram(table.seconds[table.visual].cpu().numpy(), edges)
        axis.bar(edges[:-1], count, width, align="edge", color=_colour(stage))
        came = stream.visual_tokens * ratio * width / (edges[-1] - edges[0])
        axis.axhline(came, color=GREY, linewidth=1, linestyle="--")
        axis.set_ylabel(f"stage {stage + 1}", fontsize=9)
        axis.set_ylim(0, max(count.max(initial=0), came) * 1.15)
    axes[-1].set_xlabel(f"seconds of video ({_plain(width)} s a bar)", fontsize=9)
    figure.suptitle("Visual tokens still remembered; dashed: when they came", fontsize=10, color=GREY)
    return figure


def cache(history: Sequence[tuple[float, int]], bound: int | None = None) -> Figure:
    """The size of a cache over time, against its bound.

    Parameters
    ----------
    history : sequence of tuple of float and int
        Seconds of video and bytes, as `Album.history` has them.
    bound : int, optional
        `VideoStream.cache_bound`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    StreamError
        If the history is empty.
    """
    if not history:
        raise StreamError("there is no history of the cache yet; add each chunk to an album after it was pushed.")
    seconds, sizes = zip(*history, strict=True)
    figure, (axis,) = _rows(1, height=2.2)
    axis.plot(seconds, [size / 1e6 for size in sizes], color=_COLOURS[0], marker="o", markersize=3)
    axis.set_xlim(0)
    axis.set_ylim(0, 1.15 * max(*sizes, bound or 0) / 1e6)
    if bound is not None:
        axis.axhline(bound / 1e6, color=_COLOURS[3], linestyle="--", linewidth=1)
        place = {"x": 0.01, "y": bound / 1e6, "transform": axis.get_yaxis_transform()}
        axis.text(s=f"bound {bound / 1e6:.3g} MB", fontsize=9, color=_COLOURS[3], va="bottom", **place)
    axis.set_xlabel("seconds of video", fontsize=9)
    axis.set_ylabel("MB", fontsize=9)
    figure.suptitle("Memory in use (keys and values of all layers)", fontsize=10, color=GREY)
    return figure


def _bars(first: float, last: float, steps: Sequence[float]) -> tuple[NDArray[np.float64], float]:
    """Edges of bars from a first to a last moment, whole multiples of a width that reads well, and the width.

    No bar is narrower than the shortest time between two `steps`, so that steps one by one leave no gaps.
    """
    between = np.diff(np.unique(np.round(steps, 3)))
    wanted = max((last - first) / _MOST_BARS, between.min(initial=last - first, where=between > 0), _WIDTHS[0])
    width = next((w for w in _WIDTHS if w >= wanted * 0.999), 3600 * np.ceil(wanted / 3600))
    begin, end = np.floor(first / width), np.floor(last / width) + 1
    return np.arange(begin, end + 1) * width, float(width)


def _rows(count: int, height: float | None = None) -> tuple[Figure, Any]:
    """A figure of charts that share their time, one below the other."""
    figure = blank(5.4, 0.75 * count + 1.0 if height is None else height)
    axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axis in axes:
        axis.patch.set_alpha(0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(GREY)
        axis.tick_params(colors=GREY, labelsize=8)
        axis.xaxis.label.set_color(GREY)
        axis.yaxis.label.set_color(GREY)
        axis.locator_params(axis="y", nbins=3)
    return figure, axes


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PDropError("pictures need matplotlib, which is missing: pip install 'pdrop-video[plots]'.") from error
    return Figure(figsize=(width, height), layout="constrained", facecolor="none")


def _colour(stage: int) -> str:
    return _COLOURS[stage % len(_COLOURS)]


def _plain(width: float) -> str:
    return f"{width:g}"
