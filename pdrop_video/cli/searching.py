"""What `pdrop-video search` does in each of its spaces: loads, searches, shows. Knows the library and a console."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

import pdrop_video as pv

from ..common import checks
from ..costs.decoder import DecoderShape
from ..models import describe
from ..plots.saving import check_folder
from ..pyramid.scorers import scorer_named
from ..search import results
from ..search.judge import Clip, Objective
from ..search.kernels import KERNELS, kernel_named, smooth_step
from ..search.oracles import oracles
from ..search.questions import Film, Kept
from ..search.quota import measure, quota_kernel
from ..search.recipes import RecipeSearch
from ..search.search import Tried, enough, search
from ..search.space import Budget, Space
from .console import CONSOLE, ERRORS
from .fetching import announced
from .options import check_out

QUOTA = "quota"
"""The shape of schedules that goes by layers' sensitivities."""
MEASURED = 4
"""Clips that they are measured on."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is searched on.

    Attributes
    ----------
    clips : list of (str, tuple of str)
        Videos, and what is asked of each.
    frames, chunk : int
        Of each video, and of a push.
    """

    clips: list[tuple[str, tuple[str, ...]]]
    frames: int
    chunk: int

    @property
    def notes(self) -> dict[str, int]:
        """What values depend on beside the questions."""
        return {"frames": self.frames, "chunk": self.chunk}

    def films(self, lm: pv.VideoLM, motion: bool = False) -> list[Clip]:
        """Clips that are decoded when they are watched."""
        kept = Kept()
        for question in {question for _, asked in self.clips for question in asked}:
            lm.bounded("one of the questions", question)
        return [Clip(video, Film(video, self.frames, self.chunk, kept, motion), asked) for video, asked in self.clips]


Loading = tuple[str | None, str | None, str]
"""Model, device and type."""


def _say(line: str) -> None:
    ERRORS.print(escape(line), highlight=False, soft_wrap=True)


def find_schedule(
    asked: Asked,
    loading: Loading,
    out: Path,
    sizes: tuple[float, int, int, int],
    base: pv.Pyramid,
    kernels: Sequence[str],
    objective: Objective,
    seed: int,
) -> None:
    """Search schedules and save the best."""
    check_out(out)
    for kernel in kernels:
        kernel_named(kernel)
    budget, stages, trials, steps = sizes
    model, device, dtype = loading
    shape = DecoderShape.of(describe(model)[0])
    enough(shape, stages)
    lm, number = pv.load(announced(model).fetch(), device=device, dtype=dtype), count(1)
    clips = asked.films(lm)
    most = 1 + trials + steps + len(kernels) * len(shape.rank_at)

    def watch(tried: Tried) -> None:
        _say(f"{next(number)} of at most {most}: {tried.divergence:.4f} nats")

    found = search(
        lm,
        clips,
        budget,
        stages=stages,
        trials=trials,
        steps=steps,
        base=base,
        kernels=kernels,
        objective=objective,
        seed=seed,
        watch=watch,
    )
    rows = {"chosen": found.chosen, "paper's shape": found.paper, f"best of {trials} random": found.best_random}
    notes = {"model": lm.name, "budget": budget, "seed": seed, "videos": [clip.name for clip in clips]}
    found.chosen.pyramid.save(out, search=notes | {name: asdict(tried) for name, tried in rows.items()})
    table = Table("", "before layers", "left", "FLOPs", "KL, searched on", "KL, held out")
    for name, tried in rows.items():
        layers, ratios = tried.pyramid.layers or (), tried.pyramid.ratios or ()
        shares = " ".join(f"{ratio:.3f}" for ratio in ratios)
        figures = (f"{tried.flops:.1%}", f"{tried.divergence:.4f}", f"{tried.held_out:.4f}")
        table.add_row(name, " ".join(map(str, layers)), shares, *figures)
    CONSOLE.print(table)
    CONSOLE.print(f"written to {escape(str(out))}", highlight=False, soft_wrap=True)


