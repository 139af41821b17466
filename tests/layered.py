"""What the layers of an unmodified model make of the rows that a stream let each of them see, all at once.

Each layer is called once, on the rows that reached it in the whole video, in order, with a mask written out here. So
nothing of a stream is in it: no chunks, no cache, no probe, no state that is set aside.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from pdrop_video import VideoLM
from pdrop_video.memory import StreamCache


@dataclass
class Record:
    """What a stream did, piece by piece.

    Attributes
    ----------
    ends : list of int
        Tokens that had come, at the end of each piece.
    came : list of list of Tensor
        By piece and layer, the numbers of the tokens that reached the layer.
    held : list of list of Tensor
        By piece and layer, the numbers of the tokens that it holds then.
    """

    ends: list[int] = field(default_factory=list)
    came: list[list[Tensor]] = field(default_factory=list)
    held: list[list[Tensor]] = field(default_factory=list)


def recorded(monkeypatch: pytest.MonkeyPatch) -> Record:
    """A record that grows with every piece that enters a stream."""
    record, seen = StreamCache.record, Record()

    def recording(cache: StreamCache, new: Any) -> None:
        record(cache, new)
        seen.ends.append(max(int(table.index.max()) for table in new if len(table)) + 1)
        seen.came.append([table.index for table in new])
        seen.held.append([table.index for table in cache.tables])
        assert cache.lengths() == [len(table) for table in cache.tables]

    monkeypatch.setattr(StreamCache, "record", recording)
    return seen


@torch.no_grad()
def entering(lm: VideoLM, inputs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
    """What the unmodified model hands to its decoder for a whole prompt: embeddings, positions, per-layer inputs."""
    seen: dict[str, Any] = {}
    text = lm.model.get_decoder()
    hook = text.register_forward_pre_hook(lambda _, __, given: seen.update(given), with_kwargs=True)
    lm.model(**inputs, use_cache=False)
    hook.remove()
    embeds, positions, beside = seen["inputs_embeds"], seen["position_ids"], seen.get("per_layer_inputs")
    if positions is None:
        positions = torch.arange(embeds.shape[1])[None]
    if beside is not None:
        beside = text.project_per_layer_inputs(embeds, beside)
    return embeds, positions[-3:] if positions.ndim == 3 else positions, beside


@torch.no_grad()
def layered_forward(
    lm: VideoLM,
    inputs: dict[str, Any],
    record: Record,
    prefix: int,
    shown: list[Tensor] | None = None,
    answer: list[list[Tensor]] | None = None,
) -> Tensor:
    """Logits of the last token, or of those of an answer, each layer run on what reached it.

    Parameters
    ----------
    lm : VideoLM
    inputs : dict
        Of a whole prompt.
    record : Record
    prefix : int
        Tokens up to the video.
    shown : list of Tensor, optional
        By layer, what the question attends to; all that is held by default.
    answer : list of list of Tensor, optional
        By token, of the last ones, and layer what they attend to in place of that.
    """
    text, (hidden, positions, beside) = lm.model.get_decoder(), entering(lm, inputs)
    config = lm.model.config.get_text_config()
    visual = inputs["input_ids"][0] == lm.model.config.video_token_id
    frame = (visual & ~visual.roll(1)).cumsum(0).masked_fill(~visual, -1)
    how: dict[str, Any] = dict(frame=frame, beside=beside, shown=shown, answer=answer)
    hidden = layered_stack(text, hidden, positions, record, prefix, **how)
    last = hidden[:, -1:] if answer is None else hidden[:, -len(answer) :]
    logits = lm.model.get_output_embeddings()(text.norm(last))[0] * getattr(config, "output_multiplier", 1)
    logits = logits[0] if answer is None else logits
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else cap * (logits / cap).tanh()


def layered_stack(
    text: Any,
    hidden: Tensor,
    positions: Tensor,
    record: Record,
    prefix: int,
    *,
    frame: Tensor | None = None,
    beside: Tensor | None = None,
    shown: list[Tensor] | None = None,
    answer: list[list[Tensor]] | None = None,
    marks: Tensor | None = None,
    deepstack: list[Tensor] | None = None,
) -> Tensor:
    """Rows [1, tokens, hidden] through a stack's layers, each run on what reached it.

    `frame` [tokens] is the frame of each visual token, -1 of text; `beside` what layers get beside their rows, `marks`
    [1, tokens] what tells them which are visual, `deepstack` [1, tokens, hidden] what is added behind the first ones.
    """
    total, config = hidden.shape[1], text.config
    names = getattr(config, "layer_types", None) or ["full_attention"] * len(text.layers)
    window = getattr(config, "sliding_window", None)
    shown = record.held[-1] if shown is None else shown
    at = torch.arange(total)
    lent: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for i, layer in enumerate(text.layers):
        reached = torch.zeros(total, dtype=torch.bool)
        reached[:prefix] = reached[record.ends[-1] :] = True
        for came in record.came:
            reached[came[i]] = True
        rows = reached.nonzero()[:, 0]
        given: dict[str, Any] = dict(attention_mask=None)
        if names[i] in ("full_attention", "sliding_attention"):
            seen = at <= at[:, None]
            if names[i] == "full_attention":
                held = torch.zeros_like(seen)
                done = prefix
                held[:prefix, :prefix] = True
                for end, holds in zip(record.ends, record.held, strict=True):
                    held[done:end, holds[i]] = True
                    done = end
                held[done:, shown[i]] = True
                for row, sees in enumerate(answer or [], start=total - len(answer or [])):
                    held[row, :done] = False
                    held[row, sees[i]] = True
                held[done:, done:] = True
                seen &= held | torch.eye(total, dtype=torch.bool)
            else:
                if frame is not None and getattr(config, "use_bidirectional_attention", None) == "vision":
                    seen = seen | ((frame[:, None] == frame) & (frame >= 0))
                where = at if positions.ndim == 3 else positions.flatten()  # which a reducer leaves gaps in
                seen &= where > where[:, None] - window
            given["attention_mask"] = seen[rows][:, rows][None, None]
        rates = getattr(config, "layer_rope_theta", None)
        if rates and not rates[i]:
            given["position_embeddings"] = None
        elif hasattr(text, "rotary_emb"):
            angles = (hidden[:, rows], positions[..., rows])
            named = "layer_type" in inspect.signature(text.rotary_emb.forward).parameters
            none = named and names[i] in config.rope_parameters and config.rope_parameters[names[i]] is None
            if none:
                given["position_embeddings"] = None
            elif names[i] in getattr(text.rotary_emb, "layer_types", names):
                given["position_embeddings"] = text.rotary_emb(*angles, *[names[i]] * named)
        shares = getattr(config, "num_kv_shared_layers", 0)
        if shares or "shared_kv_states" in inspect.signature(layer.forward).parameters:
            given["shared_kv_states"] = {}
            if shares and layer.self_attn.is_kv_shared_layer:
                keys, values, of = lent[names[i]]
                given["shared_kv_states"][names[i]] = tuple(s[:, :, torch.isin(of, rows)] for s in (keys, values))
        if beside is not None:
            given["per_layer_input"] = beside[:, rows, i]
        if marks is not None:
            given["moe_mm_token_type_ids"] = marks[:, rows]
        hidden = hidden.index_copy(1, rows, layer(hidden[:, rows], **given))
        if deepstack is not None and i < len(deepstack):
            hidden = hidden.index_add(1, rows, deepstack[i][:, rows])
        if shares and not layer.self_attn.is_kv_shared_layer:
            for name, (keys, values) in given["shared_kv_states"].items():
                lent[name] = keys, values, rows
    return hidden
