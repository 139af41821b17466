"""Find a schedule for a FLOPs budget: the one whose next-token distributions are closest to those of all tokens.

Knows streams, schedules and what they cost. Refuses to know right answers: no labels are needed, only videos and
questions of the kind that will come.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..common import checks
from ..costs.decoder import DecoderShape
from ..errors import ConfigError
from ..pyramid import Pyramid
from ..stream.lm import VideoLM
from .budget import SMALLEST, Costs, shaped
from .judge import Clip, Judge, Objective, checked_clip
from .kernels import KERNELS, frontier

_FINALISTS = 5
"""How many of the best schedules the held-out clips choose from, the paper's among them in any case."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A schedule and how far it moves the model's next token.

    Attributes
    ----------
    pyramid : Pyramid
    flops : float
        Share of the FLOPs of all visual tokens, ranking included.
    divergence : float
        Mean KL divergence of the pruned from the full next-token distribution over the clips searched on, in nats.
    held_out : float
        The same over the held-out clips; nan for schedules that never came to it.
    """

    pyramid: Pyramid
    flops: float
    divergence: float
    held_out: float = math.nan


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes
    ----------
    chosen : Tried
        The finalist with the smallest divergence on the held-out clips. Being chosen by it, that figure flatters
        it a little where the clips are few.
    paper : Tried
        PyramidDrop's shape at the same budget; see `Costs.paper`.
    best_random : Tried
        The best on the clips searched on among the random schedules, before local search.
    """

    chosen: Tried
    paper: Tried
    best_random: Tried


def search(
    lm: VideoLM,
    clips: Sequence[Clip],
    budget: float,
    *,
    stages: int = 4,
    trials: int = 32,
    steps: int = 32,
    base: Pyramid | None = None,
    kernels: Sequence[str] = (),
    objective: Objective | None = None,
    seed: int = 0,
    watch: Callable[[Tried], None] = lambda tried: None,
) -> Found:
    """Random schedules, then steps from the best one; the held-out clips choose among the finalists.

    Every second clip is held out. All schedules use up the budget, so that they differ in shape alone.

    Parameters
    ----------
    lm : VideoLM
    clips : sequence of Clip
        Two or more.
    budget : float
        Share of the FLOPs of all visual tokens, in (0, 1); counted for one prefill of the longest clip.
    stages : int
        From 2.
    trials, steps : int
        Random schedules, and steps of local search; each costs one watching of half the clips.
    base : Pyramid, optional
        Where scorer, allocator and positions come from.
    kernels : sequence of str
        Shapes of two numbers ("step", "linear", "exponential", "multi_step") of which every boundary's schedule that
        uses up the budget is tried, too; see `pdrop_video.search.kernels`.
    objective : Objective, optional
        What of the answers is compared; the first token by default.
    seed : int
    watch : callable
        Is given each schedule that was tried.

    Raises
    ------
    ConfigError
        If there are fewer than two clips or stages, or the budget can't be met.
    """
    clips = checks.several("clips", clips, checked_clip)
    budget, stages, trials, steps = checked(len(clips), budget, stages, trials, steps)
    checks.instance("lm", lm, VideoLM, "pdrop_video.load()")
    base = checks.instance("base", Pyramid() if base is None else base, Pyramid, "Pyramid(scorer=...)")
    rng = random.Random(checks.whole("seed", seed, -(2**63), 2**63 - 1))
    if not callable(watch):
        raise ConfigError(f"watch is {checks.shown(watch)}; expected a function of one Tried.")
    kernels = checks.several("kernels", kernels, lambda name, each: checks.choice(name, each, tuple(KERNELS)))
    if objective is not None:
        checks.instance("objective", objective, Objective, 'Objective("answer")')
    shape = DecoderShape.of(lm.model.config)
    enough(shape, stages)
    judge, final = Judge(lm, clips[::2], objective), Judge(lm, clips[1::2], objective)
    costs = Costs(shape, max(judge.visual, final.visual))

    def tried(pyramid: Pyramid) -> Tried:
        found = Tried(pyramid, costs.share(pyramid), judge.divergence(pyramid))
        watch(found)
        return found

    default = costs.paper(base, stages, budget)
    if default is None:
        least = costs.share(shaped(base, [1], [SMALLEST]))
        raise ConfigError(
            f"{stages} stages can't be brought to {budget:.1%} of the FLOPs; expected more than {least:.1%}, the least "
            "that any schedule costs on this model."
        )
    paper = tried(default)
    seen = [tried(pyramid) for pyramid in _random(rng, costs, base, stages, budget, trials)]
    best_random = best = min(seen, key=_divergence)
    best = min(best, paper, key=_divergence)
    curves = [tried(pyramid) for pyramid in frontier(kernels, costs, base, budget)]
    for _ in range(steps):
        pyramid = _neighbour(rng, costs, best.pyramid, budget)
        if pyramid is not None:
            seen.append(tried(pyramid))
            best = min(best, seen[-1], key=_divergence)
    finalists = sorted({*seen, *curves, best_random}, key=_divergence)[:_FINALISTS]

    def judged(one: Tried) -> Tried:
        return replace(one, held_out=final.divergence(one.pyramid))

    paper, best_random = judged(paper), judged(best_random)
    others = [judged(one) for one in finalists if one.pyramid != best_random.pyramid]
    return Found(min([paper, best_random, *others], key=lambda one: one.held_out), paper, best_random)


