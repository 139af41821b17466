"""Where a file is written, and what a file that is not as it was written leads to: one kind of error, nothing else."""

from __future__ import annotations

import copy
import fcntl
import json
import os
import random
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from families import build, video
from safetensors import safe_open
from safetensors.torch import save_file

import pdrop_video as pv
from pdrop_video import plots
from pdrop_video.common import atomic
from pdrop_video.common.journal import Journal
from pdrop_video.stream import saved

LM = build("qwen2_5_vl")


def watched(memory: pv.Memory, **how: Any) -> pv.VideoStream:
    """A stream with all that a file can hold: an archive or queries, a waiting frame, told text, a kept turn."""
    stream = LM.stream(pv.Pyramid(stages=3), memory, system="blue", **how)
    stream.push(video(6), [0.5 * i for i in range(6)])
    stream.ask("what is shown ?", 3, keep=True)
    stream.push(video(3, seed=1), [6, 7, 8])
    stream.add_text("red blue")
    return stream


MEMORIES = (
    pv.Memory(tokens=80, archive=200_000),
    pv.Memory(tokens=80, evictor="stream_mem"),
    pv.Memory(tokens=80, positions="compact"),
)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def save_stream(path: Path) -> None:
    LM.stream().save(path)


def save_pyramid(path: Path) -> None:
    pv.Pyramid().save(path)


SAVES = pytest.mark.parametrize("save", [save_stream, save_pyramid])


# -- where it is written --------------------------------------------------------------------------------------------


@SAVES
def test_links_are_written_through(save: Callable[[Path], None], tmp_path: Path) -> None:
    """Relative ones, a chain of them, and one that leads to a file that is not there yet."""
    (tmp_path / "big").mkdir()
    real = tmp_path / "big" / "real"
    real.write_text("old")
    (tmp_path / "near").symlink_to("big/real")
    (tmp_path / "far").symlink_to(tmp_path / "near")
    (tmp_path / "new").symlink_to("big/made")
    for link in ("far", "new"):
        save(tmp_path / link)
    assert {path.name for path in tmp_path.iterdir() if path.is_symlink()} == {"near", "far", "new"}
    assert sorted(path.name for path in real.parent.iterdir()) == ["made", "real"]
    save(tmp_path / "plain")
    assert real.read_bytes() == (tmp_path / "big" / "made").read_bytes() == (tmp_path / "plain").read_bytes()


@SAVES
def test_what_is_no_regular_file_stays_what_it_is(save: Callable[[Path], None], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "circle").symlink_to("circle")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    kinds = {path.name: stat.S_IFMT(path.lstat().st_mode) for path in tmp_path.iterdir()}
    assert len(kinds) == 5
    for name in kinds:
        with pytest.raises(pv.PDropError):
            save(tmp_path / name)
    assert {path.name: stat.S_IFMT(path.lstat().st_mode) for path in tmp_path.iterdir()} == kinds


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
@SAVES
def test_a_file_has_the_mode_of_the_old_one_or_what_the_umask_leaves(
    save: Callable[[Path], None], mask: int, tmp_path: Path
) -> None:
    with umask(mask):
        save(tmp_path / "new")
        assert mode(tmp_path / "new") == 0o666 & ~mask
        for old in (0o600, 0o640, 0o664, 0o755):
            (tmp_path / "old").touch()
            (tmp_path / "old").chmod(old)
            save(tmp_path / "old")
            assert mode(tmp_path / "old") == old


def test_nobody_reads_a_new_file_before_it_is_as_private_as_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "old").touch(0o600)
    with umask(0), atomic.replacing(tmp_path / "old") as part:
        assert mode(Path(part)) == 0o600


def test_a_stream_is_written_into_the_part_that_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not into another file that takes its place: nobody takes it for a stale one, and it is what is forced to disk."""
    synced: list[int] = []
    replace, fsync = os.replace, os.fsync

    def checked(source: str, target: str) -> None:
        with open(source, "rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert os.stat(source).st_ino in synced
        replace(source, target)

    monkeypatch.setattr(os, "replace", checked)
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_ino), fsync(handle)))
    LM.stream().save(tmp_path / "a.pdrop")
    assert len(synced) == 2 and os.stat(tmp_path / "a.pdrop").st_ino == synced[0]  # and its folder


def test_a_file_is_one_of_safetensors(tmp_path: Path) -> None:
    """Every type that a stream holds, empty ones among them, as safetensors' own reader sees it."""
    tensors = {
        str(kind): torch.arange(7).to(kind).reshape(1, 7)
        for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    }
    tensors["empty"] = torch.zeros(2, 0, 3)
    saved.write(tmp_path / "a", tensors, {"é": [1.5, None, "\n"]})
    with safe_open(str(tmp_path / "a"), framework="pt") as file:
        assert {*file.keys()} == {*tensors}
        for name, tensor in tensors.items():
            torch.testing.assert_close(file.get_tensor(name), tensor, rtol=0, atol=0)
    assert saved.read(tmp_path / "a")[0] == {"é": [1.5, None, "\n"]}


def test_pictures_and_journals_follow_the_same_rules(tmp_path: Path) -> None:
    stream, album = LM.stream(pv.Pyramid(stages=3)), plots.Album()
    chunk = pv.FrameChunk.of(video(4), [0, 1, 2, 3])
    stream.push(chunk)
    album.add(stream, chunk)
    os.mkfifo(tmp_path / "cache.png")
    with pytest.raises(pv.ConfigError, match=r"cache\.png"):
        plots.save(tmp_path, stream, album)
    assert (tmp_path / "cache.png").is_fifo()
    with pytest.raises(pv.ConfigError, match="no regular file"):
        Journal(tmp_path / "cache.png")


