"""A question whose last words stand for an answer, and what each layer let each of them see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import pdrop_video as pv
from pdrop_video.stream.looking import Glance, decode_named
from pdrop_video.stream.passage import AnsweringPassage, AskingPassage
from pdrop_video.stream.turns import question_ids, question_rows

QUESTION = "what is shown first , and what comes after it , and then what is shown ?"


@dataclass
class Said:
    """What came of it.

    Attributes
    ----------
    logits : Tensor [1 + tokens, vocabulary]
        Of the question's last row, and of each token.
    asked : list of Tensor
        By layer, the numbers of the remembered tokens that the question saw.
    seen : list of list of Tensor
        The same for each token.
    glances : list of Glance
    """

    logits: Tensor
    asked: list[Tensor]
    seen: list[list[Tensor]]
    glances: list[Glance] = field(default_factory=list)


@torch.no_grad()
def said(stream: pv.VideoStream, tokens: int, pyramid: pv.Pyramid | None, decode: Any, **retrieve: Any) -> Said:
    """The last `tokens` rows of the question one by one, as an answer's would go; `decode` None only hides."""
    lm, ingest, state = stream.lm, stream._ingest, stream._state
    asking = stream._asked(QUESTION, "", pyramid, **retrieve)
    rows, fork = question_rows(lm, ingest, state, question_ids(lm, state, QUESTION)), asking.state
    method = None if decode is None else decode_named(decode)
    gaze = None if method is None else method(fork.cache)
    ahead = ingest.room_for_text(fork, len(rows))
    reserve = 0 if method is None else method.reserve
    passage = AskingPassage(fork.cache, asking.schedule, ahead, asking.retrieve, gaze, reserve)

    def shown() -> list[Tensor]:
        layers = [getattr(layer, "shown", None) for layer in fork.cache.layers]
        every = zip(fork.cache.tables, layers, strict=True)
        return [table.index if columns is None else table.index[columns] for table, columns in every]

    hidden = [ingest.text(fork, rows[:-tokens], passage)[-1:]]
    found = Said(hidden[0], shown(), [])
    for i in range(len(rows) - tokens, len(rows)):
        hidden.append(ingest.text(fork, rows[i : i + 1], None if gaze is None else AnsweringPassage(fork.cache, gaze)))
        found.seen.append(shown())
        found.glances += [] if gaze is None else gaze.after()
    found.logits = ingest.logits(torch.cat(hidden))
    asking.close()
    return found
