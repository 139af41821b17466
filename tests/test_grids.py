"""Grids of 4 and 8 bits against their formulas in plain loops, and a layer in two tiers against plain tensors."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from families import build
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import STORAGES
from pdrop_video.memory.storages.grids import ChannelGrid, TokenGrid, group_of, pack, unpack
from pdrop_video.memory.tiered import TieredLayer

TYPES = [torch.float64, torch.float32, torch.bfloat16]


def up(x: float) -> float:
    """What a step is rounded to."""
    return float(torch.tensor(x, dtype=torch.float64).bfloat16())


def plain(numbers: list[float], bits: int) -> tuple[list[float], float]:
    """One group of one token, number by number: as it is read, and its step."""
    top = 2**bits - 1
    low, high = min(0.0, *numbers), max(0.0, *numbers)
    step = up((high - low) / top * (1 + 2**-7))
    if not step:
        return [0.0] * len(numbers), 0.0
    zero = round(-low / step)
    return [(min(max(round(x / step) + zero, 0), top) - zero) * step for x in numbers], step


def plain_tokens(states: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Every group of the last axis; and half a step of each number."""
    back, half = torch.zeros_like(states), torch.zeros_like(states)
    flat, rows, halves = states.reshape(-1, group), back.view(-1, group), half.view(-1, group)
    for i, numbers in enumerate(flat.tolist()):
        read, step = plain(numbers, bits)
        rows[i], halves[i] = torch.tensor(read), step / 2
    return back, half


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", TYPES)
def test_values_by_the_token(dtype: torch.dtype, bits: int) -> None:
    states = torch.randn(1, 2, 9, 24, generator=torch.Generator().manual_seed(0)).double() * 10
    states[0, 0, 3], states[0, 1, 5], states[0, 1, 6] = 0, 1e-42, states[0, 1, 6].abs() + 3
    states = states.to(dtype)
    grid = TokenGrid(bits, 10)  # groups of 8, the most that divides 24
    codes, step, zero = parts = grid.encode(states, ())
    assert codes.dtype == zero.dtype == torch.uint8 and step.dtype == torch.bfloat16
    assert codes.shape == (1, 2, 9, 24 * bits // 8) and step.shape == zero.shape == (1, 2, 9, 3)
    exact = states.to(torch.promote_types(dtype, torch.float32))
    want, half = plain_tokens(exact, bits, 8)
    got = grid.decode(parts, (), exact.dtype)
    torch.testing.assert_close(got, want, atol=1e-4 if dtype != torch.float64 else 1e-12, rtol=0)
    assert ((got - exact).abs() <= half * (1 + 1e-5) + 1e-30).all() and not got[0, 0, 3].any()
    assert torch.equal(grid.decode(parts, (), dtype), got.to(dtype))
    every = [grid.encode(states[:, :, i : i + 1], ()) for i in range(9)]  # each column whatever goes beside it
    assert all(
        torch.equal(torch.cat(part, 2), whole) for part, whole in zip(zip(*every, strict=True), parts, strict=True)
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_keys_by_the_channel(bits: int) -> None:
    """Means and spreads from the first columns, in plain loops; later ones go by them, and nothing is clipped."""
    generator = torch.Generator().manual_seed(1)
    first, later = (torch.randn(1, 2, n, 6, generator=generator, dtype=torch.float64) for n in (12, 5))
    for states in (first, later):
        states[..., 2] = states[..., 2] * 0.1 + 300  # a channel far from zero, as a bias makes them
        states[..., 4] = 7  # one that never differs
    later[0, 1, 2] *= 9
    grid = ChannelGrid(bits, 6)
    mean, spread = learned = grid.learn(first)
    for head in range(2):
        variances = []
        for c in range(6):
            numbers = first[0, head, :, c].tolist()
            assert float(mean[0, head, 0, c]) == pytest.approx(sum(numbers) / 12, rel=1e-6)
            variances.append(sum((x - sum(numbers) / 12) ** 2 for x in numbers) / 12)
        for c in range(6):
            want = max(variances[c], sum(variances) / 6 / 10**4) ** 0.5
            assert float(spread[0, head, 0, c]) == pytest.approx(want, rel=1e-6)
    units = (later - mean) / spread
    want, half = plain_tokens(units, bits, 6)
    got = grid.decode(grid.encode(later, learned), learned, torch.float64)
    torch.testing.assert_close(got, want * spread + mean, atol=1e-9, rtol=0)
    assert ((got - later).abs() <= half * spread * (1 + 1e-9)).all()
    nothing = ChannelGrid(bits, 6).learn(torch.zeros(1, 1, 3, 6))
    assert torch.equal(nothing[1], torch.ones(1, 1, 1, 6))


def test_a_large_channel_costs_the_others_nothing() -> None:
    """What the channels' own units are for: keys of a biased channel, 150 from zero with a spread of 1."""
    keys = torch.randn(1, 1, 200, 64, generator=torch.Generator().manual_seed(0))
    keys[..., 5] += 150
    learning, others = ChannelGrid(4, 64), [c for c in range(64) if c != 5]
    learned = learning.learn(keys[:, :, :100])
    off = [
        (grid.decode(grid.encode(keys, given), given, torch.float32) - keys)[..., others].square().mean().sqrt()
        for grid, given in ((learning, learned), (TokenGrid(4, 64), ()))
    ]
    assert off[0] < 0.15 and off[1] > 0.9


def test_two_codes_a_byte() -> None:
    codes = torch.arange(256).view(1, 1, 16, 16).to(torch.uint8) % 16
    assert pack(codes).shape[-1] == 8 and torch.equal(unpack(pack(codes)), codes)
    assert pack(torch.tensor([[1, 15, 2, 0]], dtype=torch.uint8)).tolist() == [[33, 15]]
    assert [group_of(channels, 64) for channels in (128, 80, 72, 96, 16)] == [64, 40, 36, 48, 16]


# -- one layer ----------------------------------------------------------------------------------------------------


def a_turn() -> Any:
    """The rotation of layer 0's keys in a tiny model: [2, n, 16] by [n, 3]."""
    return partial(build("qwen2_5_vl").stream().loop.turn, 0)


class Plain:
    """A layer as plain columns, those that settled first: exact until they settle, then as the codec reads them."""

    def __init__(self, turn: Any, storage: Any) -> None:
        self.turn, self.codecs, self.learned = turn, (storage("keys"), storage("values")), None
        self.bare, self.values, self.settled = torch.zeros(1, 2, 0, 16).double(), torch.zeros(1, 2, 0, 16).double(), 0
        self.place = torch.zeros(0, 3, dtype=torch.int64)

    def append(self, keys: Tensor, values: Tensor, place: Tensor) -> None:
        bare = self.turn(keys[0], -place)[None]
        self.bare, self.values = torch.cat([self.bare, bare], 2), torch.cat([self.values, values], 2)
        self.place = torch.cat([self.place, place])

    def read(self) -> tuple[Tensor, Tensor]:
        return self.turn(self.bare[0], self.place)[None], self.values

    def settle(self, columns: Tensor) -> None:
        chosen = self.bare[:, :, columns], self.values[:, :, columns]
        if self.learned is None:
            self.learned = [codec.learn(states) for codec, states in zip(self.codecs, chosen, strict=True)]
        for held, codec, learned in zip((self.bare, self.values), self.codecs, self.learned, strict=True):
            states = held[:, :, columns]
            held[:, :, columns] = codec.decode(codec.encode(states, learned), learned, torch.float64)
        rest = [i for i in range(self.settled, self.bare.shape[2]) if i not in columns.tolist()]
        self.keep(torch.tensor([*range(self.settled), *columns.tolist(), *rest]))
        self.settled += len(columns)

    def keep(self, order: Tensor) -> None:
        self.bare, self.values, self.place = self.bare[:, :, order], self.values[:, :, order], self.place[order]


@pytest.mark.parametrize("storage", ["int8", "int4"])
@pytest.mark.parametrize("seed", range(3))
def test_a_layer_in_two_tiers_against_plain_tensors(seed: int, storage: str) -> None:
    """Random appends, settlings, evictions, moves, merges, hidings and cuts; forks, and pushes that fail."""
    generator, turn = torch.Generator().manual_seed(seed), a_turn()
    layer: Any = TieredLayer(storage=STORAGES[storage], turn=turn)
    want, came = Plain(turn, STORAGES[storage]), torch.zeros(0, 3, dtype=torch.int64)

    def some(count: int) -> tuple[Tensor, Tensor, Tensor]:
        keys, values = (torch.randn(1, 2, count, 16, generator=generator).double() for _ in range(2))
        return keys, values, torch.randint(0, 50, (count, 1), generator=generator).expand(-1, 3)

    def stand() -> None:
        layer.stand(came, want.place[: layer.settled])

    def equal(other: Any) -> None:
        keys, values = want.read()
        torch.testing.assert_close(other.keys, keys, atol=1e-9, rtol=0)
        torch.testing.assert_close(other.values, values, atol=1e-9, rtol=0)

    for step in range(40):
        do, held = int(torch.randint(0, 6, (), generator=generator)), want.bare.shape[2]
        failing = step % 7 == 3
        if failing:
            layer.begin()
            before, kept = [part.clone() for of in layer.stored().values() for part in of], (want, came)
            want = Plain(turn, STORAGES[storage])
            want.__dict__ |= {k: v.clone() if isinstance(v, Tensor) else v for k, v in kept[0].__dict__.items()}
        if do == 0 and held - want.settled > 6:
            columns = torch.randperm(held - want.settled, generator=generator)[:4].sort().values + want.settled
            order = layer.settle(columns, came[columns])
            want.settle(columns)
            came = came[order]
            assert order.tolist()[: want.settled] == [*range(want.settled - 4), *columns.tolist()]
            want.keep(torch.cat([torch.arange(want.settled), _where(order, want.settled, columns, held)]))
            came = came[:held]
        elif do == 1 and held > 12:
            stay = torch.randperm(held, generator=generator)[:-3].sort().values
            move = layer.arranged(stay)
            layer.keep(move)
            assert sorted(move.order.tolist()) == stay.tolist()
            want.keep(move.order)
            want.settled, came = int((stay < want.settled).sum()), came[move.order]
        elif do == 2 and held:
            by = torch.randint(-20, 20, (held, 1), generator=generator).expand(-1, 3)
            want.place = came + by
            layer.rotate(turn, by)
        elif do == 3 and held > 4:
            slots, (keys, values, _) = torch.randperm(held, generator=generator)[:3], some(3)
            stand()
            layer.overwrite(slots, keys[0], values[0])
            came = came.index_copy(0, slots, want.place[slots])
            want.bare[:, :, slots] = turn(keys[0], -want.place[slots])[None]
            want.values[:, :, slots] = values
            far = slots[slots < want.settled]
            for held_of, codec, learned in zip((want.bare, want.values), want.codecs, want.learned or (), strict=False):
                held_of[:, :, far] = codec.decode(codec.encode(held_of[:, :, far], learned), learned, torch.float64)
        stand()
        keys, values, place = some(3)
        layer.update(keys, values)
        want.append(keys, values, place)
        came = torch.cat([came, place])
        stand()
        assert (layer.length, layer.settled) == (want.bare.shape[2], want.settled)
        equal(layer)
        assert layer.nbytes == sum(part.nbytes for of in layer.stored().values() for part in of)
        if failing:
            layer.rollback()
            want, came = kept
            after = [part for of in layer.stored().values() for part in of]
            assert len(after) == len(before) and all(map(torch.equal, after, before))
            equal(layer) if want.bare.shape[2] else None
        elif step % 5 == 4:
            twin, length = layer.fork(), layer.length
            shown = torch.randperm(length, generator=generator)[: length // 2].sort().values
            twin.show(shown)
            twin.update(keys, values)
            assert twin.get_seq_length() == len(shown) + 3 == twin.keys.shape[2] == twin.values.shape[2]
            torch.testing.assert_close(twin.keys[:, :, :-3], want.read()[0][:, :, shown], atol=1e-9, rtol=0)
            assert torch.equal(twin.values[:, :, -3:], values)
            twin.truncate(length + 1)
            twin.show(None)
            assert twin.keys.shape[2] == length + 1
            twin.release(layer)
            equal(layer)
    assert want.settled > 4


def _where(order: Tensor, settled: int, columns: Tensor, held: int) -> Tensor:
    """For the places of what has not settled, where `Plain`, which keeps its order, has the column."""
    rest = [i for i in range(settled - len(columns), held) if i not in columns.tolist()]
    return torch.tensor([settled + rest.index(int(column)) for column in order[settled:]])


def test_refused_parameters() -> None:
    for line, said in (("int4:recent=0", "recent"), ("int8:group=1", "group"), ("int4:bits=2", "bits")):
        with pytest.raises(pv.ConfigError, match=said):
            pv.Memory(storage=line)
    assert pv.Memory(storage="int4:recent=16,group=32") != pv.Memory(storage="int4")
