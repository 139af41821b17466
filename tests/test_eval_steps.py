"""Answers of two steps: fed as decoded, equal to one pass where nothing is hidden, and a set that asks them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import pdrop_video as pv
from eval.runner.config import RunConfig
from eval.runner.execute import execute
from eval.runner.steps import stepwise
from eval.stats.record import read_run
from eval.synthetic import make as making
from eval.synthetic.hard import STEPS
from eval.synthetic.make import make
from eval.tasks import task_named
from pdrop_video.stream.turns import keep_turn

FIRST, SAID, THEN = "Where is the star?", "top left", "What colour is the key?"
OPTIONS = ("red", "top left", "blue")
HALF = pv.Pyramid(ratios=(0.25, 0.0625, 0.02))


@pytest.fixture(scope="module")
def stream() -> pv.VideoStream:
    watched = pv.load(device="cpu", dtype="float64").stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    pictures = torch.randint(0, 256, (16, 112, 112, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    watched.push(pictures, [n / 2 for n in range(16)])
    return watched


def test_nothing_hidden_is_a_turn_that_was_kept(stream: pv.VideoStream) -> None:
    """The same tokens at the same positions, whether they come one by one or were remembered with the first turn."""
    found, fed, looked, _ = stepwise(stream, FIRST, (SAID, THEN), OPTIONS)
    prompt = stream.lm.prompt
    assert fed == len(prompt.words(SAID)) + len(prompt.again(THEN)) and looked is None
    before, kept = stream.likelihood(FIRST, [SAID]), stream.fork()
    with kept._changing(replace(kept._state)) as state:
        keep_turn(kept.lm, kept._ingest, state, FIRST, "", prompt.words(SAID))
    assert found == pytest.approx(kept.likelihood(THEN, OPTIONS), abs=1e-9)
    assert found != pytest.approx(stream.likelihood(THEN, OPTIONS), abs=1e-3)  # the first turn was seen
    assert before == stream.likelihood(FIRST, [SAID])  # and left no trace


def test_what_is_hidden_stays_hidden_unless_looked_at_again(stream: pv.VideoStream) -> None:
    whole = stepwise(stream, FIRST, (SAID, THEN), OPTIONS)[0]
    hidden = stepwise(stream, FIRST, (SAID, THEN), OPTIONS, pyramid=HALF)[0]
    never = stepwise(stream, FIRST, (SAID, THEN), OPTIONS, pyramid=HALF, decode="dstp:tau=0")[0]
    always = stepwise(stream, FIRST, (SAID, THEN), OPTIONS, pyramid=HALF, decode="dstp:tau=1,steps=100")[0]
    assert hidden == pytest.approx(never, abs=1e-9)
    assert hidden != pytest.approx(whole, abs=1e-3) and always != pytest.approx(hidden, abs=1e-6)


def test_a_set_of_two_steps_and_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "LENGTHS", {**making.LENGTHS, "short": (22, 22)})
    data = tmp_path / "data"
    table = make(data, "dev", 3, {"short": 1, "medium": 0, "long": 0, "very long": 0}, 8, 1, STEPS, steps=True)
    assert len(table) >= 6 and set(table["sub_category"]) <= set(STEPS.kinds)
    asked = {(row.question, row.answer) for row in table.itertuples()}
    assert all(row.first_question != row.question for row in table.itertuples()) and len(asked) == len(table)
    items = task_named("videomme-steps", data).items()
    ask = task_named("videomme-steps", data).ask(items[0], ())
    first = table.iloc[0]
    assert (ask.cloze, ask.says) == (first.first_question, (first.first_answer, first.question))
    assert ask.choices == tuple(option[3:] for option in first.options)
    common = {"task": "videomme-steps", "data": data, "fps": 2, "answer": "likelihood", "dtype": "float32"}
    hiding = {"ask_pyramid": [0.25, 0.0625, 0.02], "decode": "dstp", "limit": 2}
    execute(RunConfig(**common, out=tmp_path / "dstp", pyramid="none", memory="none", **hiding))
    execute(RunConfig(**common, out=tmp_path / "full", pyramid="none", memory="none", limit=2))
    looked, full = (read_run(tmp_path / name).records for name in ("dstp", "full"))
    assert [r.item for r in looked] == [r.item for r in full] == [item.id for item in items[:2]]
    assert looked[0].turns[0].likelihoods != full[0].turns[0].likelihoods and looked[0].flops < full[0].flops
    frame = pd.read_parquet(data / "videomme" / "test-00000-of-00001.parquet").drop(columns="first_answer")
    frame.to_parquet(data / "videomme" / "test-00000-of-00001.parquet")
    with pytest.raises(pv.ConfigError, match=r"has no column first_answer; expected a set of eval\.synthetic\.make"):
        task_named("videomme-steps", data).items()
    with pytest.raises(ValueError, match="for generated answers, of which answer=likelihood has none"):
        RunConfig(**{**common, "task": "videomme", "out": tmp_path, "decode": "dstp"})
