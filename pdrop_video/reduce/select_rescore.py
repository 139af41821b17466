"""Select and rescore: groups of tokens that the others attend to, and whose votes then no longer count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import real, share, whole
from ..common.ties import comparable, exactly, working
from ..registry import Facts
from .base import Reduced, Tokens
from .steps import rank

_BLOCK = 2**22
"""Numbers of the attention between tokens that are held at once."""


@dataclass(frozen=True, slots=True)
class SelectRescore:
    """Geo3DPruner's two rules, arXiv 2604.18260, without its second encoder.

    Within a group of tokens (the paper's voxel) those stay that the group attends to most: the best `within` of each,
    rounded up. Between groups, a group's score is what groups that are not yet selected attend to its tokens, summed
    over these and averaged over theirs. Each round selects the `groups` of highest score, whose own votes are then
    taken away, until int(tokens * keep) tokens are full.

    The paper groups tokens by voxels of .1 m, which a geometry encoder of 1 B parameters gives, and takes that
    encoder's attention between all tokens of all frames. There is no released code.

    Ours: voxels are taken from ``tokens.tower["voxel"]`` [tokens], int64, where a family says them (none does today);
    else a group is a cell of space and time, `side` x `side` places over `steps` steps of the stream, or over the whole
    chunk. The attention is the softmax of cosines / `temperature` between the chunk's tokens. A group that is larger
    than what is left of the budget is passed over, and what is left then goes to single tokens by their score within
    their group: first to those that stayed in it, then to the others. Equals go in an order spread evenly over time
    and space, a group as its first token.

    Carried: nothing. Not chunk-invariant: tokens vote on those of their own chunk, and the budget is a chunk's. Costs
    grow with the square of a chunk's tokens.

    Parameters
    ----------
    keep : float
        Share of the tokens of each chunk that stays.
    within : float
        Share of each group that can be selected.
    groups : int
        Groups that are selected before votes are counted anew.
    temperature : float
        Of the softmax of cosines.
    side : int
        Rows and columns of a cell.
    steps : int, optional
        Steps of a cell; all of the chunk where left out.

    Raises
    ------
    ConfigError
        If a share is none in (0, 1], the temperature is not above 0 or a number is not from 1.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[Facts] = Facts(
        says="blocks of space and time that others attend to most, chosen in rounds without the votes of those chosen",
        paper="Geo3DPruner, arXiv 2604.18260",
        formula=(
            "A = softmax(cos(x, y) / temperature) over the chunk's tokens\n"
            "score(group) = mean over its tokens of the attention from groups that are not yet selected\n"
            "the `groups` best are selected, then scores are counted again without their votes"
        ),
        ours=True,
    )
    keep: float = 0.5
    within: float = 0.5
    groups: int = 8
    temperature: float = 0.1
    side: int = 1
    steps: int | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name in ("keep", "within"):
            object.__setattr__(self, name, share(name, getattr(self, name)))
        for name in ("groups", "side"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 1))
        if self.steps is not None:
            object.__setattr__(self, "steps", whole("steps", self.steps, 1))
        # below this, exponents leave what a float holds
        object.__setattr__(self, "temperature", real("temperature", self.temperature, 1e-3))

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Within groups, between groups, and what is left."""
        dtype, came = tokens.features.dtype, tokens.features.device
        unit = F.normalize(working(tokens.features), dim=1)
        group = torch.unique(self._groups(tokens), return_inverse=True)[1]
        sizes = torch.bincount(group)
        turn = tokens.turn()

        asked = unit.new_zeros(len(unit))
        attention = None
        for rows in _blocks(len(unit), len(unit)):
            attention = self._attention(unit, rows)
            asked += asked_within(attention, group[rows], group)
        scores = comparable(asked / sizes[group], torch.ones_like(group, dtype=torch.bool), dtype)
        stays = best_within(scores, group, sizes, self.within, turn)

        some = stays.nonzero()[:, 0]
        table = unit.new_zeros(len(sizes), len(sizes))
        if attention is not None and len(attention) == len(unit):  # all of it is at hand
            table = between(attention[some][:, some], group[some], group[some], len(sizes))
        else:
            for block in _blocks(len(some), len(unit)):
                attention = self._attention(unit, some[block])
                table += between(attention[:, some], group[some[block]], group[some], len(sizes))
        held = torch.bincount(group[some], minlength=len(sizes))
        first = torch.full_like(sizes, 2**32).scatter_reduce(0, group, turn, "amin")
        count = self.left(len(tokens))
        table = table / held[:, None]
        chosen = select(table.cpu().double(), held.cpu(), first.cpu(), count, self.groups, dtype).to(came)

        # groups that were selected, then what stayed of others, then the rest
        order = turn.argsort(stable=True)
        order = order[scores[order].argsort(descending=True, stable=True)]
        level = torch.where(stays, 1 + chosen[group].long(), 0)
        order = order[level[order].argsort(descending=True, stable=True)]
        return Reduced(order[:count].sort().values), {}

    def _attention(self, unit: Tensor, rows: Tensor | slice) -> Tensor:
        """What rows attend to [rows, tokens]."""
        asking = unit[rows]
        cosine = asking @ unit.mT if len(asking) < len(unit) else _products(unit)
        return (cosine / self.temperature).softmax(1)

    def _groups(self, tokens: Tokens) -> Tensor:
        """What says of each token which group it is in [tokens]."""
        voxel = tokens.tower.get("voxel")
        if voxel is not None:
            return voxel
        time = torch.zeros_like(tokens.step) if self.steps is None else (tokens.since + tokens.step) // self.steps
        across = -(-tokens.grid[1] // self.side)
        cell = tokens.row // self.side * across + tokens.column // self.side
        return time * (tokens.places + 1) + cell

    def left(self, tokens: int) -> int:
        """The share of them, one at least."""
        return max(int(tokens * self.keep), 1)

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Nothing is carried."""
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        """Cosines of all tokens, and of large chunks those of what stays in the groups once more."""
        some = min(tokens, int(tokens * self.within) + 1) if tokens**2 > _BLOCK else 0
        return 2 * hidden * tokens * (tokens + some)


