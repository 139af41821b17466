"""The search of EvoComp (arXiv 2604.17087) for the best set of tokens, by crossover and mutation of sets.

Knows numbers of tokens and a fitness; refuses to know models. The paper's candidates keep one token of each group, a
group being the tokens whose nearest embedding of the vocabulary is the same, so that their number is not chosen. Sets
of a given size, which cross by sharing what both have and mutate by swaps, are ours, for comparisons at equal counts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from ..common import checks
from ..errors import ConfigError

Kept: TypeAlias = tuple[int, ...]
"""Numbers of the tokens that stay, ascending."""
POPULATION, PARENTS, GENERATIONS, CROSSOVER, MUTATION = 48, 12, 10, 0.9, 0.2
"""The paper's, as third parties report them."""


class Sets(Protocol):
    """Which sets there are, and how they breed."""

    def draw(self, rng: random.Random) -> Kept:
        """One at random."""

    def cross(self, rng: random.Random, one: Kept, other: Kept) -> Kept:
        """A child of two."""

    def mutate(self, rng: random.Random, one: Kept, rate: float) -> Kept:
        """One that differs a little, or not at all."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """One token of each group, as the paper has it.

    Parameters
    ----------
    groups : sequence of tuple of int
        The tokens of each, in order; every token in one.
    """

    groups: Sequence[tuple[int, ...]]

    def __post_init__(self) -> None:
        if not self.groups or not all(self.groups):
            raise ConfigError("groups are empty; expected one token or more in each.")

    def draw(self, rng: random.Random) -> Kept:
        """One of each group."""
        return tuple(sorted(rng.choice(group) for group in self.groups))

    def cross(self, rng: random.Random, one: Kept, other: Kept) -> Kept:
        """The first half of the groups from one parent, the others from the other."""
        half = len(self.groups) // 2
        pairs = zip(self._chosen(one), self._chosen(other), strict=True)
        return tuple(sorted(a if at < half else b for at, (a, b) in enumerate(pairs)))

    def mutate(self, rng: random.Random, one: Kept, rate: float) -> Kept:
        """In each group, by chance, the token to the left or right of the one that was kept, if there is one."""
        made = []
        for token, group in zip(self._chosen(one), self.groups, strict=True):
            if rng.random() < rate:
                at = group.index(token) + rng.choice((-1, 1))
                token = group[at] if 0 <= at < len(group) else token
            made.append(token)
        return tuple(sorted(made))

    def _chosen(self, one: Kept) -> list[int]:
        """The token of each group, in the order of groups."""
        there = set(one)
        return [next(token for token in group if token in there) for group in self.groups]


@dataclass(frozen=True, slots=True)
class Counted:
    """Sets of so many tokens; ours.

    Parameters
    ----------
    tokens, count : int
        How many there are, and how many stay.
    """

    tokens: int
    count: int

    def __post_init__(self) -> None:
        checks.whole("count", self.count, 1, self.tokens)

    def draw(self, rng: random.Random) -> Kept:
        """Any of them, each alike."""
        return tuple(sorted(rng.sample(range(self.tokens), self.count)))

    def cross(self, rng: random.Random, one: Kept, other: Kept) -> Kept:
        """What both keep, and of what one of them keeps so many at random as are missing."""
        both, either = set(one) & set(other), sorted(set(one) ^ set(other))
        return tuple(sorted(both | set(rng.sample(either, self.count - len(both)))))

    def mutate(self, rng: random.Random, one: Kept, rate: float) -> Kept:
        """One token goes for one that was not kept, by chance another, and so on; none where the chance is 0."""
        most, gone = min(self.count, self.tokens - self.count), int(rate > 0)
        while gone < most and rng.random() < rate:
            gone += 1
        gone = min(gone, most)
        outside = sorted(set(range(self.tokens)) - set(one))
        left = set(one) - set(rng.sample(one, gone))
        return tuple(sorted(left | set(rng.sample(outside, gone))))


@dataclass(frozen=True, slots=True)
class Evolved:
    """What a search found.

    Attributes
    ----------
    best : tuple of int
        The best set ever tried.
    fitness : float
        Its fitness.
    tries : int
        How many sets were tried, each once.
    history : tuple of float
        The best so far after the first population and after each generation.
    """

    best: Kept
    fitness: float
    tries: int
    history: tuple[float, ...]


def evolve(
    fitness: Callable[[Kept], float],
    sets: Sets,
    *,
    seed: int = 0,
    population: int = POPULATION,
    parents: int = PARENTS,
    generations: int = GENERATIONS,
    crossover: float = CROSSOVER,
    mutation: float = MUTATION,
    begin: Sequence[Kept] = (),
    watch: Callable[[int, float], None] = lambda tries, best: None,
) -> Evolved:
    """The best set by a fitness, the smaller the better, found by breeding.

    Parameters
    ----------
    fitness : callable
    sets : Grouped or Counted
    seed : int
    population, parents, generations : int
        Sets of each generation, the best of them that have children, and generations behind the first.
    crossover, mutation : float
        How likely a child has two parents, and the token of a group changes or, in sets of a given size, there is one
        swap more.
    begin : sequence of tuple of int
        Sets that are in the first population, such as scorers' own; none by default.
    watch : callable
        Is given the number of tries and the best fitness after each generation.

    Raises
    ------
    ConfigError
        If a number is out of range, or a fitness is none.
    """
    population, parents = checks.whole("population", population, 2), checks.whole("parents", parents, 1, population)
    generations = checks.whole("generations", generations, 0)
    crossover, mutation = checks.real("crossover", crossover, 0, 1), checks.real("mutation", mutation, 0, 1)
    rng, known = random.Random(checks.whole("seed", seed, -(2**63), 2**63 - 1)), dict[Kept, float]()

    def tried(one: Kept) -> float:
        if one not in known:
            known[one] = float(fitness(one))
            if not math.isfinite(known[one]):
                raise ConfigError(f"the fitness of a set is {known[one]}; expected a finite number.")
        return known[one]

    living = [tuple(sorted(one)) for one in begin][:population]
    living += [sets.draw(rng) for _ in range(population - len(living))]
    history = []
    for generation in range(generations + 1):
        ranked = sorted(dict.fromkeys(living), key=lambda one: (tried(one), one))
        history.append(min(known.values()))
        watch(len(known), history[-1])
        if generation < generations:
            best, living = ranked[:parents], []
            while len(living) < population:
                one, other = rng.choice(best), rng.choice(best)
                child = sets.cross(rng, one, other) if rng.random() < crossover else one
                living.append(sets.mutate(rng, child, mutation))
    winner = min(known, key=lambda one: (known[one], one))
    return Evolved(winner, known[winner], len(known), tuple(history))


def vocabulary_groups(visual: Tensor, vocabulary: Tensor, block: int = 8192) -> list[tuple[int, ...]]:
    """Tokens by the embedding of the vocabulary that is nearest to each by cosine.

    Parameters
    ----------
    visual : Tensor [tokens, hidden]
    vocabulary : Tensor [words, hidden]
    block : int
        Words that are compared at once.

    Returns
    -------
    list of tuple of int
        Each group's tokens in order; groups in the order of their words. Of equally near words the first counts.
    """
    rows, best, nearest = F.normalize(visual.float(), dim=-1), None, None
    for first in range(0, len(vocabulary), block):
        words = F.normalize(vocabulary[first : first + block].float(), dim=-1)
        most, at = (rows @ words.T).max(-1)
        if best is None or nearest is None:
            best, nearest = most, at
        else:
            better = most > best
            nearest, best = at.add(first).where(better, nearest), most.where(better, best)
    groups: dict[int, list[int]] = {}
    for token, word in enumerate([] if nearest is None else nearest.tolist()):
        groups.setdefault(word, []).append(token)
    return [tuple(groups[word]) for word in sorted(groups)]
