"""How far a scorer is from the best set of tokens that a search finds at the same count, for one question on a clip.

Knows streams, scorers and sets; refuses to know right answers: fitness is KL(all tokens || the set) over what the full
model says, where EvoComp (arXiv 2604.17087) takes the loss on the right answer. That, and counts that are chosen, are
ours, so this is an EvoComp-style search. It sees what it is judged by, and no scorer does: a bound, no method. Beside
it stands the best of as many random sets, since much of what many tries find is the number of tries.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..common import checks
from ..errors import ConfigError
from ..memory import Memory
from ..models import VisualChunk
from ..pyramid import Pyramid
from ..pyramid.scorers import Ranking
from ..stream.lm import VideoLM
from ..stream.recipe import Recipe
from ..stream.stream import VideoStream
from ..video import FrameChunk
from .evolution import Counted, Evolved, Grouped, Kept, evolve, vocabulary_groups
from .judge import FULL, Clip, Objective, checked_clip


@dataclass(frozen=True, slots=True)
class Given:
    """A scorer that keeps a given set of a chunk's visual tokens, by their numbers."""

    kept: Kept
    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = True
    exact: ClassVar[bool] = True

    def __call__(self, ranking: Ranking) -> Tensor:
        """1 for those that stay, else 0 [batch, rows]."""
        number = torch.where(ranking.visual, ranking.visual.cumsum(1) - 1, -1)
        return torch.isin(number, torch.tensor(self.kept, device=number.device)).float()


@dataclass(frozen=True, slots=True)
class Oracle:
    """What was found for one question on one clip.

    Attributes
    ----------
    tokens, count : int
        Visual tokens of the clip, and how many stay behind the boundary.
    layer : int
        In front of which the others go.
    best : float
        The smallest divergence of any set that was found, in nats.
    kept : tuple of int
        That set.
    tries : int
        Sets that the search tried.
    random_best, random_mean : float
        Of as many random sets.
    scorers : dict of str to float
        Of the sets that scorers choose.
    history : tuple of float
        The best after each generation.
    """

    tokens: int
    count: int
    layer: int
    best: float
    kept: Kept
    tries: int
    random_best: float
    random_mean: float
    scorers: dict[str, float]
    history: tuple[float, ...]


def evo_oracle(
    lm: VideoLM,
    clip: Clip,
    question: str,
    *,
    count: int | float | None = 0.25,
    layer: int = 0,
    scorers: Sequence[str] = ("contrast",),
    objective: Objective | None = None,
    begin_with_scorers: bool = True,
    seed: int = 0,
    watch: Callable[[int, float], None] = lambda tries, best: None,
    **evolution: int | float,
) -> Oracle:
    """The best set of visual tokens for a question, by an EvoComp-style search, beside scorers and random sets.

    All of the clip enters as one chunk, and everything but the set goes in front of one layer.

    Parameters
    ----------
    lm : VideoLM
    clip : Clip
        Short enough that some hundred prefills of it can be waited for.
    question : str
    count : int, float or None
        How many tokens stay, or which share. None keeps one of each group of the vocabulary's, as the paper does.
    layer : int
        In front of which the others go; one that can rank.
    scorers : sequence of str
        What is compared, shared over time as in a stream; the question is standing, so that those that ask know it.
    objective : Objective, optional
        What the divergence is taken over; the first token of the answer by default.
    begin_with_scorers : bool
        Whether the scorers' sets are in the first population, so that what is found is no worse than any of them. Not
        where groups are given, of which a scorer need not keep one each.
    seed : int
    watch : callable
        Is given the number of tries and the smallest divergence after each generation.
    **evolution
        `population`, `parents`, `generations`, `crossover`, `mutation`, as for `evolve`.

    Raises
    ------
    ConfigError
        If the count or the layer does not fit, or a scorer is unknown.
    """
    checks.instance("lm", lm, VideoLM, "pdrop_video.load()")
    checked_clip("clip", clip)
    checks.text("question", question)
    objective = Objective() if objective is None else objective
    at = _Set(lm, clip, question, layer, objective)
    sets: Grouped | Counted
    if count is None:
        sets = Grouped(vocabulary_groups(at.features, lm.model.get_input_embeddings().weight))
        kept = len(sets.groups)
    else:
        kept = max(int(checks.share("count", count) * at.tokens), 1) if isinstance(count, float) else count
        sets = Counted(at.tokens, checks.whole("count", kept, 1, at.tokens))
    chosen = {name: at.chosen(name, kept) for name in checks.texts("scorers", scorers, least=0)}
    begin = [one for one, _ in chosen.values()] if begin_with_scorers and count is not None else []
    found: Evolved = evolve(at.divergence, sets, seed=seed, begin=begin, watch=watch, **evolution)  # type: ignore[arg-type]
    rng = random.Random(f"random sets beside {seed}")
    others = [at.divergence(sets.draw(rng)) for _ in range(found.tries)]
    return Oracle(
        tokens=at.tokens,
        count=kept,
        layer=at.layer,
        best=found.fitness,
        kept=found.best,
        tries=found.tries,
        random_best=min(others),
        random_mean=sum(others) / len(others),
        scorers={name: far for name, (_, far) in chosen.items()},
        history=found.history,
    )


