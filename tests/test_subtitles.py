"""Subtitles on the command line: what is said is told to the model at its moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import pdrop_video as pv
from pdrop_video.cli import app
from pdrop_video.video.subtitles import Cue, interleaved

CLIP = Path(__file__).parents[1] / "demos" / "clips" / "clip.mp4"
SRT = "1\n00:00:01,000 --> 00:00:02,000\n<i>a bell</i> rings\n\n2\n00:00:05,100 --> 00:00:05,500\nseven\n"


def chunk(*seconds: float) -> pv.FrameChunk:
    frames = torch.arange(len(seconds), dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 2, 3)
    return pv.FrameChunk(frames, seconds)


def test_cues_stand_in_front_of_the_frame_that_follows_their_middle() -> None:
    cues = [Cue(5.0, 5.2, "c"), Cue(0.0, 0.2, "too early"), Cue(1.0, 2.0, "a"), Cue(1.2, 2.0, "b"), Cue(9, 10, "late")]
    got = list(interleaved([chunk(0.5, 1.0, 1.5, 2.0), chunk(3.0, 4.0), chunk(5.1, 6.0)], cues))
    shown = [part if isinstance(part, str) else part.seconds for part in got]
    assert shown == [(0.5, 1.0), "a", (1.5,), "b", (2.0,), (3.0, 4.0), "c", (5.1, 6.0)]
    assert [int(part.frames[0, 0, 0, 0]) for part in got if not isinstance(part, str)] == [0, 2, 3, 0, 0]


def test_the_command_tells_what_a_program_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.srt").write_text(SRT)
    told: list[tuple[float, str]] = []
    add_text = pv.VideoStream.add_text

    def noting(stream: pv.VideoStream, text: str) -> None:
        assert stream.span is not None
        told.append((stream.span[1], text))
        add_text(stream, text)

    monkeypatch.setattr(pv.VideoStream, "add_text", noting)
    how = ["ask", str(CLIP), "What is shown first?", "--subtitles", str(tmp_path / "a.srt"), "--fps", "2", "--json"]
    done = CliRunner().invoke(app, how)
    assert done.exit_code == 0, done.output
    assert told == [(1.0, "a bell rings"), (5.0, "seven")]
    assert json.loads(done.stdout)["answers"][0]["frames"] == 24


def test_what_is_wrong_with_a_file_is_said_before_anything_is_watched(tmp_path: Path) -> None:
    (tmp_path / "b.srt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "c.srt").write_text("no subtitle")
    for name, said in (("a.srt", "can't be read"), ("b.srt", "not UTF-8"), ("c.srt", "holds no subtitle")):
        done = CliRunner().invoke(app, ["ask", str(CLIP), "What?", "--subtitles", str(tmp_path / name)])
        assert done.exit_code != 0
        assert said in " ".join(done.output.split())
