"""Every listed reducer: what it carries, what the borders of chunks change, and input that shows nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from any_reducer import HIDDEN, OF_TOKENS, alike, copied, has, outcome, reducer, same, scene, tokens_of, watch
from families import cases
from torch import Tensor

from pdrop_video.reduce import Reduced, Reducer, Tokens

GRID, STEPS = (5, 6), 24
CUTS = ([1] * STEPS, [2] * (STEPS // 2), [8] * (STEPS // 8), [5, 1, 7, 3, 8], [1, STEPS - 1], [STEPS // 2] * 2)
"""Pushes of a film that is reduced at once, too."""

INVARIANT = (
    "aot",
    "aot:anchors=features,unit=3,keep=0.4",
    "desap",
    "dtd",
    "dtd:keep=0.3",
    "dualcomp",
    "event_saliency:keep=1,least=0.04",  # the filter alone
    "omnirefine",
    "omnirefine:centre=true,least=0.2",
    "fastvid:unit=4",
    "holitom:unit=4",
    "streamingtom",
    "vidcom2:unit=3",
)
"""What goes on, and as what, does not depend on where chunks begin and end."""
BOUNDS = {
    "even": (0.05, 0.02),
    "evocomp": (0.12, 0.02),
    "random": (0.15, 0.02),
    "evs": (0.25, 0.1),
    "event_saliency": (0.25, 0.1),
    "sppruner": (0.25, 0.02),
    "fastvid": (0.45, 0.02),
    "relevance_pooling": (0.5, 0.5),
    "forest": (0.55, 0.1),
    "lrcp": (0.6, 0.02),
    "learnpruner": (0.6, 0.02),
    "vidcom2": (0.65, 0.2),
    "select_rescore": (0.7, 0.02),
    "holitom": (0.9, 0.1),
}
"""Of the others: which share of the tokens that go on may be others, and how many more or fewer may go on.

