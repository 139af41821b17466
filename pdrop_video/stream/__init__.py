"""One stream: push, ask, turns, feed, save. The rooms below know one step of the way each; this one knows them all."""

from .aio import AsyncAnswer, AsyncVideoStream
from .answer import Answer, Evidence, Fed, Likely, Pushed, Status, Timings
from .answering import AnswerStream
from .feed import Feed
from .lm import VideoLM, load
from .recipe import Recipe
from .sampling import Sampling
from .stream import VideoStream

__all__ = [
    "Answer",
    "AnswerStream",
    "AsyncAnswer",
    "AsyncVideoStream",
    "Evidence",
    "Fed",
    "Feed",
    "Likely",
    "Pushed",
    "Recipe",
    "Sampling",
    "Status",
    "Timings",
    "VideoLM",
    "VideoStream",
    "load",
]
