"""Text around and between the frames of a stream, as rows for the model: questions, told text, turns that were kept.

Knows the prompt and a stream's state. Refuses to know the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .ingest import Ingestor
from .state import StreamState

if TYPE_CHECKING:
    from .lm import VideoLM


def question_rows(lm: VideoLM, state: StreamState, question: str, answer_prefix: str = "") -> Tensor:
    """What is asked after all that was watched, to where the answer begins [rows, hidden].

    What was told since the last frame stands in front of the question. After a kept turn that no frame followed, the
    question is a turn without a video.
    """
    adapter, prompt = lm.adapter, lm.prompt
    text = "\n".join([*state.told, question])
    begun = prompt.words(answer_prefix)
    if state.answered is not None:
        return adapter.embed([*state.answered, *prompt.again(text), *begun])
    return torch.cat([adapter.closing(), adapter.embed([*prompt.after(text), *begun])])


def follow_up(lm: VideoLM, ingest: Ingestor, state: StreamState) -> None:
    """Let what stands in front of the next frame into the memory: the next turn's opening, and what was told."""
    adapter, prompt = lm.adapter, lm.prompt
    if state.answered is not None:
        ingest.remember(state, adapter.embed([*state.answered, *prompt.again()]))
        state.answered = None
    told, state.told = state.told, ()
    for text in told:
        ingest.remember(state, torch.cat([adapter.closing(), adapter.embed(prompt.between(text))]), glue=True)


def keep_turn(lm: VideoLM, ingest: Ingestor, state: StreamState, question: str, prefix: str, answer: list[int]) -> None:
    """Let a question and its answer (token ids) into the memory."""
    ingest.fill_up(state)
    rows = question_rows(lm, state, question, prefix)
    state.told = ()
    ingest.remember(state, torch.cat([rows, lm.adapter.embed(answer[:-1])]))
    state.answered = tuple(answer[-1:])
