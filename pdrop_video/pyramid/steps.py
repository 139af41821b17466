"""The next token of each of several answers, through the layers in one batch. Ours.

A decoding step is one row, which nothing drops, hides from or masks: all that differs between streams is what each
attends to. So the rows are one batch to every module of a layer, and attention, which transformers' layers call through
a function of their choice, is computed for each stream over its own cache.

Knows a decoder and several caches. Refuses to know what they hold, and who waits for what.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from ..common.kinds import LayerKind
from .decoder import logits_of
from .heads import attention_of
from .loop import LayerLoop
from .ropes import Ropes
from .rows import Passage, Rows
from .scorers import Layout

_EACH = "pdrop_video_each"


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One row that goes into the layers, behind what a cache holds.

    Attributes
    ----------
    model : PreTrainedModel
    loop : LayerLoop
        Over its decoder.
    hidden : Tensor [1, 1, width]
        Its embedding.
    positions : Tensor [1, 1] or [3, 1, 1]
    cache : StreamCache
        Grows by it.
    passage : Passage
        That says where layers count it, and does nothing else.
    since : int
        Tokens before it.
    """

    model: Any
    loop: LayerLoop
    hidden: Tensor
    positions: Tensor
    cache: Any
    passage: Passage
    since: int

    @property
    def rows(self) -> Rows:
        """It as the layers' rows."""
        nothing = torch.zeros(1, 1, dtype=torch.long, device=self.hidden.device)
        no = nothing.bool()
        return Rows(self.hidden, self.positions, no, None, nothing, Layout.one_picture(no))

    @property
    def ropes(self) -> Ropes:
        """Cos and sin of it."""
        return Ropes(self.loop.decoder, self.loop.compact, self.rows, self.cache, self.passage)

    def alone(self) -> Tensor:
        """Logits [vocabulary] of the token behind it."""
        given: dict[str, Any] = dict(cache=self.cache, passage=self.passage, since=self.since)
        rows = self.loop.run(self.hidden, self.positions, None, **given)
        return logits_of(self.model, self.loop.decoder.norm(rows.hidden[0]))[0]


def batches(loop: LayerLoop) -> bool:
    """Whether rows of several streams can be one batch to the layers of a loop.

    Not where layers count a window, carry a state, lend keys, compress them or get more of a row than its hidden state,
    nor where attention is not a function that transformers looks up, or accelerate moves weights about.
    """
    decoder = loop.decoder
    plain = all(kind == LayerKind() for kind in loop.kinds) and loop.inner is None
    more = decoder.wider or decoder.latent or decoder.shares or decoder.counts
    more = more or any(decoder.device(i) is not None for i in range(len(loop.kinds)))
    looked_up = "ALL_ATTENTION_FUNCTIONS" in vars(sys.modules[type(attention_of(decoder.layers[0])).__module__])
    return plain and not more and looked_up and loop.text.config._attn_implementation not in (None, "eager")


@torch.no_grad()
def run_steps(steps: Sequence[Step]) -> list[Tensor]:
    """Logits [vocabulary] behind the row of each of some steps of one model; none of their caches is another's.

    If it fails, no cache has grown.
    """
    if len(steps) == 1:
        return [steps[0].alone()]
    before = [step.cache.lengths() for step in steps]
    try:
        return list(_batched(steps))
    except BaseException:
        for step, lengths in zip(steps, before, strict=True):
            step.cache.truncate(lengths)
        raise


def _batched(steps: Sequence[Step]) -> Tensor:
    decoder, hidden = steps[0].loop.decoder, torch.cat([step.hidden for step in steps])
    known = [step.ropes for step in steps]
    stacked: dict[tuple[int, ...], Any] = {}
    with _each(decoder.text.config, [step.cache for step in steps]) as attending:
        for i in range(len(decoder.layers)):
            attending.layer, attending.done = i, False
            ropes = [each.of(i) for each in known]
            key = tuple(map(id, ropes))
            if key not in stacked:
                given = [rope for rope in ropes if rope is not None]
                # their last three dimensions are [batch, rows, head_dim] in every family
                stacked[key] = tuple(torch.cat(part, dim=-3) for part in zip(*given, strict=True)) if given else None
            cache: Any = attending
            hidden, _ = decoder.run(i, hidden, None, stacked[key], cache)
            if not attending.done:
                raise RuntimeError(f"layer {i} attends by itself")
    return logits_of(steps[0].model, decoder.norm(hidden))[:, 0]


class _Attending:
    """Stands where a layer expects its cache, and where it calls its attention function.

    Parameters
    ----------
    caches : list of StreamCache
    how : callable
        The attention function that the layers would have called.
    """

    def __init__(self, caches: list[Any], how: Any) -> None:
        self.caches, self.how = caches, how
        self.layer, self.done = 0, False

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values [streams, kv_heads, 1, head_dim] as they are: each goes to its own cache from `attend`."""
        return keys, values

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, **given: Any) -> Tensor:
        """What the attention function gives each row over its own cache [streams, 1, heads, head_dim]."""
        self.done, rows = True, []
        for number, cache in enumerate(self.caches):
            one = slice(number, number + 1)
            keys, values = cache.update(key[one], value[one], self.layer)
            rows.append(self.how(module, query[one], keys, values, None, **given)[0])
        return torch.cat(rows)


_ATTENDING: ContextVar[_Attending] = ContextVar("attending")


@contextmanager
def attending_by(config: Any, name: str) -> Iterator[None]:
    """Let layers of a configuration call the attention function of that name."""
    plainly = config._attn_implementation
    vars(config)["_attn_implementation_internal"] = name
    try:
        yield
    finally:
        vars(config)["_attn_implementation_internal"] = plainly


@contextmanager
def _each(config: Any, caches: list[Any]) -> Iterator[_Attending]:
    """While layers of a configuration run in this thread, let them attend to each one's own cache."""
    attending = _Attending(caches, AttentionInterface()[config._attn_implementation])
    token = _ATTENDING.set(attending)
    try:
        with attending_by(config, _EACH):
            yield attending
    finally:
        _ATTENDING.reset(token)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **given: Any
) -> tuple[Tensor, None]:
    return _ATTENDING.get().attend(module, query, key, value, **given), None


AttentionInterface.register(_EACH, _attend)