def checked(clips: int, budget: float, stages: int, trials: int, steps: int) -> tuple[float, int, int, int]:
    """How a search over so many clips goes, in plain numbers; said before clips are decoded.

    Raises
    ------
    ConfigError
        If there are fewer than two clips or stages, or a number is out of range.
    """
    if clips < 2:
        raise ConfigError(f"{clips} clip was given; expected two or more: half of them are held out.")
    share = checks.real("budget", budget)
    if not 0 < share < 1:
        raise ConfigError(f"budget is {share:g}; expected a budget between 0 and 1, for example 0.5.")
    most = 1_000_000  # of what each takes a watching of half the clips
    return (
        share,
        checks.whole("stages", stages, 2),
        checks.whole("trials", trials, 1, most),
        checks.whole("steps", steps, 0, most),
    )


def enough(shape: DecoderShape, stages: int) -> None:
    """Look whether a decoder has boundaries for so many stages.

    Raises
    ------
    ConfigError
        If it has not.
    """
    Pyramid(stages=stages).resolve(shape.layers)
    if stages - 1 > len(between := boundaries(shape)):
        raise ConfigError(
            f"{stages} stages were asked of a model in which only layers {', '.join(map(str, shape.rank_at))} of "
            f"{shape.layers} can rank tokens; use at most {len(between) + 1}."
        )


def boundaries(shape: DecoderShape) -> list[int]:
    """The layers before which a searched schedule may drop: those that can rank, but for the first of all."""
    return [layer for layer in shape.rank_at if layer]


def _divergence(one: Tried) -> float:
    return one.divergence


def _random(
    rng: random.Random, costs: Costs, base: Pyramid, stages: int, budget: float, count: int
) -> Iterator[Pyramid]:
    """Boundaries and falling ratios at random, ratios scaled to the budget; those that can't meet it are drawn anew."""
    while count:
        layers = sorted(rng.sample(boundaries(costs.shape), stages - 1))
        ratios = sorted((rng.uniform(SMALLEST, 1) for _ in layers), reverse=True)
        if (pyramid := costs.scaled(base, layers, ratios, budget)) is not None:
            count -= 1
            yield pyramid


def _neighbour(rng: random.Random, costs: Costs, pyramid: Pyramid, budget: float) -> Pyramid | None:
    """One boundary a little shallower or deeper, or one ratio a little smaller or larger, at the same budget."""
    between, ratios = boundaries(costs.shape), list(pyramid.ratios or ())
    places = [between.index(layer) for layer in pyramid.layers or ()]
    at = rng.randrange(len(places))
    if rng.random() < 0.5:
        places[at] += rng.choice((-2, -1, 1, 2))
    else:
        ratios[at] *= math.exp(rng.gauss(0, 0.5))
        ratios.sort(reverse=True)
    inside = places[0] >= 0 and places[-1] < len(between)
    if not inside or any(a >= b for a, b in pairwise(places)):
        return None
    return costs.scaled(pyramid, [between[place] for place in places], ratios, budget)
