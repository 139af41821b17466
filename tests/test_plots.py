"""Pictures show what the stream holds: counted from the masks of the memory, by plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families import budget, build, video
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


def test_what_is_remembered_is_what_the_pictures_show() -> None:
    """Of every moment, or of as many as are asked for, spread evenly."""
    stream, album = watched()
    for most, moments in ((48, album.seconds), (2, album.seconds[::3]), (1, album.seconds[:1])):
        plain = [(m, tuple(o.kept / o.entered for o in album.at(stream, m))) for m in moments]
        assert album.remembered(stream, most) == plain
    assert len({share for _, shares in plain for share in shares}) > 1
    assert plots.Album().remembered(stream) == []


SHADES = (200, 200, 200, 90, 90, 90, 90, 150, 40, 40, 40, 200, 200, 10, 10, 250, 120)
"""Of the frames of a video, each of one shade, half a second apart."""


def steps(gated: bool, frames_per_step: int) -> list[int]:
    """For each frame the step that stands for it, as plain loops."""
    going: list[int] = []
    for number, shade in enumerate(SHADES):
        if not gated or not going or shade != SHADES[going[-1]] or len(going) % frames_per_step:
            going.append(number)
    begin = going[::frames_per_step]
    return [sum(first <= number for first in begin) - 1 for number in range(len(SHADES))]


@pytest.mark.parametrize("room", [None, 1.5], ids=["unlimited", "forgetful"])
@pytest.mark.parametrize("front", [{}, {"gate": "static"}, {"gate": "static", "reducer": "evs:keep=0.4"}], ids=str)
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "llava_onevision"])
def test_a_picture_shows_the_step_that_stands_for_it(family: str, front: dict[str, str], room: float | None) -> None:
    """Its own, whatever time the family gives a step; a frame that a gate left out has that of one before it."""
    lm = build(family)
    memory = pv.Memory(tokens=budget(lm, room), evictor="oldest")
    stream, album = lm.stream(pv.Pyramid(layers=(3,), ratios=(0.5,)), memory, **front), plots.Album()
    for first, last in ((0, 5), (5, 6), (6, 12), (12, 17)):
        frames = torch.stack([torch.full((60, 72, 3), shade, dtype=torch.uint8) for shade in SHADES[first:last]])
        chunk = pv.FrameChunk.of(frames, [i / 2 for i in range(first, last)], "test")
        stream.push(chunk)
        album.add(stream, chunk)
    rows, columns = lm.adapter.grid(60, 72)
    of, dark = steps("gate" in front, lm.adapter.frames_per_step), []
    for seconds in album.seconds:
        number = round(2 * seconds)
        for overlay in album.at(stream, seconds + 0.1):
            table = stream.held(overlay.stage)
            own = [i for i in range(len(table)) if table.visual[i] and table.step[i] == of[number]]
            light = {(int(table.row[i]), int(table.column[i])) for i in own}
            assert (overlay.kept, overlay.entered) == (len(own), rows * columns)
            times = {(float(table.seconds[i]), float(table.until[i])) for i in own}
            assert times == ({overlay.span} if light else set()) and (light or overlay.span is None)
            for row in range(rows):
                for column in range(columns):
                    place = int((row + 0.5) * 60 / rows), int((column + 0.5) * 72 / columns)
                    want = SHADES[number] if (row, column) in light else int(0.18 * SHADES[number])
                    assert overlay.picture[place].tolist() == [want] * 3
            dark.append(not light)
    assert not all(dark) and (any(dark) or room is None)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_full_album_thins_out_and_shows_what_it_keeps(size: int) -> None:
    stream, album = build("qwen3_vl").stream(pv.Pyramid(stages=1), pv.Memory(tokens=None)), plots.Album(most=4)
    for first in range(0, 42, size):
        frames = video(min(size, 42 - first), seed=first)
        chunk = pv.FrameChunk.of(frames, [first + i for i in range(len(frames))], "test")
        stream.push(chunk)
        album.add(stream, chunk)
    assert album.seconds == (0, 16, 32)
    overlays = [overlay for seconds in album.seconds for overlay in album.at(stream, seconds)]
    assert [overlay.kept for overlay in overlays] == [9, 9, 9]
    assert [overlay.span for overlay in overlays] == [(0.5, 1), (16.5, 17), (32.5, 33)]


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
