"""Find a recipe for a budget of FLOPs and bytes: the one whose answers are closest to those of all tokens.

Knows plans, budgets and a question set; refuses to know right answers. Random plans are judged on a few videos, the
better half of them on more, and so on; steps from the best follow; the videos that were held out choose among the
finalists, and say how sure that is. All that was measured is in a journal, so that a search which was stopped goes on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from ..common import checks
from ..errors import ConfigError
from ..pyramid import Pyramid
from ..stream.lm import VideoLM
from ..stream.recipe import Recipe
from .judge import Clip, Objective, checked_clip
from .kernels import as_pyramid, linear
from .ledger import Ledger
from .outcome import Candidate, Outcome
from .plans import Maker, Plan, with_keep
from .space import NONE, Budget, Space
from .uncertainty import uncertainty

FINALISTS = 5
"""How many of the best recipes the held-out clips choose from; controls come on top."""
FIRST_RUNG = 4
"""Clips of the first rung, by whose cost budgets are solved; a quarter of those searched on if that is more."""
_DRAWS = 30
"""How often a plan is drawn anew that meets no budget, or was there."""
RANDOM, STEP = "random", "step"


@dataclass(slots=True)
class RecipeSearch:
    """A search over recipes.

    Parameters
    ----------
    lm : VideoLM
    clips : sequence of Clip
        Four or more; every second one is held out.
    folder : path
        Where the journal is; made if need be. What it holds of the same clips and questions is not measured again.
    space : Space
        What takes part; by default everything that needs neither a question nor training.
    objective : Objective
        What is compared.
    trials, steps : int
        Random plans, and steps from the best of them, for each budget.
    seed : int
    notes : dict
        What else the values depend on, such as how many frames were drawn: a journal of others is refused.
    watch : callable
        Is given a line on what is going on.

    Raises
    ------
    ConfigError
        If there are fewer than four clips, a number is out of range, or the journal is one of other settings.
    """

    lm: VideoLM
    clips: Sequence[Clip]
    folder: Path
    space: Space = field(default_factory=Space)
    objective: Objective = field(default_factory=Objective)
    trials: int = 32
    steps: int = 32
    seed: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    watch: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        checks.instance("lm", self.lm, VideoLM, "pdrop_video.load()")
        self.clips = checks.several("clips", self.clips, checked_clip)
        if len(self.clips) < 4:
            raise ConfigError(f"{len(self.clips)} clips were given; expected four or more: half of them are held out.")
        if len({clip.name for clip in self.clips}) < len(self.clips):
            raise ConfigError("two clips have one name; put all questions about a video into one clip.")
        self.trials = checks.whole("trials", self.trials, 1, 1_000_000)
        self.steps = checks.whole("steps", self.steps, 0, 1_000_000)
        self.seed = checks.whole("seed", self.seed, -(2**63), 2**63 - 1)

    def run(self, budgets: Sequence[Budget]) -> list[Outcome]:
        """Search at each of some budgets.

        Raises
        ------
        ConfigError
            If no recipe meets a budget, or the family does not say what its vision tower costs.
        """
        with Ledger(self.lm, self.clips, self.objective, self.folder, self.notes, self.watch) as ledger:
            return [_Race(self, ledger, budget).run() for budget in budgets]


class _Race:
    """A search at one budget."""

    def __init__(self, search: RecipeSearch, ledger: Ledger, budget: Budget) -> None:
        self.ledger, self.budget, self.how = ledger, budget, search
        self.searched, self.held = list(search.clips[::2]), list(search.clips[1::2])
        random.Random(f"clips {search.seed}").shuffle(self.searched)
        self.rng = random.Random(f"plans {search.seed} {budget.name}")
        count = len(self.searched)
        # of the first rung's cost budgets are solved, and its videos choose least: the last has them all
        first = min(max(FIRST_RUNG, ceil(count / 4)), count)
        self.rungs = sorted({first, min(2 * first, count), count})
        some = self.searched[:first]
        self.maker = Maker(search.lm, search.space, partial(ledger.left, some), ledger.full(some), some[0])
        self.plans: dict[str, Plan] = {}
        self.recipes: dict[str, Recipe] = {}

    def run(self) -> Outcome:
        """Controls and random plans, steps from the best, the finalists on what was held out."""
        self.recipes |= self._controls()
        controls = tuple(self.recipes)
        for number in range(1, self.how.trials + 1):
            if not self._drawn(f"{RANDOM} {number}", lambda: self.maker.drawn(self.rng)):
                break
        if not self.recipes:
            bound = "" if self.budget.bytes is None else f" and {self.budget.bytes:,} bytes"
            raise ConfigError(
                f"no recipe of this space comes to {self.budget.flops:.1%} of the FLOPs of the whole way{bound}; give "
                "more, or let gates take part: nothing else makes the vision tower cheaper."
            )
        living = self._halved(controls)
        best = best_random = next((one for one in living if one.name in self.plans), None)
        for number in range(1, self.how.steps + 1):
            if best is None:
                break
            name, near = f"{STEP} {number}", self.plans[best.name]
            if not self._drawn(name, lambda near=near: self.maker.neighbour(self.rng, near)):  # type: ignore[misc]
                break
            if (tried := self._raced(name, best)) is not None:
                living.append(tried)
                best = min(best, tried, key=_divergence)
        living.sort(key=_divergence)
        best_ones = _distinct(one for one in living if one.name not in controls)[:FINALISTS]
        final = [one for one in living if one in best_ones or one.name in controls or one is best_random]
        done = [each for each in (self._measured(one.name, self.searched, self.held) for one in final) if each]
        if not done:
            raise ConfigError("no finalist kept to its budget on the held-out clips; give more, or other clips.")
        done.sort(key=lambda one: sum(one.held_out))
        self.how.watch(f"budget {self.budget.name}: {len(done)} finalists on {len(self.held)} held-out videos")
        sure = uncertainty([one.held_out for one in done], seed=abs(self.how.seed))
        return Outcome(self.budget, tuple(done), sure, tuple(one for one in living if one not in final))

    def _controls(self) -> dict[str, Recipe]:
        """What there is without a search, behind the first of the gates, none before all, that leaves enough for it."""
        gates = sorted(self.maker.space.gates, key=lambda gate: gate != NONE)
        return next((found for gate in gates if (found := self._controls_behind(gate))), {})

    def _controls_behind(self, name: str) -> dict[str, Recipe]:
        """PyramidDrop's even shape, a linear one, and tokens evenly spread."""
        maker, found = self.maker, dict[str, Recipe]()
        gate, behind = (None, "") if name == NONE else (name, f", {name}")
        left = maker.left(gate, None)
        if left is None:
            return found
        carried = max((each.carried for each in left), default=0)
        memory = maker.memory(Plan(name, NONE, 0, "step", 0, "contrast", "pyramid", "full"), self.budget, carried)
        if memory is None:
            return found

        def even(x: float) -> Pyramid:
            share = max(x, 0.01)
            return Pyramid(ratios=(share, share**2, share**3))

        def falling(x: float) -> Pyramid:
            return as_pyramid(Pyramid(), linear(maker.layers, 1, max(x, 0.01)), maker.rank_at)

        for shape, make in (("paper's shape", even), ("linear", falling)):
            if (pyramid := maker.solved(left, memory, make, self.budget)) is not None:
                found[shape + behind] = Recipe(gate, None, pyramid, memory)
        if (keep := maker.keep("even", gate, self.budget)) is not None:
            found["even" + behind] = Recipe(gate, with_keep("even", keep), Pyramid(stages=1), memory)
        return found

    def _drawn(self, name: str, make: Callable[[], Plan]) -> bool:
        """Whether a plan was found that meets the budget and was not there yet; it is noted under the name."""
        for _ in range(_DRAWS):
            plan = make()
            recipe = self.maker.recipe(plan, self.budget)
            if recipe is not None and recipe not in self.recipes.values():
                self.plans[name], self.recipes[name] = plan, recipe
                return True
        return False

    def _halved(self, controls: Iterable[str]) -> list[Candidate]:
        """Those that were in the better half on each rung's clips, and the controls, best first, judged on all."""
        living = list(self.recipes)
        for number, size in enumerate(self.rungs, 1):
            where = f"budget {self.budget.name}, rung {number} of {len(self.rungs)}"
            for nth, clip in enumerate(self.searched[:size], 1):  # one after the other, so that each is decoded once
                for name in living:
                    self.ledger.judged(self.recipes[name], clip)
                self.how.watch(f"{where}: {len(living)} recipes on video {nth} of {size}")
            judged = [each for name in living if (each := self._measured(name, self.searched[:size])) is not None]
            judged.sort(key=_divergence)
            said = f"; the best so far {judged[0].divergence:.4f} nats ({judged[0].name})" if judged else ""
            self.how.watch(f"{where}: {len(living)} recipes on {size} videos{said}")
            best = [one.name for one in judged if one.name not in controls]
            best = best if size == self.rungs[-1] else best[: ceil(len(best) / 2)]
            living = [one.name for one in judged if one.name in best or one.name in controls]
        return judged

    def _raced(self, name: str, best: Candidate) -> Candidate | None:
        """A recipe judged on every clip searched on; None once it is worse than the best on a rung's, or its equal."""
        for size in self.rungs:
            tried = self._measured(name, self.searched[:size])
            far = sum(best.divergences[:size]) / size
            if tried is None or tried.divergence > far:
                self.how.watch(f"budget {self.budget.name}, {name}: no better on {size} videos")
                return None
        assert tried is not None
        if tried.divergences == best.divergences:  # what was changed does nothing here, as an evictor that is not asked
            self.how.watch(f"budget {self.budget.name}, {name}: the same answers as the best so far")
            return None
        self.how.watch(f"budget {self.budget.name}, {name}: {tried.divergence:.4f} nats against {far:.4f}")
        return tried

    def _measured(self, name: str, searched: Sequence[Clip], held: Sequence[Clip] = ()) -> Candidate | None:
        """A recipe on some clips; None if it was refused there, or did not keep to the budget."""
        recipe, clips = self.recipes[name], [*searched, *held]
        found = []
        for clip in clips:
            if (one := self.ledger.judged(recipe, clip)) is None:
                return None
            found.append(one)
        made = Candidate(
            name,
            recipe,
            self.budget,
            sum(one.spent.flops for one in found) / self.ledger.full(clips),
            max(one.spent.bytes for one in found),
            tuple(one.divergence for one in found[: len(searched)]),
            tuple(one.divergence for one in found[len(searched) :]),
        )
        return made if made.fits else None


def _divergence(one: Candidate) -> float:
    return one.divergence


def _distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Of those whose answers are the same on every clip the first."""
    first: dict[tuple[float, ...], Candidate] = {}
    for one in candidates:
        first.setdefault(one.divergences, one)
    return list(first.values())
