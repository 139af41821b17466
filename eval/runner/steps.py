"""An answer that is written for the model as far as its last step: what it attends to moves while it decodes.

Knows streams and what is said. Refuses to know items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

import pdrop_video as pv
from pdrop_video.costs.looking import Looked


class Stepped(NamedTuple):
    """What came of it.

    Attributes
    ----------
    likelihoods : tuple of float
        Of the options, in nats a token.
    fed : int
        Tokens of the answer.
    looked : Looked or None
        What they saw and scored, where they looked again.
    seen : tuple of int
        Columns that each layer showed the options.
    """

    likelihoods: tuple[float, ...]
    fed: int
    looked: Looked | None
    seen: tuple[int, ...]


def stepwise(
    stream: pv.VideoStream,
    question: str,
    says: Sequence[str],
    options: Sequence[str],
    *,
    pyramid: pv.Pyramid | None = None,
    retrieve: int | None = None,
    decode: str | None = None,
) -> Stepped:
    """The options' likelihoods behind an answer of two steps, which is fed as decoded, token by token.

    Parameters
    ----------
    stream : VideoStream
        Stays as it is.
    question : str
        What is asked first. A question's pyramid keeps what matters to it.
    says : (str, str)
        The answer to it, and what is asked behind that, as the model's template writes a next turn.
    options : sequence of str
        Answers to the second.
    pyramid, retrieve, decode
        As `VideoStream.ask` takes them; what `decode` shows again is also seen by the options.

    Returns
    -------
    Stepped
    """
    prompt = stream.lm.prompt
    said, then = says
    tokens = [*prompt.words(said), *prompt.again(then)]
    words = [prompt.words(option) for option in options]
    with stream._access.whole():
        asked = stream._asked(question, "", pyramid, retrieve, words, decode)
    with stream._access.turn():
        try:
            logits = asked.prefill()
            for token in torch.tensor(tokens):
                following = asked.advance(token)
                if following is None:
                    raise pv.ConfigError(f"an answer of {len(tokens)} tokens finds no positions; remember less.")
                logits = following
            seen = tuple(layer.get_seq_length() for layer in asked.state.cache.layers)
            return Stepped(asked.likelihood(logits), len(tokens), asked.looked, seen)
        finally:
            asked.close()
