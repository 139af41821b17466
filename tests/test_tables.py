"""Tables of methods: rows of equal cost, rows that are plain runs, and tables that go on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import pdrop_video as pv
from eval import tables
from eval.runner.config import RunConfig
from eval.runner.equal import STEPS, TEXT, Way
from eval.runner.execute import execute
from eval.stats.record import read_run
from eval.synthetic.make import make
from eval.tables.base import LETS_ON, MARGIN
from eval.tables.front import reduce
from eval.tables.inside import ONE_DROP, STAGE_SHARES, depth, stage
from eval.tables.remembering import BUDGETS, memory
from pdrop_video.costs.decoder import DecoderShape, prefill_flops
from pdrop_video.memory.evictors import EVICTORS
from pdrop_video.memory.storages import STORAGES
from pdrop_video.pyramid.scorers import SCORERS
from pdrop_video.search.budget import Costs

SHAPE = DecoderShape(hidden=256, mlp=704, heads=4, kv_heads=2, head_dim=64, layers=8, vocabulary=248)
WAY = Way(SHAPE, step=141_000_000, places=16)


def test_rows_of_depth_cost_what_their_names_say() -> None:
    costs = Costs(SHAPE, 1024)
    for name, given in depth(WAY).items():
        if name == "full":
            continue
        pyramid = pv.Pyramid(**given["pyramid"])
        share = float(name.split()[-1].rstrip("%")) / 100
        assert 0.97 * share < costs.share(pyramid) <= 1.001 * share, name
        method = name.split()[0]
        one_drop = name.startswith("one drop at")
        assert (len(pyramid.layers or ()) == 1) == one_drop
        assert not one_drop or pyramid.layers == (int(name.split()[3]),)
        assert pyramid.scorer == (method if method in ("random", "even", "shuffled") else None)


def test_rows_of_reduce_cost_what_their_names_say() -> None:
    """The tower for what the gate lets on, the decoder for what the reducer leaves, a question for all."""
    full = STEPS * WAY.step + prefill_flops(SHAPE, pv.Pyramid(stages=1).resolve(8), STEPS * 16, TEXT)
    let_on = {gate: MARGIN * encoded for gates in LETS_ON.values() for gate, encoded in gates.items()}
    seen = set()
    for name, given in reduce(WAY).items():
        if "%" not in name or name.startswith("fewer"):
            continue
        share, encoded = float(name.split()[-1].rstrip("%")) / 100, let_on.get(given.get("gate"), 1.0)
        _, _, said = given.get("reducer", "").partition("=")
        keep = float(said.split(",")[0]) if said else 1.0  # of a reducer
        pyramid = pv.Pyramid(**given["pyramid"]).resolve(8)
        spent = encoded * STEPS * WAY.step + prefill_flops(SHAPE, pyramid, round(STEPS * 16 * encoded * keep), TEXT)
        if given.get("reducer") is None or said:
            assert 0.96 * share < spent / full <= 1.01 * share, name
            seen.add((share, given.get("reducer", name).partition(":")[0]))
    assert {(share, name) for share in (0.5, 0.15) for name in ("evs", "lrcp", "even", "random")} <= seen


def test_rows_of_stage_cost_what_their_names_say() -> None:
    full = STEPS * WAY.step + prefill_flops(SHAPE, pv.Pyramid(stages=1).resolve(8), STEPS * 16, TEXT)
    seen, systems = set(), set()
    for name, given in stage(WAY).items():
        if name == "full":
            continue
        share = float(name.split()[-1].rstrip("%")) / 100
        encoded = MARGIN * LETS_ON[share][given["gate"]] if "gate" in given else 1.0
        pyramid, method = pv.Pyramid(**given["pyramid"]), name.split()[0].rstrip(",")
        steps, keep = encoded * STEPS, float(given.get("reducer", "=1").partition("=")[2])
        spent = steps * WAY.step + prefill_flops(SHAPE, pyramid.resolve(8), round(steps * 16 * keep), TEXT)
        if method == "adaspark":  # its share of rows has FFNs: three matrices, two FLOPs a number, eight layers
            active = float(pyramid.inside.partition("p=")[2].partition(",")[0])
            spent -= (1 - active) * 6 * 256 * 704 * 8 * round(steps * 16)
        assert 0.96 * share < spent / full <= 1.01 * share, name
        if method in ("adaspark", "learnpruner"):
            systems.add((share, method, pyramid.layers, pyramid.ratios if pyramid.layers else None))
            continue
        assert pyramid.scorer == method and ("one drop" in name) == (len(pyramid.ratios) == 1)
        assert given.get("question_aware", False) == SCORERS[method].facts.needs_question
        seen.add((share, method, pyramid.layers))
    assert {(share, method) for share, method, _ in seen} == {(s, name) for s in STAGE_SHARES for name in SCORERS}
    assert {(0.15, name, (at,)) for name in ONE_DROP for at in (0, 1)} <= seen
    assert {(0.15, "learnpruner", (3,), (0.3333,)), (0.15, "adaspark", None, None)} <= systems


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [64, 128])
def test_rows_of_memory_take_equal_bytes(tokens: int) -> None:
    """Measured on streams in the type that bytes are counted in: what is stored, and what is held twice."""
    lm = pv.load(device="cpu", dtype="bfloat16")
    most = tokens * 8 * 2 * 2 * 64 * 2  # layers, keys and values, heads, channels, bytes
    pictures = torch.randint(0, 256, (48, 112, 112, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    rows = memory(Way.of(lm))
    stored = [f"{name} storage" for name in STORAGES if name != "full"]
    for name in ("pyramid", "streaming_vlm", *stored):
        given = rows[f"{name}, {tokens}"]
        stream = lm.stream(pv.Pyramid(**given["pyramid"]), pv.Memory(**given["memory"]))
        chunk = given.get("chunk", 8)
        for first in range(0, 48, chunk):
            stream.push(pictures[first : first + chunk], [n / 2 for n in range(first, first + chunk)])
        assert 0.8 * most < stream.status.cache_bytes <= most, name
    assert {f"{name}, {each}" for name in (*EVICTORS, *stored) for each in BUDGETS} <= rows.keys()


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_row_is_a_run_that_can_be_made(name: str, tmp_path: Path) -> None:
    rows = tables.TABLES[name](WAY)
    digests = {
        RunConfig(**{"task": "videomme", "data": tmp_path, "out": tmp_path, "fps": 2, **given}).digest
        for given in rows.values()
    }
    assert len(digests) == len(rows)  # no row is another one's under a second name


def test_a_table_is_its_runs_side_by_side(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, "dev", 4, {"short": 2, "medium": 0, "long": 0, "very long": 0}, 4, 1)
    call = ["chunks", "--data", str(data), "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    call += ["--only", "8 frames"]
    first = CliRunner().invoke(_app(), call)
    assert first.exit_code == 0, first.output
    table = pd.read_csv(tmp_path / "out" / "chunks" / "runs.csv").set_index("run")
    assert list(table.index) == ["full", "8 frames a chunk"] and (table["items"] == 8).all()
    for name, pyramid in (("full", "none"), ("8 frames a chunk", "0.5,0.25,0.125")):
        settings = RunConfig(
            task="videomme", data=data, out=tmp_path / name, fps=2, pyramid=pyramid, answer="likelihood"
        )
        execute(settings)
        ours, plain = read_run(tmp_path / "runs" / name).records, read_run(tmp_path / name).records
        assert [(r.item, r.turns[0].likelihoods, r.flops) for r in ours] == [
            (r.item, r.turns[0].likelihoods, r.flops) for r in plain
        ]
        assert table.loc[name, "accuracy"] == pytest.approx(sum(r.score or 0 for r in plain) / 8)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("records-*.jsonl")}
    assert len(before) == 2 and CliRunner().invoke(_app(), call).exit_code == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("records-*.jsonl")}
    wrong = CliRunner().invoke(_app(), ["depths", "--data", str(data)])
    assert wrong.exit_code == 1 and "no table 'depths'" in wrong.output


def _app():  # type: ignore[no-untyped-def]
    import typer

    app = typer.Typer()
    app.command()(tables.main)
    return app
