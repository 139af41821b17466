"""Proof 6: save, resume, push, ask equals never having saved, bit for bit; and a kill leaves a whole file."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from families import FAMILIES, budget, build, cases, video
from safetensors import safe_open

import pdrop_video as pv
from pdrop_video.common import atomic
from pdrop_video.gate.static import Static
from pdrop_video.memory import EVICTORS
from pdrop_video.memory.evictors.pyramid import Pyramid
from pdrop_video.pyramid import SCORERS
from pdrop_video.pyramid.scorers.contrast import Contrast
from pdrop_video.stream import saved

QUESTION = "what is shown first ?"


def same(a: pv.VideoStream, b: pv.VideoStream) -> None:
    for left, right in zip(a._state.cache.layers, b._state.cache.layers, strict=True):
        assert torch.equal(left.keys, right.keys)
        assert torch.equal(left.values, right.values)
    for stage in range(3):
        for name in ("index", "seconds", "until", "chunk", "step", "row", "column", "score", "visual"):
            torch.testing.assert_close(
                getattr(a.held(stage), name), getattr(b.held(stage), name), atol=0, rtol=0, equal_nan=True
            )
    assert a._state.place == b._state.place
    assert a._state.span == b._state.span


@pytest.mark.parametrize("frames", [0, 5, 8])
@pytest.mark.parametrize("budget", [None, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_equals_never_saved(family: str, budget: int | None, frames: int, tmp_path: Path) -> None:
    """Also with an odd frame waiting, a system prompt, a standing question or a scorer that learns."""
    lm, path = build(family), tmp_path / "a.pdrop"
    standing = QUESTION if budget else None
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=budget), standing_question=standing, system="blue")
    if frames:
        stream.push(video(frames), [0.5 * i for i in range(frames)])
    stream.save(path)
    resumed = lm.resume(path)
    for each in (stream, resumed):
        each.push(video(4, seed=1), [10, 11, 12, 13])
    same(stream, resumed)
    first, second = (each.ask(QUESTION, max_new_tokens=5) for each in (stream, resumed))
    assert first.token_ids == second.token_ids
    assert (first.frames, first.kept, first.cache_tokens) == (second.frames, second.kept, second.cache_tokens)


@pytest.mark.parametrize(
    ("evictor", "family", "dtype"),
    cases(
        EVICTORS,
        FAMILIES,
        (torch.float32, torch.bfloat16, torch.float64),
        fast=lambda e, f, d: (f == (1 if e % 2 else 3 + e % 4) and d == (e + f) % 3) or (e in (6, 7) and f == 1),
    ),
)
def test_every_evictor_goes_on_bit_for_bit(evictor: str, family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Once everything forgets, merges, archives and has moved; twice, with a kept turn between."""
    lm = build(family, dtype=dtype)
    step = lm.adapter.frames_per_step
    lm.model.config.get_text_config().max_position_embeddings = 60 if family == "qwen2_5_vl" else 260
    memory = pv.Memory(tokens=budget(lm, 2.6), evictor=evictor, archive=10**6)
    streams = [lm.stream(pv.Pyramid(stages=3), memory)]
    for i in range(7):
        if i in (3, 5):
            streams[0].save(tmp_path / "a.pdrop")
            streams[1:] = [lm.resume(tmp_path / "a.pdrop")]
        for stream in streams:
            stream.push(video(2 * step + 1, seed=i), [9.0 * i + 0.37 * j for j in range(2 * step + 1)])
        if len(streams) > 1:
            same(*streams)
            for one, other in zip(*((stream._state.cache.queries or {}).values() for stream in streams), strict=True):
                assert torch.equal(one, other) and one.stride() == other.stride()
            logits, again = (stream.next_logits(QUESTION, retrieve=1) for stream in streams)
            assert torch.equal(logits, again)
        if i == 3:
            first, second = (stream.ask(QUESTION, 3, keep=True) for stream in streams)
            assert first.token_ids == second.token_ids


def test_fork_goes_its_own_way() -> None:
    lm = build("qwen2_5_vl")
    alone, stream = (lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=60)) for _ in range(2))
    for each in (alone, stream):
        each.push(video(5), [0, 1, 2, 3, 4])
    branch = stream.fork()
    branch.push(video(6, seed=2), [5, 6, 7, 8, 9, 10])
    for each in (alone, stream):
        each.push(video(4, seed=1), [5, 6, 7, 8])
    same(alone, stream)
    assert branch._state.frames == 11
    assert not torch.equal(branch._state.cache.layers[0].keys, stream._state.cache.layers[0].keys)


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pdrop"
    stream = build("qwen2_5_vl").stream()
    stream.push(video(2), [0, 1])
    stream.save(path)
    for other, named in (
        (build("qwen2_5_vl", seed=1), "weights"),
        (build("qwen2_5_vl", dtype=torch.float32), "dtype"),
        (build("llava_onevision"), "family"),
    ):
        with pytest.raises(pv.ModelError, match=named):
            other.resume(path)
    theta = build("qwen2_5_vl")
    text = theta.model.config.get_text_config()
    text.rope_parameters = {**text.rope_parameters, "rope_theta": 5.0}
    with pytest.raises(pv.ModelError, match="rope"):
        theta.resume(path)


