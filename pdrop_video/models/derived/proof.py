"""What enters the decoder, in the model's own forward on a whole video and as a derived adapter makes it step by step.

Embeddings and position ids must be the same, and no token may see one behind it; what a decoder gets besides is a
reason to refuse it. Knows adapters and a decoder's arguments. Refuses to know layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...common.hooks import inputs_on
from ...errors import ModelError, PDropError
from ..arguments import first_line
from ..chunk import VisualChunk
from ..positions import LinearPositions, MRopePositions, Place, Positions, StepPositions
from .adapter import Derived

_USUAL = {"input_ids", "inputs_embeds", "attention_mask", "position_ids", "past_key_values", "cache_position"}
_RATE = 0.5
"""Frames a second of the video that is tried: slow, so that positions by seconds are none by steps."""
_USUAL |= {"visual_pos_masks", "deepstack_visual_embeds"}
_MARKS = "moe_mm_token_type_ids"
"""Which tokens are visual, in models that have experts for them."""


@dataclass
class Entered:
    """What a decoder got.

    Attributes
    ----------
    given : dict
        Its arguments.
    ahead : list of int
        Layers in which a token sees one behind it.
    """

    given: dict[str, Any] = field(default_factory=dict)
    ahead: list[int] = field(default_factory=list)


def prove(adapter: Derived) -> None:
    """Hold text, tokens and positions against one forward of the model, and keep the rule that gives its positions.

    Raises
    ------
    ModelError
        With the step that failed, and what differed.
    """
    if inputs_on(adapter.model).type == "meta":
        return  # without weights nothing can be computed, here or later
    pixels, adapter.pixels = adapter.pixels, replace(adapter.pixels, size=adapter.scribe.wide)
    try:
        with torch.inference_mode(False), torch.no_grad():
            entered = _own(adapter)
            chunks = _chunks(adapter)
            _tokens(adapter, entered, chunks)
            _marks(adapter, entered, chunks)
            _mask(adapter, entered)
            adapter.rule = _rule(adapter, entered, chunks)
    finally:
        adapter.pixels = pixels


# -- the model's own --------------------------------------------------------------------------------------------------


def _own(adapter: Derived) -> Entered:
    """What enters the decoder in the model's own forward on what its processor makes of the whole video."""
    scribe, model = adapter.scribe, adapter.model
    frames, _ = scribe.four_steps(adapter.frames_per_step, _RATE)
    inputs = scribe.whole(scribe.turn(), frames, _RATE, scribe.wide)
    wanted = inspect.signature(model.forward).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in wanted.values())
    given = {
        name: _moved(model, value)
        for name, value in inputs.items()
        if isinstance(value, Tensor) and (name in wanted or anything)
    }
    entered = Entered()
    try:
        with _noting(model, entered):
            model(**given, use_cache=False)
    except (PDropError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a stranger's code raises
        if not entered.given:  # else the decoder fails by itself, which the layer loop will say
            raise _refused(
                adapter,
                "tokens",
                f"the model's own forward fails on what its processor makes of a video ({type(error).__name__}: "
                f"{first_line(error)})",
            ) from error
    usual = _USUAL if adapter.marks is None else _USUAL | {_MARKS}
    others = sorted(
        name for name, value in entered.given.items() if name not in usual and isinstance(value, Tensor | list | tuple)
    )
    if others:
        raise _refused(
            adapter,
            "tokens",
            f"beside embeddings and positions its decoder gets {', '.join(others)} where there is a video, which the "
            "layer loop does not hand on",
        )
    return entered


@contextmanager
def _noting(model: Any, entered: Entered) -> Iterator[None]:
    """Note what the decoder gets, and what its layers let tokens see; leaves no trace on the model."""
    decoder = model.get_decoder()
    decoder = decoder if hasattr(decoder, "layers") else getattr(decoder, "model", decoder)  # a model around the stack
    parameters = list(inspect.signature(decoder.forward).parameters)
    counted = [(module, module.rope_deltas) for module in model.modules() if hasattr(module, "rope_deltas")]

    def into_decoder(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.given = {**dict(zip(parameters, args, strict=False)), **kwargs}

    def into_layer(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], number: int) -> None:
        if _sees_ahead(kwargs.get("attention_mask", args[1] if len(args) > 1 else None)):
            entered.ahead.append(number)

    hooks = [decoder.register_forward_pre_hook(into_decoder, with_kwargs=True)]
    for i, layer in enumerate(decoder.layers):
        hooks.append(layer.register_forward_pre_hook(partial(into_layer, number=i), with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, deltas in counted:
            module.rope_deltas = deltas


def _moved(model: Any, value: Tensor) -> Tensor:
    return value.to(inputs_on(model), model.dtype) if value.is_floating_point() else value.to(inputs_on(model))


# -- ours -------------------------------------------------------------------------------------------------------------


def _chunks(adapter: Derived) -> list[list[VisualChunk]]:
    """The four steps in two ways: one chunk, and two of one and three steps."""
    frames, seconds = adapter.scribe.four_steps(adapter.frames_per_step, _RATE)
    step, made = adapter.frames_per_step, []
    for first in (4, 1):
        cut = first * step
        parts = [(frames[:cut], seconds[:cut], 0), (frames[cut:], seconds[cut:], first)]
        made.append([adapter.look(*part) for part in parts if len(part[0])])
    return made


def _tokens(adapter: Derived, entered: Entered, chunks: list[list[VisualChunk]]) -> None:
    """Embeddings of text and video, and deepstack features."""
    own = entered.given.get("inputs_embeds")
    if own is None:
        raise _refused(adapter, "tokens", "its decoder is given no embeddings")
    deep = entered.given.get("deepstack_visual_embeds") or ()
    for way in chunks:
        ours = _entering(adapter, way)[:, : own.shape[-1]]
        _compare(adapter, "the embeddings that enter its decoder", own[0], ours)
        found = [torch.cat([c.deepstack[i][c.visual] for c in way]) for i in range(len(way[0].deepstack))]
        if len(found) != len(deep):
            raise _refused(
                adapter, "tokens", f"features for {len(deep)} of its layers enter its decoder, {len(found)} were made"
            )
        for i, (theirs, made) in enumerate(zip(deep, found, strict=True)):
            _compare(adapter, f"the features for its layer {i}", theirs, made)


def _entering(adapter: Derived, way: list[VisualChunk]) -> Tensor:
    """Rows of the whole prompt as a stream hands them to the decoder."""
    before, after = (adapter.rows(ids) for ids in _around(adapter))
    seen = [chunk.embeds if chunk.ids is None else adapter.beside(chunk.embeds, chunk.ids) for chunk in way]
    return torch.cat([before, *seen, adapter.closing(), after])


def _around(adapter: Derived) -> tuple[list[int], list[int]]:
    """Ids in front of the video and behind it."""
    prompt = adapter.prompt(adapter.scribe.tokenizer)
    return prompt.before(), prompt.after(adapter.scribe.question)


def _compare(adapter: Derived, what: str, own: Tensor, ours: Tensor) -> None:
    """Unless the two are equal up to rounding: half of the digits is its room."""
    own, ours = (states.detach().to("cpu", torch.float64) for states in (own, ours))
    if own.shape != ours.shape:
        raise _refused(adapter, "tokens", f"{what} are {list(own.shape)} in its own forward, {list(ours.shape)} here")
    figure = float((own - ours).norm() / own.norm())
    # some towers compute in float32, whatever they are computed in
    room = max(torch.finfo(adapter.model.dtype).eps, torch.finfo(torch.float32).eps) ** 0.5
    if not figure <= room:
        raise _refused(
            adapter,
            "tokens",
            f"{what}, made step by step, differ from those of its own forward on the whole video by {figure:.2g} of "
            f"their size, where rounding makes at most {room:.1g}",
        )


def _marks(adapter: Derived, entered: Entered, chunks: list[list[VisualChunk]]) -> None:
    """Which tokens the decoder's layers are told to be visual."""
    if adapter.marks is None:
        return
    own = entered.given.get(_MARKS)
    for way in chunks:
        ours = _entering(adapter, way)[:, -1]
        if own is None or not torch.equal(own[0] != 0, ours != 0):
            raise _refused(adapter, "tokens", "its decoder is told that other tokens are visual than its text shows")


def _mask(adapter: Derived, entered: Entered) -> None:
    """Every token sees those in front of it, and no other."""
    if entered.ahead:
        raise _refused(
            adapter,
            "tokens",
            f"in {len(entered.ahead)} of its layers, the first is layer {entered.ahead[0]}, visual tokens attend to "
            "visual tokens behind them, which a stream has not seen yet",
        )


def _sees_ahead(mask: Any) -> bool:
    """Whether a mask [..., tokens, tokens] lets a token see one behind it; what is no such mask does not."""
    if not isinstance(mask, Tensor) or mask.ndim < 3 or mask.shape[-1] != mask.shape[-2]:
        return False
    sees = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return bool(sees.triu(1).any())


# -- positions --------------------------------------------------------------------------------------------------------


def _rule(adapter: Derived, entered: Entered, chunks: list[list[VisualChunk]]) -> Positions:
    """The first of the rules for positions that gives the model's own numbers, however the steps are cut."""
    own = entered.given.get("position_ids")
    total = entered.given["inputs_embeds"].shape[1]
    own = torch.arange(total)[None] if own is None else own.reshape(-1, total).cpu()
    own = own[-3:] if len(own) == 4 else own  # some count text by itself, in front
    before, after = map(len, _around(adapter))
    end = sum(map(len, chunks[0])) + before
    nearest = ""
    for rule in _rules(adapter.model.config, len(own)):
        made = [_placed(adapter, rule, way, before, len(adapter.closing()) + after) for way in chunks]
        if all(torch.equal(ids, own) for ids in made):
            return rule
        # transformers lets the text behind a long video begin inside it; see MRopePositions
        if len(own) == 3 and all(torch.equal(ids[:, :end], own[:, :end]) for ids in made):
            return rule
        nearest = (
            nearest
            or f"{own[:, before:end].tolist()} where {type(rule).__name__} gives {made[0][:, before:end].tolist()}"
        )
    raise _refused(adapter, "positions", f"the ids of the video are {nearest[:400]}")


def _rules(config: Any, axes: int) -> list[Positions]:
    if axes == 1:
        return [LinearPositions()]
    vision = getattr(config, "vision_config", None)
    rates = (getattr(vision, "tokens_per_second", None), 1.0)
    return [StepPositions(), *(MRopePositions(float(rate)) for rate in rates if rate)]


def _placed(adapter: Derived, rule: Positions, chunks: list[VisualChunk], before: int, after: int) -> Tensor:
    """Position ids [axes, tokens] of prompt, video and question by a rule."""
    kept, adapter.rule = adapter.rule, rule
    try:
        ids, place = rule.text(before, Place())
        made = [ids]
        for chunk in chunks:
            ids, place = adapter.place(chunk, place)
            made.append(ids)
        made.append(rule.text(after, place)[0])
    finally:
        adapter.rule = kept
    together = torch.cat(made, -1)
    return together.reshape(-1, together.shape[-1])


def _refused(adapter: Derived, step: str, why: str) -> ModelError:
    return ModelError(
        f"models of type {adapter.model_types[0]!r} are not supported: {why} ({step}). This model type needs an "
        "adapter of its own."
    )
