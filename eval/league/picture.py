"""The league's picture: accuracy against the share of the FLOPs that was spent, and at equal bytes, with error bars."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from scipy import stats

from .standings import CONFIDENCE, FOCUS

NAMED = 8
"""Systems with a colour and a name of their own: the best at the budget in focus. All others are grey dots."""


def draw(stand: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Draw a panel for each of the tables of FLOPs and of bytes.

    Parameters
    ----------
    stand : mapping of str to DataFrame
        See `eval.league.standings.standings`.
    path : Path
        A PNG.
    """
    matplotlib.use("agg")  # a picture needs no screen
    panels = [name for name in ("flops", "bytes") if name in stand]
    if not panels:
        return
    figure, axes = plt.subplots(1, len(panels), figsize=(6.5 * len(panels), 5), layout="constrained", squeeze=False)
    for name, panel in zip(panels, axes[0], strict=True):
        _panel(panel, name, stand[name])
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def _panel(axes: Any, name: str, found: pd.DataFrame) -> None:
    across = "spent" if name == "flops" else "kib"
    shown = found[found[across].notna() & found.accuracy.notna()]
    best = shown[(shown["at"] == FOCUS[name]) & (shown.kind == "system")].nlargest(NAMED, "accuracy")
    named = {(row.system, row.slot) for row in best.itertuples()}
    marks = cycle("sD^vP*X<>p")
    for (system, slot), rows in shown[shown.kind != "whole"].groupby(["system", "slot"], sort=False):
        rows = rows.sort_values(across)
        if rows.kind.iloc[0] == "default":
            _line(axes, rows, across, fmt="o-", color="black", linewidth=2, label=f"{system}: the default", zorder=4)
        elif (system, slot) in named:
            _line(axes, rows, across, fmt=f"{next(marks)}-", linewidth=1, label=f"{system} ({slot})", zorder=3)
        elif rows.kind.iloc[0] == "control":
            axes.plot(_x(rows, across), 100 * rows.accuracy, "x", color="0.55", markersize=5, zorder=1)
        else:
            axes.plot(_x(rows, across), 100 * rows.accuracy, ".", color="0.7", zorder=1)
    whole = shown[shown.kind == "whole"]
    if len(whole):
        axes.axhline(100 * whole.accuracy.iloc[0], color="0.4", linestyle=":", label="all tokens")
    axes.set_xlabel("FLOPs spent, % of all tokens'" if name == "flops" else "KiB remembered")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%.0f"))
    axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set_xticks([5, 10, 15, 25, 50, 100] if name == "flops" else sorted(_x(shown[shown.kind == "default"], across)))
    axes.set_ylabel("accuracy, %")
    axes.set_title(f"bars are {CONFIDENCE:.0%} intervals by videos; dots: others, crosses: controls", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower right")


def _x(rows: pd.DataFrame, across: str) -> Any:
    return (100 * rows[across] if across == "spent" else rows[across]).round(1)


def _line(axes: Any, rows: pd.DataFrame, across: str, **look: Any) -> None:
    reach = [float(stats.t.ppf((1 + CONFIDENCE) / 2, max(videos - 1, 1))) for videos in rows.videos]
    error = 100 * rows.error.fillna(0) * reach
    axes.errorbar(_x(rows, across), 100 * rows.accuracy, yerr=error, capsize=2, markersize=5, **look)
