"""One item being asked about: its questions at their moments, what the model says, and the record at the end.

Knows a task and streams. Refuses to know videos and other items.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

import pdrop_video as pv
from pdrop_video.stream.answer import Evidence

from ..stats.record import Record, Turn
from ..tasks import Ask, Item, Task
from .config import RunConfig
from .kept import moments
from .metered import LastFrames, Metered
from .paraphrases import Paraphrase, reworded
from .steps import stepwise

UNSAID = math.log(sys.float_info.min)
"""Likelihood of an option without text, as a few have in official files: none that a number can say."""


class Talk:
    """An item's dialogue with the model.

    Parameters
    ----------
    item : Item
    task : Task
    config : RunConfig
    seconds : list of float
        Times of the frames watched so far; grows while more is watched.
    record : Record
        What is known beforehand.
    paraphrase : callable, optional
        Puts the item's question in other words wherever it is asked.
    """

    def __init__(
        self,
        item: Item,
        task: Task,
        config: RunConfig,
        seconds: Sequence[float],
        record: Record,
        paraphrase: Paraphrase | None = None,
    ) -> None:
        self.item, self._task, self._config, self._seconds, self._record = item, task, config, seconds, record
        self._paraphrase = paraphrase
        self._dialogue = task.dialogue(item, seconds)
        self._pyramid = config.ask_pyramid_object()
        self._turns: list[Turn] = []
        self._waiting: Ask | None = None
        self._response: str | None = None
        self._asking = {"first_token": 0.0, "generate": 0.0}
        self._asking_flops = 0.0
        self._asking_tower = 0.0
        self._seen: dict[str, Any] = {}
        self._evidence: Evidence | None = None
        self._prefill = 0.0

    def go(self, at: float, stream: Metered | LastFrames) -> float | None:
        """Ask all that is due at a moment; returns the next moment, or None where the item is finished."""
        try:
            ask = self._waiting or next(self._dialogue)
            while ask.at is None or ask.at <= at:
                ask = self._dialogue.send(self._answered(ask, at, stream.at_question()))
        except StopIteration as end:
            self._response = end.value
            return None
        self._waiting = ask
        return ask.at

    def finished(self, decode: float, shared: int, warnings: Sequence[str] = ()) -> Record:
        """The record of a finished item.

        Parameters
        ----------
        decode : float
            Seconds spent on decoding up to here.
        shared : int
            Items in the pass.
        warnings : sequence of str
            What was wrong with the video so far.
        """
        assert self._response is not None
        mark = self._task.mark(self.item, self._response, self._turns)
        return replace(
            self._record,
            **self._seen,
            response=self._response,
            official=mark.official,
            strict=mark.strict,
            official_score=mark.official_score,
            score=mark.score,
            details=dict(mark.details),
            turns=self._turns,
            seconds={"decode": decode, "prefill": self._prefill, **self._asking},
            shared=shared,
            warnings=list(warnings),
        )

    def _answered(self, ask: Ask, at: float, stream: Metered) -> str:
        """Put one question and note what it cost."""
        likely = self._config.answer == "likelihood"
        ask = self._in_other_words(ask)
        with stream.clock.part("model"), stream.thinned() as saved:
            turn, flops = (self._compare if likely else self._generate)(ask, at, stream)
        self._turns.append(turn)
        self._asking_flops += flops - saved()
        self._asking_tower += stream.asking_tower() or 0.0
        self._seen = {
            "at": self._seconds[-1],
            "frames": len(self._seconds),
            "visual_tokens": stream.visual_tokens,
            "kept": stream.kept,
            "cache_bytes": stream.stream.cache_bytes,
            "archive_bytes": stream.stream.status.archive_bytes,
            "flops": stream.flops + self._asking_flops,
            "tower_flops": None if stream.tower is None else stream.tower + self._asking_tower,
            "front_flops": stream.front,
            "moments": moments(stream, self._evidence),
        }
        self._prefill = stream.prefill
        return turn.text

    def _in_other_words(self, ask: Ask) -> Ask:
        if self._paraphrase is None:
            return ask
        if ask.cloze and self._config.answer == "likelihood":
            return replace(ask, cloze=reworded(ask.cloze, self.item.question, self._paraphrase))
        return replace(ask, text=reworded(ask.text, self.item.question, self._paraphrase))

    def _generate(self, ask: Ask, at: float, stream: Metered) -> tuple[Turn, float]:
        longest = self._config.max_new_tokens or ask.max_new_tokens
        answer = stream.stream.ask(
            ask.text,
            longest,
            pyramid=self._pyramid,
            retrieve=self._config.retrieve,
            decode=self._config.decode,
            answer_prefix=ask.answer_prefix,
        )
        self._asking["first_token"] += answer.timings.first_token
        self._asking["generate"] += answer.timings.decode
        self._evidence = answer.evidence[-1]
        rows, tokens = stream.rows(ask.text, ask.answer_prefix), len(answer.token_ids) + answer.finished
        flops = stream.asking_flops(rows, tokens, self._pyramid, self._config.retrieve, looked=answer.looked)
        return Turn(at, answer.text), flops

    def _compare(self, ask: Ask, at: float, stream: Metered) -> tuple[Turn, float]:
        if not ask.choices:
            raise pv.ConfigError(
                f"item {self.item.id} has no options whose likelihoods could be compared; use --answer generate."
            )
        begun = perf_counter()
        question, tokens = ask.cloze or ask.text, 1
        said = tuple(choice for choice in ask.choices if choice.strip())
        spent: dict[str, Any] = {}
        asking: dict[str, Any] = {"pyramid": self._pyramid, "retrieve": self._config.retrieve}
        if ask.says:
            stepped = stepwise(stream.stream, question, ask.says, ask.choices, decode=self._config.decode, **asking)
            likelihoods, tokens = stepped.likelihoods, 1 + stepped.fed
            spent = {"looked": stepped.looked, "seen": stepped.seen}
        else:
            found = iter(stream.stream.likelihood(question, said, **asking) if said else ())
            likelihoods = tuple(next(found) if choice.strip() else UNSAID for choice in ask.choices)
        self._asking["first_token"] += perf_counter() - begun
        text = self._task.choice(self.item, int(np.argmax(likelihoods))) if said else ""
        rows = stream.rows(question)
        flops = stream.asking_flops(rows, tokens, self._pyramid, self._config.retrieve, said, **spent)
        return Turn(at, text, tuple(likelihoods)), flops
