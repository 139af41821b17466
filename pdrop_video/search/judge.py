"""How far a stream's answers are from those of all tokens. Knows streams and questions; refuses to know right answers.

The measure is KL(all tokens || fewer), in nats: over the vocabulary of the answer's first token, or its mean over the
tokens of the answer that the model gives by itself when it sees everything, each behind those before it. The second is
VisPCO's loss (arXiv 2604.15188) with the model's own greedy answer in place of a label, which is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn.functional import kl_div

from ..common import checks
from ..errors import ConfigError
from ..memory import Memory
from ..pyramid import Pyramid
from ..stream.lm import VideoLM
from ..stream.recipe import Recipe
from ..stream.stream import VideoStream
from ..video import FrameChunk

OBJECTIVES = ("first", "answer")
"""The first token of an answer; every token of the full model's own."""
ANSWER_TOKENS = 32
"""Longest answer that is compared."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A video, decoded, and questions about it.

    Attributes
    ----------
    name : str
    chunks : iterable of FrameChunk
        May decode them when they are asked for; see `pdrop_video.search.questions.Film`.
    questions : sequence of str
    """

    name: str
    chunks: Iterable[FrameChunk]
    questions: Sequence[str]


@dataclass(frozen=True, slots=True)
class Objective:
    """What is compared.

    Attributes
    ----------
    of : "first" or "answer"
        The answer's first token, or all tokens of the full model's own greedy answer, its end included.
    tokens : int
        Longest answer that is compared.
    """

    of: Literal["first", "answer"] = "first"
    tokens: int = ANSWER_TOKENS

    def __post_init__(self) -> None:
        checks.choice("objective", self.of, OBJECTIVES)
        checks.whole("answer_tokens", self.tokens, 1, 4096)

    def full(self, stream: VideoStream, question: str) -> Reference:
        """What a stream that saw everything says to a question."""
        ids: tuple[int, ...] = ()
        if self.of == "answer":
            answer = stream.ask(question, self.tokens)
            # the end token is one of the answer's own; where the answer was cut short, what would follow is not
            ids = answer.token_ids if answer.finished else answer.token_ids[:-1]
        return Reference(ids, distributions(stream, question, ids))


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the full model says to a question.

    Attributes
    ----------
    ids : tuple of int
        The tokens of its answer behind which its distributions are compared.
    known : Tensor [1 + tokens, vocabulary], float64
        Log-probabilities of the answer's first token, and of the one behind each of these.
    """

    ids: tuple[int, ...]
    known: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of the log-probabilities."""
        return self.known.nbytes

    def divergence(self, stream: VideoStream, question: str) -> float:
        """KL of a stream's distributions from these, the mean over the answer's tokens, in nats."""
        return divergence(self.known, distributions(stream, question, self.ids))


def divergence(full: Tensor, pruned: Tensor) -> float:
    """KL(full || pruned) in nats, the mean over rows; both are log-probabilities [rows, vocabulary].

    Examples
    --------
    >>> import torch
    >>> p, q = torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([[0.6, 0.3, 0.1]]).log()
    >>> round(divergence(p, q), 6), round(divergence(q, p), 6)
    (0.026812, 0.029149)
    """
    return float(kl_div(pruned, full, reduction="sum", log_target=True) / len(full))


def distributions(stream: VideoStream, question: str, ids: Sequence[int]) -> Tensor:
    """Log-probabilities [1 + ids, vocabulary], float64, of the token after a question and after each of these."""
    logits = stream.answer_logits(question, ids) if ids else stream.next_logits(question)[None]
    return logits.double().log_softmax(-1)


def checked_clip(name: str, clip: Clip) -> Clip:
    """A clip with questions and frames, before any work.

    Raises
    ------
    ConfigError
        If it is none, or has none.
    """
    checks.instance(name, clip, Clip, "Clip(name, chunks, questions)")
    checks.texts("questions", clip.questions)
    there = clip.chunks  # what decodes them when they are asked for gives nothing else
    if isinstance(there, list | tuple) and not (there and all(isinstance(chunk, FrameChunk) for chunk in there)):
        raise ConfigError(f"the chunks of {checks.shown(clip.name)} are not one FrameChunk or more.")
    return clip


FULL = Recipe(pyramid=Pyramid(stages=1), memory=Memory(tokens=None))
"""All visual tokens, remembered for good."""


class Judge:
    """How far schedules move a model's answers on some clips.

    Parameters
    ----------
    lm : VideoLM
    clips : sequence of Clip
    objective : Objective, optional
        What of them; the first token by default.

    Attributes
    ----------
    visual : int
        Visual tokens of the longest clip.
    """

    def __init__(self, lm: VideoLM, clips: Sequence[Clip], objective: Objective | None = None) -> None:
        self.lm, self.clips, self.visual = lm, clips, 0
        objective = Objective() if objective is None else objective
        self._full = []
        for clip in clips:
            with lm.stream(FULL) as stream:
                for chunk in clip.chunks:
                    stream.push(chunk)
                self.visual = max(self.visual, int(stream.held().visual.sum()))
                self._full.append([objective.full(stream, question) for question in clip.questions])

    def divergence(self, pyramid: Pyramid) -> float:
        """Mean over clips of the mean over their questions of KL(all tokens || `pyramid`), in nats."""
        means = []
        for clip, full in zip(self.clips, self._full, strict=True):
            with self.lm.stream(pyramid, Memory(tokens=None)) as stream:
                for chunk in clip.chunks:
                    stream.push(chunk)
                each = [known.divergence(stream, asked) for known, asked in zip(full, clip.questions, strict=True)]
            means.append(sum(each) / len(each))
        return sum(means) / len(means)
