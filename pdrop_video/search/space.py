"""The recipes that a search may find: which methods take part, and plans that a budget turns into recipes.

A plan says which methods and what shape; the numbers that spend the budget, a reducer's share and a schedule's ratio,
follow by bisection from what the whole way costs. So all recipes of a budget cost alike, and differ in what they do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..common import checks
from ..costs.decoder import DecoderShape
from ..errors import ConfigError
from ..gate import GATES, gate_named
from ..memory import EVICTORS, Memory
from ..memory.evictors import evictor_named
from ..memory.storages import STORAGES, storage_named
from ..pyramid import SCORERS, Pyramid
from ..pyramid.scorers import scorer_named
from ..reduce import REDUCERS, reducer_named
from ..registry import facts_of
from ..stream.lm import VideoLM
from ..stream.recipe import Recipe
from .budget import SMALLEST, largest
from .kernels import KERNELS, Kernel, as_pyramid, kernel_named, middle
from .whole import Foresight, Left

NONE = "none"
CONTROLS = {"random", "even", "shuffled"}
"""Methods that know nothing: what others are compared with, and no part of the space unless they are named."""
MARGIN = 0.998
"""Of a budget what plans are solved to: what a small memory cuts up costs a little more than foreseen."""
_TRIES = 200


def usable(registry: Mapping[str, Any]) -> tuple[str, ...]:
    """The methods of a registry that need no question, no training, and nothing that only some models have."""
    said = {name: facts_of(method) for name, method in registry.items() if name not in CONTROLS}
    return tuple(
        name
        for name, facts in said.items()
        if facts is not None
        and not (facts.needs_question or facts.trained)
        and not hasattr(registry[name], "check")
        and not getattr(registry[name], "needs", ())
    )


@dataclass(frozen=True, slots=True)
class Space:
    """What takes part, slot by slot; "none" stands for no gate, or no reducer.

    Parameters
    ----------
    gates, reducers, scorers, evictors, storages : tuple of str
        Names, with parameters if need be; by default all that are listed and need neither question nor training.
    kernels : tuple of str
        The shapes of schedules.
    sources : mapping of str to Kernel
        Further shapes, by names of their own, such as `quota_kernel`, which goes by layers' sensitivities.

    Raises
    ------
    ConfigError
        If a name is unknown, or a slot is empty.
    """

    gates: tuple[str, ...] = (NONE, *usable(GATES))
    reducers: tuple[str, ...] = (NONE, *usable(REDUCERS))
    kernels: tuple[str, ...] = tuple(KERNELS)
    scorers: tuple[str, ...] = usable(SCORERS)
    evictors: tuple[str, ...] = usable(EVICTORS)
    storages: tuple[str, ...] = usable(STORAGES)
    sources: Mapping[str, Kernel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known: dict[str, Callable[[Any], object]] = {
            "gates": gate_named,
            "reducers": reducer_named,
            "kernels": kernel_named,
            "scorers": scorer_named,
            "evictors": evictor_named,
            "storages": storage_named,
        }
        for name, look_up in known.items():
            least = 0 if name == "kernels" and self.sources else 1
            given = tuple(checks.texts(name, getattr(self, name), least=least))
            for each in given:
                if not (each == NONE and name in ("gates", "reducers")):
                    look_up(each)
            object.__setattr__(self, name, tuple(dict.fromkeys(given)))

    @property
    def shapes(self) -> tuple[str, ...]:
        """Kernels and sources by name."""
        return tuple(dict.fromkeys((*self.kernels, *self.sources)))

    def kernel(self, name: str) -> Kernel:
        """A shape by its name."""
        return self.sources[name] if name in self.sources else kernel_named(name)

    @property
    def uses_motion(self) -> bool:
        """Whether one of the gates looks at what a codec says of motion."""
        return any(getattr(gate_named(gate), "uses_motion", False) for gate in self.gates if gate != NONE)

    def as_dict(self) -> dict[str, list[str]]:
        """Names by slot, as JSON has it."""
        names = {each.name: list(getattr(self, each.name)) for each in fields(self) if each.name != "sources"}
        return names | {"sources": list(self.sources)}


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


@dataclass(frozen=True, slots=True)
class Budget:
    """What a recipe may cost.

    Attributes
    ----------
    flops : float
        Share of the FLOPs of the whole way with all visual tokens, tower included, in the mean over clips.
    bytes : int or None
        Most bytes that a stream holds after any push; None for no limit, and no search over memories.
    """

    flops: float
    bytes: int | None = None

    def __post_init__(self) -> None:
        share = checks.real("budget", self.flops)
        if not 0 < share < 1:
            raise ConfigError(f"budget is {share:g}; expected a budget between 0 and 1, for example 0.5.")
        if self.bytes is not None:
            checks.whole("bytes", self.bytes)

    @property
    def name(self) -> str:
        """For files and tables."""
        return f"{self.flops:g}" + ("" if self.bytes is None else f"_{self.bytes}")


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
    """

    def __init__(
        self, lm: VideoLM, space: Space, left: Callable[[str | None, str | None], Sequence[Left] | None], full: float
    ) -> None:
        self.lm, self.space, self.left, self.full = lm, space, left, full
        self.layers, self.rank_at = lm.num_layers, DecoderShape.of(lm.model.config).rank_at
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
        memory = self.memory(plan, budget, max((each.carried for each in left), default=0))
        if memory is None:
            return None
        base = Pyramid(scorer=plan.scorer)
        curve, depth = self.space.kernel(plan.kernel), middle(plan.kernel, self.rank_at[plan.place])

        def make(x: float) -> Pyramid:
            return as_pyramid(base, curve(self.layers, depth, max(x, SMALLEST)), self.rank_at)

        pyramid = self.solved(left, memory, make, budget)
        return None if pyramid is None else Recipe(*front, pyramid, memory)

    def solved(
        self, left: Sequence[Left], memory: Memory, make: Callable[[float], Pyramid], budget: Budget
    ) -> Pyramid | None:
        """The most expensive ``make(x)`` within a budget behind what a front leaves; None if none is."""
        scorer = make(0.0).scorer
        assert scorer is None or isinstance(scorer, str)
        ahead = Foresight(self.lm, left, scorer, memory)
        x = largest(lambda x: ahead.flops(make(x)), MARGIN * budget.flops * self.full)
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
