"""The page of answers: what it shows of runs, what its filters leave, and what was remembered in its pictures."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client import Client
from PIL import Image
from test_compare import FULL, PRUNED, record, written
from videomme import make_videomme

import pdrop_video as pv
from eval.runner.config import configured
from eval.runner.execute import execute
from eval.stats.record import Moment, read_run
from eval.stats.side_by_side import SideBySide
from eval.tasks import task_named
from eval.view import View, build, view_of

SMALL = {"ratios": [0.5, 0.25]}, {"tokens": 40, "evictor": "pyramid"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videomme(tmp_path_factory.mktemp("data") / "videomme", 2, clips=2)


def executed(data: Path, out: Path, **more: Any) -> Path:
    execute(configured(None, {"task": "videomme", "data": data, "out": out, "fps": 2, "chunk": 4, **more}))
    return out


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    pyramid, memory = SMALL
    short = {"max_new_tokens": 4}
    return (
        executed(data, folder / "full", pyramid="none", memory="none", answer="likelihood"),
        executed(data, folder / "small", pyramid=pyramid, memory=memory, **short),
    )


def test_records_say_what_was_remembered(data: Path, runs: tuple[Path, Path]) -> None:
    """Of a pruned stream, the moments, shares and places that the library itself names."""
    task = task_named("videomme", data)
    records = {one.item: one for one in read_run(runs[1]).records}
    lm = pv.load(device="cpu")
    item = task.items()[0]
    stream = lm.stream(pv.Pyramid(**SMALL[0]), pv.Memory(**SMALL[1]))
    with pv.open_video(item.path, fps=2, chunk=4) as video:
        for chunk in video:
            stream.push(chunk)
    evidence, held = stream.ask(task.ask(item, ()).text, 4).evidence[-1], stream.held(-1)
    told = records[item.id].moments
    best = sorted(sorted(zip(evidence.weight, evidence.seconds, evidence.tokens, strict=True))[-8:], key=lambda e: e[1])
    assert [(m.weight, m.seconds, m.tokens) for m in told] == best
    for moment in told:
        own = held.take((held.pictured & (held.seconds == moment.seconds)).nonzero()[:, 0])
        assert moment.kept is not None and moment.kept.shape == lm.adapter.grid(*chunk.frames.shape[1:3])
        assert set(zip(*(axis.tolist() for axis in moment.kept.nonzero()), strict=True)) == set(
            zip(own.row.tolist(), own.column.tolist(), strict=True)
        )
    assert sum(moment.kept.sum() for moment in told) < sum(moment.kept.size for moment in told)  # type: ignore[union-attr]


def test_pictures_are_dark_where_places_were_forgotten(data: Path, runs: tuple[Path, Path]) -> None:
    view = view_of([read_run(folder) for folder in runs])
    whole, small = view.frames("001-1", 0), view.frames("001-1", 1)
    records = next(pair.records for pair in view.runs.pairs if pair.item == "001-1")
    with pv.open_video(data / "data" / "video0000.mp4", fps=None) as video:
        frames = {t: f.numpy() for chunk in video for f, t in zip(chunk.frames, chunk.seconds, strict=True)}
    for (pictures, words), of in zip((whole, small), records, strict=True):
        assert len(pictures) == len(of.moments) > 1
        assert "forgotten are dark" in words
        for (picture, caption), moment in zip(pictures, of.moments, strict=True):
            assert caption.startswith(f"{moment.seconds:.1f} s: {moment.tokens} tokens")
            frame = frames[max(t for t in frames if t <= moment.seconds + 1e-5)]
            assert picture.shape == frame.shape  # small already
            rows, columns = moment.kept.shape
            light = np.kron(moment.kept, np.ones((frame.shape[0] // rows, frame.shape[1] // columns), bool))
            assert (picture[light] == frame[light]).all()
            assert (picture[~light] == (frame[~light] * 0.18).astype(np.uint8)).all()
    assert all(moment.kept.all() and moment.weight is None for moment in records[0].moments)
    assert "of the attention" in small[0][0][1]
    shown = records[0]
    old = View(view.runs, view.items)
    old.runs = SideBySide.of([replace(read_run(runs[0]), records=[replace(shown, moments=[])])])
    pictures, words = old.frames("001-1", 0)
    assert [caption for _, caption in pictures] == [f"{t:.1f} s" for t in np.linspace(0, shown.at, 8)]
    assert "do not say what was kept" in words


def test_places_as_text() -> None:
    kept = np.zeros((3, 5), bool)
    kept[[0, 2, 1], [4, 0, 3]] = True
    moment = Moment(1.0, 3, None, (3, 5), Moment.packed((3, 5), np.array([0, 2, 1, 9]), np.array([4, 0, 3, 1])))
    assert moment.kept is not None and (moment.kept == kept).all()
    assert moment.places == "08a0"  # 00001 00010 10000 and a bit to fill up
    one = record("v1-1", 1.0, moments=[moment, Moment(2.0, 1, 0.5)])
    assert type(one).of_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.fixture
def toy(tmp_path: Path) -> View:
    """By hand: v1-1 and v3-1 both right, v1-2 and v2-1 only full, v2-2 only pruned; v4-1 finished by full alone."""
    more = [*FULL, record("v4-1", 0.0, question="Where <b>is</b> it?", response="<script>x</script>")]
    written(tmp_path / "full", more), written(tmp_path / "pruned", PRUNED)
    return view_of([read_run(tmp_path / name) for name in ("full", "pruned")])


@pytest.mark.parametrize(
    ("filters", "items"),
    [
        (("all", "all", ""), ["v1-1", "v1-2", "v2-1", "v2-2", "v3-1", "v4-1"]),
        (("all", "both right", ""), ["v1-1", "v3-1"]),
        (("all", "neither right", ""), []),
        (("all", "only full right", ""), ["v1-2", "v2-1"]),
        (("all", "only pruned right", ""), ["v2-2"]),
        (("all", "not scored by both", ""), ["v4-1"]),
        (("length: short", "all", ""), ["v1-1", "v1-2"]),
        (("skill: colour", "only full right", ""), ["v2-1"]),
        (("skill: count", "all", "WHICH v2"), ["v2-1", "v2-2"]),
        (("all", "all", "script"), ["v4-1"]),
    ],
)
def test_filters_by_hand(toy: View, filters: tuple[str, str, str], items: list[str]) -> None:
    assert [name for _, name in toy.listed(*filters)] == items
    assert toy.runs.categories == ["length: long", "length: short", "skill: colour", "skill: count"]


def test_an_item_s_words(toy: View) -> None:
    said = toy.said("v2-2")
    assert "<h3>full: Wrong</h3>" in said and "<h3>pruned: Right</h3>" in said
    assert "<li>A. red <strong>(truth)</strong></li><li>B. blue</li>" in said
    odd = toy.said("v4-1")
    assert "Where &lt;b&gt;is&lt;/b&gt; it?" in odd and "&lt;script&gt;" in odd and "<script>" not in odd
    assert "<h3>pruned</h3><p>Not finished.</p>" in odd
    assert toy.frames("v2-2", 0) == ([], toy.without)
    assert toy.without == "The benchmark's data are not there, so no frames are shown; give their folder with --data."


def test_runs_that_do_not_belong_together(tmp_path: Path) -> None:
    first = read_run(written(tmp_path / "full", FULL))
    for other, said in (
        ([record("v1-1", 1.0, task="another")], "different tasks"),
        ([record("v1-1", 1.0, answer="B")], "same version of the data"),
    ):
        folder = tmp_path / said.replace(" ", "")
        with pytest.raises(pv.ConfigError, match=said):
            view_of([first, read_run(written(folder, other))])
    with pytest.raises(pv.ConfigError, match="no item is finished"):
        view_of([read_run(written(tmp_path / "none", []))])
    with pytest.raises(pv.ConfigError, match="3 runs were named"):
        view_of([first] * 3)


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, View]]:
    view = view_of([read_run(folder) for folder in runs])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("pictures")))
        served = build(view)
        _, address, _ = served.launch(prevent_thread_lock=True, quiet=True, run_history=False, ssr_mode=False)
        yield Client(address, verbose=False), view
        served.close()


def test_over_http(page: tuple[Client, View]) -> None:
    client, view = page
    said, *shown = client.predict("002-2", api_name="/item")
    assert said == view.said("002-2")
    assert shown == [view.pictures("002-2", run) for run in (0, 1)]
    for run, html in enumerate(shown):
        drawn, told = view.frames("002-2", run)
        assert re.findall("<figcaption>(.*?)</figcaption>", html) == [caption for _, caption in drawn]
        assert html.endswith(f"<p>{told}</p>")
        sent = [base64.b64decode(data) for data in re.findall('base64,([^"]+)', html)]
        for data, (picture, _) in zip(sent, drawn, strict=True):
            seen = np.asarray(Image.open(BytesIO(data)).convert("RGB"), float)
            assert np.abs(seen - picture).mean() < 12  # the same picture, in few bytes
    for standing in view.runs.standings:
        left = client.predict("all", standing, "", api_name="/items")
        assert [tuple(choice) for choice in left["choices"]] == view.listed("all", standing, "")
        assert left["value"] == next((name for _, name in view.listed("all", standing, "")), None)
