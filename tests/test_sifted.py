"""What pictures say of gates and reducers: told from what these decided, place by place, in plain loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import build, video
from PIL import Image
from torch import Tensor

import pdrop_video as pv
from pdrop_video import plots
from pdrop_video.gate import Gated, Watched, gate_named
from pdrop_video.plots import Fate
from pdrop_video.plots.painting import EDGES, MEANS, paint
from pdrop_video.reduce import Reduced, Tokens, reducer_named

pytestmark = pytest.mark.slow  # a minute of streams

TIMES = [number / 4 for number in range(22)]
PUSHES = (0, 3, 4, 9, 16, 22)


@dataclass
class Overheard:
    """A method, and all that it was asked and said."""

    method: Any
    said: list[tuple[Any, Any]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def __call__(self, given: Any, carried: Mapping[str, Tensor]) -> Any:
        result = self.method(given, carried)
        self.said.append((given, result[0]))
        return result


class Checkered:
    """Every second place, all of every third frame; no frame is left out but the fourth of five."""

    def __call__(self, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
        number = [round(4 * seconds) for seconds in watched.seconds]
        rows, columns = (torch.arange(side) for side in watched.grid)
        worth = torch.stack(
            [(rows[:, None] + columns + n) % 2 == 0 if n % 3 else rows[:, None] < columns for n in number]
        )
        return Gated(tuple(i for i, n in enumerate(number) if n % 5 != 3), worth), {}

    def most_bytes(self, height: int, width: int) -> int:
        return 0

    def flops(self, frames: int, height: int, width: int) -> int:
        return 0


def moving() -> Tensor:
    """Frames of which some show what the one before them showed."""
    frames, still = video(len(TIMES), seed=3), (1, 2, 6, 7, 8, 13, 17, 18, 20)
    for number in still:
        frames[number] = frames[number - 1]
    return frames


def going_of(gate: Overheard | None, together: int) -> list[int]:
    """Numbers of the frames that are looked at: those the gate lets on, the first, and what completes a step."""
    if gate is None:
        return list(range(len(TIMES)))
    on = [(TIMES.index(s), i in gated.kept) for watched, gated in gate.said for i, s in enumerate(watched.seconds)]
    going: list[int] = []
    for number, wanted in on:
        if wanted or not going or len(going) % together:
            going.append(number)
    return going


def expected(
    reducer: Overheard | None, gate: Overheard | None, going: list[int], together: int, grid: Any
) -> list[Any]:
    """For each step a table of fate and members at each place, as if nothing were forgotten."""
    worth: dict[int, Tensor] = {}
    for watched, gated in () if gate is None else gate.said:
        for i, seconds in enumerate(watched.seconds):
            if gated.worth is not None:
                worth[TIMES.index(seconds)] = gated.worth[i]
    steps = []
    for begin in range(0, len(going), together):
        shown, places = going[begin : begin + together], {}
        for row in range(grid[0]):
            for column in range(grid[1]):
                fine = not worth or any(bool(worth[number][row, column]) for number in shown)
                places[row, column] = (Fate.KEPT, 1) if fine else (Fate.NOT_WORTH, 0)
        steps.append(places)
    said: list[tuple[Tokens, Reduced]] = [] if reducer is None else reducer.said
    for tokens, reduced in said:
        kept = reduced.kept.tolist()
        for i in range(len(tokens)):
            fate = (Fate.LEFT_OUT, 0)
            if i in kept:
                of = 1 if reduced.weights is None else sum(w != 0 for w in reduced.weights[kept.index(i)].tolist())
                fate = (Fate.MEAN if of > 1 else Fate.KEPT, of)
            elif reduced.weights is not None and any(w != 0 for w in reduced.weights[:, i].tolist()):
                fate = (Fate.MERGED, 0)
            where = steps[tokens.since + int(tokens.step[i])]
            assert where[int(tokens.row[i]), int(tokens.column[i])] == (Fate.KEPT, 1)
            where[int(tokens.row[i]), int(tokens.column[i])] = fate
    return steps


METHODS = [
    (None, None),
    ("static", None),
    ("surprise:threshold=1.05", None),
    (None, "evs:keep=0.4"),
    (None, "lrcp:keep=0.3"),
    (None, "omnirefine"),
    (None, "aot:anchors=features"),
    ("static", "lrcp:keep=0.3"),
    ("surprise:threshold=1.05", "omnirefine"),
    (Checkered(), "evs:keep=0.4"),
    (Checkered(), "aot:anchors=features"),
]


@pytest.mark.parametrize(("gate", "reducer"), METHODS, ids=str)
@pytest.mark.parametrize(("family", "tokens"), [("qwen3_vl", None), ("qwen2_5_vl", 120), ("llava_onevision", 120)])
def test_pictures_say_what_became_of_each_place(
    family: str, gate: Any, reducer: str | None, tokens: int | None
) -> None:
    lm, album, frames = build(family), plots.Album(), moving()
    of_gate = None if gate is None else Overheard(gate_named(gate))
    of_reducer = None if reducer is None else Overheard(reducer_named(reducer))
    pyramid, memory = pv.Pyramid(layers=(3,), ratios=(0.5,)), pv.Memory(tokens=tokens)
    stream = lm.stream(pyramid, memory, gate=of_gate, reducer=of_reducer)
    for first, last in pairwise(PUSHES):
        chunk = pv.FrameChunk.of(frames[first:last], TIMES[first:last], "test")
        stream.push(chunk)
        album.add(stream, chunk)
    together, grid = lm.adapter.frames_per_step, lm.adapter.grid(*frames.shape[1:3])
    going = going_of(of_gate, together)
    steps = expected(of_reducer, of_gate, going, together, grid)
    waits = {TIMES.index(seconds) for seconds in stream.sifted.waiting}
    assert waits == set(going[len(going) - len(waits) :])
    shown = []
    for seconds in album.seconds:
        number = TIMES.index(seconds)
        stands = max(n for n in going if n <= number)
        for overlay in album.at(stream, seconds):
            table, light = stream.held(overlay.stage), {}
            step = going.index(stands) // together
            for i in range(len(table)):
                if table.visual[i] and table.step[i] == step:
                    light[int(table.row[i]), int(table.column[i])] = True
            for (row, column), (fate, of) in steps[step].items():
                if stands in waits:
                    fate, of = Fate.WAITS, 1
                elif fate in (Fate.KEPT, Fate.MEAN) and (row, column) not in light:
                    fate = Fate.FORGOTTEN
                else:
                    assert ((row, column) in light) == (fate in (Fate.KEPT, Fate.MEAN))
                assert (overlay.fates[row, column], overlay.members[row, column]) == (fate, of)
                shown.append(fate)
            assert overlay.skipped == (number not in going)
            if stands not in waits:
                begun = table.seconds[table.visual & (table.step == step)].tolist()
                assert overlay.source == (begun[0] if begun else TIMES[going[step * together]])
    wanted = {Fate.KEPT, Fate.FORGOTTEN}
    if isinstance(gate, Checkered):
        wanted |= {Fate.NOT_WORTH}
    if reducer is not None:
        wanted |= {Fate.LEFT_OUT} if reducer.startswith("evs") else {Fate.MERGED, Fate.MEAN}
    assert wanted - {Fate.KEPT, Fate.MEAN} <= {*shown} and {Fate.KEPT, Fate.MEAN} & {*shown}
    assert (len(going) < len(TIMES)) == (gate is not None)


def watched(reducer: str = "lrcp:keep=0.3", **how: Any) -> tuple[pv.VideoStream, plots.Album]:
    stream, album = build("qwen2_5_vl").stream(pv.Pyramid(stages=2), reducer=reducer, **how), plots.Album()
    for first in (0, 4):
        push(stream, album, first)
    return stream, album


def push(stream: pv.VideoStream, album: plots.Album | None, first: int, frames: int = 4) -> None:
    chunk = pv.FrameChunk.of(video(frames, seed=first), [first + i for i in range(frames)], "test")
    stream.push(chunk)
    if album is not None:
        album.add(stream, chunk)


def told(stream: pv.VideoStream) -> list[tuple[float, ...]]:
    return [step.frames for step in stream.sifted.steps]


def test_a_stream_tells_of_the_last_push_alone_and_a_failed_one_or_a_question_changes_nothing() -> None:
    stream, album = watched()
    assert told(stream) == [(4, 5), (6, 7)]
    before = stream.sifted
    with pytest.raises(pv.FrameError):
        push(stream, album, 2)
    stream.ask("what is shown first ?", 2)
    twin = stream.fork()
    push(twin, None, 8, 3)
    assert (told(twin), twin.sifted.waiting) == ([(8, 9)], (10,))
    assert stream.sifted == before


def test_what_entered_with_a_turn_is_told_by_the_next_push() -> None:
    stream, album = watched()
    push(stream, album, 8, 3)
    (overlay, *_) = album.at(stream, 10)
    assert overlay.count(Fate.WAITS) == overlay.entered
    assert plots.wording.kept(overlay) == "not read yet: it waits for more pictures"
    stream.ask("what is shown first ?", 2, keep=True)
    push(stream, album, 12)
    assert told(stream) == [(10,), (12, 13), (14, 15)]
    (overlay, *_) = album.at(stream, 10)
    assert overlay.count(Fate.MERGED) > 0 and not overlay.count(Fate.WAITS)


def test_a_resumed_stream_shows_what_it_remembers(tmp_path: Path) -> None:
    """Nothing of pictures is saved: what was left out before is dark, without a reason."""
    stream, _ = watched(gate="static")
    stream.save(tmp_path / "stream")
    stream, album = build("qwen2_5_vl").resume(tmp_path / "stream"), plots.Album()
    assert stream.sifted.steps == () and stream.sifted.skipped == ()
    chunk = pv.FrameChunk.of(video(4, seed=4)[3:].repeat(4, 1, 1, 1), [8, 9, 10, 11], "test")
    stream.push(chunk)
    album.add(stream, chunk)
    assert stream.sifted.skipped == tuple((seconds, None) for seconds in (8, 9, 10, 11))
    for overlay in album.at(stream, 8):
        assert overlay.skipped and overlay.count(Fate.KEPT) == overlay.kept > 0
        assert overlay.count(Fate.FORGOTTEN) == overlay.entered - overlay.kept > 0


def test_means_and_what_is_gone_have_edges_of_their_own() -> None:
    frame = np.full((90, 90, 3), 200, np.uint8)
    fates = np.array(
        [
            [Fate.KEPT, Fate.MEAN, Fate.MEAN],
            [Fate.MEAN, Fate.MERGED, Fate.LEFT_OUT],
            [Fate.NOT_WORTH, Fate.FORGOTTEN, Fate.WAITS],
        ]
    )
    members = np.array([[1, 2, 5], [80, 0, 0], [0, 1, 1]])
    picture = paint(frame, fates.astype(np.uint8), members)
    means = [colour for _, colour, _ in MEANS]
    gone = [EDGES[fate][0] for fate in (Fate.MERGED, Fate.LEFT_OUT, Fate.NOT_WORTH)]
    plain, dark = (200,) * 3, (36,) * 3
    edges = [plain, means[0], means[1], means[2], *gone, dark, dark]
    centres = [plain] * 4 + [dark] * 5
    for place, (edge, centre) in enumerate(zip(edges, centres, strict=True)):
        y, x = 30 * (place // 3), 30 * (place % 3)
        assert {tuple(picture[y, x + 9]), tuple(picture[y + 29, x + 9]), tuple(picture[y + 9, x])} == {edge}
        assert tuple(picture[y + 15, x + 15]) == centre
    striped = paint(frame, fates.astype(np.uint8), members, skipped=True)
    assert {tuple(pixel) for pixel in striped[0]} == {(0, 0, 0), (255, 255, 255)}
    assert (striped[15:-15, 15:-15] == picture[15:-15, 15:-15]).all()


def test_saved_pictures_say_in_words_what_they_show(tmp_path: Path) -> None:
    stream, album = watched()
    (overlay, *_) = album.at(stream, 0)
    means = overlay.count(Fate.MEAN)
    assert means > 0
    paths = plots.save(tmp_path, stream, album)
    said = [Image.open(path).text["Description"] for path in paths]  # type: ignore[attr-defined]
    assert said[0] == plots.described(stream, album)
    assert f"0.0 s, stage 1: {plots.wording.kept(overlay)}.\n" in said[0]
    assert f"Of it the reducer merged {overlay.count(Fate.MERGED)} pieces into others." in said[0]
    legend = [text.get_text() for text in plots.kept(stream, album).legends[0].get_texts()]
    assert "merged into other pieces" in legend and any(line.startswith("kept, a mean of") for line in legend)
    assert plots.kept(*watched("even")).legends and not plots.kept(*plain()).legends


def plain() -> tuple[pv.VideoStream, plots.Album]:
    stream, album = build("qwen2_5_vl").stream(pv.Pyramid(stages=2)), plots.Album()
    push(stream, album, 0)
    return stream, album
