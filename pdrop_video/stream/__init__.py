"""One stream: push, ask, turns, feed, save. The rooms below know one step of the way each; this one knows them all."""

from .answer import Answer, Evidence, Fed, Pushed, Status, Timings
from .answering import AnswerStream
from .events import Event, Note
from .feed import Feed
from .lm import VideoLM, load
from .recipe import Recipe
from .stream import VideoStream
from .watch import Summary, Watch

__all__ = [
    "Answer",
    "AnswerStream",
    "Event",
    "Evidence",
    "Fed",
    "Feed",
    "Note",
    "Pushed",
    "Recipe",
    "Status",
    "Summary",
    "Timings",
    "VideoLM",
    "VideoStream",
    "Watch",
    "load",
]
