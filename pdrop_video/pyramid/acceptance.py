"""Whether a decoder computes what the layer loop takes it to: a few rows through both, once for each decoder.

What enters each layer, the queries, keys, values and weights in its attention, what leaves the last norm and, on
request, the logits must be the model's own. Knows a decoder stack and the attention functions of transformers. Refuses
to know families: what differs is refused with the figure.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from ..common.shadow import shadow
from ..errors import ModelError, PDropError
from .decoder import logits_of, some_rows, stack_of
from .loop import LayerLoop
from .schedule import Pyramid
from .stack import MARKS, refuse_meta
from .tap import Seen, tapped

_ROWS = 8
_ACCEPTED: WeakKeyDictionary[nn.Module, dict[Hashable, type]] = WeakKeyDictionary()
"""By the way in which a decoder was tried: what its own forward returns."""


def accept(text: Any, model: Any = None) -> type[BaseModelOutputWithPast]:
    """Refuse a decoder that the layer loop would compute wrong; leaves no trace on it.

    Parameters
    ----------
    text : nn.Module
        The decoder stack, ``model.get_decoder()``.
    model : PreTrainedModel, optional
        The model around it, if logits will be taken by its output embeddings alone.

    Returns
    -------
    type
        Of what the stack's own forward returns.

    Raises
    ------
    ModelError
        If it differs from the layer loop with nothing dropped, with the figure and the first layer that differs; if
        either can't run it; if its weights are not there.
    """
    known, way = _ACCEPTED.setdefault(text, {}), (getattr(text.config, "_attn_implementation", None), model is not None)
    if way not in known:
        refuse_meta(text if model is None else model)
        with torch.inference_mode(False), torch.no_grad():
            with _refusing(text, "its modules can't be tried apart from it"):
                twin: Any = shadow(text if model is None else model)
            known[way] = _tried(
                twin if model is None else stack_of(twin.get_decoder()), None if model is None else twin
            )
    return known[way]


def _tried(text: Any, model: Any) -> type:
    """A few rows of token embeddings through the decoder's own forward and through the layer loop."""
    loop = LayerLoop(text, Pyramid(stages=1))
    with _refusing(text, "its embeddings can't be read"):
        embeds, ids = some_rows(text, _ROWS)
    # far out, where some families begin to scale; without gaps, which transformers takes for several samples
    start = max(getattr(text.config, "max_position_embeddings", None) or 0, _ROWS) - _ROWS
    positions = torch.arange(start, start + _ROWS, device=embeds.device)[None]
    if loop.axes == 3:  # three different numbers
        positions = torch.stack([positions, start + (positions - start) // 2, start + (positions - start) % 3])
    given: dict[str, Any] = dict(inputs_embeds=embeds, position_ids=positions, use_cache=False)
    marks = torch.arange(_ROWS, device=embeds.device)[None] % 2 if loop.decoder.marked else None
    given |= {} if marks is None else {MARKS: marks}
    own, ours = Seen(), Seen()
    with _refusing(text, "its own forward can't be run on embeddings alone"), tapped(text, own):
        output = text.forward(**given)
        own.end = output.last_hidden_state
    with _refusing(text, "its layers can't be run one by one"):
        rows = loop.run(loop.decoder.widened(embeds, ids, marks), positions, None, passage=ours)
        ours.end = loop.decoder.norm(rows.hidden)
    _compare(text, own, ours)
    if model is not None:
        with _refusing(text, f"{type(model).__name__} can't be run on embeddings alone"):
            logits, made = model.forward(**given).logits, logits_of(model, ours.end)
        what, tolerance = "logits that its output embeddings give", _tolerance([embeds, made, logits])
        _refuse_difference(text, what, logits, made, tolerance)
    return type(output)


# -- what is compared -------------------------------------------------------------------------------------------------


def _compare(text: Any, own: Seen, ours: Seen) -> None:
    if len(own.entered) != len(ours.entered) or own.attention.keys() != ours.attention.keys():
        raise ModelError(
            f"{type(text).__name__} is not supported: of its {len(text.layers)} layers {len(own.entered)} ran, and "
            f"{len(own.attention)} attended; expected every layer once, and {len(ours.attention)} that attend."
        )
    tolerance = _tolerance([*own.entered, *(states for of in own.attention.values() for states in of[:3])])
    names = "queries", "keys", "values"
    for i, (seen, expected) in enumerate(zip(ours.entered, own.entered, strict=True)):
        _refuse_difference(text, f"rows that enter layer {i}", expected, seen, tolerance)
        if i not in own.attention:
            continue
        for name, theirs, made in zip(names, own.attention[i], ours.attention[i], strict=False):
            _refuse_difference(text, f"{name} of layer {i}", theirs, made, tolerance)
        weights, made = own.attention[i][3], ours.attention[i][3]
        _refuse_difference(text, f"attention weights of layer {i}", weights, made, _tolerance([weights.float()]))
    _refuse_difference(text, "rows that leave the last norm", own.end, ours.end, tolerance)


def _tolerance(tensors: list[Tensor]) -> float:
    """Half of the digits of the coarsest type.

    Both sides do the same arithmetic in the same order and mostly agree to the last bit. Where kernels add up in
    another order, an error of one unit in the last place grows from layer to layer; half of the digits is its room.
    """
    return max(torch.finfo(tensor.dtype).eps for tensor in tensors) ** 0.5


def _refuse_difference(text: Any, what: str, own: Tensor, ours: Tensor, tolerance: float) -> None:
    """Unless the two are equal up to rounding; what is not finite must be so in both."""
    if own.shape != ours.shape:
        difference = f"have the shape {list(ours.shape)}, the model's own {list(own.shape)}"
    else:
        expected, seen = (states.detach().to("cpu", torch.float64) for states in (own, ours))
        finite, figure = expected.isfinite(), float("inf")
        if torch.equal(finite, seen.isfinite()):
            expected, seen = expected[finite], seen[finite]
            figure = float((seen - expected).norm() / expected.norm().clamp(min=torch.finfo(torch.float64).tiny))
        if figure <= tolerance:
            return
        difference = (
            f"differ from the model's own by {figure:.2g} of their size, where rounding makes at most {tolerance:.1g}"
        )
    raise ModelError(
        f"{type(text).__name__} is not supported: with nothing dropped, the {what} {difference}. Only decoders that "
        "are built as Llama's, Qwen's or Gemma's, of layers that attend, slide or carry a state, are computed right."
    )


@contextmanager
def _refusing(text: Any, what: str) -> Iterator[None]:
    """Whatever a stranger's code raises is a reason to refuse it."""
    try:
        yield
    except (PDropError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(f"{type(text).__name__} is not supported: {what} ({type(error).__name__}: {said}).") from error
