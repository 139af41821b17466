"""A decoding step as one compiled function: no Python between two layers. Ours.

A compiled function wants shapes that stay. Storage of a bounded memory has them: each layer's holds a fixed number of
columns, into which the step writes its keys and values, and of which attention sees as many as are held. So one
function serves all tokens of an answer, all answers of a stream and all streams of a model; where storage has another
size, that is a number that it is given.

Knows a decoder, and storages of a cache. Refuses to know what is remembered, and what a token says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from ..errors import ModelError
from .decoder import logits_of
from .heads import Rope
from .loop import LayerLoop
from .schedule import Pyramid
from .steps import Step, attending_by, batches

_FIXED = "pdrop_video_fixed"
Room = tuple[Tensor, Tensor]
"""Storage of keys and of values [1, kv_heads, capacity, head_dim]."""


class CompiledStep:
    """Computes steps of one model by a compiled function.

    Parameters
    ----------
    model : PreTrainedModel

    Raises
    ------
    ModelError
        If the model's layers do more than attend to what is held; if the function can't be compiled here.
    """

    def __init__(self, model: Any) -> None:
        loop = LayerLoop(model.get_decoder(), Pyramid(stages=1))
        self.model, self.decoder = model, loop.decoder
        names = {self.decoder.rope_name(i) for i in range(len(loop.kinds))}
        if not batches(loop) or len(names) != 1:
            raise ModelError(
                f"decoding steps of {model.config.model_type!r} can't be compiled: that takes layers of one kind that "
                'attend to all that is held, and attn="sdpa"; load it without compile=True.'
            )
        self._graphs = model.device.type == "cuda"
        self._compiled = torch.compile(self._step, fullgraph=True, mode="reduce-overhead" if self._graphs else None)
        self._try()

    def __call__(self, step: Step) -> Tensor | None:
        """Logits [vocabulary] behind a row, which its cache then holds; None where it must go another way.

        That is so if the cache stores columns in another form than they come in, or its layers count in their own way.
        """
        loop, cache = step.loop, step.cache
        if loop.inner is not None or loop.compact:
            return None
        places = [layer.next_column() for layer in cache.layers]
        if None in places:
            return None
        where = [step.passage.where(i) for i in range(len(places))]
        first = {shift: i for i, shift in reversed(list(enumerate(where)))}
        groups = list(first)
        # not in the compiled function, whose sines are others in their last bits
        known = step.ropes
        ropes = [known.of(i) for i in first.values()]
        logits = self._run(step.hidden, ropes, [groups.index(shift) for shift in where], places)
        for layer in cache.layers:
            layer.took_column()
        return logits

    def _run(self, hidden: Tensor, ropes: list[Rope | None], group: list[int], places: list[Any]) -> Tensor:
        rooms = [(keys, values) for keys, values, _ in places]
        for room in rooms:
            for part in room:
                torch._dynamo.maybe_mark_dynamic(part, 2)
                if self._graphs:  # it is there for as long as the stream is
                    torch._dynamo.mark_static_address(part)
        at = torch.tensor([[number] for *_, number in places]).to(hidden.device, non_blocking=True)
        with torch.inference_mode(False), torch.no_grad(), attending_by(self.decoder.text.config, _FIXED):
            logits: Tensor = self._compiled(hidden, ropes, group, rooms, at)
        return logits.clone() if self._graphs else logits  # a graph writes the next ones to the same place

    def _step(
        self, hidden: Tensor, ropes: list[Rope | None], group: list[int], rooms: list[Room], at: Tensor
    ) -> Tensor:
        held = _Held(rooms, at)
        for i in range(len(self.decoder.layers)):
            keys = rooms[i][0]
            mask = torch.arange(keys.shape[2], device=keys.device) <= at[i]
            cache: Any = held
            hidden, _ = self.decoder.run(i, hidden, mask, ropes[group[i]], cache)
        return logits_of(self.model, self.decoder.norm(hidden))[0, 0]

    def _try(self) -> None:
        """Compile it, for storages of any size."""
        config, device, dtype = self.model.config.get_text_config(), self.model.device, self.model.dtype
        heads = config.num_key_value_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        hidden = torch.zeros(1, 1, self.decoder.width, dtype=dtype, device=device)
        start = torch.zeros((3, 1, 1) if self.decoder.axes == 3 else (1, 1), dtype=torch.long, device=device)
        try:
            for size in (48, 80):
                rooms = [
                    [torch.zeros(1, heads, size + i, width, dtype=dtype, device=device) for _ in range(2)] + [8]
                    for i in range(len(self.decoder.layers))
                ]
                self._run(hidden, [self.decoder.rope(0, hidden, start)], [0] * len(rooms), rooms)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(
                f"a decoding step of {self.model.config.model_type!r} can't be compiled here ({reason}); load it "
                "without compile=True."
            ) from error


class _Held:
    """Storages of all layers, in the place of a cache: keys and values are written where they stand.

    Parameters
    ----------
    rooms : sequence of Room
    at : Tensor [layers, 1]
        At which column.
    """

    def __init__(self, rooms: Sequence[Room], at: Tensor) -> None:
        self.rooms, self.at = rooms, at

    def update(self, keys: Tensor, values: Tensor, layer: int, *args: Any, **kwargs: Any) -> Room:
        """Write, and give the whole storage."""
        for held, new in zip(self.rooms[layer], (keys, values), strict=True):
            held.index_copy_(2, self.at[layer], new)
        return self.rooms[layer]


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **more: Any
) -> tuple[Tensor, None]:
    """One row's attention to the columns that a mask [columns] lets it see; heads of a group share keys."""
    groups = query.unflatten(1, (key.shape[1], -1)).squeeze(3)  # [1, kv_heads, heads of each, head_dim]
    scores = (groups @ key.transpose(2, 3)).to(torch.promote_types(query.dtype, torch.float32)) * scaling
    assert attention_mask is not None
    weights = scores.masked_fill(~attention_mask, -torch.inf).softmax(-1).to(value.dtype)
    return (weights @ value).flatten(1, 2)[:, None], None


AttentionInterface.register(_FIXED, _attend)
