"""SPpruner: what stands out and what is asked for, and then what lies around it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..common.checks import real, share, switch
from ..common.ties import exactly, working
from ..registry import Facts
from .base import Reduced, Tokens
from .likeness import apart, nearest_word, ranged, unit

_STEP, _WORDS = 256, 16
"""Places of a step and words of a question, as costs are counted."""
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SPpruner:
    """Focus, then context, arXiv 2605.20950: seeds by saliency and relevance, and then what surrounds them.

    Of the int(tokens * keep) tokens of a chunk that stay, half are seeds: most of them by saliency times relevance, the
    rest by saliency alone, so that subjects which the question doesn't name are there, too. The others are found from
    the seeds on: again and again, of the cells that touch what is taken, the one of the highest saliency * (1 - largest
    cosine to what is taken of its step).

    Only the paper's abstract could be read, which says focus by "saliency and relevance" and "scanning of neighbouring
    regions"; the formulas, the constants and that no training is needed are ours. So are these. Saliency is what the
    token receives of the tower's last attention, where the family hands it over, else the length of its difference to
    the mean of its 3 x 3 neighbourhood. Relevance is the largest cosine to a word of the question; 1 without one. Both
    are moved to [0, 1] within each step; where all of a step are alike, saliency is 0 and relevance 1. Seeds compete
    over the chunk; neighbours are the eight around a cell of the same step, as far as they are there. Where nothing is
    left to scan, the best by saliency times relevance come next. Equals go in an order spread evenly over time and
    space.

    Carried: nothing. Not chunk-invariant: a chunk's budget is split over its own tokens alone.

    Parameters
    ----------
    keep : float
        Share of the tokens of each chunk that stays.
    seeds : float
        Share of those that are seeds.
    focus : float
        Share of the seeds that are chosen by saliency times relevance.
    across : bool
        Whether the same cells of the steps before and after are neighbours, too.

    Raises
    ------
    ConfigError
        If a share is none, or `across` no switch.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    wants: ClassVar[tuple[str, ...]] = ("attention",)
    facts: ClassVar[Facts] = Facts(
        says="visual tokens that stand out and that the question is about, and then their neighbours",
        paper="SPpruner, arXiv 2605.20950",
        formula=(
            "seeds: the highest saliency * relevance, and some by saliency alone\n"
            "then, again and again, the neighbour of what is taken with the largest saliency * (1 - largest cos\n"
            "    to what is taken of its step)"
        ),
        ours=True,
    )
    keep: float = 0.5
    seeds: float = 0.5
    focus: float = 0.75
    across: bool = False

    def __post_init__(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "keep", share("keep", self.keep))
        object.__setattr__(self, "seeds", share("seeds", self.seeds))
        object.__setattr__(self, "focus", real("focus", self.focus, 0, 1))
        object.__setattr__(self, "across", switch("across", self.across))

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Scores on the device, the order of choice on the host."""
        dtype, steps = tokens.features.dtype, len(tokens.seconds)
        cell = tokens.step * tokens.places + tokens.place()
        salient = tokens.tower.get("attention")
        salient = stands_out(tokens.features, cell, steps, tokens.grid) if salient is None else salient
        salient = ranged(salient, tokens.step, steps, dtype)
        relevant = torch.ones_like(salient)
        if tokens.question is not None and len(tokens.question):
            words = nearest_word(tokens.features, tokens.question)
            relevant = ranged(words, tokens.step, steps, dtype, alike=1.0)
        directions = tokens.features.new_zeros(steps * tokens.places, tokens.features.shape[1])
        directions = unit(directions.index_copy(0, cell, tokens.features)).view(steps, tokens.places, -1)
        unlike = apart(directions @ directions.mT, dtype)  # [steps, places, places]
        turn = tokens.turn()
        found = taken(
            salient.cpu().double().numpy(),
            relevant.cpu().double().numpy(),
            cell.cpu().numpy(),
            turn.cpu().numpy(),
            tokens.grid,
            self.left(len(tokens)),
            unlike.cpu().double().numpy(),
            seeds=self.seeds,
            focus=self.focus,
            across=self.across,
        )
        return Reduced(torch.from_numpy(np.sort(found)).to(cell.device)), {}

    def left(self, tokens: int) -> int:
        """The share of them, one at least."""
        return max(int(tokens * self.keep), 1)

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Nothing."""
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        """Cosines within steps of 256 places, and to 16 words."""
        return 2 * tokens * hidden * (min(tokens, _STEP) + _WORDS)


