"""One fsynced line an item: what a crash leaves behind is read back, cut or redone, never half an item."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import pdrop_video as pv
from eval.stats.record import Record, Turn, digest, read_records
from pdrop_video.common.journal import Journal, read_journal


def record(item: str, **more: object) -> Record:
    return Record(
        key=digest(item), item=item, video="v", task="t", config="c", category={"kind": "x"}, question="?",
        options=["A. 1", "B. 2"], answer="A", **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "records.jsonl"
    with Journal(path) as journal:
        journal.append({"item": 1})
        journal.append({"item": 2, "text": "é\n"})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        before = list(read_journal(path))
        assert before == [{"item": 1}, {"item": 2, "text": "é\n"}][: whole[:length].count(b"\n")]
        with Journal(path) as journal:
            journal.append({"item": 3})
        assert list(read_journal(path)) == [*before, {"item": 3}]


def test_a_line_that_no_crash_leaves(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"a": 1}\nrubbish\n')
    with pytest.raises(pv.ConfigError, match=r"line 2 of .*records\.jsonl is not a JSON object"):
        list(read_journal(tmp_path / "records.jsonl"))


def test_every_line_is_on_the_disk_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "records.jsonl", []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(path.read_bytes().count(b"\n")))
    with Journal(path) as journal:
        for item in range(5):
            journal.append({"item": item})
            assert path.read_bytes().count(b"\n") == item + 1  # out of the process when the call returns
    assert seen == [1, 2, 3, 4, 5]


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal(tmp_path / "records.jsonl")
    journal.append({"item": 1})
    monkeypatch.setattr(os, "fsync", full)
    journal.append({"item": 2})
    with pytest.raises(pv.ConfigError, match=r"No space left on device.*make room"):
        journal.append({"item": 3})
    journal.close()
    assert list(read_journal(tmp_path / "records.jsonl")) == [{"item": 1}, {"item": 2}]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(pv.ConfigError, match="can't be written"):
        Journal(tmp_path / "file" / "records.jsonl")


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    full = record("a", response="B", strict="B", score=0.0, turns=[Turn(1.5, "B", (-0.5, -0.25))], kept=[4, 2])
    with Journal(tmp_path / "records-0.jsonl") as journal:
        journal.append(full.to_json())
    assert read_records(tmp_path) == {full.key: full}


def test_an_error_that_was_tried_again_gives_way(tmp_path: Path) -> None:
    failed, done = record("a", error="no such file"), record("a", response="A", score=1.0)
    for order in ((failed, done), (done, failed)):
        folder = tmp_path / str(order[0].error)
        for number, entry in enumerate(order):
            with Journal(folder / f"records-{number}.jsonl") as journal:
                journal.append(entry.to_json())
        assert read_records(folder) == {done.key: done}