# -- what is read ---------------------------------------------------------------------------------------------------


def refused_or_works(path: Path) -> bool:
    """Resume, watch and ask; whether nothing was refused. Any other exception is the test's failure."""
    try:
        stream = LM.resume(path)
    except (pv.StreamError, pv.ModelError):
        return False
    try:
        stream.push(video(4, seed=2), [30, 31, 32, 33])
        stream.ask("what is shown ?", 2, retrieve=None if stream.memory.archive is None else 2)
    except pv.PDropError:
        return False
    return True


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
def test_a_file_that_is_cut_or_of_which_a_bit_has_changed_is_refused(memory: pv.Memory, tmp_path: Path) -> None:
    dice, file = random.Random(0), tmp_path / "a.pdrop"
    watched(memory).save(file)
    assert refused_or_works(file)
    whole = file.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    meaning = len(whole[:head].rstrip())  # spaces behind the header say nothing
    for at in [*(dice.randrange(meaning) for _ in range(60)), *(dice.randrange(head, len(whole)) for _ in range(20))]:
        changed = bytearray(whole)
        changed[at] ^= 1 << dice.randrange(8)
        file.write_bytes(changed)
        with pytest.raises((pv.StreamError, pv.ModelError)):
            LM.resume(file)
    for cut in (0, 1, 7, 8, 9, head - 1, head, len(whole) - 1, *(dice.randrange(len(whole)) for _ in range(10))):
        file.write_bytes(whole[:cut])
        with pytest.raises(pv.StreamError):
            LM.resume(file)


WRONG = (
    None,
    [],
    {},
    -1,
    10**30,
    1.5,
    float("nan"),
    "",
    "x",
    "caf\udce9",
    [[]],
    {"a": 1},
    2**62,
    -(2**62),
    100_000,
    [1],
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything in a header."""
    if path:
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield from places(each, (*path, key))


def changed_at(header: dict[str, Any], path: tuple[Any, ...], wrong: Any, *, gone: bool) -> dict[str, Any]:
    changed = copy.deepcopy(header)
    inside: Any = changed
    for key in path[:-1]:
        inside = inside[key]
    if gone:
        del inside[path[-1]]
    else:
        inside[path[-1]] = wrong
    return changed


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
def test_a_header_that_holds_something_else_is_refused_or_goes_on(memory: pv.Memory, tmp_path: Path) -> None:
    """Under a checksum that is right, as somebody would write it who makes such a file."""
    dice, file = random.Random(0), tmp_path / "a.pdrop"
    watched(memory).save(file)
    header, tensors = saved.read(file)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    refused = 0
    paths = list(places(header))
    for path in [*((key,) for key in header), *dice.sample(paths, 20)]:
        for gone in (False, True):
            saved.write(file, tensors, changed_at(header, path, dice.choice(WRONG), gone=gone))
            refused += not refused_or_works(file)
    assert refused > 40


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
def test_tensors_that_are_missing_or_of_another_kind_are_refused(memory: pv.Memory, tmp_path: Path) -> None:
    file = tmp_path / "a.pdrop"
    watched(memory).save(file)
    header, tensors = saved.read(file)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    for name in dict.fromkeys(name.rstrip("0123456789") for name in tensors):  # one of each sort
        name = next(each for each in tensors if each.rstrip("0123456789") == name)
        tensor = tensors[name]
        others = {"gone": None, "flat": tensor.reshape(-1)[:-1].clone(), "longer": torch.cat([tensor[None]] * 2)}
        others["kind"] = tensor.to(torch.uint8 if tensor.dtype == torch.bool else torch.bool)
        if tensor.dtype == torch.int64:
            others |= {"far": torch.full_like(tensor, 2**60)}
        for how, other in others.items():
            if name.startswith("usual") and how != "kind":  # a stream that has not learned it is whole, too
                continue
            if how == "gone" and name.endswith(".until"):  # nor has one of the version without gates
                continue
            if how == "far" and name.rpartition(".")[2] in ("position", "entered", "now", "steps"):
                continue
            saved.write(file, {n: t for n, t in (tensors | {name: other}).items() if t is not None}, header)
            with pytest.raises(pv.StreamError):
                LM.resume(file)


def test_what_is_no_file_of_ours_is_refused_at_once(tmp_path: Path) -> None:
    """Without waiting for a pipe's other end, and without taking a file's word for how large it is."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "huge").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    wide = json.dumps({"a": {"dtype": "F64", "shape": [2**60], "data_offsets": [0, 2**63 - 1]}}).encode()
    (tmp_path / "wide").write_bytes(len(wide).to_bytes(8, "little") + wide)
    for name, said in {"deep": "[" * 100_000, "number": "7", "list": "[]", "cut": "{", "nothing": "null"}.items():
        save_file({"a": torch.zeros(1)}, tmp_path / name, {"pdrop_video": said})
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    begun = time.monotonic()
    for path in [*tmp_path.iterdir(), tmp_path, tmp_path / "missing", Path("/dev/zero")]:
        with pytest.raises(pv.StreamError):
            LM.resume(path)
    assert time.monotonic() - begun < 60


def test_a_file_without_a_checksum_is_read(tmp_path: Path) -> None:
    """As they were written before there was one; what is resumed is the same."""
    stream, file = watched(MEMORIES[0]), tmp_path / "a.pdrop"
    stream.save(file)
    header, tensors = saved.read(file)
    save_file(tensors, tmp_path / "old.pdrop", {"pdrop_video": json.dumps(header)})
    old = LM.resume(tmp_path / "old.pdrop")
    for each in (stream, old):
        each.push(video(4, seed=3), [20, 21, 22, 23])
    assert torch.equal(stream.next_logits("what ?", retrieve=2), old.next_logits("what ?", retrieve=2))
