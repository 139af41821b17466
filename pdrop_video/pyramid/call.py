"""A call of a transformers model inside `pyramid_drop`: its visual rows, the rows that rank, padding and the loss.

Knows what `forward` and `generate` of a vision-language model are given. Refuses to know video and streams.
"""

from __future__ import annotations

import functools
import inspect
import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from ..errors import ConfigError, ModelError
from .acceptance import accept
from .decoder import embeddings_of
from .fitting import fit
from .generating import guarded, refused, signature_of
from .loop import LayerLoop
from .loss import with_loss
from .pruned import CALLED, changed_elsewhere, note, refuse_cropped, running, validity
from .rows import CACHE, begins_anew, dense
from .stack import checkpointed, sharded
from .trace import Trace

_TOKEN_IDS = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")


@dataclass(slots=True)
class _Running:
    """One call of the model, in one thread.

    Attributes
    ----------
    input_ids, labels, mask, kinds : Tensor [batch, tokens] or None
        What it was given; `mask` is that of attention, `kinds` are its `mm_token_type_ids`.
    rows : Tensor [batch, survivors] or None
        The row of the prompt that each row of the logits belongs to, -1 where padding; None if nothing was dropped.
    """

    input_ids: Tensor | None = None
    labels: Tensor | None = None
    mask: Any = None
    kinds: Tensor | None = None
    rows: Tensor | None = None


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
        Of the prefill that ended last.
    replacements : list of (module, str, callable)
        What to put in place of which methods of the model and of its decoder stack.
    """

    def __init__(self, model: PreTrainedModel, loop: LayerLoop, visual: Tensor | None) -> None:
        self.loop, self.trace = loop, Trace()
        self.binds = all(kind.mutual for kind in loop.kinds)
        # what the stack's own forward returns, to which models look for more than hidden states
        self.output = None if sharded(model) else accept(loop.text)
        self.given = visual[None] if visual is not None and visual.ndim == 1 else visual
        ids = (getattr(model.config, name, None) for name in _TOKEN_IDS)
        self.token_ids = [t for t in ids if isinstance(t, int)]
        if self.given is None and not self.token_ids:
            raise ConfigError(
                f"{type(model).__name__} has no image or video token id in its config; pass visual=mask, a boolean "
                "tensor [batch, tokens] that is True for visual rows."
            )
        stack = torch.compiler.disable(self._stack)  # how many rows are left follows from the data
        self.replacements: list[tuple[Any, str, Any]] = [(loop.text, "forward", stack)]
        # a stack that was given by itself, such as a LlamaModel, has nothing around it
        self.replacements.append(
            (model, "forward", self._around(model, stack if model is loop.text else model.forward))
        )
        if hasattr(model, "generate"):  # models without a head have none
            self.replacements.append((model, "generate", guarded(model)))
            self.replacements.append((model, "init_continuous_batching", refused))
        self.threads = threading.local()  # each may be in a call of its own
        self.recording = threading.Lock()
        # what the stack's own forward goes by beside what `_stack` takes; cache_position counts what the cache knows
        self.takes = set(inspect.signature(type(loop.text).forward).parameters) - {"cache_position"}

    # -- around the whole model -------------------------------------------------------------------------------------

    def _around(self, model: PreTrainedModel, forward: Any) -> Any:
        """The model's forward: notes ids and labels, and takes the loss over the surviving rows."""
        signature = signature_of(model, "forward")

        @functools.wraps(forward)  # whoever reads the signature, as `generate` and the Trainer do, sees the model's own
        def around(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            if isinstance(given.arguments.get("logits_to_keep"), Tensor):
                raise ModelError(
                    "logits_to_keep names rows that may have been dropped inside pyramid_drop; give a number, which "
                    "counts from the end, or take rows of the logits by Trace.rows."
                )
            noted = given.arguments
            names = "attention_mask", "mm_token_type_ids"
            call = _Running(noted.get("input_ids"), noted.pop("labels", None), *map(noted.get, names))
            before, self.threads.call = self._call, call
            inside = CALLED.set(True)
            try:
                output = forward(*given.args, **given.kwargs)
            finally:
                self.threads.call = before
                CALLED.reset(inside)
            return output if call.labels is None else with_loss(model, call.labels, call.rows, output, given.kwargs)

        # a frame of its own, so that what the compiler makes of the model's forward ends at the decoder stack
        return torch.compiler.disable(around, recursive=False)

    @property
    def _call(self) -> _Running:
        """Of this thread."""
        return getattr(self.threads, "call", None) or _Running()

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
        per_layer_inputs: Tensor | None = None,
        moe_mm_token_type_ids: Tensor | None = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The stack's forward, with drops where the call holds visual rows."""
        text, kinds = self.loop.text, self.loop.kinds
        cache = past_key_values if cache is None else cache
        hidden: Tensor = embeddings_of(text)(input_ids) if inputs_embeds is None else inputs_embeds
        # what a model has made of the mask that it was given
        if isinstance(attention_mask, dict) or (self.binds and attention_mask is not None and attention_mask.ndim == 4):
            attention_mask = self._call.mask
        self._refuse(attention_mask, kwargs)
        if self.output is None:
            self.output = accept(text)
        if use_cache is None:
            use_cache = text.config.use_cache and not text.training
        if checkpointed(text) and torch.is_grad_enabled():  # training, for which some models make a cache all the same
            use_cache, cache = False, None
        if use_cache and cache is None:
            cache = DynamicCache(config=text.config)
        if kwargs.get("cu_seq_lens_q") is not None or (
            cache is None and attention_mask is None and begins_anew(position_ids)
        ):
            raise ModelError(
                "several samples are packed into one row (position ids begin anew); inside pyramid_drop a row is one "
                "sample: pad them into a batch."
            )
        batch, length = hidden.shape[:2]
        if cache is not None:
            fit(cache, kinds, batch)
        past = 0 if cache is None else cache.get_seq_length()  # rows that went in; layers may hold fewer
        visual = self._visual(batch, length, past, hidden.device)
        wanted = kwargs.get("logits_to_keep") or 0  # of Gemma 4, which leaves it to its stack to compute no others
        with running():
            if cache is not None:
                refuse_cropped(cache, kinds)
            valid, cached_valid = self._padding(attention_mask, cache, past, length)
            rows = self.loop.run(
                self._widened(hidden, input_ids, per_layer_inputs, moe_mm_token_type_ids),
                self._positions(position_ids, past, batch, length, hidden.device),
                visual,
                probe=None if visual is None else self._probe(valid, batch, length, hidden.device),
                valid=valid,
                cache=cache,
                cached_valid=cached_valid,
                deepstack=dense(deepstack_visual_embeds, visual_pos_masks, hidden),
                newest=wanted == 1 and self._call.labels is None,
                since=past,
                group=self._group(batch, length, hidden.device),
            )
            if cached_valid is not None:
                note(cache, kinds, cached_valid, past + length)
        if visual is not None:
            with self.recording:
                self._call.rows = self.trace.record(rows, visual)
        return self.output(last_hidden_state=self.loop.decoder.norm(rows.hidden[:, -wanted:]), **{CACHE: cache})

    def _widened(self, hidden: Tensor, input_ids: Tensor | None, beside: Tensor | None, marks: Tensor | None) -> Tensor:
        """Rows with what layers get of them beside their hidden states, if they get anything."""
        decoder = self.loop.decoder
        if not decoder.extra:
            return decoder.widened(hidden, input_ids, marks)
        if beside is None:
            beside = self.loop.text.get_per_layer_inputs(input_ids, None if input_ids is not None else hidden)
        return torch.cat([hidden, beside.flatten(-2).to(hidden)], dim=-1)

    def _group(self, batch: int, length: int, device: torch.device) -> Tensor | None:
        """Rows that see each other in a model that lets all visual ones of a prompt do so; None where it is another."""
        if not self.binds:
            return None
        kinds = self._call.kinds
        if kinds is None or length == 1:
            return torch.full((batch, length), -1, device=device)
        return torch.where(kinds[:, -length:].to(device) == 1, 0, -1)

    def _refuse(self, attention_mask: Any, kwargs: dict[str, Any]) -> None:
        if isinstance(attention_mask, dict) or (attention_mask is not None and attention_mask.ndim != 2):
            raise ModelError(
                "a prepared attention mask reached the decoder; inside pyramid_drop only a 2-D mask "
                "[batch, tokens] works, since layers hold different rows (leave static caches out)."
            )
        for name in ("output_hidden_states", "output_attentions", "output_router_logits"):
            if kwargs.get(name) or getattr(self.loop.text.config, name, False):
                raise ModelError(
                    f"{name}=True does not work inside pyramid_drop: layers hold different numbers of rows."
                )
        if lost := [name for name in kwargs if name in self.takes and isinstance(kwargs[name], Tensor | list | tuple)]:
            raise ModelError(
                f"{type(self.loop.text).__name__} was given {' and '.join(lost)}, which pyramid_drop knows nothing of "
                "and would leave out; this model is not supported."
            )

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
        ids = self._call.input_ids
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
        if (labels := self._call.labels) is not None:
            answer = labels.to(device) != -100
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
        self, attention_mask: Tensor | None, cache: Any, past: int, length: int
    ) -> tuple[Tensor | None, list[Tensor | None] | None]:
        """Validity of the new rows, and of what each layer of the cache holds."""
        kinds = self.loop.kinds
        known = None if cache is None else validity(cache, kinds)
        if attention_mask is None or (length == 1 and not (past and changed_elsewhere(cache, kinds))):
            return None, known  # a token being decoded is real
        mask = attention_mask.bool()
        if bool(mask.all()):
            return None, known
        if known is not None and past and all(v is None for v in known):
            if mask.shape[1] != past + length:
                raise ConfigError(
                    f"the attention mask has {mask.shape[1]} columns, but the cache holds {past} tokens and {length} "
                    "are new; give one column for each of them."
                )
            # of a cache filled elsewhere; layers that hold fewer rows dropped some here, of a prompt without padding
            known = [self._of_past(mask, cache, i, past) for i in range(len(kinds))]
        return mask[:, -length:], known

    def _of_past(self, mask: Tensor, cache: Any, i: int, past: int) -> Tensor | None:
        """What a mask says of the rows that layer `i` holds, of a cache that was filled outside."""
        kind = self.loop.kinds[i]
        held = cache.get_seq_length(i) if kind.holds else 0
        return mask[:, past - held : past] if held == past or (held and kind.window is not None) else None
