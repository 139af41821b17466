"""An answer while it is being generated, piece by piece. Knows turns; refuses to know how tokens come about."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NoReturn

from ..errors import StreamError
from .access import StreamAccess
from .answer import Answer, TokenLogprob


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
    logprobs : sequence of TokenLogprob
        Filled as tokens are generated, where that was asked for.

    Attributes
    ----------
    answer : Answer or None
        None until the iteration is through.
    logprobs : sequence of TokenLogprob
        Those of the tokens so far.
    """

    def __init__(
        self,
        access: StreamAccess,
        pieces: Generator[str | Answer, None, None],
        keep: Callable[[Answer], None] | None = None,
        logprobs: Sequence[TokenLogprob] = (),
    ) -> None:
        self._access, self._pieces, self._keep = access, pieces, keep
        self.logprobs = logprobs
        self.answer: Answer | None = None
        self._begun = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while self.answer is None:
            first, self._begun = not self._begun, True
            with self._access.turn(first=first):
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
