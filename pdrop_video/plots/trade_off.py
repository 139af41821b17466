"""What is lost against what is spent: a point a recipe, those that fewer FLOPs do not beat joined. Numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .charts import GREY, blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = "viridis_r"


@dataclass(frozen=True, slots=True)
class Point:
    """A recipe in the picture.

    Attributes
    ----------
    flops : float
        Share of all.
    loss, error : float
        In nats, and its standard error.
    bytes : int
    front, chosen : bool
        Whether nothing beats it, and whether it is a budget's choice.
    name : str
    """

    flops: float
    loss: float
    error: float
    bytes: int
    front: bool
    chosen: bool
    name: str


def trade_off(points: Sequence[Point]) -> Figure:
    """Loss by FLOPs, colour by bytes; the front with error bars, choices ringed and named.

    The front is one of three costs. A line joins those of it that nothing of as few FLOPs beats, whatever its bytes.

    Parameters
    ----------
    points : sequence of Point

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    PDropError
        If matplotlib, the extra "plots", is not installed.
    """
    figure = blank(6.4, 4.2)
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    front = sorted((point for point in points if point.front), key=lambda point: (point.flops, point.loss))
    axis.errorbar(
        [100 * point.flops for point in front],
        [point.loss for point in front],
        [point.error for point in front],
        fmt="none",
        color=GREY,
        elinewidth=1,
        capsize=2,
        zorder=1,
        label="nothing beats these in KL, FLOPs and bytes",
    )
    least = [point for i, point in enumerate(front) if all(point.loss < before.loss for before in front[:i])]
    axis.step([100 * point.flops for point in least], [point.loss for point in least], GREY, where="post", linewidth=1)
    drawn = axis.scatter(
        [100 * point.flops for point in points],
        [point.loss for point in points],
        c=[point.bytes / 1e6 for point in points],
        s=[36 if point.front else 14 for point in points],
        cmap=_COLOURS,
        zorder=2,
    )
    chosen = [point for point in points if point.chosen]
    axis.scatter(
        [100 * point.flops for point in chosen],
        [point.loss for point in chosen],
        s=110,
        facecolors="none",
        edgecolors="#c8553d",
        zorder=3,
        label="chosen on held-out videos",
    )
    for point in points:
        if point.chosen or not point.name.startswith(("random", "step")):
            where = (100 * point.flops, point.loss)
            axis.annotate(point.name, where, xytext=(6, 4), textcoords="offset points", fontsize=7, color=GREY)
    axis.set_xlabel("FLOPs of the whole way, % of those with all tokens", fontsize=9)
    axis.set_ylabel("KL from the answers with all tokens, nats", fontsize=9)
    axis.set_ylim(0)
    axis.legend(fontsize=8, frameon=False)
    figure.colorbar(drawn, ax=axis).set_label("most MB held", fontsize=9)
    return figure
