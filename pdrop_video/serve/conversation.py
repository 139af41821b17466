"""From chat messages to what a stream is given, step by step, each named by all that came before it. Plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from .media import Media, Wanted
from .refusals import Refusal
from .wire import ImagePart, Message, TextPart, VideoPart


@dataclass(frozen=True, slots=True)
class Turn:
    """A question that was answered before.

    Attributes
    ----------
    question, answer : str
    """

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Shown:
    """Videos and pictures of one message, in order."""

    wanted: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is known when the last question comes, and the question.

    Attributes
    ----------
    system : str or None
    steps : tuple of Turn or Shown
    question : str
    """

    system: str | None
    steps: tuple[Turn | Shown, ...]
    question: str
    wanted: tuple[Wanted, ...] = field(init=False)

    def __post_init__(self) -> None:
        """List all media, in order."""
        every = (step.wanted for step in self.steps if isinstance(step, Shown))
        object.__setattr__(self, "wanted", tuple(one for some in every for one in some))

    @property
    def said(self) -> tuple[str, ...]:
        """What the user said and what was answered, in turns, where nothing is shown."""
        turns = (step for step in self.steps if isinstance(step, Turn))
        return (*(text for turn in turns for text in (turn.question, turn.answer)), self.question)

    def names(self, media: Sequence[Media], recipe: str) -> list[str]:
        """A name for what a stream is after each step, by the content of all that it was given until then.

        Parameters
        ----------
        media : sequence of Media
            Of all that is wanted, in order.
        recipe : str
            How streams watch.
        """
        left, names = iter(media), []
        name = _digest(recipe, self.system)
        for step in self.steps:
            if isinstance(step, Turn):
                name = _digest(name, "turn", step.question, step.answer)
            else:
                given = [(next(left).digest, *wanted.how) for wanted in step.wanted]
                name = _digest(name, "shown", given)
            names.append(name)
        return names


def conversation_of(messages: Sequence[Message]) -> Conversation:
    """The conversation that messages say.

    Texts of one message are joined by line breaks, and stand behind its videos and pictures, wherever they stood.

    Raises
    ------
    Refusal
        If something is shown, but not before the first question; if the last message asks nothing, or the turns are in
        no order.
    """
    system, steps, question = None, list[Turn | Shown](), list[str]()
    for number, message in enumerate(messages):
        text, wanted = _text(message), _wanted(message)
        where = f"messages.{number}"
        if message.role in ("system", "developer"):
            if number or wanted:
                raise Refusal("A system message is text, and the first of all.", 400, "invalid_messages", where)
            system = text or None
        elif message.role == "assistant":
            if wanted or not question or not text.strip():
                raise Refusal("An assistant's message is text that answers a user's.", 400, "invalid_messages", where)
            steps.append(Turn("\n".join(question), text))
            question = []
        else:
            if wanted:
                if question or (steps and isinstance(steps[0], Turn)):
                    raise Refusal(
                        "A video or picture follows the first question, or one that was not answered; put it in front "
                        "of the question.",
                        400,
                        "invalid_messages",
                        where,
                    )
                steps.append(Shown(wanted))
            if text.strip():
                question.append(text)
    if not question:
        raise Refusal(
            "The last message asks nothing; expected a user's, with some text.", 400, "no_question", "messages"
        )
    return Conversation(system, tuple(steps), "\n".join(question))


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if isinstance(part, TextPart))


def _wanted(message: Message) -> tuple[Wanted, ...]:
    wanted = []
    for part in message.content if not isinstance(message.content, str) else ():
        if isinstance(part, VideoPart):
            of = part.video_url
            wanted.append(Wanted("video", of.url, of.fps, of.start, of.end, of.frames))
        elif isinstance(part, ImagePart):
            wanted.append(Wanted("image", part.image_url.url))
    return tuple(wanted)


def _digest(*said: object) -> str:
    return hashlib.sha256(json.dumps(said).encode("utf-8", "surrogatepass")).hexdigest()