Measured were half to nine tenths of that, most where every push is a frame: of a film in which three of four tokens
change by noise alone, so that many choices are close. Shares are of the larger of both.
"""
MOST_EXCEPT = {
    "dualcomp": "a share of each step, rounded step by step",
    "desap": "a share of each step, rounded step by step",
    "streamingtom": "a share of each step, rounded step by step",
}
WHOLE_EXCEPT = {
    "event_saliency": "drops what shows no events, whatever the budget",
    "omnirefine": "has no `keep`",
    "holitom": "merges what is still before it shares a budget out",
    "vidcom2": "a step never lends to another what it can't use",
    "fastvid": "merges steps of a segment",
}
"""Those of which something goes even where everything may stay, and why."""


def test_every_reducer_is_here() -> None:
    named = [line.partition(":")[0] for line in INVARIANT]
    plain = {line for line in INVARIANT if ":" not in line}
    assert plain | {*BOUNDS} == {*OF_TOKENS} and not plain & {*BOUNDS}
    assert {*named} | {*MOST_EXCEPT} | {*WHOLE_EXCEPT} <= {*OF_TOKENS}


# -- borders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", INVARIANT)
def test_some_do_not_see_where_chunks_end(line: str) -> None:
    """The same tokens, as the same means."""
    each, film = reducer(line), scene(STEPS, GRID, seed=3)
    whole, rows = outcome(each, film, GRID, [STEPS])
    assert 0 < len(whole) < len(film)
    for sizes in CUTS:
        kept, means = outcome(each, film, GRID, sizes)
        assert torch.equal(kept, whole)
        torch.testing.assert_close(means, rows, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", BOUNDS)
def test_others_differ_by_so_much_at_most(name: str) -> None:
    each, (other, more) = reducer(name), BOUNDS[name]
    differ = []
    for seed in (0, 1):
        film = scene(STEPS, GRID, seed)
        whole, _ = outcome(each, film, GRID, [STEPS])
        for sizes in CUTS:
            kept, _ = outcome(each, film, GRID, sizes)
            most = max(len(kept), len(whole))
            differ.append(1 - int(torch.isin(kept, whole).sum()) / most)
            assert abs(len(kept) - len(whole)) <= more * len(whole)
    assert max(differ) <= other
    assert max(differ) > 0.2 * other  # else the bound says nothing, or the method belongs to the others


# -- what is carried ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [*OF_TOKENS, "learnpruner:seeded=true", "omnirefine:centre=true", "vidcom2:unit=3"])
def test_what_is_carried_stays_small(line: str) -> None:
    """A long stream whose film begins again and again: within the bound, and no more at its end than before."""
    each = reducer(line)
    film = scene(72, (4, 5), seed=1, period=12).to(torch.bfloat16 if len(line) % 2 else torch.float32)
    most = each.most_bytes(20, HIDDEN, film.element_size())
    sizes = [sum(t.nbytes for t in held.values()) for _, _, held in watch(each, film, (4, 5), [2] * 36)]
    assert max(sizes) <= most
    assert max(sizes[len(sizes) // 2 :]) <= max(sizes[: len(sizes) // 2])
    facts = getattr(each, "facts", None)
    if any(sizes):
        assert max(sizes) > most // 8  # a bound that is none would pass
        assert facts is None or facts.carries


# -- input that shows nothing ------------------------------------------------------------------------------------------


def drawn(count: int, seed: int) -> Tensor:
    return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def holes(count: int, seed: int) -> Tensor:
    """At random, one token at least."""
    there = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.5
    there[seed % count] = True
    return there


def one_of(count: int, place: int) -> Tensor:
    return torch.arange(count) == place


def without(steps: tuple[int, ...], of: int, places: int) -> Tensor:
    return ~torch.isin(torch.arange(of * places) // places, torch.tensor(steps))


Chunk = tuple[Callable[[int], Tensor], tuple[int, int], int, Callable[[int], Tensor] | None]
CHUNKS: dict[str, Chunk] = {
    "one token": (lambda n: drawn(n, 1), (1, 1), 1, None),
    "one token of a step": (lambda n: drawn(n, 2), (3, 4), 1, lambda n: one_of(n, 5)),
    "one token of the last step": (lambda n: drawn(n, 3), (3, 4), 3, lambda n: one_of(n, n - 2)),
    "one step": (lambda n: drawn(n, 4), (3, 4), 1, None),
    "equal steps": (lambda n: drawn(12, 5).repeat(n // 12, 1), (3, 4), 4, None),
    "equal tokens": (lambda n: drawn(1, 6).repeat(n, 1), (3, 4), 4, None),
    "opposite tokens": (lambda n: drawn(1, 7) * (1 - 2 * (torch.arange(n) % 2))[:, None], (3, 4), 4, None),
    "zeros": (lambda n: drawn(n, 0) * 0, (3, 4), 4, None),
    "zeros and others": (lambda n: drawn(n, 8) * (torch.arange(n) % 3 == 0)[:, None], (3, 4), 4, None),
    "very small": (lambda n: drawn(n, 9) * 1e-15, (3, 4), 4, None),
    "very large": (lambda n: drawn(n, 10) * 1e12, (3, 4), 4, None),
    "steps without tokens": (lambda n: drawn(n, 11), (3, 4), 5, lambda n: without((1, 2), 5, 12)),
    "the first and the last step without tokens": (lambda n: drawn(n, 12), (3, 4), 4, lambda n: without((0, 3), 4, 12)),
    "holes": (lambda n: drawn(n, 13), (3, 4), 4, lambda n: holes(n, 3)),
    "a line": (lambda n: drawn(n, 14), (1, 7), 4, None),
    "a column with holes": (lambda n: drawn(n, 15), (6, 1), 4, lambda n: holes(n, 4)),
    "two by two": (lambda n: drawn(n, 16), (2, 2), 8, None),
}


def given(chunk: str, dtype: torch.dtype, since: int) -> Tokens:
    features, grid, steps, there = CHUNKS[chunk]
    count = steps * grid[0] * grid[1]
    return tokens_of(features(count).to(dtype), grid, since, there=None if there is None else there(count))


def well_formed(reduced: Reduced, tokens: Tokens) -> None:
    kept, weights = reduced.kept, reduced.weights
    assert kept.dtype == torch.int64 and kept.ndim == 1 and (kept[1:] > kept[:-1]).all()
    assert not len(kept) or (kept[0] >= 0 and kept[-1] < len(tokens))
    if weights is not None:
        assert weights.shape == (len(kept), len(tokens)) and weights.isfinite().all() and (weights >= 0).all()
        slack = max(1e-6, 4 * torch.finfo(weights.dtype).eps)
        assert not len(kept) or (weights.double().sum(1) - 1).abs().max() <= slack


def reduced_by(each: Reducer, tokens: Tokens, carried: dict[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
    """Twice, which must be the same; nothing that is given changes, and what comes out is as it should be."""
    twin, before = copied(tokens), {name: tensor.clone() for name, tensor in carried.items()}
    reduced, held = each(tokens, carried)
    again, same_held = each(twin, before)
    assert same(tokens, twin) and alike(carried, before)
    assert torch.equal(reduced.kept, again.kept) and alike(held, same_held)
    assert (reduced.weights is None) == (again.weights is None)
    assert reduced.weights is None or again.weights is None or torch.equal(reduced.weights, again.weights)
    well_formed(reduced, tokens)
    for name, tensor in held.items():
        assert not tensor.isnan().any(), name
    size = tokens.features.element_size()
    assert sum(tensor.nbytes for tensor in held.values()) <= each.most_bytes(tokens.places, HIDDEN, size)
    return reduced, held


TYPES = (torch.float64, torch.float32, torch.bfloat16)


@pytest.mark.parametrize(
    "name, dtype, keep", cases(OF_TOKENS, TYPES, (None, 0.001, 0.9), fast=lambda _, dtype, keep: dtype == keep)
)
def test_a_chunk_may_show_nothing(name: str, dtype: torch.dtype, keep: float | None) -> None:
    """Behind another that shows something, or first of a stream and then behind itself."""
    if keep is not None and not has(name, "keep"):
        return
    each = reducer(name if keep is None else f"{name}:keep={keep}")
    for number, (chunk, (_, grid, steps, _)) in enumerate(CHUNKS.items()):
        begins = number % 2 == 0
        places = grid[0] * grid[1]
        if begins:
            _, held = reduced_by(each, given(chunk, dtype, 0), {})
        else:
            _, held = each(tokens_of(drawn(steps * places, 30).to(dtype), grid), {})
        tokens = given(chunk, dtype, steps)
        reduced, _ = reduced_by(each, tokens, held)
        left = each.left(len(tokens))
        if left is not None and name not in MOST_EXCEPT and getattr(each, "unit", 1) == 1:
            assert len(reduced.kept) == left, chunk
        assert name == "dtd" or len(reduced.kept), chunk  # a still picture has nothing that differs


@pytest.mark.parametrize("name", OF_TOKENS)
def test_where_everything_may_stay_nothing_changes(name: str) -> None:
    changed: list[bool] = []
    each = reducer(f"{name}:keep=1" if has(name, "keep") else name)
    for number, dtype in enumerate(TYPES):
        held: dict[str, Tensor] = {}
        since = 0
        for chunk in list(CHUNKS)[number::3]:
            tokens = given(chunk, dtype, since)
            reduced, held = each(tokens, held)
            since += len(tokens.seconds)
            itself = reduced.weights is None or torch.equal(reduced.weights.double(), torch.eye(len(tokens)).double())
            changed.append(len(reduced.kept) < len(tokens) or not itself)
    assert any(changed) == (name in WHOLE_EXCEPT)


def test_pictures_of_another_size_begin_anew() -> None:
    """What was carried of others is of no use, and no harm; back again, neither."""
    for name in OF_TOKENS:
        held: dict[str, Tensor] = {}
        each = reducer(name)
        for number, grid in enumerate([(3, 4), (4, 3), (2, 6), (5, 6), (1, 12), (3, 4)]):
            tokens = tokens_of(drawn(4 * grid[0] * grid[1], number), grid, 4 * number)
            _, held = reduced_by(each, tokens, held)
