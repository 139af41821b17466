"""The training curve, the dev split's answers by kind: `python -m eval.synthetic.curve --log LOG --out PICTURE`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import typer

from .puzzles import CODED, TWINS, TWO_STEPS
from .quiz import ENDS

HERE = Path(__file__).parent
GROUPS: Mapping[str, Sequence[str]] = {
    "first and last of everything": ENDS,
    "motion, now": ("motion", "now"),
    "shown, which, absent": ("shown", "which", "absent"),
    "colour_of, where": ("colour_of", "where"),
    "relation": ("relation",),
    "before, after": ("before", "after"),
    "order": ("order",),
    "count": ("count",),
    "codes": CODED,
    "near-duplicates": TWINS,
    "two steps": TWO_STEPS,
}
"""Kinds of question that share a line."""
TITLES = {
    "language_dev_words": "answered in words",
    "language_dev_letters": "answered by letters",
    "mixed_dev_moving": "moving cameras and things, in words",
    "mixed_dev_still": "still cameras, in words",
}
"""What a log may hold of the dev split, and what its panel is called."""


def read(log: Path, stage: str) -> pd.DataFrame:
    """Share of right answers of the dev split by step (rows) and kind (columns), `all` among them.

    Parameters
    ----------
    log : Path
        As `Log` writes it; where a run went on from an earlier step, the later line counts.
    stage : str
        One of `TITLES`.
    """
    lines = pd.read_csv(log, keep_default_na=False)
    lines = lines[lines["stage"] == stage].drop_duplicates("step", keep="last").set_index("step")
    pairs = lines["values"].map(lambda text: dict(pair.split("=") for pair in text.split()))
    return pd.DataFrame(pairs.tolist(), index=lines.index).astype(float).sort_index()


def draw(log: Path, out: Path) -> None:
    """Draw what a log holds of the dev split side by side."""
    matplotlib.use("Agg")
    there = {stage: right for stage in TITLES if len(right := read(log, stage))}
    figure, grid = plt.subplots(1, len(there), figsize=(11, 4), sharey=True, squeeze=False, layout="constrained")
    panels = grid[0]
    colours = {name: plt.get_cmap("tab20")(number) for number, name in enumerate(GROUPS)}
    for axes, (stage, right) in zip(panels, there.items(), strict=True):
        for name, kinds in GROUPS.items():
            found = [kind for kind in kinds if kind in right]
            if found:
                axes.plot(right.index, right[found].mean(axis=1), linewidth=1.2, label=name, color=colours[name])
        axes.plot(right.index, right["all"], color="black", linewidth=2.2, label="all")
        axes.set(title=TITLES[stage], xlabel="step of the language stage", ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("share of right answers, dev split")
    labelled = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    panels[-1].legend(labelled.values(), labelled, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main(
    log: Annotated[Path, typer.Option(help="A training log.")] = HERE / "training_log.csv",
    out: Annotated[Path, typer.Option(help="PNG or any format of matplotlib.")] = HERE / "training_curve.png",
) -> None:
    """Draw the training curve."""
    draw(log, out)


if __name__ == "__main__":
    typer.run(main)
