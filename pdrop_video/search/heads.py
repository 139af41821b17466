"""What each head of the first layer is worth, for HAWK: by switching them off one after another.

Knows streams and the first layer's heads. Refuses to know right answers: no labels are needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..common import checks
from ..common.atomic import replacing
from ..errors import ConfigError
from ..pyramid import LayerLoop, Pyramid
from ..pyramid.heads import attention_of, query_heads
from ..stream.lm import VideoLM
from .judge import Clip, Judge

_ALL = Pyramid(stages=1)


@dataclass(frozen=True, slots=True)
class Heads:
    """What heads are worth.

    Attributes
    ----------
    weights : tuple of float
        Of each head, from 0 of the least, 1 in all.
    divergence : tuple of tuple of float
        Of each head, for each clip: the mean over its questions of KL(all heads || without it), in nats.
    """

    weights: tuple[float, ...]
    divergence: tuple[tuple[float, ...], ...]

    def save(self, path: str | os.PathLike[str], **notes: Any) -> None:
        """Write them to a JSON file that `Hawk` reads, with JSON-ready notes beside them. It appears in one step.

        Raises
        ------
        ConfigError
            If the file can't be written.
        """
        name, said = checks.shown(checks.path("path", path)), {"hawk": {**notes, "layer": 0, **asdict(self)}}
        try:
            with replacing(path) as part:
                Path(part).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{name} can't be written ({error.strerror}); choose a file that can.") from error


def head_weights(base: Sequence[float], ablated: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Weights of heads by how much is lost without each of them: the formula of HAWK (arXiv 2604.07812).

    Of each set the losses of all heads, less the smallest of them, are brought to a sum of 1; a head's weight is the
    mean over sets.

    Parameters
    ----------
    base : sequence of float
        Of each set, a score with all heads.
    ablated : sequence of sequence of float
        Of each head, the same without it.

    Returns
    -------
    tuple of float
        They sum to 1. Ours: a set in which all heads lose the same says that all are worth the same.

    Raises
    ------
    ConfigError
        If the numbers are not as many for each head as there are sets, or there are none.

    Examples
    --------
    >>> [round(weight, 6) for weight in head_weights((80, 60), [(70, 57), (81, 58), (78, 60)])]
    [0.692857, 0.2, 0.107143]
    """
    whole = checks.several("base", base, checks.real)
    rows = checks.several("ablated", ablated, lambda name, row: checks.several(name, row, checks.real))
    if not whole or not rows or any(len(row) != len(whole) for row in rows):
        raise ConfigError(
            f"ablated is {checks.shown(ablated)}; expected for each head {len(whole)} numbers, one for each of base, "
            "and one or more of both."
        )
    weights = [0.0] * len(rows)
    for number, score in enumerate(whole):
        lost = [score - row[number] for row in rows]
        lost = [each - min(lost) for each in lost]
        total = sum(lost)
        for head, each in enumerate(lost):
            weights[head] += (each / total if total else 1 / len(rows)) / len(whole)
    return tuple(weights)


def calibrate(lm: VideoLM, clips: Sequence[Clip], watch: Callable[[int, int], None] = lambda done, of: None) -> Heads:
    """Find weights for `Hawk` without labels: how far each head moves the model's next token.

    Ours: the paper compares accuracies on six benchmarks. Here each clip is a set, and what is lost without a head is
    the mean KL divergence of the next token after each question. A head is switched off in layer 0 alone, whose heads
    the weights belong to: its part of what enters the output projection is 0, in everything that the stream runs.

    Parameters
    ----------
    lm : VideoLM
    clips : sequence of Clip
        Each is watched once for each head, and once more.
    watch : callable
        Is given how many heads are done, and of how many.

    Raises
    ------
    ConfigError
        If there is no clip, or layer 0 has no heads that HAWK could weigh.
    """
    checks.instance("lm", lm, VideoLM, "pdrop_video.load()")
    clips = checks.several("clips", clips, lambda name, clip: checks.instance(name, clip, Clip, "Clip(...)"))
    if not clips:
        raise ConfigError("no clip was given; expected one or more.")
    refusing = Pyramid(layers=(0,), ratios=(1.0,), scorer="hawk")
    layer = LayerLoop(lm.model.get_decoder(), refusing).text.layers[0]
    count = query_heads(attention_of(layer))
    judges = [Judge(lm, [clip]) for clip in clips]
    lost = []
    for head in range(count):
        with without(layer, head):
            lost.append(tuple(judge.divergence(_ALL) for judge in judges))
        watch(head + 1, count)
    return Heads(head_weights([0.0] * len(clips), [[-each for each in row] for row in lost]), tuple(lost))


@contextmanager
def without(layer: Any, head: int) -> Iterator[None]:
    """A decoder layer with one head switched off."""
    attention = attention_of(layer)
    width = attention.o_proj.in_features // query_heads(attention)

    def off(module: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        rows = given[0].clone()
        rows[..., head * width : (head + 1) * width] = 0
        return (rows, *given[1:])

    hook = attention.o_proj.register_forward_pre_hook(off)
    try:
        yield
    finally:
        hook.remove()
