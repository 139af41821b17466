"""pdrop_video: any open video-LLM watches a stream that never ends, in memory that never grows.

>>> import pdrop_video as pv
>>> lm = pv.load()                                            # the built-in model; or a name on the hub, or a folder
>>> stream = lm.stream(pv.Pyramid(), pv.Memory(tokens=6144))
>>> with pv.open_video("match.mp4", fps=2, chunk=8) as video:  # doctest: +SKIP
...     for chunk in video:
...         stream.push(chunk)
...     print(stream.ask("Who scored first?"))
"""

from typing import TYPE_CHECKING, Any

from .common.renamed import renamed as _renamed
from .errors import ConfigError, FrameError, ModelError, PDropError, StreamError, VideoError
from .memory import Memory
from .pyramid import Pyramid, Trace, pyramid_drop
from .stream import (
    Answer,
    AnswerStream,
    AsyncAnswer,
    AsyncVideoStream,
    AsyncWatch,
    Event,
    Evidence,
    Feed,
    FeedStats,
    Note,
    Pushed,
    Recipe,
    Sampling,
    Status,
    Summary,
    Timings,
    TokenLogprob,
    VideoLM,
    VideoStream,
    Watch,
    load,
)
from .video import FrameChunk, open_video

__version__ = "0.2.0"

__all__ = [
    "Answer",
    "AnswerStream",
    "AsyncAnswer",
    "AsyncVideoStream",
    "AsyncWatch",
    "ConfigError",
    "Event",
    "Evidence",
    "Feed",
    "FeedStats",
    "FrameChunk",
    "FrameError",
    "Memory",
    "ModelError",
    "Note",
    "PDropError",
    "Pushed",
    "Pyramid",
    "Recipe",
    "Sampling",
    "Status",
    "StreamError",
    "Summary",
    "Timings",
    "TokenLogprob",
    "Trace",
    "VideoError",
    "VideoLM",
    "VideoStream",
    "Watch",
    "load",
    "open_video",
    "pyramid_drop",
]

if not TYPE_CHECKING:  # a checker shall know the names that are there, and no others
    _OLD = {"Fed": "FeedStats", "Likely": "TokenLogprob"}

    def __getattr__(name: str) -> Any:
        """What an old name stands for."""
        if name not in _OLD:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        _renamed(f"pdrop_video.{name}", f"pdrop_video.{_OLD[name]}")
        return globals()[_OLD[name]]