def test_what_is_not_a_stream_is_refused(tmp_path: Path) -> None:
    lm = build("qwen2_5_vl")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(pv.StreamError, match="no/suc"):
        lm.stream().save(tmp_path / "no" / "such" / "a.pdrop")
    lm.model.save_pretrained(tmp_path / "model")
    stream = lm.stream()
    stream.save(tmp_path / "cut")
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-1])
    for name in ("missing", "text", "model/model.safetensors", "cut"):
        with pytest.raises(pv.StreamError):
            lm.resume(tmp_path / name)


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file is complete beside the old one before it takes its place, in one step."""
    lm, path = build("qwen2_5_vl"), tmp_path / "a.pdrop"
    stream = lm.stream(pv.Pyramid(stages=3))
    stream.push(video(2), [0, 1])
    stream.save(path)
    old = path.read_bytes()
    stream.push(video(2), [2, 3])

    def crash(source: str, target: Path) -> None:
        assert Path(target).read_bytes() == old
        with safe_open(source, framework="pt") as file:
            assert json.loads(file.metadata()["pdrop_video"])["state"]["frames"] == 4
        raise OSError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr("pdrop_video.stream.session.os.replace", crash)
        with pytest.raises(pv.StreamError, match="the power went"):
            stream.save(path)
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["a.pdrop"]
    stream.save(path)
    assert lm.resume(path)._state.frames == 4


def test_a_method_of_ones_own_must_be_listed_to_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And once it is, the resumed stream uses it."""

    class Mine(Contrast):
        """Of nobody's package."""

    lm, mine = build("qwen2_5_vl"), Mine(decay=0.5)
    stream = lm.stream(pv.Pyramid(stages=3, scorer=mine), pv.Memory(evictor="pyramid"))
    with pytest.raises(pv.StreamError, match=r"decay=0\.5"):
        stream.save(tmp_path / "a.pdrop")
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(SCORERS, "mine", mine)
    stream.save(tmp_path / "a.pdrop")
    resumed = lm.resume(tmp_path / "a.pdrop")
    assert resumed.loop.scorer == mine
    assert resumed.memory.evictor == "pyramid"


def test_a_listed_method_is_saved_with_its_parameters(tmp_path: Path) -> None:
    stream = build("qwen2_5_vl").stream(
        pv.Pyramid(stages=3, scorer=Contrast(decay=0.5)),
        pv.Memory(evictor=Pyramid(recent=0.5, half_life=9.0)),
        gate="static:threshold=5",
    )
    stream.push(video(2), [0, 1])
    stream.save(tmp_path / "a.pdrop")
    resumed = stream.lm.resume(tmp_path / "a.pdrop")
    assert resumed.loop.scorer == Contrast(decay=0.5)
    assert resumed._ingest.evictor == Pyramid(recent=0.5, half_life=9.0)
    assert resumed._ingest.front.gate == Static(threshold=5)


HOLDER = """
import sys
sys.path.append({path!r})
from pathlib import Path
from atomic import replacing
with replacing(Path({file!r})) as part:
    Path(part).write_bytes(b"of another process")
    print(part, flush=True)
    sys.stdin.readline()
"""


def test_what_a_killed_save_leaves_the_next_one_removes(tmp_path: Path) -> None:
    """Not what another process is still writing, nor what belongs to a file of a similar name."""
    path = tmp_path / "[a].pdrop"
    other = tmp_path / ".[a].pdrop2.x.part"
    other.touch()
    script = HOLDER.format(path=str(Path(atomic.__file__).parent), file=str(path))  # not the package: no torch
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stream = build("qwen2_5_vl").stream(pv.Pyramid(stages=3))
    with (
        subprocess.Popen([sys.executable, "-c", script], **pipes) as killed,
        subprocess.Popen([sys.executable, "-c", script], **pipes) as alive,
    ):
        left, written = (Path(process.stdout.readline().strip()) for process in (killed, alive))
        killed.kill()
        killed.wait()
        assert {*tmp_path.iterdir()} == {other, left, written}
        stream.save(path)
        assert {*tmp_path.iterdir()} == {other, path, written}
        alive.communicate("\n")
    assert alive.returncode == 0 and path.read_bytes() == b"of another process"
    assert {*tmp_path.iterdir()} == {other, path}


