"""Pictures show what the stream holds: counted from the masks of the memory, by plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from families import build, video
from PIL import Image
from typer.testing import CliRunner

import pdrop_video as pv
from pdrop_video import plots
from pdrop_video.cli.app import app

CLIP = "demos/clips/clip.mp4"


def watched() -> tuple[pv.VideoStream, plots.Album]:
    stream, album = build("qwen2_5_vl").stream(pv.Pyramid(stages=3), pv.Memory(tokens=60)), plots.Album()
    for first in (0, 4, 8):
        chunk = pv.FrameChunk.of(video(4, seed=first), [first + i for i in range(4)], "test")
        stream.push(chunk)
        album.add(stream, chunk)
    return stream, album


def test_overlays_count_what_each_stage_holds() -> None:
    stream, album = watched()
    shown = 0
    for seconds in album.seconds:
        for overlay in album.at(stream, seconds):
            held, kept = stream.held(overlay.stage), 0
            for when, visual in zip(held.seconds.tolist(), held.visual.tolist(), strict=True):
                kept += visual and when == pytest.approx(overlay.seconds)
            assert overlay.kept == kept
            shown += kept
    assert shown > 0


def test_the_memory_chart_shows_each_stage_what_it_holds() -> None:
    stream, _ = watched()
    drawn = [sum(bar.get_height() for bar in axis.patches) for axis in stream.plot_memory().axes]
    assert drawn == [sum(stream.held(stage).visual.tolist()) for stage in range(3)]
    assert len(set(drawn)) > 1


def test_the_cache_stays_below_the_bound_that_is_drawn() -> None:
    stream, album = watched()
    (axis,) = plots.cache(album.history, stream.cache_bound).axes
    used, bound = axis.lines
    assert list(used.get_ydata()) == [size / 1e6 for _, size in album.history]
    assert max(used.get_ydata()) <= bound.get_ydata()[0]


def test_an_answer_draws_its_evidence() -> None:
    stream, _ = watched()
    answer = stream.ask("what is shown first ?", 3)
    drawn = [max(bar.get_height() for bar in axis.patches) for axis in answer.plot().axes]
    assert len(drawn) == 3
    assert all(0 < height <= 100 for height in drawn)


def test_nothing_watched_is_one_clear_error() -> None:
    with pytest.raises(pv.PDropError):
        build("qwen2_5_vl").stream().plot_memory()


def test_the_command_line_saves_pictures(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["ask", CLIP, "Which color is the first thing in the video?", "--save-plots", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    pictures = sorted(tmp_path.iterdir())
    assert len(pictures) >= 3
    for path in pictures:
        assert np.asarray(Image.open(path).convert("L")).std() > 5  # an empty picture has one shade
