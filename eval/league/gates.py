"""What gates let on: measured on videos of the dev split, so that the league's rows know what to spend behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape

from ..runner.clock import Clock
from ..runner.config import configured
from ..runner.metered import Metered
from ..tables.league import LetOn
from ..tasks import task_named
from .sharing import Shared

LINES = (
    *(f"static:threshold={each:g}" for each in (4, 16, 24, 32, 40, 48, 64)),
    *(f"event:theta={theta},kappa={kappa},max_gap=30" for theta in (0.2, 0.5) for kappa in (0.02, 0.1, 0.2, 0.4, 0.6)),
    *(f"surprise:threshold={each:g}" for each in (1.5, 2.2, 3, 4)),
    *(f"surprise:threshold={each:g},max_gap=30" for each in (2.2, 3, 4, 5, 6, 7, 8, 9, 12, 15)),
    *(f"codec:tau={tau:g},pixels={each:g},max_age=30,sticky=false" for tau in (4, 16, 64) for each in (16, 48)),
    "codec",
)
"""Gates that are measured; each system takes the line of its gate that suits a share best."""

FRUGAL = pv.Pyramid(layers=(0,), ratios=(0.01,), scorer="even")
"""Drops nearly all before the first layer: what the decoder would make of it is not looked at."""


def measured(shared: Shared, common: dict[str, Any], lines: Sequence[str] = LINES) -> pd.DataFrame:
    """A row a gate: of all tokens, and of all that the vision tower computes, the share that it lets on.

    Parameters
    ----------
    shared : Shared
    common : dict
        Settings of `eval.run`; all videos of the set are watched.
    lines : sequence of str
        Gates as one writes them.

    Returns
    -------
    DataFrame
        Columns gate, tokens, tower, videos.
    """
    task = task_named(common["task"], common["data"])
    items = {item.video: item for item in task.items()}
    rows, whole = [], (0, 0.0)
    for line in ("none", *lines):
        config = configured(None, {**common, "out": Path("."), "gate": line})
        lm, worker = shared.model(config), shared.worker(config)
        shape, tokens, tower = DecoderShape.of(lm.model.config), 0, 0.0
        for item in items.values():
            metered = Metered(lm.stream(FRUGAL, gate=config.gate), shape, Clock())
            for chunk in worker.watched(item):
                metered.push(chunk)
            tokens, tower = tokens + metered.visual_tokens, tower + (metered.tower or 0)
        if line == "none":
            whole = tokens, tower
        else:
            rows.append({"gate": line, "tokens": tokens / whole[0], "tower": tower / whole[1], "videos": len(items)})
    return pd.DataFrame(rows)


def lets_on(path: Path, behind: str) -> LetOn:
    """What a file of `measured` says.

    Parameters
    ----------
    path : Path
    behind : str
        The gate that others stand behind.

    Raises
    ------
    ConfigError
        If there is no such file, or it is none of these, or has no line of that gate.
    """
    try:
        table = pd.read_csv(path)
        lines = {str(row.gate): float(max(row.tokens, row.tower)) for row in table.itertuples()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise pv.ConfigError(
            f"{path} does not say what gates let on; `python -m eval.league gates --data DEV` measures it on a set of "
            "the dev split."
        ) from error
    if behind not in {line.partition(":")[0] for line in lines}:
        raise pv.ConfigError(f"{path} has no line of the gate {behind}; choose one of those that it has for --behind.")
    return LetOn(lines, behind)
