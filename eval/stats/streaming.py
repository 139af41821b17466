"""What StreamingEval (arXiv 2603.21493) measures of a system that watches a stream: right, fast, soon, and small.

Knows records and numbers. Refuses to know models and how records came about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pdrop_video.errors import ConfigError

from .record import Record


@dataclass(frozen=True, slots=True)
class Weights:
    """What each part of the score counts; they add up to 1. No weights are published: by default all are equal.

    Attributes
    ----------
    fps, accuracy, ttft, memory : float
    """

    fps: float = 0.25
    accuracy: float = 0.25
    ttft: float = 0.25
    memory: float = 0.25

    def __post_init__(self) -> None:
        parts = (self.fps, self.accuracy, self.ttft, self.memory)
        if any(not 0 <= part <= 1 for part in parts) or abs(sum(parts) - 1) > 1e-6:
            said = ", ".join(f"{part:g}" for part in parts)
            raise ConfigError(f"the weights are {said}; expected four numbers from 0 that add up to 1.")


@dataclass(frozen=True, slots=True)
class Streamed:
    """Figures of a run.

    Attributes
    ----------
    accuracy : float
        Over all questions, by the benchmark's own reading.
    ttft, latency : float
        Seconds from a question to the first token and to the last one, on average.
    max_fps : float
        Frames a second that it can take in, from pixels to what is remembered.
    memory_bytes : int
        Most that was remembered when a question came.
    items : int
    """

    accuracy: float
    ttft: float
    latency: float
    max_fps: float
    memory_bytes: int
    items: int

    @classmethod
    def of(cls, records: Sequence[Record]) -> Streamed:
        """Of records; items that ended in an error count as wrong, and have no times.

        Raises
        ------
        ConfigError
            If nothing was both answered and scored.
        """
        scored = [record for record in records if record.official_score is not None]
        timed = [record for record in scored if record.error is None and record.seconds.get("prefill")]
        if not timed:
            raise ConfigError("no item was answered and scored; expected a finished run on questions with a truth.")
        first = [record.seconds["first_token"] for record in timed]
        return cls(
            accuracy=fmean(record.official_score or 0.0 for record in scored),
            ttft=fmean(first),
            latency=fmean(a + record.seconds["generate"] for a, record in zip(first, timed, strict=True)),
            max_fps=sum(record.frames for record in timed) / sum(record.seconds["prefill"] for record in timed),
            memory_bytes=max(record.cache_bytes for record in timed),
            items=len(scored),
        )

    def score(self, parameters: int, weights: Weights | None = None) -> float:
        """StreamingScore: ``fps^wf acc^wa / (ttft^wt (GB ln(parameters))^wr)``, with accuracy as a fraction.

        Parameters
        ----------
        parameters : int
            Of the model.
        weights : Weights, optional
        """
        w = weights or Weights()
        resource = self.memory_bytes / 1e9 * math.log(parameters)
        return self.max_fps**w.fps * self.accuracy**w.accuracy / (self.ttft**w.ttft * resource**w.memory)


def token_budget(memory_bytes: float, hidden: int, columns: Sequence[tuple[int, int, int]], number: int = 2) -> int:
    """Tokens that a memory of so many bytes may hold: each as its embedding and its keys and values in all layers.

    Parameters
    ----------
    memory_bytes : float
    hidden : int
        Numbers of an embedding.
    columns : sequence of (int, int, int)
        For each layer its heads, and the width of a key and of a value in each.
    number : int
        Bytes of a number.

    Examples
    --------
    >>> token_budget(2**30, 3584, [(4, 128, 128)] * 28)
    16644
    """
    return int(memory_bytes // (number * (hidden + sum(heads * (key + value) for heads, key, value in columns))))