def test_nobody_sees_a_stream_before_it_is_resumed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`VideoLM.streams` shows it to other threads from the moment on that it is noted."""
    lm, seen = build("qwen2_5_vl"), []
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=60))
    stream.push(video(4), [0, 1, 2, 3])
    stream.save(tmp_path / "a.pdrop")
    note = lm.note

    def noted(opened: pv.VideoStream) -> None:
        note(opened)
        seen.append(lm.streams[-1].status)

    monkeypatch.setattr(lm, "note", noted)
    resumed = lm.resume(tmp_path / "a.pdrop")
    assert seen == [stream.status] and lm.streams == (stream, resumed)


SAVER = """
import sys
sys.path[:0] = {path!r}
import torch
torch.set_num_threads(1)
from families import build, video
import pdrop_video as pv
stream = build("qwen2_5_vl").stream(pv.Pyramid(stages=3), pv.Memory(tokens=None))
for i in range(10_000):
    stream.push(video(2, seed=i), [2 * i, 2 * i + 1])
    stream.save({file!r})
    print(i, flush=True)
"""


def test_a_kill_leaves_a_whole_file(tmp_path: Path) -> None:
    """kill -9 at random moments of a process that saves without a pause."""
    file, lm, dice = tmp_path / "a.pdrop", build("qwen2_5_vl"), random.Random(0)
    script = SAVER.format(path=sys.path, file=str(file))
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            saved = int(process.stdout.readline())  # at least one file is there
            time.sleep(dice.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
            saved = max([saved, *(int(line) for line in process.stdout.read().split())])
        with safe_open(str(file), framework="pt"):
            pass
        resumed = lm.resume(file)
        assert resumed._state.frames in (2 * saved + 2, 2 * saved + 4)  # the last one reported, or the one after it
        assert resumed.ask(QUESTION, max_new_tokens=1).frames == resumed._state.frames
        alone = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=None))
        for i in range(resumed._state.frames // 2):
            alone.push(video(2, seed=i), [2 * i, 2 * i + 1])
        same(alone, resumed)


def test_a_stream_saved_by_the_first_version_goes_on() -> None:
    """The built-in model had watched the demo's clip and been told of a bell; these were its logits of an answer."""
    stream = pv.load(dtype="bfloat16").resume(Path(__file__).parent / "saved" / "stream-0.1.0.pdrop")
    tokens, carried = (100, 100, 99, 99, 51, 51, 27, 27), {"scorer": 4 * (1 + 16) * 256}
    assert stream.status == pv.Status(24, (0.0, 11.5), tokens, 283648, 134078, carried_bytes=carried)
    assert stream.held(-1).index[:9].tolist() == [0, 1, 2, 4, 5, 6, 8, 21, 23]
    logits = stream.next_logits("What colour is shown first in the video?").float()
    want = {160: 14.5, 201: 5.21875, 239: 4.46875, 227: 4.1875, 230: 2.078125, 195: 2.03125}
    assert logits.topk(4).indices.tolist() == list(want)[:4]  # those behind are a rounding apart
    torch.testing.assert_close(logits[list(want)], torch.tensor(list(want.values())), atol=0.02, rtol=0.01)
    stream.push(torch.zeros(2, 224, 224, 3, dtype=torch.uint8), [20, 20.5])
    assert stream.ask("What colour is shown first in the video?", retrieve=2).text == "green"


def test_a_stream_saved_before_gates_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """On a budget, with a turn kept, text told and a frame that waits: all of it is there, and is saved again alike."""
    old = Path(__file__).parent / "saved" / "stream-0.1.0-later.pdrop"
    lm = pv.load(dtype="bfloat16")
    stream = lm.resume(old)
    assert stream.status == pv.Status(23, (0.0, 11.0), (60,) * 6 + (53,) * 2, 238592, carried_bytes={"scorer": 17408})
    stream.save(tmp_path / "new.pdrop")
    (was, before), (now, after) = saved.read(old), saved.read(tmp_path / "new.pdrop")
    assert before.keys() < after.keys()
    assert all(torch.equal(tensor.nan_to_num(-1), after[name].nan_to_num(-1)) for name, tensor in before.items())
    grown = ("state", "memory", "place")  # which say more now
    assert {name: now[name] for name in was if name not in grown} == {n: was[n] for n in was if n not in grown}
    assert all(was[name].items() <= now[name].items() for name in grown)
    logits = stream.next_logits("What colour is shown first in the video?").float()
    want = {239: 13.3125, 199: 10.5, 160: 6.90625, 201: 5.25}
    torch.testing.assert_close(logits[list(want)], torch.tensor(list(want.values())), atol=0.02, rtol=0.01)
    pushed = stream.push(torch.zeros(3, 224, 224, 3, dtype=torch.uint8), [12, 12.5, 13])
    assert pushed.visual_tokens > 0 and stream.status.seconds == (0.0, 13.0)
