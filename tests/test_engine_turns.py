"""Who runs next in an engine, by what is noted: who hurries, who was overtaken, Ctrl-C in the middle of a meeting."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from lanes import WIDTH, engine_of, through
from test_turnstile import ctrl_c, until  # noqa: F401 - a fixture
from torch import Tensor, nn

from pdrop_video.engine import Engine, packing

pytestmark = pytest.mark.usefixtures("watchdog")


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def rows_of(seed: int, count: int = 2) -> Tensor:
    return torch.randn(1, count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Walker(threading.Thread):
    """A turn that goes through all layers, `times` times, and notes each layer that it has passed."""

    def __init__(
        self, engine: Engine, layers: nn.ModuleList, name: str, log: list[str], first: object = None, times: int = 1
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.engine, self.layers, self.log, self.first, self.times = engine, layers, log, first, times
        self.result: Tensor | None = None

    def run(self) -> None:
        for _ in range(self.times):
            with (
                torch.no_grad(),
                self.engine if self.first is None else self.engine.first(self.first),
                self.engine.packing(),
            ):
                rows = rows_of(ord(self.name))
                for number, layer in enumerate(self.layers):
                    rows = layer.map(rows).tanh()
                    self.log.append(f"{self.name}{number}")
                self.result = rows


def wait_in_line(engine: Engine, walkers: list[Walker]) -> None:
    """Let them stand in line in this order; call it within a turn."""
    for walker in walkers:
        before = len(engine._line)
        walker.start()
        until(lambda before=before: len(engine._line) > before)


def expected(layers: nn.ModuleList, name: str) -> Tensor:
    rows = rows_of(ord(name))
    for layer in layers:
        rows = nn.functional.linear(rows, layer.map.weight, layer.map.bias).tanh()
    return rows


def test_all_who_come_go_through_each_layer_together() -> None:
    engine, layers = engine_of(layers=3, lanes=4)
    log: list[str] = []
    walkers = [Walker(engine, layers, name, log) for name in "abc"]
    with engine:
        wait_in_line(engine, walkers)
    [walker.join() for walker in walkers]
    assert [sorted(log[i : i + 3]) for i in (0, 3, 6)] == [["a0", "b0", "c0"], ["a1", "b1", "c1"], ["a2", "b2", "c2"]]
    for walker in walkers:
        torch.testing.assert_close(walker.result, expected(layers, walker.name), atol=1e-12, rtol=0)


def test_who_comes_later_is_let_catch_up() -> None:
    """One that is in layer 2 waits while another goes through 0 and 1; from there they go together."""
    engine, layers = engine_of(layers=4, lanes=4)
    log: list[str] = []
    late = Walker(engine, layers, "b", log)
    with engine, engine.packing():
        rows = rows_of(ord("a"))
        for number, layer in enumerate(layers):
            if number == 2:
                wait_in_line(engine, [late])
            rows = layer.map(rows).tanh()
            log.append(f"a{number}")
    late.join()
    assert log[:4] == ["a0", "a1", "b0", "b1"]
    assert [sorted(log[i : i + 2]) for i in (4, 6)] == [["a2", "b2"], ["a3", "b3"]]
    torch.testing.assert_close(rows, expected(layers, "a"), atol=1e-12, rtol=0)


def test_who_hurries_goes_through_before_all_others_but_not_twice() -> None:
    engine, layers = engine_of(layers=3, lanes=2)
    log: list[str] = []
    others = [Walker(engine, layers, name, log) for name in "ab"]
    hurrying = Walker(engine, layers, "h", log, first="me", times=2)
    with engine:
        wait_in_line(engine, [*others, hurrying])
    [walker.join() for walker in [*others, hurrying]]
    assert log[:3] == ["h0", "h1", "h2"], "though both lanes were asked for before"
    second = log.index("h0", 1)
    assert second > min(log.index("a0"), log.index("b0")), "the second time it is one like any other"
    assert len(log) == 12


@pytest.mark.parametrize("head", [True, False])
def test_nobody_is_overtaken_for_ever(head: bool) -> None:
    """Others begin one turn after another, all of them behind; still each place is passed within two of their turns."""
    engine, layers = engine_of(layers=3, lanes=4)
    through_yet, turns = threading.Event(), [0] * 3

    def again_and_again(number: int) -> None:
        while not through_yet.is_set() and turns[number] < 1000:
            with torch.no_grad(), engine, engine.packing():
                through(layers[:2] if head else layers[:1], rows_of(number))
            turns[number] += 1

    others = [threading.Thread(target=again_and_again, args=(number,)) for number in range(3)]
    with engine, engine.packing():
        for other in others:
            other.start()
        until(lambda: len(engine._line) == 3)
        rows, passed = rows_of(9), []
        for module in (*(layer.map for layer in layers), *([layers.head] if head else [])):
            rows = module(rows).tanh()
            passed.append(max(turns))
    through_yet.set()
    [other.join() for other in others]
    assert max(after - before for before, after in zip([0, *passed], passed, strict=False)) <= 4
    assert max(turns) < 1000


def test_those_who_hurry_go_together() -> None:
    engine, layers = engine_of(layers=2, lanes=2)
    log: list[str] = []
    hurrying = [Walker(engine, layers, name, log, first=name) for name in "xyz"]
    with engine:
        wait_in_line(engine, hurrying)
    [walker.join() for walker in hurrying]
    assert [sorted(log[i : i + 3]) for i in (0, 3)] == [["x0", "y0", "z0"], ["x1", "y1", "z1"]]


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_rows_wait_comes_within_the_turn() -> None:
    """The others go on, and what this thread undoes is undone within its turn."""
    engine, layers = engine_of(layers=2, lanes=3)
    main, log = threading.get_ident(), []
    other = Walker(engine, layers, "b", log)
    compute = engine._compute

    def interrupting(me: Any) -> None:
        if threading.get_ident() != main:
            signal.pthread_kill(main, signal.SIGINT)
        compute(me)

    engine._compute = interrupting  # type: ignore[method-assign]
    with engine:
        with engine.packing():
            rows = layers[0].map(rows_of(1))
            wait_in_line(engine, [other])
            with pytest.raises(KeyboardInterrupt):
                layers[1].map(rows)  # waits here for the other one, which is a layer behind
        assert engine._owner == main
    other.join()
    torch.testing.assert_close(other.result, expected(layers, "b"), atol=1e-12, rtol=0)
    assert not engine._members
    assert not engine._waiting
    assert not engine._ready


def test_a_turn_within_a_forward_is_refused() -> None:
    engine, layers = engine_of(layers=1, lanes=2)
    with engine, engine.packing(), pytest.raises(Exception, match="from within its own work"), engine:
        raise AssertionError
    through(layers, rows_of(0))


def test_jobs_of_one_turn_meet_each_other() -> None:
    """Results in the order of the jobs, an error of one is raised, and the turn goes on."""
    engine, layers = engine_of(layers=3, lanes=2)
    together: list[int] = []
    leader = engine._led

    def noted(member: Any) -> Any:
        gate = leader(member)
        together.append(len(member.leads))
        return gate

    engine._led = noted  # type: ignore[method-assign]

    def job(seed: int) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad(), engine.packing():
                return through(layers, rows_of(seed))

        return run

    with engine:
        results = engine.together([job(ord(name)) for name in "abcd"])
        for name, result in zip("abcd", results, strict=True):
            torch.testing.assert_close(result, expected(layers, name), atol=1e-12, rtol=0)
        assert together == [4, 4, 4]
        with pytest.raises(ZeroDivisionError):
            engine.together([job(1), lambda: 1 / 0, job(2)])
        assert engine._owner == threading.get_ident()
    assert not engine._members


def test_more_rows_than_gain_anything_are_computed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, layers = engine_of(layers=1, lanes=4)
    assert packing.MOST_ROWS >= 256
    monkeypatch.setattr("pdrop_video.engine.engine.MOST_ROWS", 5)  # two walkers of two rows
    sizes: list[int] = []

    class Counted(nn.Linear):
        def forward(self, given: Tensor) -> Tensor:
            sizes.append(given.shape[1])
            return super().forward(given)

    layers[0].map.__class__ = Counted
    walkers = [Walker(engine, layers, name, []) for name in "abc"]
    with engine:
        wait_in_line(engine, walkers)
    [walker.join() for walker in walkers]
    assert sorted(sizes) == [2, 4]
