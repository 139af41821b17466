"""One pass over a video: what is pushed, told and asked, in which order, and that no question disturbs another."""

from __future__ import annotations

import math

import pytest
import torch

import pdrop_video as pv
from eval.runner.watch import Due, Pass
from pdrop_video.video.subtitles import Cue


class Notes:
    """A stream that writes down what it is given; a fork has the same past."""

    def __init__(self, past: tuple[object, ...] = ()) -> None:
        self.past = past

    def push(self, frames: pv.FrameChunk) -> None:
        assert [int(f[0, 0, 0]) for f in frames.frames] == [int(s) for s in frames.seconds]
        self.past = (*self.past, tuple(int(second) for second in frames.seconds))

    def add_text(self, text: str) -> None:
        self.past = (*self.past, text)

    def fork(self) -> Notes:
        return Notes(self.past)


def chunks(frames: int, size: int) -> list[pv.FrameChunk]:
    """Frames 0, 1, 2, ... at those seconds, each filled with its number."""
    pictures = torch.arange(frames, dtype=torch.uint8)[:, None, None, None].expand(frames, 2, 2, 3)
    return [
        pv.FrameChunk(pictures[a : a + size], tuple(map(float, range(frames)[a : a + size])))
        for a in range(0, frames, size)
    ]


def watched(moments: list[float], cues: list[Cue] = (), frames: int = 8, size: int = 4) -> list[tuple]:  # type: ignore[assignment]
    run: Pass[int] = Pass(Notes(), cues, [Due(at, number) for number, at in enumerate(moments)])
    asked = []
    for at, stream, who in run.run(chunks(frames, size)):
        assert run.seconds == [float(s) for part in stream.past if isinstance(part, tuple) for s in part]
        asked.append((who, at, stream.past))
    assert run.seconds == [float(second) for second in range(frames)]
    return asked


def test_questions_come_at_their_moments_and_see_nothing_later() -> None:
    assert watched([5.5, 3.0, 0.0, math.inf, 7.0, 99.0]) == [
        (2, 0.0, ((0,),)),
        (1, 3.0, ((0, 1, 2, 3),)),
        (0, 5.5, ((0, 1, 2, 3), (4, 5))),
        (4, 7.0, ((0, 1, 2, 3), (4, 5, 6, 7))),
        (5, 99.0, ((0, 1, 2, 3), (4, 5, 6, 7))),
        (3, 7.0, ((0, 1, 2, 3), (4, 5, 6, 7))),
    ]


@pytest.mark.parametrize("moment", [0.0, 2.5, 3.0, 3.5, 4.0, 6.0, 7.0, 50.0, math.inf])
def test_what_else_is_asked_changes_nothing(moment: float) -> None:
    alone = watched([moment], CUES)[0][2]
    among = watched([moment, 1.0, 2.0, 5.5, moment, math.inf], CUES)
    assert [past for who, _, past in among if who in (0, 4)] == [alone, alone]


CUES = [Cue(0.1, 0.2, "gone"), Cue(0.9, 2.1, "kept"), Cue(4.9, 5.3, "near 5"), Cue(7.2, 9.0, "after")]


def test_subtitles_enter_at_their_middles_if_they_cover_a_frame() -> None:
    # .15 +- .5 covers frame 0 as every cue counts as one second at least; 8.1 +- .9 covers no frame up to 7
    (past,) = {past for _, _, past in watched([math.inf], CUES)}
    assert past == ((0,), "gone", (1,), "kept", (2, 3), (4, 5), "near 5", (6, 7))


def test_a_question_hears_what_was_said_before_it() -> None:
    asked = {who: past for who, _, past in watched([1.4, 1.5, 5.1], [CUES[1], CUES[2]])}
    assert asked == {0: ((0, 1),), 1: ((0, 1), "kept"), 2: ((0, 1), "kept", (2, 3), (4, 5), "near 5")}


def test_who_asks_may_ask_again_later() -> None:
    run: Pass[str] = Pass(Notes(), [], [Due(1.0, "again")])
    times = []
    for at, stream, who in run.run(chunks(8, 3)):
        times.append((at, stream.past[-1][-1]))
        if at < 4:
            run.due.append(Due(at + 1.5, who))
    assert times == [(1.0, 1), (2.5, 2), (4.0, 4)]
