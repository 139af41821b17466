"""Old names of the public API do what the new ones do, and each use says once what to write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from families import build, video

import pdrop_video as pv


def warned(use: Callable[[], Any], old: str, new: str) -> Any:
    """What comes of using an old name, which warns once."""
    with pytest.warns(DeprecationWarning, match="is an old name") as caught:
        found = use()
    assert [str(each.message) for each in caught] == [f"{old} is an old name; write {new}."]
    return found


@pytest.mark.parametrize("old, new", [("Fed", "FeedStats"), ("Likely", "TokenLogprob")])
def test_classes(old: str, new: str) -> None:
    assert warned(lambda: getattr(pv, old), f"pdrop_video.{old}", f"pdrop_video.{new}") is getattr(pv, new)
    assert new in pv.__all__ and old not in pv.__all__


def test_a_name_that_never_was() -> None:
    with pytest.raises(AttributeError, match="module 'pdrop_video' has no attribute 'Pyramide'"):
        pv.Pyramide  # noqa: B018


def test_text_into_a_stream() -> None:
    """The same tokens stand in both caches, from a plain stream and from an awaited one."""
    lm = build("qwen2_5_vl")

    def told(tell: Callable[[pv.VideoStream], object]) -> list[tuple[int, ...]]:
        stream = lm.stream(pv.Pyramid(stages=1))
        tell(stream)
        stream.push(video(2), [0.0, 1.0])
        return [stream.status.cache_tokens, tuple(stream.held().index.tolist())]

    async def awaited(stream: pv.VideoStream) -> None:
        async with pv.AsyncVideoStream(stream.fork()) as twin:
            await twin.tell("red blue")

    want = told(lambda stream: stream.add_text("red blue"))
    assert want != told(lambda stream: None)
    assert want == told(
        lambda stream: warned(lambda: stream.tell("red blue"), "VideoStream.tell", "VideoStream.add_text")
    )
    warned(lambda: asyncio.run(awaited(lm.stream())), "AsyncVideoStream.tell", "AsyncVideoStream.add_text")


def test_what_became_of_a_feeds_frames() -> None:
    with build("qwen2_5_vl").stream().feed() as feed:
        feed.put(video(2), [0.0, 1.0])
        feed.flush()
        assert warned(lambda: feed.fed, "Feed.fed", "Feed.stats") == feed.stats
    assert feed.stats.watched == feed.stats.put == 2
