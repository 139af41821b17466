"""Schedules: where stages end, how many tokens they leave, and what is refused."""

from __future__ import annotations

import pytest

from pdrop_video import ConfigError, Pyramid


def test_defaults_of_the_paper() -> None:
    schedule = Pyramid().resolve(32)
    assert schedule.layers == (8, 16, 24)
    assert schedule.ratios == (0.5, 0.25, 0.125)
    assert schedule.counts(576) == (576, 288, 144, 72)
    assert [schedule.stage(layer) for layer in (0, 7, 8, 15, 16, 23, 24, 31)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert schedule.per_layer(576) == [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8
    assert Pyramid(stages=4, ratio=0.5).resolve(32) == schedule


def test_counts_truncate_like_the_released_code() -> None:
    # 100 * .57 is 56.99.. and 100 * .29 is 28.99.. in binary floating point; int() truncates
    assert Pyramid(layers=(2, 4, 6), ratios=(0.57, 0.29, 0.07)).resolve(8).counts(100) == (100, 56, 28, 7)


def test_a_boundary_before_all_layers() -> None:
    """The first stage is all that entered, and no layer runs it."""
    schedule = Pyramid(layers=(0, 4), ratios=(0.5, 0.25)).resolve(8)
    assert schedule.counts(100) == (100, 50, 25)
    assert [schedule.stage(layer) for layer in range(8)] == [1] * 4 + [2] * 4
    assert schedule.spans == (range(0), range(4), range(4, 8))
    assert schedule.per_layer(100) == [50] * 4 + [25] * 4
    assert schedule.per_layer_shares() == [0.5] * 4 + [0.25] * 4
    assert schedule.average(100) == 37.5
    assert Pyramid(layers=range(8)).resolve(8).per_layer(512) == [256, 128, 64, 32, 16, 8, 4, 2]  # before every layer
    assert Pyramid().resolve(8).spans == (range(2), range(2, 4), range(4, 6), range(6, 8))


@pytest.mark.parametrize("num_layers", [1, 2, 6, 24, 28, 32, 36, 80])
def test_any_number_of_stages(num_layers: int) -> None:
    for stages in range(1, num_layers + 1):
        layers = Pyramid(stages=stages).resolve(num_layers).layers
        assert len(layers) == stages - 1
        assert list(layers) == sorted(set(layers))
        assert all(1 <= layer < num_layers for layer in layers)
    assert Pyramid(stages=num_layers).resolve(num_layers).layers == tuple(range(1, num_layers))


@pytest.mark.parametrize("num_layers", [24, 28, 32, 80])
@pytest.mark.parametrize("tokens", [576, 400, 270, 192, 128, 64, 40])
def test_for_average(tokens: int, num_layers: int) -> None:
    schedule = Pyramid.for_average(tokens, of=576).resolve(num_layers)
    assert schedule.average(576) == pytest.approx(tokens, abs=1)  # int() of each stage costs less than one token
    assert schedule.average(57600) == pytest.approx(100 * tokens, rel=1e-3)
    assert len(schedule.layers) == 3
    assert list(schedule.ratios) == sorted(schedule.ratios, reverse=True)


def test_for_average_keeps_even_stages_while_it_can() -> None:
    assert Pyramid.for_average(192, of=576).resolve(32).layers == (8, 16, 24)
    assert Pyramid.for_average(64, of=576).resolve(32).layers[0] < 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(ratios=(0.25, 0.5)), "rise"),
        (dict(ratios=(1.5,)), "1.5"),
        (dict(ratios=(0.0,)), "0.0"),
        (dict(ratios=(-0.5,)), "-0.5"),
        (dict(ratios=(float("nan"),)), "nan"),
        (dict(ratios=(True,)), "True"),
        (dict(ratio=0), "ratio is 0"),
        (dict(ratio=2), "ratio is 2"),
        (dict(ratio=0.5, ratios=(0.5,)), "both"),
        (dict(stages=0), "0"),
        (dict(stages=2.0), "2.0"),
        (dict(stages=3, ratios=(0.5,)), "contradictory"),
        (dict(layers=(8, 16), ratios=(0.5,)), "contradictory"),
        (dict(layers=(16, 8)), "increasing"),
        (dict(layers=(8, 8)), "increasing"),
        (dict(layers=(-1,)), "each of layers is -1; expected a whole number from 0"),
        (dict(layers=(0, 0)), "increasing"),
        (dict(layers=(2.5,)), "2.5"),
        (dict(positions="gapped"), "gapped"),
        (dict(average=0.5, ratio=0.5), "average"),
        (dict(average=0), "average is 0"),
    ],
)
def test_refused(arguments: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Pyramid(**arguments)


@pytest.mark.parametrize(
    ("pyramid", "said"),
    [
        (Pyramid(layers=(2, 8)), r"0 to 7"),
        (Pyramid(stages=9), "at most 8"),
        (Pyramid(layers=range(9)), "at most 8"),
        (Pyramid(stages=1, average=0.5), "can't be reached"),
        (Pyramid(average=0.05), "can't be reached"),
    ],
)
def test_refused_for_this_model(pyramid: Pyramid, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pyramid.resolve(8)


@pytest.mark.parametrize("tokens", [0, -1, 577])
def test_average_out_of_range(tokens: int) -> None:
    with pytest.raises(ConfigError, match=str(tokens)):
        Pyramid.for_average(tokens, of=576)
