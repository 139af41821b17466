"""Tokens step by step: the best of each, units of the stream, and what is salient in a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.ties import comparable, exactly, unlike
from .base import Reduced, Tokens
from .likeness import precisely

SALIENT = ("features", "attention")


def best_of_each(tokens: Tokens, scores: Tensor, counts: Tensor, group: Tensor | None = None) -> Tensor:
    """Whether each token is among the highest of its step [tokens]; ties as in `Tokens.best`.

    Parameters
    ----------
    scores : Tensor [tokens]
    counts : Tensor [steps], int64
        How many of each step.
    group : Tensor [tokens], int64, optional
        Another division than that into steps; `counts` has one number for each group.
    """
    group = tokens.step if group is None else group
    ranked = comparable(scores, torch.ones_like(scores, dtype=torch.bool), tokens.features.dtype)
    order = tokens.turn().argsort(stable=True)
    order = order[ranked[order].argsort(descending=True, stable=True)]
    return rank(group, order) < counts[group]


def rank(group: Tensor, order: Tensor) -> Tensor:
    """How many of its group stand before each in an order [tokens].

    Parameters
    ----------
    group : Tensor [tokens], int64
    order : Tensor [tokens], int64
        Numbers of the tokens.
    """
    order = order[group[order].argsort(stable=True)]
    sorts = group[order]
    place = torch.arange(len(order), device=order.device) - torch.searchsorted(sorts, sorts)
    return torch.empty_like(order).scatter(0, order, place)


def mean_of_each(values: Tensor, step: Tensor, sizes: Tensor) -> Tensor:
    """The mean of each step [steps, ...], 0 where there is none of it."""
    total = values.new_zeros(len(sizes), *values.shape[1:]).index_add(0, step, values)
    return total / sizes.clamp(min=1).to(values).reshape(-1, *[1] * (values.ndim - 1))


def salience(tokens: Tokens, by: str = "features") -> Tensor:
    """What stands out in each picture [tokens].

    By "attention": what each token receives in the vision tower's last layer. By "features", which is ours, for towers
    that don't say: 1 - cosine to the mean of its step.
    """
    if by == "attention":
        return exactly(tokens.tower["attention"])
    features = F.normalize(precisely(tokens.features), dim=-1)
    mean = mean_of_each(features, tokens.step, tokens.step.bincount(minlength=len(tokens.seconds)))
    return unlike((features * F.normalize(mean, dim=-1)[tokens.step]).sum(-1), tokens.features.dtype)


def unit_by_unit(tokens: Tokens, unit: int, decide: Callable[[Tokens], Reduced]) -> Reduced:
    """What becomes of a call whose units of so many steps are decided one after another; 1 is the call as a whole."""
    return _joined([(begin, decide(part)) for begin, part in _units(tokens, unit)], len(tokens))


def _units(tokens: Tokens, unit: int) -> Iterator[tuple[int, Tokens]]:
    """The units of so many steps in a call, and at which token each begins; for 1 the call as a whole.

    A unit counts its steps from 0, and leaves out those of which nothing is there.
    """
    groups = torch.zeros_like(tokens.step) if unit == 1 else tokens.step // unit
    begin = 0
    for number, size in enumerate(groups.bincount().tolist()):
        if not size:
            continue
        part, first = slice(begin, begin + size), number * unit if unit > 1 else 0
        present, step = tokens.step[part].unique(return_inverse=True)
        yield (
            begin,
            replace(
                tokens,
                features=tokens.features[part],
                step=step,
                row=tokens.row[part],
                column=tokens.column[part],
                seconds=tuple(tokens.seconds[each] for each in present.tolist()),
                since=tokens.since + first,
                tower={name: of[part] for name, of in tokens.tower.items()},
                saliency=None if tokens.saliency is None else tokens.saliency[part],
            ),
        )
        begin += size


def _joined(parts: Sequence[tuple[int, Reduced]], count: int) -> Reduced:
    """What became of units, as one answer for the call of so many tokens."""
    kept = torch.cat([begin + part.kept for begin, part in parts])
    if all(part.weights is None for _, part in parts):
        return Reduced(kept)
    rows = []
    for begin, part in parts:
        assert part.weights is not None
        rows.append(F.pad(part.weights, (begin, count - begin - part.weights.shape[1])))
    return Reduced(kept, torch.cat(rows))
