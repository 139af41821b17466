"""`Asking`: a stream that can be asked about what it watched. A question is answered on a fork; no trace is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, overload

from torch import Tensor

from ..common import checks
from ..errors import ConfigError, StreamError
from ..pyramid import Pyramid
from .answer import Answer
from .answering import AnswerStream
from .asking import Question
from .looking import NEVER, Decode
from .sampling import Sampling
from .terms import asking_by, checked_for_looking, drawing
from .turns import keep_turn
from .watching import Watching


class Asking(Watching):
    """The asking half of a `VideoStream`."""

    lm: Any  # a VideoLM, which this module can't name: it is what opens streams

    @overload
    def ask(
        self,
        question: str,
        max_new_tokens: int = ...,
        *,
        stream: Literal[False] = ...,
        keep: bool = ...,
        pyramid: Pyramid | None = ...,
        retrieve: int | None = ...,
        decode: str | Decode | None = ...,
        answer_prefix: str = ...,
        sampling: Sampling | None = ...,
        stop: Sequence[str] = ...,
        logprobs: int | None = ...,
    ) -> Answer: ...
    @overload
    def ask(
        self,
        question: str,
        max_new_tokens: int = ...,
        *,
        stream: Literal[True],
        keep: bool = ...,
        pyramid: Pyramid | None = ...,
        retrieve: int | None = ...,
        decode: str | Decode | None = ...,
        answer_prefix: str = ...,
        sampling: Sampling | None = ...,
        stop: Sequence[str] = ...,
        logprobs: int | None = ...,
    ) -> AnswerStream: ...
    def ask(
        self,
        question: str,
        max_new_tokens: int = 128,
        *,
        stream: bool = False,
        keep: bool = False,
        pyramid: Pyramid | None = None,
        retrieve: int | None = None,
        decode: str | Decode | None = None,
        answer_prefix: str = "",
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
    ) -> Answer | AnswerStream:
        """Answer a question about what was watched so far; the stream stays bit for bit as it was.

        Parameters
        ----------
        question : str
        max_new_tokens : int
            Longest answer, in tokens.
        stream : bool
            True gives an iterator over the pieces of the text, whose `answer` is set at its end.
        keep : bool
            Let question and answer stay in the stream as a turn of the conversation, once the answer is complete.
            Frames pushed afterwards are a new turn's video.
        pyramid : Pyramid, optional
            Drops what the question need not attend to, stage by stage, from the memory as PyramidDrop does from a
            picture; on the question's fork only. Its stages and ratios count: the question's attention ranks, or a
            scorer that can rank what is remembered ("relevance_max", "text_mean", "hawk"). None attends to all that is
            remembered.
        retrieve : int, optional
            How many steps of time to bring back from the archive into each layer of the question's fork, beside what
            is remembered: those most like the question.
        decode : str or Decode, optional
            What the answer's tokens look at in place of what the question saw: "dstp" looks again at what `pyramid`
            hides once attention moves there, "fixation" lets a few layers choose for the others; with parameters as
            "dstp:tau=0.6". "none" leaves hidden what is hidden. By default "dstp" where `pyramid` hides anything, as
            which more answers are right at the same cost (docs/league.md). `Evidence.again` says what was looked at
            again, and when.
        answer_prefix : str
            Text that the answer is made to begin with; not part of `Answer.text`.
        sampling : Sampling, optional
            How tokens are drawn; None takes the likeliest each time.
        stop : sequence of str
            The answer ends before the first of these texts. A kept turn has the tokens as they were generated.
        logprobs : int, optional
            Fills `Answer.logprobs`: how likely each token was, beside so many of the likeliest in its place, 0 or more.

        Returns
        -------
        Answer or AnswerStream

        Raises
        ------
        StreamError
            If no frame was pushed yet.
        ConfigError
            If the question is empty, can't be encoded, or has more tokens than find positions behind what is remembered
            in the model's trained range; if a number is below 1; if `pyramid` has another scorer, an allocator or
            positions, which a question does not use; if archived steps are wanted of a stream without an archive, or
            something hidden where nothing is; with `keep`, if the budget can't hold the turn.

        Notes
        -----
        An answer that comes to the end of the trained range goes on as long as positions can be moved, and ends there
        otherwise, `Answer.finished` false. How long it may become changes nothing before that.
        """
        how = drawing(max_new_tokens, sampling, stop, logprobs)
        checks.switch("stream", stream)
        checks.switch("keep", keep)
        with self._access.whole(first=True):
            asked = self._asked(question, answer_prefix, pyramid, retrieve, decode=decode)
            if keep:
                opening = 1 + len(self.lm.prompt.again())  # of the next video
                self._ingest.reach.check_text(max(asked.tokens + how[0], opening), "question and answer")
            answer = AnswerStream(
                self._access, asked.answered(*how), partial(self._keep, asked) if keep else None, asked.logprobs
            )
            self._access.dependents.add(answer)
        return answer if stream else answer.finish()

    def add_turn(self, question: str, answer: str) -> int:
        """Let a question and an answer that was given elsewhere stay in the stream, as `ask` does with ``keep=True``.

        Parameters
        ----------
        question, answer : str

        Returns
        -------
        int
            Tokens of the turn.

        Raises
        ------
        StreamError
            If no frame was pushed yet.
        ConfigError
            If one is empty or can't be encoded, or the budget can't hold the turn. The stream stays as it was.
        """
        checks.text("answer", answer)
        with self._access.whole():
            asked = self._asked(question, "", None)
            asked.close()
            ids = self.lm.prompt.words(answer)
            opening = 1 + len(self.lm.prompt.again())  # of the next video
            self._ingest.reach.check_text(max(asked.tokens + len(ids), opening), "question and answer")
            with self._changing(replace(self._state)) as state:
                keep_turn(self.lm, self._ingest, state, question, "", ids)
        return asked.tokens + len(ids)

    def likelihood(
        self,
        question: str,
        options: Sequence[str],
        *,
        pyramid: Pyramid | None = None,
        retrieve: int | None = None,
        answer_prefix: str = "",
    ) -> tuple[float, ...]:
        """How likely each of some answers is: the mean log-probability of its tokens after the question.

        Parameters
        ----------
        question : str
        options : sequence of str
            The answers' texts.
        pyramid, retrieve, answer_prefix
            As for `ask`.

        Returns
        -------
        tuple of float
            One for each option, in nats a token.
        """
        return self._weighed(question, self._options(options), answer_prefix, pyramid, retrieve)[1]

    def next_logits(
        self, question: str, *, pyramid: Pyramid | None = None, retrieve: int | None = None, answer_prefix: str = ""
    ) -> Tensor:
        """The logits of the answer's first token [vocabulary]. Parameters as for `ask`."""
        with self._access.whole():
            asked = self._asked(question, answer_prefix, pyramid, retrieve)
        with self._access.turn():
            try:
                return asked.prefill()
            finally:
                asked.close()

    def answer_logits(
        self,
        question: str,
        token_ids: Sequence[int],
        *,
        pyramid: Pyramid | None = None,
        retrieve: int | None = None,
        answer_prefix: str = "",
    ) -> Tensor:
        """The logits behind a question and behind each token of a given answer [1 + tokens, vocabulary].

        Parameters
        ----------
        question : str
        token_ids : sequence of int
            The answer, as `Answer.token_ids` has it.
        pyramid, retrieve, answer_prefix
            As for `ask`.

        Raises
        ------
        ConfigError
            As for `ask`; if a number is none of the model's tokens.
        """
        most = self.lm.model.config.get_text_config().vocab_size - 1
        ids = list(checks.several("token_ids", token_ids, partial(checks.whole, least=0, most=most)))
        with self._access.whole():
            asked = self._asked(question, answer_prefix, pyramid, retrieve, [[*ids, 0]])
        with self._access.turn():
            try:
                return asked.forced(asked.prefill(), ids)
            finally:
                asked.close()

    def _options(self, options: Sequence[str]) -> list[list[int]]:
        """Token ids of the answers' texts."""
        options = checks.texts("options", options)
        ids = [self.lm.prompt.words(option) for option in options]
        if not all(ids):
            raise ConfigError(f"the option {options[ids.index([])]!r} has no token in this model; leave it out.")
        return ids

    def _weighed(
        self,
        question: str,
        options: list[list[int]],
        answer_prefix: str = "",
        pyramid: Pyramid | None = None,
        retrieve: int | None = None,
    ) -> tuple[float, tuple[float, ...]]:
        """The time of the last frame that was watched when it was asked, and the likelihood of each option."""
        with self._access.whole():
            asked = self._asked(question, answer_prefix, pyramid, retrieve, options)
        with self._access.turn():
            try:
                assert asked.origin.span is not None
                return asked.origin.span[1], asked.likelihood(asked.prefill(), self._access.give_way)
            finally:
                asked.close()

    def _asked(
        self,
        question: str,
        answer_prefix: str,
        pyramid: Pyramid | None,
        retrieve: int | None = None,
        options: list[list[int]] | None = None,
        decode: str | Decode | None = NEVER,
    ) -> Question:
        checks.text("the question", question)
        checks.text("answer_prefix", answer_prefix, empty=True)
        retrieve = None if retrieve is None else checks.whole("retrieve", retrieve)
        schedule, scorer = asking_by(pyramid, self.loop, self.lm.model)
        archive = self.memory.archive
        looking = checked_for_looking(decode, schedule, self.loop.kinds, archive)
        if retrieve is not None and archive is None:
            raise ConfigError(f"retrieve={retrieve}: this stream has no archive; open it with Memory(archive=BYTES).")
        if self._state.span is None:
            raise StreamError("nothing was watched yet; push at least one frame before asking.")
        how = answer_prefix, schedule, retrieve or 0, options, looking, scorer
        return Question(self.lm, self._ingest, self._state, question, *how)

    def _keep(self, asked: Question, answer: Answer) -> None:
        """The turn goes behind all that was watched by now, which may be more than when the question came."""
        with self._access.whole():
            asked.close()
            with self._changing(replace(self._state)) as state:
                keep_turn(self.lm, self._ingest, state, asked.text, asked.answer_prefix, list(answer.token_ids))
