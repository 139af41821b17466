"""A stream without a limit: what a push does beside attention does not grow with what is remembered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
from families import build, video
from test_modes import remembered
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pdrop_video as pv
from pdrop_video.memory import KeyValueLayer, StreamCache, TokenTable


class Written(TorchDispatchMode):
    """Counts the elements of everything that is computed or copied; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.aside = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        view = any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
        empty = func.__name__.startswith(("empty", "new_empty"))
        if not view and not empty and not self.aside and isinstance(result, Tensor):
            self.elements += result.numel()
        return result

    @contextmanager
    def but(self) -> Iterator[None]:
        """What the block does is not counted."""
        self.aside += 1
        try:
            yield
        finally:
            self.aside -= 1


def rows(first: int, count: int) -> TokenTable:
    index = torch.arange(first, first + count)
    return TokenTable.text(index, index[:, None], index[:, None])


def test_a_table_grows_in_amortised_constant_time() -> None:
    """Twice the appends, twice the elements, give or take one copy; and what was there before is read as it was."""
    written = {}
    for pushes in (200, 400):
        table, before = rows(0, 5), []
        with Written() as counted:
            for push in range(pushes):
                before.append(table)
                table = table.append(rows(5 + 3 * push, 3))
        written[pushes] = counted.elements
        for push, old in enumerate(before):
            assert old.index.tolist() == list(range(5 + 3 * push))
        assert table.index.tolist() == table.now[:, 0].tolist() == list(range(5 + 3 * pushes))
    assert written[400] < 2.7 * written[200]
    assert written[400] < 10 * 400 * 3 * len(table.columns())


def test_whoever_ends_where_room_begins_appends_in_place_and_anybody_else_copies() -> None:
    origin = rows(0, 4).append(rows(4, 2)).append(rows(6, 1))
    place = origin.index.data_ptr()
    ours = origin.append(rows(7, 3))
    assert ours.index.data_ptr() == place
    theirs = origin.append(rows(20, 3))
    assert theirs.index.data_ptr() != place
    assert [t.index.tolist()[-3:] for t in (origin, ours, theirs)] == [[4, 5, 6], [7, 8, 9], [20, 21, 22]]
    theirs.release(origin)  # of another storage: nothing to give back
    assert origin.append(rows(30, 1)).index.data_ptr() != place
    ours.release(origin)
    again = origin.append(rows(40, 2))
    assert again.index.data_ptr() == place and again.index.tolist() == [*range(7), 40, 41]
    ours.release(origin)  # late: what stands there now is somebody else's
    assert origin.append(rows(50, 1)).index.data_ptr() != place
    assert again.index.tolist() == [*range(7), 40, 41]


def test_a_push_does_not_cost_more_for_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a push does but for the layers' own attention and its masks: twice the pushes, twice the work."""
    lm = build("qwen2_5_vl")
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=None))
    counted, update, run = Written(), KeyValueLayer.update, stream.loop.run

    def looped(*args: Any, **kwargs: Any) -> Any:
        with counted.but():
            return run(*args, **kwargs)

    def updated(layer: KeyValueLayer, *args: Any, **kwargs: Any) -> Any:
        aside, counted.aside = counted.aside, 0
        try:
            return update(layer, *args, **kwargs)
        finally:
            counted.aside = aside

    monkeypatch.setattr(KeyValueLayer, "update", updated)
    monkeypatch.setattr(stream.loop, "run", looped)
    frames, written = video(2), []
    with counted:
        for push in range(60):
            stream.push(frames, [2 * push, 2 * push + 1])
            written.append(counted.elements)
    held = stream.cache_tokens[0]
    assert held > 500
    assert written[59] < 2.3 * written[29]
    # most pushes write no more than the first ones did, which would not even do for one column of one table
    costs = sorted(after - before for before, after in pairwise(written))
    assert costs[len(costs) // 2] - costs[0] < held


def test_a_push_that_fails_again_and_again_leaves_the_room_behind_the_tables() -> None:
    lm = build("qwen2_5_vl")
    stream, calm = (lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=None)) for _ in range(2))
    for each in (stream, calm):
        each.push(video(2), [0, 1])
        each.push(video(2, seed=1), [2, 3])
    place = stream._state.cache.tables[0].index.data_ptr()
    fork, record = stream.fork(), StreamCache.record
    for _ in range(4):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(StreamCache, "record", lambda *a: record(*a) or 1 / 0)
            stream.push(video(2, seed=2), [4, 5])
    for each in (stream, calm):
        each.push(video(2, seed=3), [4, 5])
    assert stream._state.cache.tables[0].index.data_ptr() == place
    assert remembered(stream)[0] == remembered(calm)[0]
    fork.push(video(2, seed=4), [4, 5])  # its turn behind the same columns is over: it copies, and disturbs nobody
    assert remembered(stream)[0] == remembered(calm)[0]
    assert fork._state.cache.tables[0].index.data_ptr() != place