class _Set:
    """A clip that was seen once by the vision tower, and what the full model says to a question on it."""

    def __init__(self, lm: VideoLM, clip: Clip, question: str, layer: int, objective: Objective) -> None:
        frames = FrameChunk.cat(list(clip.chunks))
        whole = len(frames) - len(frames) % lm.adapter.frames_per_step
        if not whole:
            raise ConfigError(f"{checks.shown(clip.name)} has {len(frames)} frames; expected a whole step of them.")
        self.lm, self.question, self.frames = lm, question, frames.part(0, whole)
        with lm.stream(FULL) as stream:
            can = stream.loop.rank_at
            if layer not in can:
                raise ConfigError(
                    f"layer is {checks.shown(layer)}; choose one that can rank: {', '.join(map(str, can))}."
                )
            self.layer = layer
            with lm.turnstile:
                state = replace(stream._state)
                (taken,) = stream._ingest.front.take(state, self.frames)
                self.look: VisualChunk = stream._ingest.front.perceive(state, taken)
            self._enter(stream)
            held = stream.held()
            self.numbers = held.index[held.visual]
            self.reference = objective.full(stream, question)
        self.tokens = len(self.numbers)
        self.features = self.look.embeds[self.look.visual_rows()]

    def _enter(self, stream: VideoStream) -> None:
        """What the tower saw, into a stream that is empty."""
        with self.lm.turnstile, stream._changing(replace(stream._state)) as state:
            state.span, state.frames = (self.frames.seconds[0], self.frames.seconds[-1]), len(self.frames)
            stream._ingest.visual(state, self.look)

    def _recipe(self, count: int, pyramid: Pyramid) -> Recipe:
        ratio = min((count + 0.5) / self.tokens, 1.0)  # of which int() makes the count, whatever is rounded
        return Recipe(
            pyramid=replace(pyramid, stages=None, layers=(self.layer,), ratios=(ratio,)), memory=Memory(tokens=None)
        )

    def divergence(self, kept: Kept) -> float:
        """KL of what the model says behind a set from what it says behind all tokens."""
        with self.lm.stream(self._recipe(len(kept), Pyramid(scorer=Given(kept), allocator="global"))) as stream:
            self._enter(stream)
            return self.reference.divergence(stream, self.question)

    def chosen(self, scorer: str, count: int) -> tuple[Kept, float]:
        """The set that a scorer keeps that knows the question, and how far it is."""
        with self.lm.stream(self._recipe(count, Pyramid(scorer=scorer)), standing_question=self.question) as stream:
            self._enter(stream)
            held = stream.held(-1)
            kept = torch.searchsorted(self.numbers, held.index[held.visual]).tolist()
            return tuple(sorted(kept)), self.reference.divergence(stream, self.question)
