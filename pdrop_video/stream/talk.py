"""A conversation without a video: the model as it is, by the same prompt, memory and decoding as questions of streams.

Knows texts that were said in turns. Refuses to know frames, budgets and what is watched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..common import checks
from ..errors import ConfigError
from ..memory import Memory, lasting
from ..pyramid import LayerLoop, Pyramid
from ..pyramid.acceptance import accept
from .access import StreamAccess
from .answering import AnswerStream
from .asking import Question
from .front import Front
from .ingest import Ingestor
from .shared import SharedModel
from .terms import asking_by, drawing


def talk(
    lm: SharedModel,
    said: Sequence[str],
    max_new_tokens: int,
    system: str | None,
    **how: Any,
) -> AnswerStream:
    """The answer to what was said; see `VideoLM.chat`."""
    drawn = drawing(max_new_tokens, **how)
    said = checks.texts("said", said)
    if len(said) % 2 == 0:
        raise ConfigError(
            f"{len(said)} texts were said; expected an odd number, the user's and answers in turns, the user's last."
        )
    if system is not None:
        checks.text("system", system, empty=True)
    ids = lm.prompt.alone(said, system)
    loop, access = LayerLoop(lm.model.get_decoder(), Pyramid(stages=1)), StreamAccess(lm.turnstile)
    with access.whole(first=True), lasting():
        accept(loop.text, lm.model)
        front = Front(lm.adapter, None, None, None)
        ingest = Ingestor(lm.model, front, loop, Memory(tokens=None), [], [], lm.turnstile, lm.compiled)
        state = ingest.begin()
        state.answered, state.span = (), (0.0, 0.0)  # there is no video to close, and nothing was watched
        schedule, scorer = asking_by(None, loop, lm.model)
        asked = Question(lm, ingest, state, said[-1], "", schedule, scorer=scorer, ids=ids)
        answer = AnswerStream(access, asked.answered(*drawn), None, asked.logprobs)
        access.dependents.add(answer)
    return answer
