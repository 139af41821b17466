"""copy, deepcopy and pickle: a stream is forked, and what can't be shared says what to do instead."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import build, video

import pdrop_video as pv

COPIES = pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])


@COPIES
def test_a_copy_of_a_stream_is_a_fork(copied: Callable[[Any], Any]) -> None:
    """Each goes its own way, as if it had been alone; closing one leaves the other."""
    lm = build("qwen2_5_vl")
    alone, stream = (lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=60, archive=100_000)) for _ in range(2))
    for each in (alone, stream):
        each.push(video(5), [0, 1, 2, 3, 4])
    twin = copied(stream)
    assert twin is not stream and twin.lm is lm and set(lm.streams) == {alone, stream, twin}
    with twin.feed() as feed:  # locks of its own, too
        feed.put(video(6, seed=2), [5, 6, 7, 8, 9, 10])
    twin.close()
    for each in (alone, stream):
        each.push(video(4, seed=1), [5, 6, 7, 8])
    assert torch.equal(alone.next_logits("what ?", retrieve=1), stream.next_logits("what ?", retrieve=1))
    with pytest.raises(pv.StreamError, match="closed"):
        copied(twin)


def test_a_deep_copy_of_what_holds_streams_forks_them() -> None:
    lm = build("qwen2_5_vl")
    held = {"a": [lm.stream()], "b": pv.Pyramid(), "c": pv.Memory()}
    twin = copy.deepcopy(held)
    assert twin["a"][0] is not held["a"][0] and (twin["b"], twin["c"]) == (held["b"], held["c"])
    twin["a"][0].push(video(2), [0, 1])
    assert held["a"][0].status.frames == 0


def test_what_can_not_be_copied_says_what_to_do() -> None:
    lm = build("qwen2_5_vl")
    stream = lm.stream()
    stream.push(video(2), [0, 1])
    answer, feed = stream.ask("what ?", 2, stream=True), stream.feed()
    for thing, kind, named in (
        (stream, pv.StreamError, "save"),
        (answer, pv.StreamError, "ask"),
        (feed, pv.StreamError, "feed"),
        (lm, pv.ModelError, "load"),
    ):
        ways: list[Callable[[Any], Any]] = [pickle.dumps, lambda it: pickle.dumps([it], 0)]
        for way in [*ways, *([] if thing is stream else [copy.copy, copy.deepcopy])]:
            with pytest.raises(kind, match=named):
                way(thing)
    feed.close()
    assert answer.finish().text == stream.ask("what ?", 2).text  # nothing was used up


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_plain_data_can_be_copied(copied: Callable[[Any], Any]) -> None:
    stream = build("qwen2_5_vl").stream()
    pushed = stream.push(video(2), [0, 1])
    for thing in (pushed, stream.ask("what ?", 2), stream.status, stream.memory, pv.Pyramid(ratios=(0.5, 0.2))):
        assert copied(thing) == thing
