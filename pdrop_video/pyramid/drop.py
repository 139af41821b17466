"""What happens to the rows where a stage ends: who asks, who competes, who stays.

Knows rows, scores and budgets. Refuses to know layers and what a score means.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.taking import rows_at
from ..common.ties import comparable, settled
from .allocators import Allocator
from .rows import Boundary, Rows
from .select import keep_best


def competing(rows: Rows) -> Tensor:
    """Visual rows that are no padding [batch, rows]."""
    return rows.visual if rows.valid is None else rows.visual & rows.valid


def all_asking(rows: Rows, probe: Tensor, question: Tensor | None = None) -> Tensor:
    """Every row of text that asks [batch, most], ascending, empty places (-1) in front: for rows that just entered.

    Parameters
    ----------
    rows : Rows
    probe : Tensor [batch, probes]
        Rows that ask in any case; negative places are empty. Nobody asks in a sample without any.
    question : Tensor [batch, rows], bool, optional
        The others; by default the text between the last visual row and the first of the probe. What stands between two
        probes is not among them, since in training it may be an answer.
    """
    row, asked = rows.origin, probe >= 0
    if question is None:
        last_visual = torch.where(rows.visual, row, -1).amax(1, keepdim=True)
        first = probe.masked_fill(~asked, row.shape[1]).amin(1, keepdim=True)
        question = (row > last_visual) & (row < first) & (last_visual >= 0)
    question = question & ~rows.visual & asked.any(1, keepdim=True)
    question = question if rows.valid is None else question & rows.valid
    among = (probe[..., None] == row[:, None]).any(1) | question
    most = max(int(among.sum(1).max()), 1)
    return torch.where(among, row, -1).sort(dim=1).values[:, -most:]


def standing(rows: Rows, probe: Tensor) -> Tensor:
    """Where the rows that ask [batch, probes] are now; negative places stay empty.

    Of an answer right behind visual rows the last one that is left asks, as the released code has it.
    """
    real = torch.ones_like(rows.visual) if rows.valid is None else rows.valid
    behind = (rows.origin[:, None] > probe[..., None]) | ~real[:, None]
    now = (~behind * torch.arange(1, 1 + real.shape[1], device=real.device)).argmax(-1)
    return now.masked_fill(probe < 0, -1)


def drop(
    rows: Rows,
    scores: Tensor,
    allocator: Allocator,
    wanted: list[int],
    n_text: list[int],
    *,
    leaving: Tensor | None = None,
    left: list[int] | None = None,
    exact: bool = False,
) -> Tensor:
    """Keep the best visual rows of each sample, gather everything, and note the boundary.

    Parameters
    ----------
    rows : Rows
        Changed in place.
    scores : Tensor [batch, rows]
    allocator : Allocator
    wanted, n_text : list of int
        How many visual rows stay, and how many rows of text there are, of each sample.
    leaving : Tensor [batch, rows that entered], bool, optional
        Text that leaves here.
    left : list of int, optional
        How many of these rows there are, where it is known on the host.
    exact : bool
        Whether scores are the same on every processor, and compared as they are.

    Returns
    -------
    Tensor [batch, kept]
        The numbers, among the rows before, of those that stay.
    """
    candidates = competing(rows)
    real = torch.ones_like(rows.visual) if rows.valid is None else rows.valid
    compared = scores if exact else comparable(scores, candidates, rows.hidden.dtype)
    # of equals whoever comes first wins, so allocators get the rows in the order that ties shall have
    turn = rows.layout.spread().argsort(dim=1, stable=True)
    dealt = allocator(*(each.gather(1, turn) for each in (compared, candidates, rows.layout.frame)))
    priority = torch.empty_like(dealt).scatter(1, turn, dealt)
    staying = ~rows.visual & real
    if leaving is not None:
        gone = leaving.gather(1, rows.origin)
        left = leaving.sum(1).tolist() if left is None else left
        staying, n_text = staying & ~gone, [n - m for n, m in zip(n_text, left, strict=True)]
    totals = [v + t for v, t in zip(wanted, n_text, strict=True)]
    index, valid = keep_best(priority, candidates, staying, totals, turn)
    before = rows.origin.masked_fill(~real, -1)
    rows.hidden = rows_at(rows.hidden, index)
    rows.positions = rows.positions.gather(-1, index.expand(*rows.positions.shape[:-1], -1))
    rows.visual, rows.origin, rows.valid = rows.visual.gather(1, index), rows.origin.gather(1, index), valid
    rows.layout = rows.layout.gather(index)
    rows.group = None if rows.group is None else rows.group.gather(1, index)
    rows.numbers = None if rows.numbers is None else rows.numbers.gather(1, index)
    after = rows.origin if valid is None else rows.origin.masked_fill(~valid, -1)
    rows.boundaries.append(Boundary(before, scores, scores if exact else settled(scores, rows.hidden.dtype), after))
    return index
