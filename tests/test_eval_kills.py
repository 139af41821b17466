"""A run of a thousand questions killed with SIGKILL at twenty random moments comes to what an undisturbed one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from videomme import make_videomme

ROOT = Path(__file__).parent.parent
ITEMS, KILLS, CLIPS = 1000, 20, 8


def begin(data: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command as a user gives it, with the built-in model."""
    command = [sys.executable, "-m", "eval.run", "videomme", "--data", data, "--out", out, "--frames", "4"]
    command += ["--max-new-tokens", "3", "--limit", str(ITEMS), "--pyramid", ".5,.25,.125", "--memory", "64"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # two of them run at once
    return subprocess.Popen(command, cwd=ROOT, env=one_thread, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def lines(out: Path) -> list[bytes]:
    """All whole lines of all journals."""
    return [line for path in out.glob("records*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]


def summary(out: Path) -> dict[str, Any]:
    """Without the wall-clock times."""
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    del found["time"], found["cost"]["seconds"], found["header"]["git_commit"]  # somebody may edit code meanwhile
    return found


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    data = make_videomme(tmp_path / "data", -(-ITEMS // 3), clips=CLIPS)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    moments = np.sort(rng.integers(0, ITEMS - 50, KILLS))  # so many items on record, and then
    delays = rng.uniform(0, 0.2, KILLS)  # so many seconds: while a line is written, or a model loaded, or anything
    print("killed at", moments.tolist(), "+", delays.round(3).tolist(), "s")
    kills, undisturbed = 0, begin(data, whole)
    for moment, delay in zip(moments, delays, strict=True):
        process = begin(data, cut)
        while len(lines(cut)) < moment and process.poll() is None:
            time.sleep(0.01)
        time.sleep(delay)
        assert process.poll() is None  # it was at work
        process.kill()
        assert process.wait() == -9
        kills += 1
    assert kills == KILLS and len(lines(cut)) < ITEMS
    assert begin(data, cut).wait() == 0
    assert undisturbed.wait() == 0
    done = [json.loads(line)["item"] for line in lines(cut)]
    assert len(done) == len(set(done)) == ITEMS
    assert summary(cut) == summary(whole)
    assert (cut / "videomme.json").read_bytes() == (whole / "videomme.json").read_bytes()
