"""StreamingEval's protocol: the budget in tokens, the figures and the score by hand, and what is said of other runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from test_compare import record, written
from typer.testing import CliRunner
from videomme import make_videomme

import pdrop_video as pv
from eval.runner.config import configured
from eval.runner.execute import execute
from eval.stats.record import read_run
from eval.stats.streaming import Streamed, Weights, token_budget
from eval.streaming import app, broken, parameters_of, tokens_of

TIMES = {"decode": 9.0, "prefill": 2.0, "first_token": 0.1, "generate": 0.4}
RECORDS = [
    record("v1-1", 1.0, seconds=TIMES, frames=10, cache_bytes=3_000_000),
    record("v1-2", 0.0, seconds={**TIMES, "prefill": 6.0, "first_token": 0.3}, frames=14, cache_bytes=5_000_000),
    replace(record("v2-1", 0.0), error="broke off", seconds={}),
    replace(record("v2-2", None), seconds=TIMES),
]


def test_figures_and_score_by_hand() -> None:
    found = Streamed.of(RECORDS)
    assert found.accuracy == pytest.approx(1 / 3)  # the error is wrong, the one without a truth does not count
    assert found.ttft == pytest.approx(0.2) and found.latency == pytest.approx(0.6)
    assert found.max_fps == pytest.approx(24 / 8)
    assert (found.memory_bytes, found.items) == (5_000_000, 3)
    weights = Weights(0.1, 0.4, 0.2, 0.3)
    expected = 3**0.1 * (1 / 3) ** 0.4 / (0.2**0.2 * (0.005 * math.log(7_000_000_000)) ** 0.3)
    assert found.score(7_000_000_000, weights) == pytest.approx(expected)
    assert found.score(10**9, Weights(0, 1, 0, 0)) == pytest.approx(1 / 3)
    assert found.score(10**9) == pytest.approx((3 / 3 / (0.2 * 0.005 * math.log(10**9))) ** 0.25)
    with pytest.raises(pv.ConfigError, match="no item was answered and scored"):
        Streamed.of(RECORDS[2:])
    for wrong in ((0.5, 0.5, 0.5, 0.5), (-0.5, 0.5, 0.5, 0.5)):
        with pytest.raises(pv.ConfigError, match="add up to 1"):
            Weights(*wrong)


def test_a_budget_in_tokens() -> None:
    # Qwen2.5-7B: 28 layers, 4 heads of 128 for keys and as many for values, embeddings of 3,584, two bytes each
    assert token_budget(1e9, 3584, [(4, 128, 128)] * 28) == 10**9 // (2 * (3584 + 28 * 4 * 256))
    lm = pv.load(device="cpu")
    text = lm.model.config.get_text_config()
    width = text.hidden_size // text.num_attention_heads
    one = 2 * (text.hidden_size + 2 * text.num_hidden_layers * text.num_key_value_heads * width)
    assert tokens_of(None, 1) == 10**6 // one
    assert parameters_of(None) == sum(parameter.numel() for parameter in lm.model.parameters())
    done = CliRunner().invoke(app, ["budget", "1"])
    assert f"--fps 1 --chunk 1 --memory {10**6 // one}" in done.output
    assert "hold no token" in CliRunner().invoke(app, ["budget", "0.000001"]).output


def test_a_run_by_the_protocol(tmp_path: Path) -> None:
    """The settings that `budget` gives keep a run's memory within what was asked for; `score` finds nothing wrong."""
    megabytes = 0.3
    data, tokens = make_videomme(tmp_path / "data", 1, clips=1, seconds=8), tokens_of(None, megabytes, 4)
    settings = {"task": "videomme", "data": data, "out": tmp_path / "run", "max_new_tokens": 2}
    execute(configured(None, {**settings, "fps": 1, "chunk": 1, "memory": {"tokens": tokens}}))
    told = [str(tmp_path / "run"), "--megabytes", str(megabytes), "--weights", "0,0,0,1", "--json"]
    done = CliRunner().invoke(app, ["score", *told])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output.splitlines()[-1])["run"]
    assert 0 < found["memory_bytes"] <= 1e6 * megabytes
    assert found["score"] == pytest.approx(1 / (found["memory_bytes"] / 1e9 * math.log(parameters_of(None))))
    assert not broken("run", read_run(tmp_path / "run"), found, megabytes)


def test_what_is_not_the_protocol(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", RECORDS)
    header = json.loads((folder / "run.json").read_text())
    config = {"fps": None, "frames": 8, "chunk": 8, "memory": {"tokens": None}, "last_frames": None}
    (folder / "run.json").write_text(json.dumps({**header, "configuration": config}))
    told = [str(folder), "--megabytes", "4", "--parameters", "1000"]
    said = " ".join(CliRunner().invoke(app, ["score", *told]).output.split())
    assert "run was not given one frame at a time, one a second, but 8 frames in all, 8 at once." in said
    assert "run had no fixed memory." in said
    assert "run held 5.00 MB, more than the 4 MB it was to." in said
    for weights in ("1", "a,b,c,d", "0.25,0.25,0.25,0.25,0.25"):
        done = CliRunner().invoke(app, ["score", *told, "--weights", weights])
        assert done.exit_code == 2 and "error:" in done.output, done.output