def find_recipes(
    asked: Asked,
    loading: Loading,
    out: Path,
    shares: Sequence[float],
    sizes: Sequence[int],
    taking: dict[str, list[str] | None],
    objective: Objective,
    trials: int,
    steps: int,
    seed: int,
) -> None:
    """Search recipes at each budget of FLOPs and bytes, and write what was found."""
    bounds: Sequence[int | None] = sizes or [None]
    budgets = [Budget(share, size) for share in shares for size in bounds]
    given: dict[str, Any] = {name: tuple(names) for name, names in taking.items() if names}
    shapes = given.get("kernels", (*KERNELS, QUOTA))
    given["kernels"] = tuple(kernel for kernel in shapes if kernel != QUOTA)
    space = Space(**given, sources={QUOTA: smooth_step} if QUOTA in shapes else {})  # until layers are measured
    check_folder(out)
    model, device, dtype = loading
    lm = pv.load(announced(model).fetch(), device=device, dtype=dtype)
    clips = asked.films(lm, space.uses_motion)
    if QUOTA in shapes:
        _say("measuring what four bits take from each layer")
        space = replace(space, sources={QUOTA: quota_kernel(measure(lm, clips[::2][:MEASURED]))})
    how = RecipeSearch(
        lm,
        clips,
        out,
        space,
        objective,
        trials=trials,
        steps=steps,
        seed=seed,
        notes=asked.notes,
        watch=_say,
    )
    found = how.run(budgets)
    notes = {
        "model": lm.name,
        "seed": seed,
        "trials": trials,
        "steps": steps,
        **asked.notes,
        "objective": asdict(objective),
        "videos": len(asked.clips),
        "questions": sum(len(questions) for _, questions in asked.clips),
        "space": space.as_dict(),
    }
    written = results.write(out, found, notes)
    for outcome in found:
        table = Table("", "FLOPs", "bytes", "KL, searched on", "KL, held out", "behind the best", "best in", "recipe")
        for i, one in enumerate(outcome.finalists):
            sure = outcome.sure
            table.add_row(
                one.name,
                f"{one.flops:.1%}",
                f"{one.bytes:,}",
                f"{one.divergence:.4f}",
                f"{sure.mean[i]:.4f} ± {sure.standard_error[i]:.4f}",
                "" if i == sure.best else f"{sure.behind[i]:.4f} ± {sure.behind_error[i]:.4f}",
                f"{sure.wins[i]:.0%}",
                escape(_short(one.recipe)),
            )
        CONSOLE.print(table)
        CONSOLE.print(escape(results.sentence(outcome)), highlight=False, soft_wrap=True)
    for path in written:
        CONSOLE.print(f"written to {escape(str(path))}", highlight=False, soft_wrap=True)


def _short(recipe: pv.Recipe) -> str:
    """A recipe's methods in a line."""
    said = recipe.as_dict()
    pyramid, memory = said["pyramid"], said["memory"]
    drops = "" if recipe.pyramid.stages == 1 else f"{len(recipe.pyramid.ratios or ())} drops"
    parts = [said.get("gate"), said.get("reducer"), drops, pyramid.get("scorer"), memory.get("evictor")]
    return ", ".join(str(part) for part in [*parts, memory.get("storage")] if part)


def measure_oracle(
    asked: Asked,
    loading: Loading,
    out: Path,
    scorers: Sequence[str],
    keep: float,
    layer: int,
    objective: Objective,
    size: dict[str, int],
    seed: int,
) -> None:
    """Search the best sets of tokens, and show how far scorers are from them."""
    for scorer in scorers:
        scorer_named(scorer)
    share = checks.share("--keep", keep)
    check_folder(out)
    model, device, dtype = loading
    lm = pv.load(announced(model).fetch(), device=device, dtype=dtype)
    found = oracles(
        lm,
        asked.films(lm),
        out,
        objective=objective,
        notes=asked.notes,
        watch=_say,
        count=share,
        layer=layer,
        scorers=list(scorers),
        seed=seed,
        **size,
    )
    table = Table("", "KL, nats", "behind the best set found")
    for one in found:
        far, behind = f"{one.mean:.4f} ± {one.standard_error:.4f}", f"{one.behind:.4f} ± {one.behind_error:.4f}"
        table.add_row(one.name, far, behind)
    CONSOLE.print(table)
    CONSOLE.print(f"written to {escape(str(out))}", highlight=False, soft_wrap=True)
