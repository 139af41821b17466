"""Text around and between the frames of a stream, as rows for the model: questions, told text, turns that were kept.

Knows the prompt and a stream's state. Refuses to know the cache.
"""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from ..common import checks
from ..errors import ConfigError
from .ingest import Ingestor
from .shared import SharedModel
from .state import StreamState


def question_ids(lm: SharedModel, state: StreamState, question: str, answer_prefix: str = "") -> list[int]:
    """What is asked after all that was watched, to where the answer begins, but for what closes the video.

    What was noted and told since the last frame stands in front of the question. After a kept turn that no frame
    followed, the question is a turn without a video.
    """
    prompt, text = lm.prompt, "\n".join([*state.noted, *state.told, question])
    asked = prompt.after(text) if state.answered is None else [*state.answered, *prompt.again(text)]
    return asked + (prompt.words(answer_prefix) if answer_prefix else [])


def question_rows(lm: SharedModel, ingest: Ingestor, state: StreamState, ids: list[int]) -> Tensor:
    """The rows of a question's ids, with what closes the video [rows, hidden]."""
    rows = lm.adapter.rows(ids)
    return rows if state.answered is not None else torch.cat([ingest.closing_of(state), rows])


def check_told(lm: SharedModel, ingest: Ingestor, told: tuple[str, ...]) -> None:
    """Whether the memory can hold all that was told since the last frame.

    Raises
    ------
    ConfigError
        If it can't.
    """
    closing = len(lm.adapter.closing())
    ingest.reach.check_text(
        sum(closing + len(lm.prompt.between(text)) for text in told), "text told since the last frame"
    )


def told_still(
    lm: SharedModel, ingest: Ingestor, told: tuple[str, ...], before: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """What a saved stream was told, without what no push could take in; earlier versions were told it all the same.

    It finds room beside what goes in `before` it.
    """
    good: tuple[str, ...] = ()
    for text in told:
        try:
            check_told(lm, ingest, (*before, *good, checks.text("text", text)))
        except ConfigError as error:
            warnings.warn(f"left out of what the stream was told before it was saved: {error}", stacklevel=4)
        else:
            good = (*good, text)
    return good


def follow_up(lm: SharedModel, ingest: Ingestor, state: StreamState) -> None:
    """Let what stands in front of the next frame into the memory: the next turn's opening, notes, what was told.

    A note is a step of its own, which lasts as kept turns do; what was told belongs to the frame that follows.
    """
    adapter, prompt = lm.adapter, lm.prompt
    if state.answered is not None:
        ingest.remember(state, adapter.rows([*state.answered, *prompt.again()]))
        state.answered = None
    noted, told = state.noted, state.told
    state.noted = state.told = ()
    for i, text in enumerate((*noted, *told)):
        role: Literal["note", "glue"] = "note" if i < len(noted) else "glue"
        ingest.remember(state, torch.cat([adapter.closing(), adapter.rows(prompt.between(text))]), role)


def keep_turn(
    lm: SharedModel, ingest: Ingestor, state: StreamState, question: str, prefix: str, answer: list[int]
) -> None:
    """Let a question and its answer (token ids) into the memory."""
    ingest.fill_up(state)
    rows = question_rows(lm, ingest, state, question_ids(lm, state, question, prefix))
    state.noted, state.told, state.heard = (), (), None
    ingest.remember(state, torch.cat([rows, lm.adapter.rows(answer[:-1])]))
    state.answered = tuple(answer[-1:])
