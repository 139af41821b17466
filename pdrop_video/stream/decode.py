"""Greedy decoding of one answer, token by token, with its text. Knows logits and a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tokenizers.decoders import DecodeStream
from torch import Tensor

from .shared import SharedModel


def greedy(
    lm: SharedModel, logits: Tensor, advance: Callable[[list[int]], Tensor | None], max_new_tokens: int
) -> Iterator[tuple[int | None, str]]:
    """Generate until the model ends its turn, or nothing more can be fed.

    Parameters
    ----------
    lm : SharedModel
        For its tokenizer and end tokens.
    logits : Tensor [vocabulary]
        Of the first token.
    advance : callable
        Feeds token ids and returns the next token's logits; None where there is no room for them.
    max_new_tokens : int
        At most this many tokens.

    Yields
    ------
    token : int or None
        The token; None, once, where the model ended its turn.
    piece : str
        The text that became final with it; empty while a character is incomplete.
    """
    ends = _end_tokens(lm)
    text = DecodeStream(skip_special_tokens=True)
    for step in range(max_new_tokens):
        token = int(logits.argmax())  # the host must see each token to print it
        if token in ends:
            yield None, ""
            return
        yield token, text.step(lm.tokenizer.backend_tokenizer, token) or ""
        following = advance([token]) if step + 1 < max_new_tokens else None
        if following is None:
            return
        logits = following


def _end_tokens(lm: SharedModel) -> set[int]:
    ends = lm.model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    return {token for token in (*ends, lm.tokenizer.eos_token_id) if token is not None}
