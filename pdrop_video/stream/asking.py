"""One question on a fork of what was watched: prefill, decode, or the likelihood of given answers.

Knows the prompt, the fork and the decoding. Refuses to know how the stream got there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from time import perf_counter
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..errors import ConfigError, StreamError
from ..memory import lasting
from ..pyramid import Pyramid, Schedule
from ..pyramid.allocators import ALLOCATORS, allocator_named
from ..pyramid.scorers import SCORERS, scorer_named
from .answer import Answer, Evidence, Timings
from .decode import greedy
from .ingest import Ingestor
from .passage import AskingPassage, Attended
from .shared import SharedModel
from .state import StreamState
from .turns import question_ids, question_rows
from .turnstile import StreamAccess


def checked_for_asking(pyramid: Pyramid) -> Pyramid:
    """The same pyramid, if it says no more than what a question goes by: where its stages end, and their ratios.

    A question ranks what is remembered by its own attention and knows no frames of a chunk, so that another scorer, an
    allocator or new positions would change nothing.

    Raises
    ------
    ConfigError
        If it asks for one of those, or is no `Pyramid`.
    """
    if not isinstance(pyramid, Pyramid):
        raise ConfigError(f"the pyramid of a question is {pyramid!r}; expected a Pyramid, or None to attend to all.")
    unused = {
        "scorer": pyramid.scorer is not None and scorer_named(pyramid.scorer) != SCORERS["relevance"],
        "allocator": allocator_named(pyramid.allocator) not in (ALLOCATORS["joint"], ALLOCATORS["global"]),
        "positions": pyramid.positions != "original",
        "sound": pyramid.sound is not None,
        "inside": pyramid.inside is not None,
    }
    for name, is_unused in unused.items():
        if is_unused:
            raise ConfigError(
                f"the pyramid of a question has {name}={getattr(pyramid, name)!r}, which asking does not use: what is "
                f"remembered is ranked by the question's attention, and keeps its place. Leave {name} out."
            )
    return pyramid


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
    ) -> None:
        self.lm, self.ingest, self.origin, self.text, self.schedule = lm, ingest, origin, text, schedule
        self.retrieve, self.options = retrieve, options or []
        self.answer_prefix = answer_prefix
        self.ids = question_ids(lm, origin, text, answer_prefix)
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
            passage = AskingPassage(cache, self.schedule, ahead, self.retrieve)
            hidden = ingest.text(state, question_rows(self.lm, ingest, state, self.ids), passage)
            self.evidence = tuple(_evidence(each, state.told_times(each.table.seconds)) for each in passage.attended)
            return ingest.logits(hidden[-1:])[0]

    def decode(self, logits: Tensor, max_new_tokens: int) -> Iterator[str | Answer]:
        """A piece of the answer's text for each token, which may be empty, then the `Answer`.

        An answer that comes to the end of the model's trained range ends there, unless positions can be moved.
        """
        ids: list[int] = []
        pieces: list[str] = []
        first, finished, state = 0.0, False, self.state
        for token, piece in greedy(self.lm, logits, self._advance, max_new_tokens):
            first = first or perf_counter() - self.began
            if token is None:
                finished = True
                break
            ids.append(token)
            pieces.append(piece)
            yield piece
        assert state.span is not None
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
            evidence=self.evidence,
            timings=Timings(state.push_seconds, first, perf_counter() - self.began - first, self.lm.number_type),
        )

    def likelihood(self, logits: Tensor, between: Callable[[], None] = lambda: None) -> tuple[float, ...]:
        """The mean log-probability of each option's tokens, given the first token's logits.

        `between` is called before each option.
        """
        means = []
        for option in self.options:
            between()
            rows = self.forced(logits, option[:-1])
            means.append(rows.float().log_softmax(-1)[range(len(option)), option].mean())
        return tuple(torch.stack(means).tolist())

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

    def _advance(self, ids: list[int]) -> Tensor | None:
        with lasting():
            if not self.ingest.go_on(self.state, len(ids)):
                return None
            return self.ingest.logits(self.ingest.text(self.state, self.lm.adapter.rows(ids))[-1:])[0]


class AnswerStream:
    """Iterate over the pieces of an answer's text while it is being generated; `answer` holds it all afterwards.

    Each token takes a turn of its own at the model, and between two of them nothing is held: the stream watches on, and
    other streams do, however long the reader takes.

    Parameters
    ----------
    access : StreamAccess
        Of the stream that was asked.
    pieces : generator
        Of pieces of text, one a token, then the `Answer`.
    keep : callable, optional
        Gets the answer once it is complete, outside of any turn.

    Attributes
    ----------
    answer : Answer or None
        None until the iteration is through.
    """

    def __init__(
        self,
        access: StreamAccess,
        pieces: Generator[str | Answer, None, None],
        keep: Callable[[Answer], None] | None = None,
    ) -> None:
        self._access, self._pieces, self._keep = access, pieces, keep
        self.answer: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while self.answer is None:
            with self._access.turn():
                piece = next(self._pieces)
                if isinstance(piece, Answer):
                    self._pieces.close()
            if isinstance(piece, Answer):
                keep, self._keep = self._keep, None
                if keep is not None:
                    keep(piece)
                self.answer = piece
            elif piece:
                return piece
        raise StopIteration

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise StreamError(
            "an answer that is being generated can't be copied or pickled; ask the stream again, or a fork of it. The "
            "whole `Answer`, which finish returns, can."
        )

    def finish(self) -> Answer:
        """Generate what is left and return the whole answer.

        Raises
        ------
        StreamError
            If the answer was closed, or failed, before its end; or if its stream was closed.
        """
        for _ in self:
            pass
        if self.answer is None:
            raise StreamError("this answer was closed, or failed, before its end; ask again.")
        return self.answer

    def close(self) -> None:
        """Stop generating and give the room behind the stream's memory back. Forgetting the answer does so too."""
        with self._access.turnstile:
            self.end()

    def end(self) -> None:
        """The same, called within a turn."""
        self._keep = None
        self._pieces.close()


def _evidence(attended: Attended, times: Tensor) -> Evidence:
    """By steps of time, on the host; `times` [tokens] are the table's seconds."""
    table, weight = attended.table, attended.weight
    sums: dict[int, list[Any]] = {}
    columns = (table.step, times, table.visual, weight)
    for step, seconds, visual, share in zip(*(column.tolist() for column in columns), strict=True):
        if visual:
            entry = sums.setdefault(step, [seconds, 0, 0.0])
            entry[1], entry[2] = entry[1] + 1, entry[2] + share
    seconds, tokens, weights = zip(*sums.values(), strict=True) if sums else ((), (), ())
    return Evidence(seconds, tokens, weights)
