"""Every way on which a video is opened for a gate that uses motion: the gate gets it, and no other gate does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import build
from servers import send, serving
from test_cli import QUESTION, model, run
from test_eval_front import data, executed
from test_video_motion import clip, pictures, read, told

import pdrop_video as pv
from demos.settings import Settings
from demos.sources import opener
from eval.runner.frames import Frames, Viewing
from eval.runner.metered import LastFrames
from pdrop_video.gate import Watched
from pdrop_video.gate.codec import Codec
from pdrop_video.gate.static import Static
from pdrop_video.guard import Source
from pdrop_video.integrations.answering import Answerer, Asked, Watching
from pdrop_video.video import Connection, Motion

__all__ = ["data", "model"]  # fixtures


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("walk") / "walk.mp4", pictures(40))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Motion | None]:
    """What gates are given of motion."""
    given: list[Motion | None] = []
    for gate in (Codec, Static):
        call = gate.__call__

        def noted(self: Any, watched: Watched, carried: Mapping[str, Any], call: Any = call) -> Any:
            given.append(watched.motion)
            return call(self, watched, carried)

        monkeypatch.setattr(gate, "__call__", noted)
    return given


def equal(first: Motion | None, second: Motion | None) -> bool:
    assert first is not None and second is not None
    return all(torch.equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(Motion))


def test_the_command_line(model: Path, walk: Path, seen: list[Motion | None]) -> None:
    for gate in ("codec:sticky=false", "static"):
        done = run("ask", walk, QUESTION, "--model", model, "--max-new-tokens", 1, "--gate", gate, "--chunk", 8)
        assert done.exit_code == 0, done.output
    assert seen[0] is not None and seen[0].most.max() >= 4 and seen[-1] is None
    refused = run("ask", walk, QUESTION, "--model", model, "--gate", "codec", "--decoder", "decord")
    assert refused.exit_code != 0 and "decoder='pyav' alone" in " ".join(refused.output.split())


def test_an_evaluation(data: Path, tmp_path: Path, seen: list[Motion | None]) -> None:
    for gate in ("codec", "static"):
        executed(data, tmp_path / gate, gate=gate, cache=str(tmp_path / "kept"))
    assert seen[0] is not None and seen[0].key[0] and seen[-1] is None
    seen.clear()
    executed(data, tmp_path / "again", gate="codec", cache=str(tmp_path / "kept"))
    executed(data, tmp_path / "last", gate="codec", last_frames=3)
    assert (
        all(motion is not None for motion in seen) and [len(motion) for motion in seen if motion is not None][-1] == 3
    )


def test_the_page(walk: Path) -> None:
    for gate in ("codec", "static", "none"):
        with opener(Source("walk", str(walk)), Settings(gate=gate), 2.0)() as reader:
            assert (next(iter(reader)).motion is not None) == (gate == "codec")


def test_harnesses(walk: Path, seen: list[Motion | None]) -> None:
    for gate in (Codec(), Static()):
        watching = Watching(pv.Pyramid(stages=1), pv.Memory(tokens=None), gate=gate, fps=2.0)
        Answerer(build("qwen2_5_vl"), watching).answer(Asked(str(walk), QUESTION), 1)
    assert seen[0] is not None and seen[-1] is None


@pytest.mark.parametrize("how", [{"fps": 2.0}, {"fps": None, "frames": 5}])
def test_decoded_frames_are_kept_with_their_motion(tmp_path: Path, walk: Path, how: dict[str, Any]) -> None:
    given = {"path": walk, "start": 0.0, "end": None, "frames": None, "rule": "linspace", "chunk": 3, **how}
    kept, wanted = Frames(tmp_path / "kept"), Viewing(**given, motion=True)
    without = list(kept(Viewing(**given)))
    first, again = list(kept(wanted)), list(Frames(tmp_path / "kept")(wanted))
    assert all(chunk.motion is None for chunk in without)
    for one, other, plain in zip(first, again, without, strict=True):
        assert equal(one.motion, other.motion) and torch.equal(one.frames, other.frames)
        assert torch.equal(one.frames, plain.frames)


def test_the_last_frames_keep_theirs(walk: Path) -> None:
    chunk, pushed = read(walk, fps=5.0), []
    last = LastFrames(lambda: type("Stream", (), {"push": lambda self, frames: pushed.append(frames)})(), 5)
    for begin in (0, 4, 12):
        last.push(chunk.part(begin, min(begin + 8, 14)))
    last.at_question()
    assert pushed[0].seconds == chunk.seconds[9:14] and equal(pushed[0].motion, told(chunk).part(9, 14))


def test_a_chunk_that_a_queue_drops_leaves_its_motion_to_the_next(walk: Path, seen: list[Motion | None]) -> None:
    chunk, lm = read(walk, fps=5.0), build("llava_onevision")
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), gate="codec")
    with stream.feed(queue=1, policy="drop_oldest") as feed, lm.turnstile:
        feed.put(chunk.part(0, 2))
        while not feed._line._running:
            time.sleep(0.01)
        for begin in range(2, 14, 2):
            feed.put(chunk.part(begin, begin + 2))
    first, second = seen
    assert equal(first, told(chunk).part(0, 2))
    assert equal(second, told(chunk).part(12, 14).after(told(chunk).part(2, 12)))
    assert second is not None and second.most[0].max() >= 4 and second.begun[0] and not second.key[0]


def test_a_live_source_and_a_connection_that_is_made_again(tmp_path: Path) -> None:
    """Twice the same ten frames, a square walking: after the break nothing is known of what came before."""
    options = {"g": "10", "sc_threshold": "0", "bf": "0", "refs": "1"}
    data = clip(tmp_path / "walk.ts", pictures(10), options=options).read_bytes()
    patient = Connection(connect_timeout=5, read_timeout=5, retries=2, wait=0.05)
    with serving(send(data), send(data), send(data)) as server:
        with pv.open_video(server.address, None, 1, motion=True, policy="block", connection=patient) as video:
            shown = [next(video) for _ in range(15)]
        with pv.open_video(server.address, None, 1, policy="block", connection=patient) as video:
            assert next(video).motion is None
    motion = Motion.cat([told(part) for part in shown])
    assert motion.known.tolist()[:10] == [False] + [True] * 9 and not motion.known[10] and motion.key[10]
    assert (motion.most.flatten(1).amax(1) >= 4).nonzero()[:, 0].tolist() == [5, 6, 7, 8, 9]


def test_a_picture_that_changes_its_size_on_the_way(tmp_path: Path) -> None:
    """Cells are of the picture as it is handed out, whatever was stored."""
    small = [np.ascontiguousarray(picture) for picture in pictures(10, size=(128, 96))]
    large = [np.ascontiguousarray(p.repeat(2, 0).repeat(2, 1)) for p in pictures(10, size=(128, 96))]
    parts = [
        clip(tmp_path / f"{size}.h264", shown, size=size, options={"g": "30", "bf": "0", "refs": "1"}).read_bytes()
        for shown, size in ((small, (128, 96)), (large, (256, 192)))
    ]
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    chunk = read(tmp_path / "both.h264")
    motion = told(chunk)
    assert len(chunk) == 20 and chunk.frames.shape[1:3] == (96, 128) and motion.most.shape == (20, 12, 16)
    for begin in (0, 10):
        moved = (motion.most[begin + 5 : begin + 10] >= 4).any(0)
        assert moved[2:6, 2:9].float().mean() > 0.8 and not moved[8:].any() and not moved[:, 11:].any()
