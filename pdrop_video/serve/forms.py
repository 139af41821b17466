"""What requests and answers of sessions look like, and how sessions and answers are told of."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from ..stream import Answer, Watch
from .refusals import said
from .sessions import Session
from .wire import Drawn, Number, Second, Text, Wire

MOST_WATCHES = 8
"""Standing questions of a session."""


class StandingQuestion(Wire):
    """A question that is asked again and again while frames come; see `VideoStream.watch_for`."""

    question: Text
    every: Annotated[float, Field(ge=0.001, le=86_400, allow_inf_nan=False)] = 2.0
    sure: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.7
    clear: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.4
    cooldown: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] = 0.0
    options: Annotated[list[Text], Field(min_length=1, max_length=8)] = Field(default=["yes", "no"])


class Notes(Wire):
    """Notes that are taken while frames come; see `VideoStream.summarise`."""

    every: Annotated[float, Field(ge=0.001, le=86_400, allow_inf_nan=False)] = 60.0
    question: Text | None = None


class Proactive(Wire):
    """What a session does without being asked."""

    standing_questions: Annotated[list[StandingQuestion], Field(max_length=MOST_WATCHES)] = Field(default_factory=list)
    notes: Notes | None = None


class NewSession(Proactive):
    """What a session is opened with; all may be left out."""

    recipe: dict[str, Any] | None = None
    system: Text | None = None
    standing_question: Text | None = None
    resume: Text | None = None


class Frame(Wire):
    """A picture, in base64 or as a data: address, and when it is shown."""

    image: Text
    seconds: Number


class NewFrames(Wire):
    """Pictures in the order of their times."""

    frames: Annotated[list[Frame], Field(min_length=1)]


class NewSource(Wire):
    """A video or a camera to watch: http(s), rtsp, rtmp, or the name of a file in one of the server's folders."""

    url: Text
    fps: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] | None = None
    start: Second | None = None
    end: Second | None = None
    live: bool = False


class Question(Drawn):
    """A question about what was watched so far."""

    question: Text
    keep: bool = False
    answer_prefix: Text = ""
    retrieve: Annotated[int, Field(ge=1, le=4096)] | None = None


class SourceState(BaseModel):
    """How the watching of a source goes."""

    url: str
    state: Literal["watching", "ended", "stopped", "failed"]
    error: str | None


class FoundEvent(BaseModel):
    """What a standing question found: `end` is missing while it lasts, and `cut` says that nobody looked any more."""

    question: str
    begin: float
    end: float | None
    peak: float
    cut: bool


class StandingState(BaseModel):
    """A standing question, what lasts, and how its looks go."""

    question: str
    lasts: FoundEvent | None
    likelihood: float | None
    looks: int
    failed: int
    error: str | None


class Note(BaseModel):
    """A note about a stretch of the video."""

    begin: float
    end: float
    text: str


class NoteList(BaseModel):
    """The newest notes, oldest first."""

    object: Literal["list"] = "list"
    data: list[Note]


class SessionState(BaseModel):
    """A session."""

    id: str
    object: Literal["streaming.session"] = "streaming.session"
    created: int
    frames: int
    seconds: tuple[float, float] | None
    tokens_remembered: int
    bytes_remembered: int
    waiting: int
    source: SourceState | None
    standing_questions: list[StandingState]
    events: int
    resume_from_seconds: float | None = None


class FramesWatched(BaseModel):
    """What came of some frames."""

    frames: int
    visual_tokens: int
    kept: int
    session: SessionState


class AnswerState(BaseModel):
    """An answer about a session."""

    object: Literal["streaming.answer"] = "streaming.answer"
    text: str
    finished: bool
    frames: int
    seconds: tuple[float, float]
    completion_tokens: int
    visual_tokens: int
    remembered: list[int]
    first_token_seconds: float


class Saved(BaseModel):
    """A saved session: `saved` is what `resume` takes."""

    saved: str
    bytes: int


def state_of(session: Session) -> dict[str, Any]:
    """What may be told of a session."""
    status = session.stream.status
    return {
        "id": session.id,
        "object": "streaming.session",
        "created": int(session.created),
        "frames": status.frames,
        "seconds": status.seconds,
        "tokens_remembered": max(status.cache_tokens),
        "bytes_remembered": status.cache_bytes + status.archive_bytes,
        "waiting": session.waiting,
        "source": session.source,
        "standing_questions": [_standing(each) for each in session.stream.stream.watches],
        "events": session.events.last,
        "resume_from_seconds": None if session.copy is None else session.copy.second,
    }


def _standing(watch: Watch) -> dict[str, Any]:
    return {
        "question": watch.terms.question,
        "lasts": None if (event := watch.event) is None else asdict(event),
        "likelihood": watch.likelihood,
        "looks": watch.looks,
        "failed": watch.failed,
        "error": None if watch.error is None else said(watch.error)["error"]["message"],
    }


def answer_of(answer: Answer) -> dict[str, Any]:
    """What is told of an answer."""
    return {
        "object": "streaming.answer",
        "text": answer.text,
        "finished": answer.finished,
        "frames": answer.frames,
        "seconds": answer.seconds,
        "completion_tokens": len(answer.token_ids),
        "visual_tokens": answer.visual_tokens,
        "remembered": list(answer.kept),
        "first_token_seconds": answer.timings.first_token,
    }


PICTURES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["frames"],
                    "properties": {
                        "frames": {"type": "array", "items": Frame.model_json_schema(), "minItems": 1},
                    },
                }
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["frames", "seconds"],
                    "properties": {
                        "frames": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
                        "seconds": {"type": "array", "items": {"type": "number"}, "minItems": 1},
                    },
                }
            },
        },
    }
}
"""What `POST .../frames` takes, which FastAPI can't tell from its function."""
EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