def _blocks(rows: int, columns: int) -> list[slice]:
    """Rows in turns, so that few numbers are held at once."""
    at_once = max(1, _BLOCK // max(columns, 1))
    return [slice(begin, min(begin + at_once, rows)) for begin in range(0, rows, at_once)]


def _products(rows: Tensor) -> Tensor:
    """Of all rows with each other: a quarter need not be computed twice, and a quarter of either half."""
    half = len(rows) // 2
    if half < 256:
        return rows @ rows.mT
    out = rows.new_empty(len(rows), len(rows))
    first, second = rows[:half], rows[half:]
    out[:half, :half], out[half:, half:] = _products(first), _products(second)
    out[:half, half:] = first @ second.mT
    out[half:, :half] = out[:half, half:].mT
    return out


def asked_within(attention: Tensor, asking: Tensor, group: Tensor) -> Tensor:
    """How much each token is attended to by rows of its own group [tokens], a sum.

    Parameters
    ----------
    attention : Tensor [rows, tokens]
    asking : Tensor [rows], int64
        The group of each row.
    group : Tensor [tokens], int64
    """
    return attention.masked_fill(asking[:, None] != group, 0).sum(0)


def best_within(scores: Tensor, group: Tensor, sizes: Tensor, share: float, turn: Tensor) -> Tensor:
    """Which tokens are the best of their groups [tokens], bool: a share of each group, rounded up.

    Parameters
    ----------
    scores : Tensor [tokens]
        Equals are equal.
    group : Tensor [tokens], int64
    sizes : Tensor [groups], int64
    share : float
    turn : Tensor [tokens], int64
        Who goes first among equals.
    """
    order = turn.argsort(stable=True)
    order = order[scores[order].argsort(descending=True, stable=True)]
    wanted = (exactly(sizes) * share - 1e-6).ceil().long()  # 100 * .07 is a little above 7
    return rank(group, order) < wanted[group]


def between(attention: Tensor, asking: Tensor, group: Tensor, groups: int) -> Tensor:
    """What each group's rows attend to each group's tokens, summed over both [groups, groups].

    Parameters
    ----------
    attention : Tensor [rows, tokens]
    asking : Tensor [rows], int64
        The group of each row.
    group : Tensor [tokens], int64
    groups : int
        How many there are.
    """
    by_row = attention.new_zeros(groups, attention.shape[1]).index_add_(0, asking, attention)
    return by_row.new_zeros(groups, groups).index_add_(0, group, by_row.mT.contiguous()).mT


def select(table: Tensor, sizes: Tensor, turn: Tensor, budget: int, at_once: int, dtype: torch.dtype) -> Tensor:
    """Which groups are selected [groups], bool.

    Parameters
    ----------
    table : Tensor [groups, groups], float64
        What a group attends to another one, on the average of its tokens.
    sizes : Tensor [groups], int64
        Tokens of each that would stay.
    turn : Tensor [groups], int64
        Which goes first among equals.
    budget : int
        Tokens that may stay; a group that is larger than what is left is passed over.
    at_once : int
        Groups that are selected before votes are counted anew.
    dtype : torch.dtype
        What the tokens came in: votes are compared after rounding to what it can tell apart.
    """
    votes = table.sum(0)  # of all; of those that are selected, the rows are taken away
    order, held = turn.argsort(stable=True), sizes.tolist()
    open_, chosen = torch.ones(len(held), dtype=torch.bool), torch.zeros(len(held), dtype=torch.bool)
    while budget > 0 and bool(open_.any()):
        ranked = comparable(votes, open_, dtype).masked_fill(~open_, -torch.inf)
        best = order[ranked[order].argsort(descending=True, stable=True)].tolist()
        new: list[int] = []
        for number in best[: int(open_.sum())]:
            if len(new) == at_once:
                break
            open_[number] = False
            if held[number] <= budget:
                new.append(number)
                budget -= held[number]
        chosen[new] = True
        votes = votes - table[new].sum(0)
    return chosen
