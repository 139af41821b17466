"""Parts of the built-in model: on a tiny set a few steps lower the loss on lines that were held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from parts import trained, written
from videomme import make_videomme

import pdrop_video as pv
from eval.runner.config import configured
from eval.runner.worker import StreamWorker
from eval.synthetic.make import LINES, Video, write_lines
from eval.synthetic.quiz import questions
from eval.synthetic.render import write_clip
from eval.synthetic.world import sample_clip
from pdrop_video.training import TRAINERS, Examples, read_lines
from pdrop_video.training.lines import held_out

VIDEOS, SECONDS = 6, 10
FEW: dict[str, dict[str, Any]] = {
    "learnpruner": dict(steps=100, rate=4e-3, settings={"keep": 0.3}),
    "evocomp": dict(steps=40, rate=4e-3, settings={"videos": 5, "lines": 3, "population": 4, "generations": 0}),
    "videorouter": dict(steps=60, rate=4e-3),
    "dualcomp": dict(steps=60, rate=4e-3, settings={"videos": 5, "lines": 3}),
}
FITS = {"dualcomp"}
"""What a tiny set says too little of: a few lambdas of one question each. It is judged on the lines it learned from."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of ten seconds, with some questions each."""
    folder = tmp_path_factory.mktemp("lines")
    (folder / "data").mkdir()
    asked = []
    for number in range(VIDEOS):
        made = Video("short", sample_clip("train", 77, number, SECONDS))
        with (folder / "data" / f"{made.name}.mp4").open("wb") as file:
            write_clip(made.clip, file, 4)
        asked += [(made, one) for one in questions(made.clip)[:6]]
    write_lines(folder, asked)
    return folder / LINES


@pytest.mark.parametrize("name", list(FEW))
def test_a_few_steps_lower_the_held_out_loss(name: str, data: Path, tmp_path: Path) -> None:
    lm, how = pv.load(), dict(FEW[name])
    learned, held = held_out(read_lines(data))
    fresh = TRAINERS[name](lm, **how.get("settings", {}))
    torch.manual_seed(0)
    untrained, examples = fresh.begin(), Examples(lm, 128)
    lines = list(fresh.prepare(learned if name in FITS else held, examples, tmp_path / "held"))
    part = trained(lm, name, data, tmp_path, batch=6, frames=128, every=100, held=6, **how)
    assert part is not None and part.trained is not None
    part.attach(lm.model)

    def loss(of: Any) -> float:
        with torch.no_grad():
            return float(fresh.loss(of, [examples.of(line) for line in lines], torch.Generator().manual_seed(1))[0])

    before, after = loss(untrained), loss(part)
    assert after < 0.9 * before, (before, after)
    assert part.trained.figures["after"]["all tokens"] == part.trained.figures["before"]["all tokens"]


def test_lines_of_the_synthetic_benchmark(data: Path) -> None:
    """What `--lines` writes is what is read: paths that are there, evidence where a question has moments."""
    lines = read_lines(data)
    assert len({line.video for line in lines}) == VIDEOS and all(Path(line.video).exists() for line in lines)
    said = [json.loads(line) for line in data.read_text().splitlines()]
    assert any("evidence" in each for each in said)
    assert all(max(each.get("evidence", [0])) < SECONDS for each in said)


def test_the_evaluation_asks_a_part_with_each_question(tmp_path: Path) -> None:
    """A reducer that can't do without a question runs question-aware; a run is named by what its parts' files hold."""
    path = tmp_path / "evocomp.safetensors"
    written(pv.load(), "evocomp", path)
    given = dict(
        task="videomme", data=make_videomme(tmp_path / "set", 1), fps=2.0, reducer="evocomp", parts=(str(path),)
    )
    config = configured(None, {**given, "out": tmp_path / "a", "question_aware": True})
    assert list(StreamWorker(config).lm.parts) == ["evocomp"]
    with pytest.raises(pv.ConfigError, match="reads the question while it watches"):
        StreamWorker(configured(None, {**given, "out": tmp_path / "b"}))
    name = config.digest
    written(pv.load(), "evocomp", path, seed=1)
    assert config.digest != name
    assert "parts" not in configured(None, {**given, "out": tmp_path, "reducer": None, "parts": None}).identity()