def stands_out(features: Tensor, cell: Tensor, steps: int, grid: tuple[int, int]) -> Tensor:
    """Length of each token's difference to the mean of the 3 x 3 cells around it, its own among them [tokens].

    Cells without a token don't count; a difference that is within the roundings of the tokens' type is none.

    Parameters
    ----------
    features : Tensor [tokens, hidden]
    cell : Tensor [tokens], int64
        Step * places + place.
    steps : int
    grid : (rows, columns)
    """
    wide = working(features)
    counted = torch.cat([wide, wide.new_ones(len(wide), 1)], dim=1)
    cells = wide.new_zeros(steps * grid[0] * grid[1], counted.shape[1]).index_copy(0, cell, counted)
    cells = cells.view(steps, *grid, -1)
    for axis, pad in ((1, (0, 0, 0, 0, 1, 1)), (2, (0, 0, 1, 1))):
        padded, length = F.pad(cells, pad), cells.shape[axis]
        cells = sum(padded.narrow(axis, first, length) for first in range(3))  # type: ignore[assignment]
    around = cells.flatten(0, 2)[cell]
    difference = (wide - around[:, :-1] / around[:, -1:]).norm(dim=1)
    length = wide.norm(dim=1)
    least = 4 * max(torch.finfo(features.dtype).eps, 4 * torch.finfo(wide.dtype).eps)
    return exactly(difference.masked_fill(difference <= least * length.amax(), 0))


def taken(
    salient: Numbers,
    relevant: Numbers,
    cell: NDArray[np.int64],
    turn: NDArray[np.int64],
    grid: tuple[int, int],
    count: int,
    unlike: Numbers | None = None,
    *,
    seeds: float = 0.5,
    focus: float = 0.75,
    across: bool = False,
) -> NDArray[np.int64]:
    """Numbers [count] of tokens in the order in which they are taken: seeds by focus, seeds by saliency, the scan.

    Parameters
    ----------
    salient, relevant : array [tokens]
        In [0, 1].
    cell : array [tokens]
        Step * places + place, each once.
    turn : array [tokens]
        Who goes first among equals, the smallest number first.
    grid : (rows, columns)
    count : int
        One at least.
    unlike : array [steps, places, places], optional
        1 - cosine of the cells of each step; left out, likeness doesn't matter.
    seeds, focus, across
        As for `SPpruner`.
    """
    focused = salient * relevant
    first = math.ceil(count * seeds)
    by_focus = math.ceil(first * focus)
    order = np.lexsort((turn, -focused))
    chosen = list(order[:by_focus])
    rest = np.lexsort((turn, -salient))
    chosen += list(rest[~np.isin(rest, chosen)][: first - by_focus])
    scan = _Scan(salient, cell, turn, grid, unlike, across)
    for number in chosen:
        scan.take(number)
    remaining = iter(order)
    while len(chosen) < count:
        number = scan.best()
        if number is None:
            number = next(each for each in remaining if not scan.done[cell[each]])
        scan.take(number)
        chosen.append(number)
    return np.array(chosen, dtype=np.int64)


class _Scan:
    """The cells that touch what is taken, and what each is worth."""

    def __init__(
        self,
        salient: Numbers,
        cell: NDArray[np.int64],
        turn: NDArray[np.int64],
        grid: tuple[int, int],
        unlike: Numbers | None,
        across: bool,
    ) -> None:
        self.places, self.unlike, self.across = grid[0] * grid[1], unlike, across
        self.cells = (int(cell.max()) // self.places + 1) * self.places
        self.cell, self.number = cell, np.full(self.cells, -1)
        self.number[cell] = np.arange(len(cell))
        self.salient, self.turn = np.zeros(self.cells), np.zeros(self.cells, dtype=np.int64)
        self.salient[cell], self.turn[cell] = salient, turn
        self.done = self.number < 0  # a cell without a token is never taken
        self.touched = np.zeros(self.cells, dtype=bool)
        self.worth = np.full(self.cells, -1.0)
        self.far = np.full(self.cells, np.inf if unlike is not None else 1.0)
        rows, columns = np.divmod(np.arange(self.places), grid[1])
        near = (abs(rows[:, None] - rows) <= 1) & (abs(columns[:, None] - columns) <= 1)
        np.fill_diagonal(near, False)
        self.near = [np.flatnonzero(each) for each in near]

    def take(self, number: int) -> None:
        """Take a token: its neighbours touch it, and its step is worth less where it is like it."""
        at = int(self.cell[number])
        begin = at - at % self.places
        step = slice(begin, begin + self.places)
        self.done[at] = True
        self.touched[begin + self.near[at - begin]] = True
        if self.unlike is not None:
            self.far[step] = np.minimum(self.far[step], self.unlike[begin // self.places, at - begin])
        self._weigh(step)
        for other in (at - self.places, at + self.places) if self.across else ():
            if 0 <= other < self.cells:
                self.touched[other] = True
                self._weigh(slice(other, other + 1))

    def _weigh(self, cells: slice) -> None:
        # a step of which nothing is taken is like nothing: as far as can be
        worth = self.salient[cells] * np.minimum(self.far[cells], 2.0)
        self.worth[cells] = np.where(self.touched[cells] & ~self.done[cells], worth, -1.0)

    def best(self) -> int | None:
        """The token that is worth most; None where nothing touches what is taken."""
        most = self.worth.max()
        if most < 0:
            return None
        equal = np.flatnonzero(self.worth == most)
        return int(self.number[equal[self.turn[equal].argmin()]])
