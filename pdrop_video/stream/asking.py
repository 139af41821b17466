"""One question on a fork of what was watched: prefill, decode, or the likelihood of given answers.

Knows the prompt, the fork and the decoding. Refuses to know how the stream got there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from ..costs.looking import Looked
from ..errors import ConfigError
from ..memory import lasting
from ..pyramid import Schedule
from ..pyramid.scorers import Asker
from .answer import Again, Answer, Timings, TokenLogprob
from .decode import Ending, generate, likely
from .evidence import again_of, evidence_of
from .ingest import Ingestor
from .looking import Decode, Gaze
from .passage import AnsweringPassage, Asked, AskingPassage
from .sampling import Choice, likeliest
from .shared import SharedModel
from .state import StreamState
from .turns import question_ids, question_rows


class Question:
    """A question being asked; nothing of it reaches the stream.

    Parameters
    ----------
    lm : SharedModel
    ingest : Ingestor
    origin : StreamState
        What was watched; forked, not changed.
    text : str
        The question.
    answer_prefix : str
        Text that the answer is made to begin with.
    schedule : Schedule
        How the question drops what it need not attend to.
    retrieve : int
        How many archived steps of time each layer gets back.
    options : list of list of int
        Token ids of the answers whose likelihood will be asked for.
    looking : Decode, optional
        Which columns the answer's tokens see; by default those that the question saw.
    scorer : Asker, optional
        What ranks by that schedule; by default the attention of the question's last row.
    ids : list of int, optional
        The tokens that say all this; by default those of the family's prompt behind what was watched.

    Raises
    ------
    ConfigError
        If there are not so many positions left as the question has tokens, with the longest of the options.
    """

    def __init__(
        self,
        lm: SharedModel,
        ingest: Ingestor,
        origin: StreamState,
        text: str,
        answer_prefix: str,
        schedule: Schedule,
        retrieve: int = 0,
        options: list[list[int]] | None = None,
        looking: Decode | None = None,
        scorer: Asker | None = None,
        ids: list[int] | None = None,
    ) -> None:
        self.lm, self.ingest, self.origin, self.text, self.schedule = lm, ingest, origin, text, schedule
        self.scorer, self.retrieve, self.options = scorer, retrieve, options or []
        self.answer_prefix, self.looking = answer_prefix, looking
        self.gaze: Gaze | None = None
        self.looked = None if looking is None else Looked()
        self.again: list[tuple[int, Again]] = []
        self.logprobs: list[TokenLogprob] = []
        self.fed = 0
        self.ids = question_ids(lm, origin, text, answer_prefix) if ids is None else ids
        self.tokens = len(self.ids) + (len(ingest.closing_of(origin)) if origin.answered is None else 0)
        ingest.reach.check_question(origin, self.tokens + max((len(option) - 1 for option in self.options), default=0))
        with lasting():
            self.state = origin.fork()
        self.began = perf_counter()
        self._open = True

    def close(self) -> None:
        """Give the room behind the memory back; a second call does nothing."""
        if self._open:
            self._open = False
            self.state.cache.release(self.origin.cache)

    def prefill(self) -> Tensor:
        """Run the question over the memory; returns the first token's logits [vocabulary]."""
        state, ingest = self.state, self.ingest
        with lasting():
            ingest.fill_up(state)
            cache = state.cache
            # measured before the question: what the answer could rest on
            self.cache_tokens, self.cache_bytes = tuple(map(len, cache.tables)), cache.nbytes
            anchors = ingest.loop.anchors
            self.kept = tuple(0 if at is None else int(cache.tables[at].pictured.sum()) for at in anchors)
            cache.widen(ingest.trained)
            ahead = ingest.room_for_text(state, self.tokens)
            reserve = 0
            if self.looking is not None:
                self.gaze, reserve = self.looking(cache), getattr(self.looking, "reserve", 0)
            asks = len(self.ids) - len(self.origin.answered or ())
            asked = None if self.scorer is None else Asked(self.scorer, asks, ingest.loop.decoder)
            passage = AskingPassage(cache, self.schedule, ahead, self.retrieve, self.gaze, reserve, asked, self.looked)
            hidden = ingest.text(state, question_rows(self.lm, ingest, state, self.ids), passage)
            self.evidence = tuple(evidence_of(each, state) for each in passage.attended)
            return ingest.logits(hidden[-1:])[0]

    def decode(
        self,
        logits: Tensor,
        max_new_tokens: int,
        choose: Choice = likeliest,
        stop: Sequence[str] = (),
        top: int | None = None,
    ) -> Iterator[str | Answer]:
        """A piece of the answer's text for each token, which may be empty, then the `Answer`.

        An answer that comes to the end of the model's trained range ends there, unless positions can be moved.

        Parameters
        ----------
        logits : Tensor [vocabulary]
            Of the first token.
        max_new_tokens : int
        choose : callable
            The next token, by default the likeliest.
        stop : sequence of str
            The answer ends before the first of these texts.
        top : int, optional
            Notes how likely each token was, beside so many others.
        """
        ids: list[int] = []
        pieces: list[str] = []
        first, finished, state, ending = 0.0, False, self.state, Ending(stop)
        for token, piece, chosen_from in generate(self.lm, logits, self.advance, max_new_tokens, choose, self.ahead):
            first = first or perf_counter() - self.began
            if token is None:
                finished = True
                break
            ids.append(token)
            if top is not None:
                self.logprobs.append(likely(token, chosen_from, top))
            pieces.append(ending(piece))
            yield pieces[-1]
            if ending.reached:
                finished = True
                break
        pieces.append(ending.rest())
        yield pieces[-1]
        assert state.span is not None
        again = [(stage, replace(look, last=min(look.last, self.fed - 1))) for stage, look in self.again]
        again = [(stage, look) for stage, look in again if look.first <= look.last]  # somebody saw it
        evidence = (replace(e, again=tuple(a for s, a in again if s == i)) for i, e in enumerate(self.evidence))
        yield Answer(
            question=self.text,
            text="".join(pieces).strip(),
            token_ids=tuple(ids),
            finished=finished,
            frames=state.frames,
            seconds=state.span,
            visual_tokens=state.visual_tokens,
            kept=self.kept,
            cache_tokens=self.cache_tokens,
            cache_bytes=self.cache_bytes,
            evidence=tuple(evidence),
            timings=Timings(state.push_seconds, first, perf_counter() - self.began - first, self.lm.number_type),
            logprobs=tuple(self.logprobs),
            question_tokens=self.tokens,
            looked=self.looked,
        )

    def answered(self, max_new_tokens: int, *how: Any) -> Generator[str | Answer, None, None]:
        """The same from the question on, closed at the end; perhaps because nobody holds the answer any more."""
        try:
            yield from self.decode(self.prefill(), max_new_tokens, *how)
        finally:  # in any thread, in the middle of anything
            self.lm.turnstile.later(self.close)

    def likelihood(self, logits: Tensor, between: Callable[[], None] = lambda: None) -> tuple[float, ...]:
        """The mean log-probability of each option's tokens, given the first token's logits.

        `between` is called before each option, or once where all are computed together.
        """

        def mean(option: list[int]) -> Tensor:
            rows = self.forced(logits, option[:-1])
            return rows.float().log_softmax(-1)[range(len(option)), option].mean()

        jobs = [partial(mean, option) for option in self.options]
        return tuple(torch.stack(self.lm.turnstile.together(jobs, between)).tolist())

    def forced(self, logits: Tensor, tokens: list[int]) -> Tensor:
        """The logits [1 + tokens, vocabulary] behind the question and behind each of these tokens; nothing stays.

        `logits` [vocabulary] are those of the first token.
        """
        with lasting():
            fork = self.state.fork()
            rows = logits[None]
            if tokens:
                if not self.ingest.go_on(fork, len(tokens)):
                    raise ConfigError(
                        f"an option of {len(tokens) + 1} tokens finds no positions behind the question in the model's "
                        "trained range; retrieve less, or give shorter ones."
                    )
                rows = torch.cat([rows, self.ingest.logits(self.ingest.text(fork, self.lm.adapter.rows(tokens)))])
            fork.cache.release(self.state.cache)
        return rows

    @property
    def ahead(self) -> bool:
        """Whether tokens are fed before the host knows them: not on a processor, nor where each is looked back at."""
        return self.gaze is None and self.lm.device.type == "cuda"

    def advance(self, token: Tensor) -> Tensor | None:
        """Feed a token's id []; returns the logits [vocabulary] behind it, None where there is no room for it."""
        state, gaze = self.state, self.gaze
        with lasting():
            if not self.ingest.go_on(state, 1):
                return None
            passage = None if gaze is None else AnsweringPassage(state.cache, gaze, self.looked)
            logits = self.ingest.step(state, self.lm.adapter.rows(token[None]), passage)
            self.fed += 1
            if gaze is not None:
                self.again += [(glance.stage, again_of(glance, state)) for glance in gaze.after()]
            return logits
