"""One stream: push, ask, turns, feed, save. The packages below do one step of the way each; this one knows them all."""

from .aio import AsyncAnswer, AsyncVideoStream
from .answer import Answer, Evidence, FeedStats, Pushed, Status, Timings, TokenLogprob
from .answering import AnswerStream
from .awaited import AsyncWatch
from .events import Event, Note
from .feed import Feed
from .lm import VideoLM, load
from .recipe import Recipe
from .sampling import Sampling
from .stream import VideoStream
from .watch import Summary, Watch

__all__ = [
    "Answer",
    "AnswerStream",
    "AsyncAnswer",
    "AsyncVideoStream",
    "AsyncWatch",
    "Event",
    "Evidence",
    "Feed",
    "FeedStats",
    "Note",
    "Pushed",
    "Recipe",
    "Sampling",
    "Status",
    "Summary",
    "Timings",
    "TokenLogprob",
    "VideoLM",
    "VideoStream",
    "Watch",
    "load",
]
