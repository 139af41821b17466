"""`open_video(sound=True)`: what is heard at which second, from files of several kinds, and into a model."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media import HEIGHT, WIDTH, numbered, steady, write_audio, write_video
from omni import build
from test_omni import written
from typer.testing import CliRunner

import pdrop_video as pv
from pdrop_video import cli

RATE = 48000
BEEPS = (1.0, 3.25, 4.5)
"""Seconds at which a tone of a fifth of a second begins."""


def beeps(seconds: float, rate: int = RATE) -> np.ndarray:
    """Silence with tones in it [samples]."""
    time = np.arange(int(seconds * rate)) / rate
    loud = sum(((time >= at) & (time < at + 0.2)).astype(np.float32) for at in BEEPS)
    return (loud * 0.5 * np.sin(2 * math.pi * 440 * time)).astype(np.float32)


def film(path: Path, *, seconds: float = 6.0, codec: str = "aac", late: float = 0.0, start: float = 0.0) -> Path:
    """Numbered pictures, ten a second from `start` on, with `beeps` at their times, whose sound sets in `late`."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        pictures.codec_context.time_base = Fraction(1, 90000)
        sound = container.add_stream(codec, rate=RATE)
        sound.codec_context.layout = "stereo"
        for index in range(int(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(numbered(index % 256), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round((index / 10 + start) * 90000), Fraction(1, 90000)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode())
        samples = beeps(seconds)[int(late * RATE) :]
        for first in range(0, len(samples), 1024):
            part = np.stack([samples[first : first + 1024]] * 2)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = RATE, round((late + start) * RATE) + first
            frame.time_base = Fraction(1, RATE)
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


def onsets(samples: torch.Tensor, rate: int) -> list[float]:
    """Seconds at which it becomes loud, to a hundredth."""
    size = rate // 100
    loud = samples[: len(samples) // size * size].view(-1, size).abs().amax(1) > 0.2
    before = torch.cat([loud.new_zeros(10), loud])
    began = [i for i in range(len(loud)) if loud[i] and not before[i : i + 10].any()]
    return [i / 100 for i in began]


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("film.mp4", {}),
        ("film.mkv", dict(codec="libmp3lame")),
        ("late.mp4", dict(late=0.5)),
        ("shifted.ts", dict(start=7.0)),
    ],
)
def test_sound_comes_with_the_frames_of_its_time(name: str, made: dict, tmp_path: Path) -> None:
    path = film(tmp_path / name, **made)
    with pv.open_video(path, fps=2, chunk=3, sound=True) as reader:
        chunks = list(reader)
    assert [each.rate for each in chunks] == [16000] * 4
    for each, after in pairwise(chunks):  # up to the next chunk's first frame
        assert len(each.sound) == round(16000 * after.seconds[0]) - round(16000 * each.seconds[0])
    assert chunks[-1].seconds[-1] == 5.5 and len(chunks[-1].sound) == 24000
    whole = torch.cat([each.sound for each in chunks])
    assert len(onsets(whole, 16000)) == 3
    assert all(abs(got - want) <= 0.03 for got, want in zip(onsets(whole, 16000), BEEPS, strict=True))
    pictures = [each.frames for each in pv.open_video(path, fps=2, chunk=3)]
    assert all(torch.equal(a.frames, b) for a, b in zip(chunks, pictures, strict=True))


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_part_of_a_film_has_the_sound_of_that_part(ahead: int, tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", seconds=12)
    with pv.open_video(path, fps=1, chunk=2, start=3, end=5, sound=8000, ahead=ahead) as reader:
        (chunk,) = list(reader)
    assert chunk.seconds == (3.0, 4.0) and chunk.rate == 8000 and len(chunk.sound) == 16000
    assert all(abs(got - want) <= 0.03 for got, want in zip(onsets(chunk.sound, 8000), (0.25, 1.5), strict=True))
    with pv.open_video(path, fps=1, start=6, sound=True) as reader:  # behind a seek
        assert not onsets(next(reader).sound, 16000)


def test_what_has_no_sound_says_so(tmp_path: Path) -> None:
    silent = write_video(tmp_path / "silent.mp4", steady(10))
    with pytest.raises(pv.VideoError, match="has no sound that can be decoded"):
        pv.open_video(silent, sound=True)
    with pytest.raises(pv.ConfigError, match="decoder='pyav' alone"):
        pv.open_video(silent, sound=True, decoder="decord")
    with pytest.raises(pv.ConfigError, match="no frames can be dropped"):
        pv.open_video(film(tmp_path / "film.mp4", seconds=1), sound=True, policy="latest")
    with pytest.raises(pv.ConfigError, match="sound is 'yes'"):
        pv.open_video(silent, sound="yes")
    with pytest.raises(pv.VideoError, match="no moving pictures"):
        pv.open_video(write_audio(tmp_path / "music.mp4"), sound=True)
    with pv.open_video(silent) as reader:
        assert next(reader).sound is None


def test_a_model_hears_each_tone_at_its_second(tmp_path: Path) -> None:
    """Where the sound's features are loud, its tokens have the seconds of the tones."""
    lm = build("qwen2_5_omni_thinker")
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    heard: list[torch.Tensor] = []
    with pv.open_video(film(tmp_path / "film.mp4"), fps=2, chunk=3, sound=True) as reader:
        for chunk in reader:
            stream.push(chunk)
            heard.append(chunk.sound)
    table = stream.held()
    seconds = table.seconds[table.sound]
    assert len(seconds) == 150 and stream._state.waiting is None  # six seconds, three stretches
    loudness = lm.adapter.numbers().features(torch.cat(heard))[:, : 4 * 150].view(16, 150, 4).amax((0, 2))
    loud = seconds[loudness > loudness.max() - 0.5]
    assert all(any(-0.05 <= float(second) - at <= 0.25 for at in BEEPS) for second in loud)
    assert {min(range(3), key=lambda i: abs(BEEPS[i] - float(second))) for second in loud} == {0, 1, 2}
    assert stream.ask("what is shown ?", 2).token_ids


def test_the_command_line_hears(tmp_path: Path) -> None:
    path, folder = film(tmp_path / "film.mp4", seconds=3), tmp_path / "model"
    written("qwen2_5_omni_thinker", folder, whole=True)
    given = ["ask", str(path), "what is shown ?", "--max-new-tokens", "2", "--ratios", "none", "--memory", "none"]
    told = {}
    for more in ([], ["--sound"]):
        done = CliRunner().invoke(cli.app, [*given, "--json", "--model", str(folder), *more])
        assert done.exit_code == 0, done.output
        told[bool(more)] = json.loads(done.stdout)["answers"][0]["cache_tokens"][0]
    assert told[True] - told[False] == 75 + 1  # three seconds of sound, and the token in front of it
    done = CliRunner().invoke(cli.app, [*given, "--sound"])
    assert done.exit_code != 0 and "do not take sound" in " ".join(done.output.replace("│", " ").split())
