"""What `pdrop-video search --by gradient` does: learns a schedule, shows it beside what is found without gradients."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

import pdrop_video as pv

from ..search.gradient import gradient_search
from ..search.judge import Objective
from .console import CONSOLE, ERRORS
from .fetching import announced
from .options import check_out
from .searching import Asked, Loading


def learn_schedule(
    asked: Asked,
    loading: Loading,
    out: Path,
    budget: float,
    steps: int,
    base: pv.Pyramid,
    objective: Objective,
    seed: int,
) -> None:
    """Learn schedules and save the best of them on the videos held out."""
    check_out(out)
    model, device, dtype = loading
    lm = pv.load(announced(model).fetch(), device=device, dtype=dtype)

    def say(line: str) -> None:
        ERRORS.print(escape(line), highlight=False, soft_wrap=True)

    clips = asked.films(lm)
    found = gradient_search(lm, clips, budget, steps=steps, base=base, objective=objective, seed=seed, watch=say)
    table = Table("", "before layers", "left", "FLOPs", "KL, searched on", "KL, held out", "passes", "seconds")
    for name, tried, passes, seconds in found.rows():
        layers, ratios = tried.pyramid.layers or (), tried.pyramid.ratios or ()
        shares = " ".join(f"{ratio:.3f}" for ratio in ratios)
        figures = (f"{tried.flops:.1%}", f"{tried.divergence:.4f}", f"{tried.held_out:.4f}")
        spent = (f"{passes:,}", f"{seconds:.0f}") if passes else ("", "")
        table.add_row(name, " ".join(map(str, layers)), shares, *figures, *spent)
    notes = {"model": lm.name, "budget": budget, "seed": seed, "steps": steps, "objective": asdict(objective)}
    found.chosen.pyramid.save(out, search=notes | {"videos": [clip.name for clip in clips]} | asdict(found))
    CONSOLE.print(table)
    CONSOLE.print(f"written to {escape(str(out))}", highlight=False, soft_wrap=True)
