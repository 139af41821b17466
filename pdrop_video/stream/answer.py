"""What the methods of streams and feeds hand back. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import plots
from ..costs.looking import Looked

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall-clock seconds.

    Attributes
    ----------
    push : float
        Spent on all frames pushed so far (vision tower and language model).
    first_token : float
        From the question to its first token.
    decode : float
        From the first token to the last.
    dtype : str
        The number type that was computed in, and why that one.
    """

    push: float
    first_token: float
    decode: float
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class Again:
    """What some layers of a stage looked at again while the answer was generated; see ``VideoStream.ask(decode=...)``.

    Attributes
    ----------
    token : int
        The number in `Answer.token_ids` of the token that attended elsewhere.
    first, last : int
        The first and the last token that saw what follows.
    layers : tuple of int
        The decoder layers, counted from 0, in which it was seen.
    seconds : tuple of float
        The time of each step of which something was seen that had been hidden, in order.
    tokens : tuple of int
        How many visual tokens of it: columns of each of these layers.
    weight : tuple of float
        How much `token` attended to them, summed over the step, in the first of these layers.
    """

    token: int
    first: int
    last: int
    layers: tuple[int, ...]
    seconds: tuple[float, ...]
    tokens: tuple[int, ...]
    weight: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an answer rested on in one stage of the model: the steps of time that it attended to, in order.

    Attributes
    ----------
    seconds : tuple of float
        The time of each step.
    tokens : tuple of int
        How many visual tokens of it the stage attended to.
    weight : tuple of float
        How much the question's last token attended to them, summed over the step, in the stage's first layer. What is
        missing to 1 went to text.
    again : tuple of Again
        What was looked at later, of what had been hidden from the question, in the order of tokens.
    """

    seconds: tuple[float, ...]
    tokens: tuple[int, ...]
    weight: tuple[float, ...]
    again: tuple[Again, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely one token of an answer was, by the model's own logits, whatever it was chosen by.

    Attributes
    ----------
    token : int
    logprob : float
        The logarithm of its probability, in nats.
    top : tuple of (int, float)
        The likeliest tokens in its place, as many as were asked for, with theirs; likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and what it rested on.

    Attributes
    ----------
    question : str
    text : str
    token_ids : tuple of int
        As generated, without the end token.
    finished : bool
        False if `max_new_tokens`, or the end of the positions that the model was trained on, cut it short; true at one
        of the texts at which it was to stop.
    frames : int
        Frames watched so far.
    seconds : tuple of float
        Times of the first and the last frame watched.
    visual_tokens : int
        Visual tokens that entered the language model so far.
    kept : tuple of int
        Visual tokens remembered in each stage when the question came, shallow to deep; 0 of a stage 0 without layers.
    cache_tokens : tuple of int
        Tokens that each layer remembered when the question came, text included.
    cache_bytes : int
        Bytes of the keys and values remembered then.
    evidence : tuple of Evidence
        What each stage rested on, shallow to deep; nothing in a stage 0 without layers.
    timings : Timings
    logprobs : tuple of TokenLogprob
        One for each of `token_ids` where they were asked for, else nothing.
    question_tokens : int
        Tokens of the question as it was put: the template's, and what was told, included.
    looked : Looked or None
        Of an answer asked with `decode`, how much its tokens saw and scored: what its FLOPs are counted from.
    """

    question: str
    text: str
    token_ids: tuple[int, ...]
    finished: bool
    frames: int
    seconds: tuple[float, float]
    visual_tokens: int
    kept: tuple[int, ...]
    cache_tokens: tuple[int, ...]
    cache_bytes: int
    evidence: tuple[Evidence, ...]
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] = ()
    question_tokens: int = 0
    looked: Looked | None = None

    def __str__(self) -> str:
        return self.text

    def plot(self) -> Figure:
        """Draw what the answer rested on: for each stage, the attention that went to each moment.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        PDropError
            If matplotlib, the extra "plots", is not installed.
        """
        return plots.evidence(self)


@dataclass(frozen=True, slots=True)
class Pushed:
    """What one push did.

    Attributes
    ----------
    frames : int
        Frames taken, those that wait included.
    waiting : int
        Frames that wait for the next push: an odd one for its partner, or more of them for the rest of their sound.
    visual_tokens : int
        Visual tokens that entered the language model.
    kept : tuple of int
        How many of them each stage kept, shallow to deep: all that entered in stage 0, whether it has layers or not.
    seconds : float
        Wall-clock time.
    skipped : int
        Frames that the gate left out.
    sound_tokens : int
        Tokens of sound that entered the language model.
    """

    frames: int
    waiting: int
    visual_tokens: int
    kept: tuple[int, ...]
    seconds: float
    skipped: int = 0
    sound_tokens: int = 0


@dataclass(frozen=True, slots=True)
class FeedStats:
    """What became of the frames that were put into a feed: ``put == watched + dropped + failed + waiting``.

    Attributes
    ----------
    put : int
        Frames taken by `Feed.put`.
    watched : int
        Frames pushed.
    dropped : int
        Frames dropped because the queue was full, or because the feed was closed.
    failed : int
        Frames of pushes that raised an error.
    waiting : int
        Frames in the queue or in the push that runs.
    blocked : int
        How many puts had to wait for room.
    """

    put: int
    watched: int
    dropped: int
    failed: int
    waiting: int
    blocked: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a stream holds, as its last whole push left it.

    Attributes
    ----------
    frames : int
        Frames watched so far.
    seconds : tuple of float or None
        Times of the first and the last frame watched.
    cache_tokens : tuple of int
        Tokens that each layer remembers.
    cache_bytes : int
        Bytes of the keys and values remembered.
    archive_bytes : int
        Bytes archived on the host.
    skipped : int
        Frames that the gate left out; they are among those watched.
    carried_bytes : mapping of str to int
        Bytes that gate, reducer and scorer carry from chunk to chunk, by slot.
    """

    frames: int
    seconds: tuple[float, float] | None
    cache_tokens: tuple[int, ...]
    cache_bytes: int
    archive_bytes: int = 0
    skipped: int = 0
    carried_bytes: Mapping[str, int] = field(default_factory=dict)
