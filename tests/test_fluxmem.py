"""FluxMem-style tiers: the release's choices, a plain formula, and what a budget makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_memory import PREFIX, held, table
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import Held
from pdrop_video.memory.evictors import choose
from pdrop_video.memory.evictors.fluxmem import FluxMem, otsu

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "fluxmem.json").read_text(encoding="utf-8"))


def shown(features: Tensor, grid: tuple[int, int], order: Tensor | None = None) -> Held:
    """Whole steps whose keys are these, of one head; values are others."""
    count, places = len(features), grid[0] * grid[1]
    number = torch.arange(count)
    step = number // places
    tokens = table(
        index=number,
        seconds=step.double(),
        until=step.double(),
        chunk=step,
        step=step,
        row=number % places // grid[1],
        column=number % grid[1],
        score=torch.zeros(count),
        visual=torch.ones(count, dtype=torch.bool),
    )
    keys = features[None].double()
    values = torch.randn(1, count, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    if order is not None:
        keys, values, tokens = keys[:, order], values[:, order], tokens.take(order)
    return Held(keys, values, tokens, 0, 1)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("case", range(3))
def test_the_releases_choices(case: int, shuffled: bool) -> None:
    """What changes in the middle term, and anchors and means of whole steps in the long term."""
    trace = GOLDEN["cases"][case]
    grid, features = tuple(trace["grid"]), torch.tensor(trace["features"], dtype=torch.float64)
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(1)) if shuffled else None
    layer = shown(features, grid, order)
    tier, _ = FluxMem(trace["short"], 100, trace["same"]).tiers(layer)
    assert sorted(layer.table.index[tier >= 2].tolist()) == trace["kept"]

    later = torch.randn(grid[0] * grid[1], features.shape[1], generator=torch.Generator().manual_seed(2))
    more = torch.cat([features, later.double()])
    order = torch.randperm(len(more), generator=torch.Generator().manual_seed(3)) if shuffled else None
    layer = shown(more, grid, order)
    evictor = FluxMem(short=1, middle=0)
    tier, cluster = evictor.tiers(layer)
    number, places = layer.table.index, len(later)
    mine = sorted(number[(tier == 1) & (number < len(features))].tolist())
    size = cluster[cluster >= 0].bincount()
    pairs = {*number[(cluster >= 0) & (size[cluster.clamp(min=0)] == 2)].tolist()}
    # two are as near to their mean as each other: here a rule decides, there the last bit
    assert {*mine} ^ {*trace["anchors"]} <= pairs and len(mine) == len(trace["anchors"])
    keep = len(mine) + places  # all that the rules let go goes
    priority = evictor(layer, keep)
    stay = choose(priority, layer.table, keep)
    assert sorted(number[stay].tolist()) == [*mine, *range(len(features), len(more))]
    merged = evictor.merge(layer, stay, priority)
    assert merged is not None
    became = {n: more[n] for n in mine} | dict(zip(number[merged[0]].tolist(), merged[1][0], strict=True))
    means = torch.tensor(trace["means"], dtype=torch.float64)
    off = (torch.stack([became[n] for n in mine])[:, None] - means).abs().amax(-1)
    assert off.amin(0).max() < 6e-5 and off.amin(1).max() < 6e-5
    assert len(merged[0]) == int((size >= 2).sum()) > 8
    for slot, value in zip(merged[0].tolist(), merged[2][0], strict=True):
        torch.testing.assert_close(value, layer.values[0, cluster == cluster[slot]].mean(0))


def plain_otsu(values: list[float]) -> float | None:
    """Every cut between two bins, number by number."""
    count = [0] * 128
    for value in values:
        count[min(int(value / (2 / 128)), 127)] += 1
    best, where = 0.0, None
    for cut in range(127):
        low, high = sum(count[: cut + 1]), sum(count[cut + 1 :])
        if not low or not high:
            continue
        mean_low = sum(n * (i + 0.5) / 64 for i, n in enumerate(count[: cut + 1])) / low
        mean_high = sum(n * (i + 0.5) / 64 for i, n in enumerate(count) if i > cut) / high
        between = low * high / len(values) ** 2 * (mean_low - mean_high) ** 2
        if between > best * (1 + 1e-9):
            best, where = between, (cut + 0.5) / 64
    return where


def test_otsus_threshold() -> None:
    """Of several groups at once; one bin has none, or the lower median."""
    generator = torch.Generator().manual_seed(0)
    groups = [torch.rand(n, generator=generator, dtype=torch.float64) * 2 for n in (3, 40, 7)]
    groups += [torch.full((4,), 0.3, dtype=torch.float64) + 1e-4 * torch.arange(4), torch.tensor([1.9]).double()]
    values = torch.cat([*groups, torch.tensor([9.0]).double()])
    group = torch.cat([torch.full((len(g),), i) for i, g in enumerate(groups)] + [torch.tensor([1])])
    among = torch.ones_like(group, dtype=torch.bool)
    among[-1] = False  # what does not count
    mixed = torch.randperm(len(values), generator=generator)
    given = values[mixed], among[mixed], group[mixed], 6
    want = [plain_otsu(g.tolist()) for g in groups]
    assert want[3] is want[4] is None
    assert otsu(*given).tolist() == pytest.approx([*want[:3], *[-torch.inf] * 3])
    assert otsu(*given, median=True).tolist() == pytest.approx([*want[:3], 0.3001, 1.9, -torch.inf])


def test_what_the_rules_let_go_goes_first_and_then_the_oldest() -> None:
    """Each smaller budget keeps part of what the larger one kept, by tier, the older before the younger."""
    layer = held(seed=4, drop=0.2)
    evictor = FluxMem(short=2, middle=4, same=0.8)
    tier, cluster = evictor.tiers(layer)
    tokens = layer.table
    assert {0, 1, 2, 3} == {*tier[PREFIX:].tolist()}
    steps = [{*tokens.step[tier == each].tolist()} for each in (1, 2, 3)]
    assert steps[0] <= {*range(6)} and steps[1] <= {*range(6, 10)} and steps[2] == {10, 11}
    assert (cluster[tier == 1] >= 0).all()
    before = {*range(len(tokens))}
    for keep in range(len(tokens) - 1, PREFIX, -1):
        stay = {*choose(evictor(layer, keep), tokens, keep).tolist()}
        (gone,) = before - stay
        rest = [r for r in before if r >= PREFIX]
        lowest = min(int(tier[r]) for r in rest)
        assert int(tier[gone]) == lowest
        assert int(tokens.step[gone]) == min(int(tokens.step[r]) for r in rest if int(tier[r]) == lowest)
        before = stay


def test_refused() -> None:
    for bad in ({"short": 0}, {"middle": -1}, {"same": 1.5}):
        with pytest.raises(pv.ConfigError, match=next(iter(bad))):
            FluxMem(**bad)  # type: ignore[arg-type]
    assert pv.Memory(evictor="fluxmem:short=2,middle=0").evictor == "fluxmem:short=2,middle=0"
