"""Random videos and ragged chunks for reducers' tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from test_front import tokens_of
from torch import Tensor

from pdrop_video.reduce import Reduced, Reducer, Tokens


def clip(steps: int, places: int, hidden: int = 8, seed: int = 0, still: float = 0.6) -> Tensor:
    """A video [steps * places, hidden] in which most places stay much as they were, with a cut in its middle."""
    generator = torch.Generator().manual_seed(seed)
    shown = [torch.randn(places, hidden, generator=generator, dtype=torch.float64)]
    for step in range(1, steps):
        moves = torch.rand(places, 1, generator=generator) > (0 if step == steps // 2 else still)
        noise = torch.randn(places, hidden, generator=generator, dtype=torch.float64)
        shown.append(torch.where(moves, noise, shown[-1] + 0.2 * noise))
    return torch.cat(shown)


def some(tokens: Tokens, numbers: Tensor) -> Tokens:
    """What a gate left of a chunk."""
    tower = {name: of[numbers] for name, of in tokens.tower.items()}
    parts = {name: getattr(tokens, name)[numbers] for name in ("features", "step", "row", "column")}
    return replace(tokens, tower=tower, **parts)


def ragged(features: Tensor, grid: tuple[int, int], seed: int = 0, empty: Sequence[int] = ()) -> Tokens:
    """A chunk of which a gate took two thirds, and nothing of some steps."""
    tokens = tokens_of(features, grid)
    stays = torch.rand(len(tokens), generator=torch.Generator().manual_seed(seed)) < 2 / 3
    for step in empty:
        stays &= tokens.step != step
    return some(tokens, stays.nonzero()[:, 0])


def streamed(reducer: Reducer, features: Tensor, grid: tuple[int, int], cuts: Sequence[int]) -> list[int]:
    """Numbers in the whole video of what stays, pushed in chunks that end at these steps."""
    places, carried, kept, begin = grid[0] * grid[1], {}, [], 0
    for end in [*cuts, len(features) // (grid[0] * grid[1])]:
        tokens = tokens_of(features[begin * places : end * places], grid, begin)
        given = {name: tensor.clone() for name, tensor in carried.items()}
        reduced, after = reducer(tokens, carried)
        assert all(torch.equal(carried[name], tensor) for name, tensor in given.items())
        bound = reducer.most_bytes(places, features.shape[1], features.element_size())
        assert sum(tensor.nbytes for tensor in after.values()) <= bound
        carried = after
        kept += (reduced.kept + begin * places).tolist()
        begin = end
    return kept


def sound(reduced: Reduced, tokens: Tokens) -> None:
    """Ascending numbers of tokens, each a proper mean of finite ones."""
    kept = reduced.kept
    assert kept.dtype == torch.int64 and (kept[1:] > kept[:-1]).all()
    assert not len(kept) or (kept[0] >= 0 and kept[-1] < len(tokens))
    if reduced.weights is not None:
        assert reduced.weights.shape == (len(kept), len(tokens)) and (reduced.weights >= 0).all()
        torch.testing.assert_close(reduced.weights.sum(1), torch.ones_like(reduced.weights[:, 0]))
