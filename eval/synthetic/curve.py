"""The training curve, the dev split's answers by kind: `python -m eval.synthetic.curve --log LOG --out PICTURE`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import typer

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
}
"""Kinds of question that share a line."""
FORMS = {"words": "in words", "letters": "by letters"}


def read(log: Path, form: str) -> pd.DataFrame:
    """Share of right answers of the dev split by step (rows) and kind (columns), `all` among them.

    Parameters
    ----------
    log : Path
        As `Log` writes it; where a run went on from an earlier step, the later line counts.
    form : str
        One of `FORMS`.
    """
    lines = pd.read_csv(log, keep_default_na=False)
    lines = lines[lines["stage"] == f"language_dev_{form}"].drop_duplicates("step", keep="last").set_index("step")
    pairs = lines["values"].map(lambda text: dict(pair.split("=") for pair in text.split()))
    return pd.DataFrame(pairs.tolist(), index=lines.index).astype(float).sort_index()


def draw(log: Path, out: Path) -> None:
    """Draw both forms of a log side by side."""
    matplotlib.use("Agg")
    figure, panels = plt.subplots(1, len(FORMS), figsize=(11, 4), sharey=True, layout="constrained")
    for axes, (form, title) in zip(panels, FORMS.items(), strict=True):
        right = read(log, form)
        for name, kinds in GROUPS.items():
            found = [kind for kind in kinds if kind in right]
            axes.plot(right.index, right[found].mean(axis=1), linewidth=1.2, label=name)
        axes.plot(right.index, right["all"], color="black", linewidth=2.2, label="all")
        axes.set(title=f"answered {title}", xlabel="step of the language stage", ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("share of right answers, dev split")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
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
