"""The archive's file: bytes come back as they were put, room is used again, and nothing grows that a system counts."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import Archive, Block, Piece, TokenTable
from pdrop_video.memory.shelf import Shelf

TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def open_in(folder: Path) -> list[str]:
    """Files of a folder that this process has open or mapped, by name or by their numbers alone."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except OSError:  # the one of this very listing
            continue
    found += [line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
    return [name for name in found if name.startswith(str(folder))]


def length(shelf: Shelf) -> int:
    return os.fstat(shelf._file.fileno()).st_size


def nowhere(layer: int, keys: Tensor, by: Tensor) -> Tensor:
    raise AssertionError("what is put is not rotated")


def block(number: int, tokens: int = 1, dtype: torch.dtype = torch.float32) -> Block:
    """What one layer lost of one step: keys that say the step's number."""
    index = torch.arange(tokens) + 1000 * number
    row = torch.zeros(tokens, dtype=torch.long)
    table = TokenTable(
        index=index,
        seconds=torch.full((tokens,), float(number), dtype=torch.float64),
        until=torch.full((tokens,), float(number), dtype=torch.float64),
        chunk=row + number,
        step=row + number,
        row=row,
        column=row,
        score=torch.zeros(tokens),
        visual=torch.ones(tokens, dtype=torch.bool),
        position=index[:, None],
        entered=index[:, None],
        now=index[:, None],
    )
    keys = torch.full((1, tokens, 2), float(number), dtype=dtype)
    return Block({0: Piece(table, keys, -keys)}, {0: torch.tensor([number])}, {0: torch.tensor([[number, 1.0, 1.0]])})


def test_bytes_come_back_and_room_is_used_again(tmp_path: Path) -> None:
    """Thousands of puts and losses of every size in any order, against tensors that were kept."""
    dice, generator = random.Random(0), torch.Generator().manual_seed(0)
    shelf, kept, most = Shelf(str(tmp_path)), [], 0
    for _ in range(3000):
        while kept and dice.random() < 0.5:
            kept.pop(dice.randrange(len(kept)))
        sizes = [(1 + dice.randrange(2), dice.randrange(40), 3) for _ in range(dice.randrange(1, 5))]
        put = [torch.randn(size, generator=generator).to(dice.choice(TYPES)) for size in sizes]
        put[0] = put[0].transpose(0, 1)  # as they come
        kept.append((put, shelf.put(put)))
        most = max(most, sum(tensor.nbytes for tensors, _ in kept for tensor in tensors))
        tensors, filed = dice.choice(kept)
        for tensor, file in zip(tensors, filed, strict=True):
            found = file.read()
            assert found.dtype == tensor.dtype and torch.equal(found, tensor) and file.nbytes == tensor.nbytes
        del tensors, filed, file
    assert length(shelf) == most
    for tensors, filed in kept:
        assert all(torch.equal(file.read(), tensor) for file, tensor in zip(filed, tensors, strict=True))


def test_seventy_thousand_pushes_are_one_file(tmp_path: Path) -> None:
    """Linux lets a process have 65,530 maps and, mostly, 1,024 open files."""
    archive = Archive(2**30, nowhere, str(tmp_path))
    alike = block(0)
    for number in range(70_000):
        archive = archive.put(alike if number % 10_000 else block(number + 1))
    assert len(archive.blocks) == 70_000 and archive.nbytes == 70_000 * alike.nbytes
    assert len(open_in(tmp_path)) == 1 and not list(tmp_path.iterdir())
    assert archive.shelf is not None and length(archive.shelf) == 70_000 * 16
    for number in range(0, 70_000, 10_000):
        piece = archive.blocks[number].pieces[0]
        assert piece.keys.tolist() == [[[number + 1] * 2]] and piece.values.tolist() == [[[-number - 1] * 2]]
    del archive, piece
    assert not open_in(tmp_path)


def test_forks_share_a_file_and_go_their_own_ways(tmp_path: Path) -> None:
    """Under a limit of five blocks each: room that one gave back is the other's for as long as it holds it."""
    limit = 5 * block(0, 7).nbytes
    archives = [Archive(limit, nowhere, str(tmp_path))]
    archives[0] = archives[0].put(block(0, 7))
    archives += [archives[0], archives[0]]
    expected: list[list[int]] = [[0], [0], [0]]
    dice = random.Random(1)
    for number in range(1, 400):
        each = dice.randrange(3)
        archives[each] = archives[each].put(block(number, 7))
        expected[each] = [*expected[each], number][-5:]
        assert archives[each].nbytes <= limit
        for archive, numbers in zip(archives, expected, strict=True):
            assert [int(one.pieces[0].keys[0, 0, 0]) for one in archive.blocks] == numbers
    shelf = archives[0].shelf
    assert shelf is not None and shelf is archives[1].shelf is archives[2].shelf
    assert length(shelf) <= (3 * 5 + 1) * 7 * 16  # what three hold, and the one that is put before another goes
    assert len(open_in(tmp_path)) == 1


class Failing:
    """A file whose disk fails after some writes."""

    def __init__(self, file: Any, writes: int) -> None:
        self.file, self.writes = file, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: memoryview) -> int:
        self.writes -= 1
        if self.writes < 0:
            raise OSError(5, "Input/output error")
        return self.file.write(content[:5])  # a system may always write less than it was given


@pytest.mark.parametrize("writes", [0, 1, 4])
def test_a_disk_that_fails_takes_nothing(writes: int, tmp_path: Path) -> None:
    archive = Archive(2**20, nowhere, str(tmp_path)).put(block(1, 3)).put(block(2, 3))
    shelf = archive.shelf
    assert shelf is not None
    whole, before = shelf._file, length(shelf)
    shelf._file = Failing(whole, writes)
    with pytest.raises(pv.StreamError, match=r"48 bytes can't be archived in .*Input/output error"):
        archive.put(block(3, 3))
    shelf._file = Failing(whole, 10**6)
    archive = archive.put(block(4, 3))
    assert length(shelf) == before + 48  # the room of what failed is taken again
    assert [one.pieces[0].keys.flatten().tolist() for one in archive.blocks] == [[1.0] * 6, [2.0] * 6, [4.0] * 6]
    whole.truncate(before)
    with pytest.raises(pv.StreamError, match="can't be read: the file ends at byte 120"):
        archive.blocks[2].pieces[0].values  # noqa: B018


def test_another_process_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fork both would write to the same file."""
    archive = Archive(2**20, nowhere, str(tmp_path)).put(block(1))
    monkeypatch.setattr(os, "getpid", lambda: -1)
    for use in (lambda: archive.put(block(2)), lambda: archive.blocks[0].pieces[0].keys):
        with pytest.raises(pv.StreamError, match="save the stream there and resume it here"):
            use()
