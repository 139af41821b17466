"""Decoding of one answer, token by token, with its text, and with its end. Knows logits and a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from .answer import TokenLogprob
from .sampling import Choice, read_later
from .shared import SharedModel


def generate(
    lm: SharedModel,
    logits: Tensor,
    advance: Callable[[Tensor], Tensor | None],
    max_new_tokens: int,
    choose: Choice,
    ahead: bool = False,
) -> Iterator[tuple[int | None, str, Tensor]]:
    """Generate until the model ends its turn, or nothing more can be fed.

    Parameters
    ----------
    lm : SharedModel
        For its tokenizer and end tokens.
    logits : Tensor [vocabulary]
        Of the first token.
    advance : callable
        Feeds a token's id [] and returns the next one's logits; None where there is no room for it.
    max_new_tokens : int
        At most this many tokens.
    choose : callable
        The next token's id [], from its logits.
    ahead : bool
        Whether a token is fed before the host knows which it is: a device that computes while the host goes on then
        never waits for it, and the token that ends the turn is fed for nothing.

    Yields
    ------
    token : int or None
        The token; None, once, where the model ended its turn.
    piece : str
        The text that became final with it; empty while a character is incomplete.
    logits : Tensor [vocabulary]
        That it was chosen from.
    """
    ends = _end_tokens(lm)
    text = DecodeStream(skip_special_tokens=True)
    for step in range(max_new_tokens):
        chosen = choose(logits)
        read, more = read_later(chosen), step + 1 < max_new_tokens
        following = advance(chosen) if ahead and more else None
        token = read()
        if token in ends:
            yield None, "", logits
            return
        yield token, text.step(lm.tokenizer.backend_tokenizer, token) or "", logits
        if not ahead and more:
            following = advance(chosen)
        if following is None:
            return
        logits = following


def likely(token: int, logits: Tensor, top: int) -> TokenLogprob:
    """How likely a token was, and the `top` likeliest ones, by logits [vocabulary] as the model gave them."""
    chances = logits.float().log_softmax(-1)
    best = torch.topk(chances, min(top, len(chances)))
    listed = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return TokenLogprob(token, float(chances[token]), listed)


class Ending:
    """Ends a text before the first of some texts, which may come in pieces: what could become one is held back.

    Parameters
    ----------
    stops : sequence of str

    Attributes
    ----------
    reached : bool
        Whether one of them came.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._held = tuple(stops), ""
        self.reached = False

    def __call__(self, piece: str) -> str:
        """What of all that came so far is the text's for sure, and was not given yet."""
        text = self._held + piece
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.reached, self._held = True, ""
            return text[: min(found)]
        kept = max((self._begun(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def rest(self) -> str:
        """What was held back, where nothing more comes."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _begun(text: str, stop: str) -> int:
        """How many characters at the end of a text begin a stop."""
        return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _end_tokens(lm: SharedModel) -> set[int]:
    ends = lm.model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    return {token for token in (*ends, lm.tokenizer.eos_token_id) if token is not None}
