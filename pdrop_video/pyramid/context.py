"""`pyramid_drop`: PyramidDrop inside a plain transformers model, for as long as a ``with`` block lasts.

Knows how to find visual rows, query rows and labels in a call of the model. Refuses to know video and streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from ..errors import ConfigError, ModelError
from .loop import LayerLoop
from .rows import Rows
from .schedule import Pyramid

_TOKEN_IDS = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")


@dataclass(slots=True)
class Trace:
    """What the last prefill inside `pyramid_drop` kept.

    Attributes
    ----------
    kept : list over stages of list over the batch of Tensor [survivors]
        Survivors of each stage in the original numbering of the sample's visual tokens, ascending.
    scores : list over stages of list over the batch of Tensor [ranked]
        Scores of the tokens that stage ranked (in the order of the previous stage's survivors).
    """

    kept: list[list[Tensor]] = field(default_factory=list)
    scores: list[list[Tensor]] = field(default_factory=list)

    def _record(self, rows: Rows, visual: Tensor) -> None:
        number = visual.long().cumsum(1) - 1  # a row's number among the visual tokens
        self.kept, self.scores = [], []
        for boundary in rows.boundaries:
            kept, scores = [], []
            for sample in range(visual.shape[0]):
                ranked, after = boundary.ranked[sample], boundary.kept[sample]
                competed = (ranked >= 0) & visual[sample][ranked.clamp(min=0)]
                survived = (after >= 0) & visual[sample][after.clamp(min=0)]
                kept.append(number[sample][after[survived]])
                scores.append(boundary.scores[sample][competed])
            self.kept.append(kept)
            self.scores.append(scores)


@contextmanager
def pyramid_drop(
    model: PreTrainedModel, pyramid: Pyramid | None = None, *, visual: Tensor | None = None
) -> Iterator[Trace]:
    """Drop visual tokens stage by stage in every prefill of `model`, one-shot, as PyramidDrop does.

    Works for ``model(...)``, ``model.generate(...)`` and, under ``model.train()`` with labels, for training, where the
    row before each answer's first label ranks. Decoding inside the same block goes on with the pruned cache.

    Parameters
    ----------
    model : PreTrainedModel
        A decoder-only or vision-language model.
    pyramid : Pyramid, optional
        The schedule; ``Pyramid()`` by default.
    visual : Tensor [batch, tokens], bool, optional
        Which rows of the prompt are visual. Found by the model's image and video token ids when left out.

    Yields
    ------
    Trace
        Filled anew by every prefill.

    Raises
    ------
    ConfigError
        If the schedule does not fit the model, or visual rows can't be told from text.
    ModelError
        If the model's decoder stack is not supported.

    Notes
    -----
    The model is restored on exit, also after an exception. Sampling, beams, padded batches and pipelines work. While
    the block is open `output_hidden_states`, `output_attentions`, prepared 4-D masks (static caches) and caches cropped
    to one length are refused, since layers hold different numbers of rows. Leave assisted generation out: its first
    call already holds proposed tokens, and the last of them would rank.

    References
    ----------
    Xing et al., PyramidDrop, arXiv 2410.17247.
    """
    text = model.get_decoder()
    loop = LayerLoop(text, pyramid or Pyramid())
    if loop.scorer.uses_layout:
        raise ConfigError(
            f"{loop.scorer} compares frames, which a prompt does not tell apart; use a scorer that needs no frames, "
            'such as "relevance", or a stream.'
        )
    session = _Session(model, loop, visual)
    before = text.__dict__.get("forward")  # another library may have set the instance's forward: put that one back
    if isinstance(getattr(before, "__self__", None), _Session):
        raise ConfigError("this model is inside a pyramid_drop block already; close that one first.")
    handles = [
        model.register_forward_pre_hook(session.enter, with_kwargs=True),
        model.register_forward_hook(session.leave, with_kwargs=True, always_call=True),
    ]
    text.forward = session.forward
    try:
        yield session.trace
    finally:
        for handle in handles:
            handle.remove()
        if before is None:
            del text.forward
        else:
            text.forward = before


class _Session:
    """The state of one `pyramid_drop` block."""

    def __init__(self, model: PreTrainedModel, loop: LayerLoop, visual: Tensor | None) -> None:
        config = model.config
        self.model, self.loop, self.trace = model, loop, Trace()
        self.given = visual[None] if visual is not None and visual.ndim == 1 else visual
        self.token_ids = [t for name in _TOKEN_IDS if isinstance(t := getattr(config, name, None), int)]
        if self.given is None and not self.token_ids:
            raise ConfigError(
                f"{type(model).__name__} has no image or video token id in its config; pass visual=mask, a boolean "
                "tensor [batch, tokens] that is True for visual rows."
            )
        self.input_ids: Tensor | None = None
        self.labels: Tensor | None = None
        self.survivors: Tensor | None = None
        self.padding: WeakKeyDictionary[Any, list[Tensor | None]] = WeakKeyDictionary()
        self.lengths: WeakKeyDictionary[Any, list[int]] = WeakKeyDictionary()

    # -- around the whole model -------------------------------------------------------------------------------------

    def enter(
        self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Note ids and labels; take the labels out, because the loss belongs to the surviving rows."""
        self.input_ids = kwargs.get("input_ids", args[0] if args else None)
        self.labels, self.survivors = kwargs.get("labels"), None
        return args, {name: value for name, value in kwargs.items() if name != "labels"}

    def leave(self, model: Any, args: Any, kwargs: Any, output: Any) -> Any:
        """Loss over the surviving rows, shifted by transformers' own function."""
        labels, self.labels, self.input_ids = self.labels, None, None
        if labels is None or output is None:
            return output
        if self.survivors is not None:  # padding (-1) never counts
            labels = labels.gather(1, self.survivors.clamp(min=0)).masked_fill(self.survivors < 0, -100)
        vocabulary = model.config.get_text_config().vocab_size
        scale = {name: kwargs[name] for name in ("num_items_in_batch",) if name in kwargs}
        loss = model.loss_function(logits=output.logits, labels=labels, vocab_size=vocabulary, **scale)
        if isinstance(output, tuple):
            return (loss, *output)
        return type(output)(**{**output, "loss": loss})

    # -- in place of the decoder stack's forward --------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        visual_pos_masks: Tensor | None = None,
        deepstack_visual_embeds: list[Tensor] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The stack's forward, with drops where the call holds visual rows."""
        text, cache = self.loop.text, past_key_values
        hidden: Tensor = text.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        self._refuse(attention_mask, kwargs)
        if use_cache is None:
            use_cache = text.config.use_cache and not text.training
        if use_cache and cache is None:
            cache = DynamicCache(config=text.config)
        batch, length = hidden.shape[:2]
        past = 0 if cache is None else self._past(cache)
        visual = self._visual(batch, length, past, hidden.device)
        valid, cached_valid = self._padding(attention_mask, cache, past, batch, length)
        rows = self.loop.run(
            hidden,
            self._positions(position_ids, past, batch, length, hidden.device),
            visual,
            probe=None if visual is None else self._probe(valid, batch, length, hidden.device),
            valid=valid,
            cache=cache,
            cached_valid=cached_valid,
            deepstack=_dense(deepstack_visual_embeds, visual_pos_masks, hidden),
        )
        if cache is not None:
            self.lengths[cache] = [cache.get_seq_length(i) for i in range(len(text.layers))]
        if visual is not None:
            self.trace._record(rows, visual)
            self.survivors = rows.origin if rows.valid is None else rows.origin.masked_fill(~rows.valid, -1)
        return BaseModelOutputWithPast(last_hidden_state=text.norm(rows.hidden), past_key_values=cache)

    def _refuse(self, attention_mask: Any, kwargs: dict[str, Any]) -> None:
        if isinstance(attention_mask, dict) or (attention_mask is not None and attention_mask.ndim != 2):
            raise ModelError(
                "a prepared attention mask reached the decoder; inside pyramid_drop only a 2-D mask "
                "[batch, tokens] works, since layers hold different rows (leave static caches out)."
            )
        for name in ("output_hidden_states", "output_attentions"):
            if kwargs.get(name):
                raise ModelError(
                    f"{name}=True does not work inside pyramid_drop: layers hold different numbers of rows."
                )

    def _past(self, cache: Any) -> int:
        """Rows that the first layer holds; refuses a cache that was cropped to a length that not every layer has."""
        known, now = self.lengths.get(cache), [cache.get_seq_length(i) for i in range(len(self.loop.text.layers))]
        if known is not None and any(now) and len({old - new for old, new in zip(known, now, strict=True)}) > 1:
            raise ModelError(
                "the cache was cropped to one length, as assisted generation and prompt lookup do; inside pyramid_drop "
                "layers hold different rows. Leave assistant models and lookup out."
            )
        return now[0]

    def _visual(self, batch: int, length: int, past: int, device: torch.device) -> Tensor | None:
        """Visual rows [batch, rows] of this call; None where it holds none (decoding, a text-only turn)."""
        if length == 1:
            return None
        if self.given is not None and tuple(self.given.shape) == (batch, length):
            return self.given.to(device=device, dtype=torch.bool)
        if self.given is not None and past == 0:
            raise ConfigError(
                f"visual has shape {tuple(self.given.shape)}, but the prompt has {batch} rows of {length} tokens; "
                "pass a mask of the prompt's own shape, or leave it out."
            )
        ids = self.input_ids
        if ids is None or tuple(ids.shape) != (batch, length):
            if self.given is None and past == 0:
                raise ConfigError(
                    "the prompt came as embeddings, so visual rows can't be found by their ids; pass visual=mask."
                )
            return None
        visual = torch.isin(ids, torch.tensor(self.token_ids, device=ids.device)).to(device)
        return visual if bool(visual.any()) else None

    def _probe(self, valid: Tensor | None, batch: int, length: int, device: torch.device) -> Tensor:
        """Rows that rank [batch, probes]: before each answer's first label, else the last real row."""
        if self.labels is not None:
            answer = self.labels.to(device) != -100
            starts = answer[:, 1:] & ~answer[:, :-1]  # column j is row j, the row before a first label
            most = max(int(starts.sum(1).max()), 1)
            row = torch.arange(length - 1, device=device)
            return torch.where(starts, row, -1).sort(1, descending=True).values[:, :most]
        if valid is None:
            return torch.full((batch, 1), length - 1, device=device)
        return (valid.long() * torch.arange(length, device=device)).argmax(1, keepdim=True)

    def _positions(self, given: Tensor | None, past: int, batch: int, length: int, device: torch.device) -> Tensor:
        if given is None:
            given = torch.arange(past, past + length, device=device)[None]
        if self.loop.axes == 3:  # transformers may put text positions in front of (t, h, w)
            given = given.expand(3, *given.shape) if given.ndim == 2 else given[-3:]
        return given.expand(*given.shape[:-2], batch, length)

    def _padding(
        self, attention_mask: Tensor | None, cache: Any, past: int, batch: int, length: int
    ) -> tuple[Tensor | None, list[Tensor | None] | None]:
        """Validity of the new rows, and of what each layer of the cache holds."""
        layers = len(self.loop.text.layers)
        known = None if cache is None else self.padding.setdefault(cache, [None] * layers)
        if attention_mask is None or length == 1:  # a token being decoded is real
            return None, known
        mask = attention_mask.bool()
        if bool(mask.all()):
            return None, known
        if known is not None and past and all(v is None for v in known):
            known[:] = [mask[:, :past]] * layers
        return mask[:, -length:], known


def _dense(features: list[Tensor] | None, at: Tensor | None, hidden: Tensor) -> list[Tensor] | None:
    """Deepstack features scattered over all rows: one [batch, rows, hidden] for each of the first layers."""
    if features is None or at is None:
        return None
    return [torch.zeros_like(hidden).masked_scatter(at[..., None].to(hidden.device), f.to(hidden)) for f in features]
