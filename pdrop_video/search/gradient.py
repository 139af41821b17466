"""Find a schedule by gradients, as VisPCO does (arXiv 2604.15188), beside the search without them.

Knows learners, clips and what schedules cost. Refuses to know right answers, as `search` does. What is learned is
brought to the budget as the library counts it, by its ratio, so that it can be compared with what was searched; the
depth is as it was learned.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..common import checks
from ..costs.decoder import DecoderShape
from ..errors import ConfigError
from ..pyramid import Pyramid
from ..stream.lm import VideoLM
from .budget import SMALLEST, Costs
from .judge import Clip, Judge, Objective, checked_clip
from .kernels import as_pyramid, frontier, smooth_step
from .lagrangian import UNITS
from .learners import EPOCHS, LEARNERS, learn
from .search import Tried, checked
from .soft import SoftPass, lay_out


@dataclass(frozen=True, slots=True)
class Learned:
    """What a learner came to.

    Attributes
    ----------
    tried : Tried
        The schedule, brought to the budget.
    depth, ratio : float
        As they were learned, the mean over clips and questions.
    depth_spread : float
        Their depths' standard deviation: what the network makes of the input.
    gap : float
        How far the learned schedule is below the budget as VisPCO counts it, of what all visual tokens cost.
    passes : int
        Passes through the model, forward and backward.
    seconds : float
    """

    tried: Tried
    depth: float
    ratio: float
    depth_spread: float
    gap: float
    passes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Compared:
    """A search by gradients beside one without.

    Attributes
    ----------
    learned : dict of str to Learned
        By learner.
    front : Tried
        The best on the clips searched on of the same smooth step at every boundary; see `kernels.frontier`.
    front_passes : int
        Watchings of a clip that it took, and questions to it.
    front_seconds : float
    paper : Tried
        PyramidDrop's shape.
    """

    learned: dict[str, Learned]
    front: Tried
    front_passes: int
    front_seconds: float
    paper: Tried

    @property
    def chosen(self) -> Tried:
        """The best of what was learned on the clips that were held out."""
        return min((one.tried for one in self.learned.values()), key=lambda one: one.held_out)

    def rows(self) -> list[tuple[str, Tried, int, float]]:
        """Each by its name, with passes and seconds; 0 of what nothing was done for."""
        learned = [(f"by gradients, {n}", one.tried, one.passes, one.seconds) for n, one in self.learned.items()]
        without = ("the same without", self.front, self.front_passes, self.front_seconds)
        return [*learned, without, ("paper's shape", self.paper, 0, 0.0)]


def gradient_search(
    lm: VideoLM,
    clips: Sequence[Clip],
    budget: float,
    *,
    learners: Sequence[str] = LEARNERS,
    steps: int = 32,
    epochs: int = EPOCHS,
    base: Pyramid | None = None,
    objective: Objective | None = None,
    seed: int = 0,
    watch: Callable[[str], None] = lambda line: None,
) -> Compared:
    """Learn a smooth step by gradients, and find the best one without; both are judged on the clips held out.

    Every second clip is held out.

    Parameters
    ----------
    lm : VideoLM
        Whose layers all attend to columns of their own.
    clips : sequence of Clip
        Two or more.
    budget : float
        Share of the FLOPs of all visual tokens, in (0, 1), as for `search`. VisPCO's, which the constraint has, is from
        text alone to everything.
    learners : sequence of str
        "network", "free".
    steps : int
        Of an epoch; each is one clip and question, forward and backward.
    epochs : int
        At most so many; less where the budget was met three times running.
    base : Pyramid, optional
        Where scorer, allocator and positions come from.
    objective : Objective, optional
        What of the answers is compared; the first token by default. The paper's is the answer.
    seed : int
    watch : callable
        Is given a line for each epoch.

    Raises
    ------
    ConfigError
        If there are fewer than two clips, a learner is unknown, or the budget can't be met.
    ModelError
        If some layers don't attend to columns of their own.
    """
    clips = checks.several("clips", clips, checked_clip)
    budget, _, _, steps = checked(len(clips), budget, 2, 1, steps)
    checks.whole("steps", steps, 1)
    checks.whole("epochs", epochs, 1)
    checks.instance("lm", lm, VideoLM, "pdrop_video.load()")
    base = checks.instance("base", Pyramid() if base is None else base, Pyramid, "Pyramid(scorer=...)")
    learners = checks.several("learners", learners, lambda name, each: checks.choice(name, each, LEARNERS))
    objective = Objective() if objective is None else objective
    soft = SoftPass(lm, base)
    judge, final = Judge(lm, clips[::2], objective), Judge(lm, clips[1::2], objective)
    costs = Costs(DecoderShape.of(lm.model.config), max(judge.visual, final.visual))

    def tried(pyramid: Pyramid) -> Tried:
        return Tried(pyramid, costs.share(pyramid), judge.divergence(pyramid), final.divergence(pyramid))

    paper = costs.paper(base, min(4, len(costs.shape.rank_at)), budget)
    if paper is None:
        raise ConfigError(f"no schedule brings this model to {budget:.1%} of its FLOPs; expected a larger budget.")
    begun = time.perf_counter()
    front = [(judge.divergence(pyramid), pyramid) for pyramid in frontier(("step",), costs, base, budget)]
    front_seconds, best = time.perf_counter() - begun, min(front, key=lambda one: one[0])[1]
    laid = [each for clip in clips[::2] for each in lay_out(lm, clip, objective)]
    learned = {}
    for name in learners:
        begun = time.perf_counter()
        learner = learn(soft, laid, name, budget, steps, epochs, seed, watch)
        taken, (depth, ratio, spread) = time.perf_counter() - begun, learner.settled(laid, budget)
        found, gap = tried(fitted(costs, base, depth, budget)), learner.gap(laid, costs.shape, budget) / UNITS
        learned[name] = Learned(found, depth, ratio, spread, gap, learner.passes, taken)
    each = sum(1 + len(clip.questions) for clip in clips[::2])
    return Compared(learned, tried(best), each * len(front), front_seconds, tried(paper))


def fitted(costs: Costs, base: Pyramid, depth: float, budget: float) -> Pyramid:
    """The smooth step of a depth whose ratio uses up a budget; of the next smaller depth where layers before cost more.

    Raises
    ------
    ConfigError
        If no depth does.
    """
    layers, rank_at = costs.shape.layers, costs.shape.rank_at
    for shallower in range(math.ceil(2 * depth) + 1):
        at = max(depth - shallower / 2, 0.5)

        def made(x: float, at: float = at) -> Pyramid:
            return as_pyramid(base, smooth_step(layers, at, max(x, SMALLEST)), [i for i in rank_at if i])

        found = costs.fitted(made, budget)
        if found is not None:
            return found
    raise ConfigError(f"no depth up to {depth:.2f} meets {budget:.1%} of the FLOPs; expected a larger budget.")
