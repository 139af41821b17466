"""`Trainer`: what is trained of one part, and by what it is judged. Knows examples; refuses to know files and steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import VisualChunk
from ..parts import Part
from ..reduce import Reducer
from ..stream.lm import VideoLM
from .examples import Example, Examples, answer_logits, knowing_of, reduced_by
from .lines import Line


class Trainer:
    """How one part is trained; a subclass for each says its loss, and by which methods it is judged.

    Parameters
    ----------
    lm : VideoLM
        Whose model is frozen meanwhile.
    **settings
        The trainer's own, in place of `defaults`.

    Attributes
    ----------
    part : type of Part
    defaults : dict
        Settings of its own, with what they are where nothing was given.
    rate : float
        Learning rate, where none is given.
    steps : int
        Steps, where none are given: some minutes on one core for the built-in model.
    progress : float
        Share of the steps that are done, for losses that change on the way.
    """

    part: ClassVar[type[Part]]
    defaults: ClassVar[Mapping[str, Any]] = {}
    rate: ClassVar[float] = 1e-3
    steps: ClassVar[int] = 600
    progress: float = 0.0

    def __init__(self, lm: VideoLM, **settings: Any) -> None:
        self.lm = lm
        self.settings = {**self.defaults, **settings}

    def begin(self) -> Part:
        """An untrained part; called under the training's seed."""
        part = self.part.of(self.lm.model)
        part.attach(self.lm.model)
        return part

    def prepare(
        self, lines: Sequence[Line], examples: Examples, work: Path, say: Callable[[str], None] = lambda line: None
    ) -> Sequence[Line]:
        """The lines to learn from; labels are made here, once, and kept in `work`, so that what was stopped goes on."""
        return lines

    def loss(self, part: Any, examples: Sequence[Example], draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """What is made smaller, and figures for the progress line.

        Parameters
        ----------
        part : Part
        examples : sequence of Example
            One or more about one video.
        draw : Generator
            For whatever is random in this step.
        """
        raise NotImplementedError

    def reducers(self) -> dict[str, Reducer]:
        """Methods by which the part is judged: "trained", and beside it those of as many tokens without the part."""
        raise NotImplementedError

    def knowing(self) -> tuple[str, ...]:
        """What must be known of the vision tower."""
        return knowing_of(list(self.reducers().values()), self.lm)

    def methods(self, part: Any, example: Example) -> dict[str, VisualChunk]:
        """What each method leaves of an example, and all tokens: what the part is judged by."""
        said = self.reducers().items()
        left = {name: reduced_by(self.lm, example, reducer, {part.name: part}) for name, reducer in said}
        return {"all tokens": example.chunk, **left}

    @torch.no_grad()
    def judged(self, part: Part, examples: Examples, lines: Sequence[Line]) -> dict[str, Any]:
        """Means over held-out lines, for all tokens and each method: the answer's loss, share right, share kept.

        An answer is right where each of its tokens is the most likely one behind those before it, which is what
        greedy decoding would say.
        """
        found: dict[str, list[dict[str, float]]] = {}
        for line in lines:
            example = examples.of(line)
            wanted = torch.tensor(example.answer, device=example.chunk.embeds.device)
            for name, chunk in self.methods(part, example).items():
                (logits,) = answer_logits(self.lm, [example], chunk)
                figures = {
                    "loss": float(F.cross_entropy(logits, wanted)),
                    "right": float((logits.argmax(-1) == wanted).all()),
                    "kept": chunk.visual_tokens / max(example.chunk.visual_tokens, 1),
                }
                found.setdefault(name, []).append(figures)
        return {
            name: {figure: _mean([row[figure] for row in rows]) for figure in rows[0]} for name, rows in found.items()
        }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6)
