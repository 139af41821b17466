"""A call of a transformers model inside `pyramid_drop`: its visual rows, the rows that rank, padding and the loss.

Knows what `forward` and `generate` of a vision-language model are given. Refuses to know video and streams.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from ..errors import ConfigError, ModelError
from .loop import LayerLoop
from .rows import CACHE
from .trace import Trace

_TOKEN_IDS = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")
_REFUSED_MODES = {  # what `generate` takes by argument or by its generation config, and why it is refused
    "assistant_model": "assisted generation proposes tokens behind the prompt, and the last of them would rank",
    "assistant_early_exit": "assisted generation proposes tokens behind the prompt, and the last of them would rank",
    "use_mtp": "assisted generation proposes tokens behind the prompt, and the last of them would rank",
    "prompt_lookup_num_tokens": "prompt lookup proposes tokens behind the prompt, and the last of them would rank",
    "prefill_chunk_size": "a prompt in chunks would be ranked by the last row of each chunk",
}


class Call:
    """What stands in place of a model's own functions in one `pyramid_drop` block.

    Parameters
    ----------
    model : PreTrainedModel
    loop : LayerLoop
        Its layers and the schedule.
    visual : Tensor [batch, tokens] or [tokens], bool, optional
        Visual rows of the prompt, where the model's token ids do not tell.

    Attributes
    ----------
    trace : Trace
        Of the last prefill.
    replacements : list of (module, str, callable)
        What to put in place of which methods of the model and of its decoder stack.
    """

    def __init__(self, model: PreTrainedModel, loop: LayerLoop, visual: Tensor | None) -> None:
        self.loop, self.trace = loop, Trace()
        self.given = visual[None] if visual is not None and visual.ndim == 1 else visual
        ids = (getattr(model.config, name, None) for name in _TOKEN_IDS)
        self.token_ids = [t for t in ids if isinstance(t, int)]
        if self.given is None and not self.token_ids:
            raise ConfigError(
                f"{type(model).__name__} has no image or video token id in its config; pass visual=mask, a boolean "
                "tensor [batch, tokens] that is True for visual rows."
            )
        self.replacements: list[tuple[Any, str, Any]] = [
            (loop.text, "forward", torch.compiler.disable(self._stack)),  # how many rows are left follows from the data
            (model, "forward", self._around(model)),
        ]
        if hasattr(model, "generate"):  # models without a head have none
            self.replacements.append((model, "generate", self._guarded(model)))
            self.replacements.append((model, "init_continuous_batching", _refused))
        self.input_ids: Tensor | None = None
        self.labels: Tensor | None = None
        self.pruned = False  # whether the running call dropped rows, so that its logits are fewer than its labels
        self.padding: WeakKeyDictionary[Any, list[Tensor | None]] = WeakKeyDictionary()
        self.lengths: WeakKeyDictionary[Any, list[int]] = WeakKeyDictionary()

    # -- around the whole model -------------------------------------------------------------------------------------

    def _around(self, model: PreTrainedModel) -> Any:
        """The model's forward: notes ids and labels, and takes the loss over the surviving rows."""
        forward, signature = model.forward, _signature(model, "forward")

        @functools.wraps(forward)  # whoever reads the signature, as `generate` and the Trainer do, sees the model's own
        def around(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            if isinstance(given.arguments.get("logits_to_keep"), Tensor):
                raise ModelError(
                    "logits_to_keep names rows that may have been dropped inside pyramid_drop; give a number, which "
                    "counts from the end, or take rows of the logits by Trace.rows."
                )
            self.input_ids, self.labels = given.arguments.get("input_ids"), given.arguments.pop("labels", None)
            self.pruned = False
            try:
                output = forward(*given.args, **given.kwargs)
                return output if self.labels is None else self._with_loss(model, output, given.kwargs)
            finally:
                self.input_ids = self.labels = None

        # a frame of its own, so that what the compiler makes of the model's forward ends at the decoder stack
        return torch.compiler.disable(around, recursive=False)

    def _with_loss(self, model: PreTrainedModel, output: Any, kwargs: dict[str, Any]) -> Any:
        """The output with the loss that transformers' own, shifting function makes of the surviving rows."""
        labels, logits = self.labels, output[0]
        assert labels is not None
        if self.pruned:  # padding (-1) never counts
            rows = self.trace.rows
            assert rows is not None
            labels = labels.to(rows.device).gather(1, rows.clamp(min=0)).masked_fill(rows < 0, -100)
        scale = {name: kwargs[name] for name in ("num_items_in_batch",) if name in kwargs}
        loss = model.loss_function(
            logits=logits, labels=labels, vocab_size=model.config.get_text_config().vocab_size, **scale
        )
        return (loss, *output) if isinstance(output, tuple) else type(output)(**{**output, "loss": loss})

    def _guarded(self, model: PreTrainedModel) -> Any:
        """The model's generate, with the modes refused that would let another row than the prompt's last one rank."""
        generate: Any = model.generate
        signature = _signature(model, "generate")

        @functools.wraps(generate)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            given |= given.pop("kwargs", {})
            config = given.get("generation_config") or model.generation_config
            for name, why in _REFUSED_MODES.items():
                if given.get(name, getattr(config, name, None)):
                    raise ModelError(f"{name} does not work inside pyramid_drop: {why}; leave it out.")
            if given.get("use_cache", config.use_cache) is False:
                raise ModelError(
                    "use_cache=False does not work inside pyramid_drop: every new token would rank the prompt anew; "
                    "leave it out."
                )
            return generate(*args, **kwargs)

        return guarded

    # -- in place of the decoder stack's forward --------------------------------------------------------------------

    def _stack(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,  # what transformers calls `cache` from 5.24 on
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        visual_pos_masks: Tensor | None = None,
        deepstack_visual_embeds: list[Tensor] | None = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The stack's forward, with drops where the call holds visual rows."""
        text = self.loop.text
        cache = past_key_values if cache is None else cache
        hidden: Tensor = text.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        self._refuse(attention_mask, cache, kwargs)
        if use_cache is None:
            use_cache = text.config.use_cache and not text.training
        if use_cache and cache is None:
            cache = DynamicCache(config=text.config)
        if kwargs.get("cu_seq_lens_q") is not None or (
            cache is None and attention_mask is None and _begins_anew(position_ids)
        ):
            raise ModelError(
                "several samples are packed into one row (position ids begin anew); inside pyramid_drop a row is one "
                "sample: pad them into a batch."
            )
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
            self.trace.record(rows, visual)
            self.pruned = True
        return BaseModelOutputWithPast(last_hidden_state=text.norm(rows.hidden), **{CACHE: cache})

    def _refuse(self, attention_mask: Any, cache: Any, kwargs: dict[str, Any]) -> None:
        if getattr(cache, "is_compileable", False):
            raise ModelError("static caches do not work inside pyramid_drop: layers hold different numbers of rows.")
        if isinstance(attention_mask, dict) or (attention_mask is not None and attention_mask.ndim != 2):
            raise ModelError(
                "a prepared attention mask reached the decoder; inside pyramid_drop only a 2-D mask "
                "[batch, tokens] works, since layers hold different rows (leave static caches out)."
            )
        for name in ("output_hidden_states", "output_attentions"):
            if kwargs.get(name) or getattr(self.loop.text.config, name, False):
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
        if self.given is not None and self.given.shape[1] == length and batch % len(self.given) == 0:
            given = self.given.to(device=device, dtype=torch.bool)
            return given.repeat_interleave(batch // len(given), 0)  # beams: `generate` repeats each prompt in place
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
            # of a cache filled elsewhere; layers that hold fewer rows dropped some here, of a prompt without padding
            known[:] = [mask[:, :past] if cache.get_seq_length(i) == past else None for i in range(layers)]
        return mask[:, -length:], known


def _refused(*args: Any, **kwargs: Any) -> Any:
    raise ModelError("continuous batching does not work inside pyramid_drop: its pages hold all rows of every layer.")


def _begins_anew(position_ids: Tensor | None) -> bool:
    """Whether transformers would take a row for several samples, by its text positions."""
    if position_ids is None or (position_ids.ndim == 3 and len(position_ids) != 4):
        return False
    text = position_ids if position_ids.ndim == 2 else position_ids[0]
    return bool((text.diff(dim=-1) != 1).any())


def _signature(model: PreTrainedModel, method: str) -> inspect.Signature:
    """What the model's class says a method takes; another library's function on the instance may not say it."""
    return inspect.signature(getattr(type(model), method).__get__(model))


def _dense(features: list[Tensor] | None, at: Tensor | None, hidden: Tensor) -> list[Tensor] | None:
    """Deepstack features scattered over all rows: one [batch, rows, hidden] for each of the first layers."""
    if features is None or at is None:
        return None
    return [torch.zeros_like(hidden).masked_scatter(at[..., None].to(hidden.device), f.to(hidden)) for f in features]
