"""What the benchmarks share: turns that are fair, and figures that come out as they went in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import transformers
from families import FAMILIES, build
from torch.utils.flop_counter import FlopCounterMode

import pdrop_video as pv
from eval.bench.common import in_turns, report, usual_type
from eval.bench.families import FAMILIES as MADE
from eval.bench.families import tiny_of
from eval.bench.prefill import PYRAMIDS, TEXT_TOKENS, WHOLE, bare_attention, bare_linear, measure
from eval.bench.soak import soak
from eval.bench.streams import Crowd, each, everyone
from pdrop_video.costs.decoder import DecoderShape, layer_flops, prefill_flops
from pdrop_video.memory import StreamCache


def test_turns() -> None:
    """Every run once a turn, forwards and backwards, the first turn untimed; and the clock knows long from short."""
    calls: list[str] = []

    def work(name: str, rounds: int) -> None:
        calls.append(name)
        sum(range(rounds))

    times = in_turns({"a": lambda: work("a", 2_000_000), "b": lambda: work("b", 1), "c": lambda: work("c", 1)}, 3)
    assert "".join(calls) == "cba" + "abc" + "cba" + "abc"
    assert list(times.columns) == ["a", "b", "c"] and len(times) == 3
    assert (times.a > times.b).all() and (times.b > 0).all()


@pytest.mark.parametrize("figures", [None, {"budget": 7}])
def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str], figures: dict[str, int] | None) -> None:
    table = pd.DataFrame({"tokens": [1024, 4096], "speedup": [1.25, 2.5], "kind": ["a", "b"]})
    table.loc[1, "predicted"] = 2.0
    drawn: list[pd.DataFrame] = []

    def draw(given: pd.DataFrame) -> object:
        drawn.append(given)
        return given.plot(x="tokens", y="speedup")

    report("prefill", table, draw, tmp_path / "new" / "folder", True, figures)
    *shown, last = capsys.readouterr().out.splitlines()
    assert json.loads(last) == (figures or {}) | {
        "dtype": str(usual_type()).removeprefix("torch."),
        "rows": [
            {"tokens": 1024, "speedup": 1.25, "kind": "a", "predicted": None},
            {"tokens": 4096, "speedup": 2.5, "kind": "b", "predicted": 2.0},
        ],
    }
    assert any("4096" in line and "2.5" in line for line in shown)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new" / "folder" / "prefill.csv"), table, check_dtype=False)
    assert (tmp_path / "new" / "folder" / "prefill.png").read_bytes().startswith(b"\x89PNG") and drawn[0] is table


def test_nothing_is_written_or_drawn_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    report("soak", pd.DataFrame({"a": [1]}), lambda table: 1 / 0, None, False)
    assert "{" not in capsys.readouterr().out and not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", FAMILIES)
def test_bare_products_are_a_prefills(family: str) -> None:
    """A prefill's yardstick, as PyTorch counts it: linear layers, whole squares of attention, a row of logits."""
    model = build(family).model
    shape, rows = DecoderShape.of(model.config), [40, 40, 23, 23, 9, 9]

    def counted(run: Callable[[], None]) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    whole = sum(layer_flops(shape, i, n, causal=False) for i, n in enumerate(rows))
    squares = sum(4 * n * n * shape.heads * shape.head_dim for n in rows)
    assert counted(bare_attention(model, rows)) == squares
    assert counted(bare_linear(model, rows)) == whole - squares + 2 * shape.hidden * shape.vocabulary


def test_families_are_counted_and_half_a_billion() -> None:
    """The weights that a row passes, by configurations alone: a row's FLOPs are two for each."""
    for family, made in MADE.items():
        if family not in transformers.CONFIG_MAPPING:  # of an older transformers
            continue
        shape = DecoderShape.of(made())
        assert 0.4e9 < sum(layer_flops(shape, i, 1, 1) for i in range(shape.layers)) / 2 < 0.6e9, family


@pytest.mark.skipif(not hasattr(transformers, "Qwen3_5Config"), reason="this transformers is too old")
def test_a_prefill_of_a_family() -> None:
    model = tiny_of("qwen3_5").model
    rows = measure(model, 40, 1, "qwen3_5", bare=False)
    shape = DecoderShape.of(model.config)
    full, cut = (prefill_flops(shape, p.resolve(8, (3, 7)), 40, TEXT_TOKENS) for p in (WHOLE, PYRAMIDS["pyramid"]))
    assert [row["schedule"] for row in rows] == ["pyramid", "fastv"] and rows[0]["flops_speedup"] == full / cut
    for row in rows:
        assert row["family"] == "qwen3_5" and row["gemm_fraction"] is None
        assert row["cpu_speedup"] > 0 and row["cpu_ratio1_slowdown"] > 0 and 0 < row["ranking_fraction"] < 1


@pytest.mark.skipif(not hasattr(transformers, "Qwen3_5Config"), reason="this transformers is too old")
def test_soak_of_a_model_with_states() -> None:
    """Its states are inside the bytes that are given."""
    lm = tiny_of("qwen3_5")
    table, figures = soak(96, 64, "pyramid", 0, lm)
    assert list(table.frames) == [32, 64, 96]
    assert 0.9 * figures["budget_bytes"] < figures["peak_cache_bytes"] <= figures["budget_bytes"]
    assert figures["budget_bytes"] == lm.stream(memory=pv.Memory(tokens=64)).cache_bound


def test_soak_reports_and_stops_over_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short run fills its budget; the same run with a cache that makes no room is ended by the guard, in flight."""
    table, figures = soak(240, 128, "pyramid", 0)
    assert list(table.frames) == [80, 160, 240] and figures["frames"] == 240
    assert table.cache_mib.max() * 2**20 <= figures["peak_cache_bytes"] <= figures["budget_bytes"]
    assert figures["peak_cache_bytes"] > 0.9 * figures["budget_bytes"]  # it was full
    monkeypatch.setattr(StreamCache, "make_room", lambda *args: None)
    with pytest.raises(AssertionError, match="over budget"):
        soak(240, 128, "pyramid", 0)


@pytest.mark.parametrize("batch", [1, 8])
def test_a_crowd_does_the_same_work_at_once_and_in_turn(batch: int) -> None:
    """Each stream gets its two frames and its whole answer, whichever way; what one raises is raised."""
    crowd = Crowd(pv.load(batch=batch), 160, 1)
    streams = crowd.streams
    before = [stream.status.frames for stream in crowd.streams]
    for way in (each, everyone):
        way(crowd.push, streams)(), way(crowd.ask, streams)(), way(crowd.go_on, crowd.answers)()
    assert [answer.question.fed for answer in crowd.answers] == [2] * 8
    assert [stream.status.frames - start for stream, start in zip(crowd.streams, before, strict=True)] == [4] * 8
    frames = [stream.status.frames for stream in crowd.streams]
    assert len(crowd.waits_while_others_watch(2)) == 2
    after = [stream.status.frames for stream in crowd.streams]
    assert after[0] == frames[0] and all(now > then for now, then in zip(after[1:], frames[1:], strict=True))
    crowd.streams[2].close()
    with pytest.raises(pv.StreamError, match="closed"):
        everyone(crowd.push, streams)()
