"""Every listed reducer under one roof: what it is given in tests that run over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from clips import clip
from torch import Tensor

from pdrop_video.parts import Part
from pdrop_video.parts.evocomp import EvoCompPart
from pdrop_video.reduce import REDUCERS, Reduced, Reducer, Tokens, reducer_named

BY_THEMSELVES = {name: each for name, each in REDUCERS.items() if not getattr(each, "parts", ())}
"""Those that need no trained part, for streams of any family; the others have tests of their own."""
HIDDEN = 24
QUESTION = "where is red ?"


@cache
def text_half() -> str:
    """A folder with a tiny CLIP, for the one reducer that needs the text half of a vision tower."""
    folder = Path(mkdtemp(prefix="clip"))
    clip(folder, words=32)
    return str(folder)


@cache
def parts() -> dict[str, Part]:
    """Trained parts that nobody trained, for the reducers that can't do without."""
    torch.manual_seed(0)
    found = EvoCompPart(hidden=HIDDEN)
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return {found.name: found.eval()}


OF_TOKENS = {name: each for name, each in REDUCERS.items() if {*getattr(each, "parts", ())} <= {*parts()}}
"""Those that decide by tokens alone; the others look through a part that reaches into the vision tower."""


def reducer(line: str) -> Reducer:
    """By its line; what has no default here is filled in."""
    name, _, given = line.partition(":")
    if name == "desap":
        given = ",".join(filter(None, (given, f'text_tower="{text_half()}"')))
    return reducer_named(f"{name}:{given}" if given else name)


def has(name: str, parameter: str) -> bool:
    return hasattr(REDUCERS[name], parameter)


def tokens_of(features: Tensor, grid: tuple[int, int], since: int = 0, *, there: Tensor | None = None) -> Tokens:
    """Tokens of whole steps [steps * rows * columns, hidden], or of those `there`, with all that is to know."""
    number, places = torch.arange(len(features)), grid[0] * grid[1]
    seconds = tuple(0.5 * (since + i) for i in range(len(features) // places))
    row, column = number % places // grid[1], number % grid[1]
    # what a tower says of a token follows from the token, so that it is the same however a stream is cut
    said = features.double()
    early, late = said[:, 0].abs(), said[:, 1].abs()
    tower = {
        "attention": late,
        "attention_early": early,
        "class_attention": late,
        "attended": said.repeat(1, 2)[:, :32],
    }
    tower = {name: each.float() if each.ndim == 1 else each.to(features.dtype) for name, each in tower.items()}
    question = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(5)).to(features.dtype)
    here = torch.ones_like(number, dtype=torch.bool) if there is None else there
    return Tokens(
        features[here],
        (number // places)[here],
        row[here],
        column[here],
        seconds,
        grid,
        since,
        {name: each[here] for name, each in tower.items()},
        None,
        question,
        QUESTION,
        parts(),
    )


def scene(steps: int, grid: tuple[int, int], seed: int = 0, period: int = 0) -> Tensor:
    """A film [steps * places, hidden], float64: a still background, a thing that wanders, noise, a cut at two thirds.

    With `period` it begins again after so many steps.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, columns = grid
    backgrounds = torch.randn(2, rows, columns, HIDDEN, generator=generator, dtype=torch.float64)
    thing = 2 * torch.randn(HIDDEN, generator=generator, dtype=torch.float64)
    noise = torch.randn(period or steps, rows, columns, HIDDEN, generator=generator, dtype=torch.float64)
    film = []
    for at in range(steps):
        at = at % period if period else at
        picture = backgrounds[int(3 * at >= 2 * (period or steps))] + 0.25 * noise[at]
        picture[at % rows, (2 * at // 3) % columns] += thing
        film.append(picture)
    return torch.stack(film).reshape(-1, HIDDEN)


def watch(
    each: Reducer, film: Tensor, grid: tuple[int, int], sizes: Sequence[int]
) -> Iterator[tuple[Tokens, Reduced, Mapping[str, Tensor]]]:
    """Reduce a film that comes in pushes of so many steps, as a stream does: units are held back until whole."""
    places, unit = grid[0] * grid[1], getattr(each, "unit", 1)
    carried: dict[str, Tensor] = {}
    begin = end = 0
    for number, size in enumerate(sizes):
        end += size
        whole = end if number == len(sizes) - 1 else end - (end - begin) % unit
        if whole > begin:
            tokens = tokens_of(film[begin * places : whole * places], grid, begin)
            reduced, carried = each(tokens, carried)
            yield tokens, reduced, carried
            begin = whole
    assert end * places == len(film)


def outcome(each: Reducer, film: Tensor, grid: tuple[int, int], sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Numbers of the tokens of a film that go on, and what they go on as."""
    kept, rows = [], []
    for tokens, reduced, _ in watch(each, film, grid, sizes):
        kept.append(reduced.kept + tokens.since * tokens.places)
        weights = reduced.weights
        rows.append(tokens.features[reduced.kept] if weights is None else weights.to(film) @ tokens.features)
    return torch.cat(kept), torch.cat(rows)


def copied(tokens: Tokens) -> Tokens:
    """The same numbers elsewhere."""
    tensors = {name: getattr(tokens, name).clone() for name in ("features", "step", "row", "column", "question")}
    return replace(tokens, tower={name: each.clone() for name, each in tokens.tower.items()}, **tensors)


def alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(each, other[name]) for name, each in one.items())


def same(one: Tokens, other: Tokens) -> bool:
    names = ("features", "step", "row", "column", "question")
    return alike({n: getattr(one, n) for n in names}, {n: getattr(other, n) for n in names}) and alike(
        one.tower, other.tower
    )
