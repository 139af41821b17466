"""Plans, which a budget turns into recipes: the numbers that spend it follow by bisection from what the way costs.

A plan says which methods and what shape; a reducer's share and a schedule's ratio are what is solved. So all recipes of
a budget cost alike, and differ in what they do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..costs.decoder import DecoderShape
from ..errors import ConfigError, ModelError
from ..memory import Memory
from ..pyramid import Pyramid
from ..reduce import reducer_named
from ..stream.lm import VideoLM
from ..stream.recipe import Recipe
from .budget import SMALLEST, largest
from .judge import Clip
from .kernels import as_pyramid, middle
from .space import NONE, Budget, Space
from .whole import Foresight, Left, learned_bytes

MARGIN = 0.998
"""Of a budget what plans are solved to: what a small memory cuts up costs a little more than foreseen."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe but for the numbers that a budget decides.

    Attributes
    ----------
    gate, reducer : str
        "none" for none.
    split : float
        How much of what must go the reducer takes, from nothing, 0, to everything, 1; the schedule takes the rest.
    kernel : str
        The shape of the schedule.
    place : int
        Before which of the layers that can rank the first drop is, counted from 0.
    scorer, evictor, storage : str
    """

    gate: str
    reducer: str
    split: float
    kernel: str
    place: int
    scorer: str
    evictor: str
    storage: str


class Maker:
    """Turns plans into recipes.

    Parameters
    ----------
    lm : VideoLM
    space : Space
    left : callable
        ``left(gate, reducer)``: what they leave of each of the clips that budgets are solved on; None if refused.
    full : float
        FLOPs of these clips with all visual tokens.
    clip : Clip
        One of them, by which is seen what scorers carry.
    """

    def __init__(
        self,
        lm: VideoLM,
        space: Space,
        left: Callable[[str | None, str | None], Sequence[Left] | None],
        full: float,
        clip: Clip,
    ) -> None:
        self.lm, self.space, self.left, self.full, self.clip = lm, space, left, full, clip
        self.layers, self.rank_at = lm.num_layers, DecoderShape.of(lm.model.config).rank_at
        self._learns: dict[str, int] = {}
        self._keeps: dict[tuple[str, str | None, Budget], float | None] = {}

    # -- plans ------------------------------------------------------------------------------------------------------

    def drawn(self, rng: random.Random) -> Plan:
        """Every method of a slot alike; half of the reducers take all that must go, others share it with a schedule."""
        space, reducer = self.space, rng.choice(self.space.reducers)
        split = 0.0 if reducer == NONE else rng.choice((1.0, rng.random()))
        return Plan(
            gate=rng.choice(space.gates),
            reducer=reducer,
            split=split,
            kernel=rng.choice(space.shapes),
            place=rng.randrange(len(self.rank_at)),
            scorer=rng.choice(space.scorers),
            evictor=rng.choice(space.evictors),
            storage=rng.choice(space.storages),
        )

    def neighbour(self, rng: random.Random, plan: Plan) -> Plan:
        """One thing a little different: a method, the boundary, or who takes how much."""
        slot = rng.choice(("gate", "reducer", "split", "kernel", "place", "place", "scorer", "evictor", "storage"))
        if slot == "place":
            return replace(plan, place=min(max(plan.place + rng.choice((-2, -1, 1, 2)), 0), len(self.rank_at) - 1))
        if slot == "split":
            if plan.reducer == NONE:
                return plan
            return replace(plan, split=min(max(plan.split + rng.gauss(0, 0.3), 0.0), 1.0))
        names = self.space.shapes if slot == "kernel" else getattr(self.space, f"{slot}s")
        chosen = rng.choice(names)
        if slot == "reducer":
            was, now = plan.reducer == NONE, chosen == NONE
            split = 0.0 if now else rng.choice((1.0, rng.random())) if was else plan.split
            return replace(plan, reducer=chosen, split=split)
        return replace(plan, **{slot: chosen})

    # -- recipes ----------------------------------------------------------------------------------------------------

    def recipe(self, plan: Plan, budget: Budget) -> Recipe | None:
        """The recipe that spends a budget by a plan; None if none does."""
        front = self._front(plan, budget)
        if front is None:
            return None
        left = self.left(*front)
        if left is None:
            return None
        carried, learned = max((each.carried for each in left), default=0), self._learned(plan.scorer)
        base = Pyramid(scorer=plan.scorer)
        curve, depth = self.space.kernel(plan.kernel), middle(plan.kernel, self.rank_at[plan.place])

        def make(x: float) -> Pyramid:
            return as_pyramid(base, curve(self.layers, depth, max(x, SMALLEST)), self.rank_at)

        boundaries = 0
        while True:  # a scorer that learns carries something for each boundary, and less memory costs less: once more
            memory = self.memory(plan, budget, carried + boundaries * learned)
            pyramid = None if memory is None else self.solved(left, memory, make, budget)
            if memory is None or pyramid is None:
                return None
            if (found := len(pyramid.layers or ()) if learned else 0) <= boundaries:
                return Recipe(*front, pyramid, memory)
            boundaries = found

    def _learned(self, scorer: str) -> int:
        """Bytes that a scorer carries for each boundary."""
        if scorer not in self._learns:
            self._learns[scorer] = learned_bytes(self.lm, self.clip, scorer)
        return self._learns[scorer]

    def solved(
        self, left: Sequence[Left], memory: Memory, make: Callable[[float], Pyramid], budget: Budget
    ) -> Pyramid | None:
        """The most expensive ``make(x)`` within a budget behind what a front leaves; None if none is, or is refused."""
        scorer = make(0.0).scorer
        assert scorer is None or isinstance(scorer, str)
        ahead = Foresight(self.lm, left, scorer, memory)
        try:
            x = largest(lambda x: ahead.flops(make(x)), MARGIN * budget.flops * self.full)
        except (ConfigError, ModelError):  # the memory is too small, or the model has nothing for this scorer
            return None
        return None if x is None else make(x)

    def _front(self, plan: Plan, budget: Budget) -> tuple[str | None, str | None] | None:
        """Gate and reducer, with the share that it leaves; None where no share meets the budget."""
        gate = None if plan.gate == NONE else plan.gate
        if plan.reducer == NONE or plan.split == 0:
            return gate, None
        if with_keep(plan.reducer, 1.0) is None:
            return gate, plan.reducer
        keep = self.keep(plan.reducer, gate, budget)
        if keep is None:
            return None
        return gate, None if keep == 1 else with_keep(plan.reducer, keep**plan.split)

    def keep(self, reducer: str, gate: str | None, budget: Budget) -> float | None:
        """The largest share that a reducer may leave if nothing is dropped behind it; None if none meets the budget."""
        key = reducer, gate, budget
        if key not in self._keeps:
            left, nothing = self.left(gate, None) or (), Pyramid(stages=1)
            ahead = Foresight(self.lm, left, None, Memory(tokens=None))

            def cost(keep: float) -> float:
                method = reducer_named(with_keep(reducer, keep) or reducer)
                return ahead.flops(nothing, [_fewer(each, method.left, keep) for each in left])

            most = MARGIN * budget.flops * self.full
            self._keeps[key] = 1.0 if ahead.flops(nothing) <= most else largest(cost, most, SMALLEST)
        return self._keeps[key]

    def memory(self, plan: Plan, budget: Budget, carried: int) -> Memory | None:
        """What may be remembered beside what a front carries; None if nothing."""
        if budget.bytes is None:
            return Memory(tokens=None)
        if budget.bytes <= carried:
            return None
        return Memory(tokens=None, bytes=budget.bytes - carried, evictor=plan.evictor, storage=plan.storage)


def _fewer(each: Left, left: Callable[[int], int | None], keep: float) -> Left:
    """What a reducer leaves of each push, by its own word, or where that depends on the video such a share."""
    told = ((left(visual), visual, glue) for visual, glue in each.pieces)
    return replace(each, pieces=tuple((int(visual * keep) if n is None else n, glue) for n, visual, glue in told))


def with_keep(reducer: str, keep: float) -> str | None:
    """A reducer's line with a share in place of its own, to three digits; None if it takes none."""
    method, (name, _, own) = reducer_named(reducer), reducer.partition(":")
    says = ("keep",) if hasattr(method, "keep") else ("least", "most")
    if not all(hasattr(method, each) for each in says):
        return None
    share = max(SMALLEST, int(keep * 1000) / 1000)
    others = [part for part in own.split(",") if part and part.partition("=")[0].strip() not in says]
    return f"{name}:" + ",".join([*others, *(f"{each}={share}" for each in says)])
