"""What a place showed before: for reducers that compare each token with the step before, over chunks' borders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.ties import exactly, unlike
from .base import Tokens


def last_of(tokens: Tokens, last: Tensor | None) -> Tensor | None:
    """What was carried, unless these are pictures of another size."""
    fits = last is not None and last.shape == (tokens.places, tokens.features.shape[1])
    return last if fits else None


def before(tokens: Tokens, last: Tensor | None) -> tuple[Tensor, Tensor]:
    """What each token's place showed before it [tokens, hidden], and whether it showed anything [tokens]."""
    # tokens sorted by place, then by time: a token's past is the one in front of it, or what was carried
    number = torch.arange(len(tokens), device=tokens.step.device)
    place = tokens.place()
    order = (place * len(tokens.seconds) + tokens.step).argsort(stable=True)
    same = torch.zeros_like(place, dtype=torch.bool)
    same[1:] = place[order[1:]] == place[order[:-1]]
    previous = torch.where(same, order.roll(1), -1)
    previous = torch.empty_like(number).scatter(0, order, previous)
    own = tokens.features[previous.clamp(min=0)]
    if last is None:
        return own, previous >= 0
    held = last[place].to(own)
    known = held.any(-1) | (previous >= 0)
    return torch.where(previous[:, None] >= 0, own, held), known


def change_of(tokens: Tokens, last: Tensor | None) -> tuple[Tensor, Tensor]:
    """1 - cosine of each token to what its place showed before it [tokens], and whether it showed anything [tokens]."""
    past, seen = before(tokens, last)
    cosine = F.cosine_similarity(exactly(tokens.features), exactly(past), dim=-1)
    return unlike(cosine, tokens.features.dtype), seen


def newest(tokens: Tokens, last: Tensor | None) -> Tensor:
    """What each place showed last [places, hidden], to be carried; zeros where it never showed anything."""
    last = tokens.features.new_zeros(tokens.places, tokens.features.shape[1]) if last is None else last
    place, number = tokens.place(), torch.arange(len(tokens), device=tokens.step.device)
    latest = torch.full((tokens.places,), -1, device=place.device).scatter_reduce(0, place, number, "amax")
    return torch.where(latest[:, None] >= 0, tokens.features[latest.clamp(min=0)], last.to(tokens.features))
