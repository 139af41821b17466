"""Gate, reducer and recipe of a run: from command line and file to what enters the model, and who is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from media import steady, write_video
from test_eval_settings import command
from videomme import make_videomme

import pdrop_video as pv
from eval import tables
from eval.runner.config import RunConfig, configured
from eval.runner.execute import execute
from eval.stats.pairs import match, run_table
from eval.stats.record import HEADER, Record, read_run
from eval.tasks import Item, task_named
from pdrop_video.gate.static import Static

STEP = 16
"""Visual tokens of the built-in model for two frames."""
COMMON = {"task": "videomme", "fps": 2, "chunk": 4, "pyramid": "none", "memory": "none", "answer": "likelihood"}
BOTH = {"gate": "static", "reducer": "evs:keep=0.25"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video: two seconds of one picture, then two of another; eight frames are watched."""
    folder = make_videomme(tmp_path_factory.mktemp("data") / "videomme", 1)
    pictures = [np.full((224, 224, 3), colour, np.uint8) for colour in ((200, 40, 40), (40, 40, 200))]
    for picture in pictures:
        picture[60:120, 60:120] = 250
    shown = [pictures[number // 16] for number in range(32)]
    write_video(folder / "data" / "video0000.mp4", steady(32, 8), pictures=shown, size=(224, 224), rate=8)
    return folder


@pytest.fixture(scope="module")
def lm() -> pv.VideoLM:
    return pv.load(device="cpu")


def items(data: Path) -> list[Item]:
    return task_named("videomme", data).items()


def executed(data: Path, out: Path, **more: Any) -> dict[str, Record]:
    execute(configured(None, {"data": data, "out": out, **COMMON, **more}))
    return {record.item: record for record in read_run(out).records}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with nothing in front."""
    out = tmp_path_factory.mktemp("whole") / "full"
    executed(data, out, limit=1)
    return out


@pytest.mark.parametrize(
    ("more", "entered", "steps"),
    [
        ({"gate": "static"}, 2 * STEP, 2),  # a step for each picture
        ({"gate": "static:threshold=255"}, STEP, 1),
        ({"reducer": "evs:keep=0.25"}, STEP + STEP // 2, 4),  # of a first chunk as much as a step has
        (BOTH, STEP + STEP // 4, 2),
        ({"gate": "static", "last_frames": 4}, STEP, 1),
        ({**BOTH, "last_frames": 8}, STEP, 2),
    ],
)
def test_what_enters_by_hand(
    more: dict[str, Any], entered: int, steps: int, data: Path, whole: Path, tmp_path: Path
) -> None:
    (record,) = executed(data, tmp_path / "out", limit=1, **more).values()
    (full,) = read_run(whole).records
    assert (record.frames, record.visual_tokens, record.kept, record.error) == (8, entered, [entered], None)
    assert full.visual_tokens == 4 * STEP and full.tower_flops
    assert record.tower_flops == full.tower_flops * steps / 4


@pytest.mark.parametrize("aware", [False, True])
def test_answers_are_the_library_s_own(aware: bool, data: Path, tmp_path: Path, lm: pv.VideoLM) -> None:
    """Also where the question ranks, and where it drops from the memory."""
    pyramid, asking = {"ratios": [0.5, 0.25]}, {"layers": [1, 3], "ratios": [0.5, 0.1]}
    records = executed(data, tmp_path, **BOTH, pyramid=pyramid, ask_pyramid=asking, question_aware=aware)
    for item in items(data):
        standing = item.question if aware else None
        stream = lm.stream(pv.Pyramid(ratios=(0.5, 0.25)), pv.Memory(tokens=None), **BOTH, standing_question=standing)
        with pv.open_video(item.path, fps=2, chunk=4) as video:
            for chunk in video:
                stream.push(chunk)
        expected = stream.likelihood(item.question, [o[3:] for o in item.options], pyramid=pv.Pyramid(**asking))
        assert records[item.id].turns[0].likelihoods == expected


def test_a_recipe_s_file_is_what_it_says(data: Path, tmp_path: Path) -> None:
    """In the header, in the run's name, and in what enters; so that either way goes on with the other's run."""
    pv.Recipe("static", "evs:keep=0.25", pv.Pyramid(ratios=(0.5, 0.25), scorer="novelty"), pv.Memory(bytes=10**7)).save(
        tmp_path / "recipe.yaml"
    )
    out, how = tmp_path / "out", ["--data", data, "--fps", 2, "--chunk", 4, "--answer", "likelihood"]
    done = command("videomme", *how, "--out", out, "--recipe", tmp_path / "recipe.yaml", "--limit", 1)
    assert done.exit_code == 0, done.output
    said = {**BOTH, "pyramid": {"ratios": [0.5, 0.25], "scorer": "novelty"}, "memory": {"tokens": None, "bytes": 10**7}}
    header = json.loads((out / HEADER).read_text())
    assert header["recipe"] == said == pv.Recipe.load(tmp_path / "recipe.yaml").as_dict()
    assert {record.visual_tokens for record in read_run(out).records} == {STEP + STEP // 4}
    stored = {**said, "memory": {**said["memory"], "storage": "int8_per_token"}}  # which hangs on the budget's kind
    assert {name: header["configuration"][name] for name in said} == stored
    written = (out / "summary.md").read_text()
    assert "the gate static let them through" in written and "the reducer evs:keep=0.25 let them" in written
    settings = {"task": "videomme", "data": str(data), "fps": 2, "chunk": 4, "answer": "likelihood", **said}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    assert command("--config", tmp_path / "run.yaml", "--out", out, "--limit", 2).exit_code == 0  # the other
    assert len(read_run(out).records) == 2
    done = command("--config", tmp_path / "run.yaml", "--out", out, "--gate", "none")
    assert done.exit_code == 1 and "holds a run with other settings (gate: 'static' -> None)" in done.stderr


def of(tmp_path: Path, file: dict[str, Any] | None = None, **given: Any) -> RunConfig:
    if file is not None:
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(file))
    given = {"task": "videomme", "data": tmp_path, "out": tmp_path, "fps": 1, **given}
    return configured(None if file is None else tmp_path / "run.yaml", given)


def test_what_stands_beside_a_recipe_wins(tmp_path: Path) -> None:
    pv.Recipe(
        "static:threshold=5",
        "evs",
        pv.Pyramid(ratios=(0.5, 0.25), scorer="novelty"),
        pv.Memory(tokens=100, evictor="streaming_vlm"),
    ).save(tmp_path / "r.json")
    file = str(tmp_path / "r.json")

    def parts(*given: Any, **more: Any) -> tuple[Any, ...]:
        config = of(tmp_path, *given, **more)
        return config.gate, config.reducer, config.pyramid, config.memory

    gate, evs, pyramid = "static:threshold=5.0", "evs", {"ratios": [0.5, 0.25], "scorer": "novelty"}
    memory = {"tokens": 100, "evictor": "streaming_vlm", "positions": "compact"}
    assert parts(recipe=file) == (gate, evs, pyramid, memory)
    assert parts({"recipe": file}) == (gate, evs, pyramid, memory)
    assert parts({"recipe": file, "gate": None, "reducer": "none"}) == (None, None, pyramid, memory)
    assert parts({"recipe": file}, gate="none", reducer="evs:keep=0.5") == (None, "evs", pyramid, memory)
    assert parts(recipe=file, pyramid="0.2") == (gate, evs, {"ratios": [0.2], "scorer": "novelty"}, memory)
    assert parts(recipe=file, pyramid="none")[2] == {"stages": 1, "scorer": "novelty"}
    assert parts(recipe=file, pyramid={"scorer": "random"})[2] == {"ratios": [0.5, 0.25], "scorer": "random"}
    assert parts(recipe=file, memory="none")[3] == {**memory, "tokens": None}
    assert parts(recipe=file, memory={"bytes": 10**6})[3] == {**memory, "tokens": None, "bytes": 10**6}
    assert parts(recipe=file, memory="{evictor: oldest}")[3] == {"tokens": 100, "evictor": "oldest"}
    # a recipe on the command line is in place of all four in the file of settings
    assert parts({"gate": "static", "memory": 7, "pyramid": "none"}, recipe=file) == (gate, evs, pyramid, memory)
    assert (
        of(tmp_path, recipe=file).digest == of(tmp_path, gate=gate, reducer=evs, pyramid=pyramid, memory=memory).digest
    )


def test_names_of_runs(tmp_path: Path) -> None:
    """Those without gate and reducer have the names that they had before there were any."""
    pv.Recipe().save(tmp_path / "usual.json")
    usual = of(tmp_path)
    assert usual.digest == "246a88c54fa99889"
    assert not {"gate", "reducer", "recipe"} & usual.identity().keys()
    for same in ({"gate": "none", "reducer": None}, {"recipe": tmp_path / "usual.json"}):
        assert of(tmp_path, **same).digest == usual.digest
    names = [usual.digest]
    for other in ("static", "static:threshold=50", "static:threshold=20"):
        names += [of(tmp_path, gate=other).digest, of(tmp_path, gate=other, reducer="evs").digest]
    names += [of(tmp_path, reducer=other).digest for other in ("evs", "evs:keep=0.25")]
    assert len(set(names)) == len(names)
    assert of(tmp_path, gate=f"static:threshold={Static().threshold}").digest == of(tmp_path, gate="static").digest


def test_a_last_frames_run_names_the_recipe_that_it_uses(tmp_path: Path) -> None:
    said = of(tmp_path, last_frames=4, **BOTH).recipe_object().as_dict()
    assert said == {**BOTH, "pyramid": {"stages": 1}, "memory": {"tokens": None}}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"gate": "statik"}, "gate: there is no gate 'statik'; choose one of codec"),
        ({"gate": "static:threshold=256"}, "gate: threshold is 256.0; expected a number from 0 to 255"),
        ({"gate": 5}, "gate: gate is 5; expected one of codec"),
        ({"reducer": "evs:share=0.5"}, "reducer: reducer evs has 'share=0.5'; expected keep"),
        ({"reducer": ["evs"]}, r"reducer: reducer is \['evs'\]; expected one of aot"),
        ({"recipe": "no.yaml"}, "'no.yaml' can't be read"),
        ({"recipe": "no.txt"}, "ends in '.txt'; expected a file that ends in .yaml"),
        ({"recipe": 5}, "path is 5; expected a path"),
        ({"recipe": "WRONG"}, "wrong.*: a recipe has 'gates'; expected gate, reducer, pyramid, memory"),
        ({"recipe": "RIGHT", "pyramid": True}, "pyramid is True; expected its arguments by name"),
        ({"recipe": "RIGHT", "gate": ""}, "gate is ''; expected some text"),
        ({"recipe": "RIGHT", "reducer": 0}, "reducer is 0; expected some text"),
        ({"recipe": "RIGHT", "gate": "statik"}, "there is no gate 'statik'"),
        ({"recipe": "RIGHT", "last_frames": 4}, "last_frames=4 drops nothing and has no memory"),
    ],
)
def test_what_is_wrong_is_one_sentence(given: dict[str, Any], told: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("gates: static\n")
    pv.Recipe("static", pyramid=pv.Pyramid(ratios=(0.5,))).save(tmp_path / "right.yaml")
    files = {"WRONG": str(tmp_path / "wrong.yaml"), "RIGHT": str(tmp_path / "right.yaml")}
    given = {name: files.get(value, value) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(pv.ConfigError, match=f"the settings are wrong: .*{told}"):
        of(tmp_path, **given)


def test_a_comparison_says_what_stands_in_front(data: Path, whole: Path, tmp_path: Path) -> None:
    for name, more in {"again": {"seed": 1}, "both": BOTH}.items():
        executed(data, tmp_path / name, limit=1, **more)
    runs = [read_run(folder) for folder in (whole, tmp_path / "both", tmp_path / "again")]
    table = run_table(match(runs))
    assert table.gate.tolist() == ["none", "static", "none"]
    assert table.reducer.tolist() == ["none", "evs:keep=0.25", "none"]
    assert not {"gate", "reducer"} & {*run_table(match([runs[0], runs[2]])).columns}


def test_a_table_of_methods_in_front(data: Path, tmp_path: Path) -> None:
    common = {**COMMON, "data": data, "limit": 1}
    del common["pyramid"]
    tables.run("front", common, tmp_path / "runs", tmp_path / "out", 1, ["static, evs 25%"], 0.1)
    rows = json.loads((tmp_path / "out" / "front" / "compare.json").read_text())
    assert "full" in rows["said"][0]
    written = (tmp_path / "out" / "front" / "runs.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in written[:2]] == [["run", "gate", "reducer"], ["full", "none", "none"]]
    assert '"static, evs 25%",static,evs:keep=0.25' in written[2]
    kept = read_run(tmp_path / "runs" / "static, evs 25%").records
    assert {record.visual_tokens for record in kept} == {STEP + STEP // 4}
