"""`derive`: an adapter for a checkpoint, made from its own processor, and its text proved before weights are read."""

from __future__ import annotations

import secrets
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoProcessor
from transformers.utils.import_utils import is_torchvision_available

from ...errors import ModelError
from ..arguments import first_line
from ..pixels import Pixels
from ..prompt import Prompt
from .adapter import Derived
from .scribe import Scribe
from .wording import Unwritten, Wording


def derive(source: str, config: Any, hub: dict[str, Any]) -> type[Derived]:
    """The adapter of a checkpoint whose family has no file of its own.

    Parameters
    ----------
    source : str
        A folder, or a name on the hub.
    config : PreTrainedConfig
    hub : dict
        Arguments of ``from_pretrained``.

    Raises
    ------
    ModelError
        If torchvision is missing; if the checkpoint has no processor for video; if the text of a video can't be written
        step by step, with what differs.
    """
    kind = config.model_type
    if not is_torchvision_available():
        raise ModelError(
            f"models of type {kind!r} are watched through transformers' own video processor, which needs torchvision; "
            "install the one that fits your torch (pip install torchvision)."
        )
    try:
        processor: Any = AutoProcessor.from_pretrained(source, trust_remote_code=False, **hub)
    except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as error:
        raise ModelError(
            f"models of type {kind!r} are watched through the checkpoint's own processor, and that of {source!r} can't "
            f"be loaded: {first_line(error)} Expected the processor's files as its save_pretrained writes them."
        ) from error
    missing = [
        name
        for name in ("tokenizer", "video_processor", "replace_video_token", "get_text_with_replacements")
        if getattr(processor, name, None) is None
    ]
    if missing:
        raise ModelError(
            f"models of type {kind!r} are not supported: {type(processor).__name__} has no {' and no '.join(missing)}, "
            "with which a video is written step by step."
        )
    derived = derived_from(processor, kind)
    _prove_text(derived)
    return derived


def derived_from(processor: Any, kind: str) -> type[Derived]:
    """The adapter that a processor makes for models of a type; nothing of it is proved yet."""
    scribe = Scribe(processor)
    written = Wording.of(scribe)
    rate = getattr(scribe.videos, "fps", None)
    return type(
        f"Derived_{kind}",
        (Derived,),
        {
            "__doc__": f"What serves models of type {kind!r}.",
            "model_types": (kind,),
            "scribe": scribe,
            "written": written,
            "frames_per_step": written.frames,
            "video_token": written.visual,
            "placeholder": _placeholder(scribe),
            "opening": written.opening,
            "ending": written.ending,
            "template": scribe.template,
            "fps": float(rate) if isinstance(rate, int | float) and rate > 0 else Derived.fps,
            "keeps_shape": scribe.keeps_shape,
            "shares_limits": scribe.keeps_shape and _shares_limits(scribe, written),
        },
    )


def _shares_limits(scribe: Scribe, written: Wording) -> bool:
    """Whether the limits of pixels are for all frames of a video together: two steps have no more room than one."""
    side = 8 * scribe.factor
    size = {"shortest_edge": 1, "longest_edge": side**2}
    blank = torch.zeros(2 * written.frames, side, side, 3, dtype=torch.uint8)
    one, two = (
        written.tokens(scribe([blank[:frames]], [(0.0,) * frames], size)[1][0])
        for frames in (written.frames, 2 * written.frames)
    )
    return two < 2 * one or (written.frames > 1 and one < 64)


def _placeholder(scribe: Scribe) -> str:
    """What of the template's text the processor replaces with the text of a video."""
    text, mark = scribe.turn(), secrets.token_hex(16)
    try:
        placed = scribe.placed(text, mark)
    except (StopIteration, RuntimeError, KeyError, IndexError, ValueError) as error:
        raise Unwritten(
            f"in the chat template's text it replaces more than the video's place ({type(error).__name__}: {error})"
        ) from error
    before, found, behind = placed.partition(mark)
    if not found or not (text.startswith(before) and text.endswith(behind)) or len(before) + len(behind) >= len(text):
        raise Unwritten(f"in the chat template's text of a video turn, {text[:120]!r}, it finds no place for a video")
    return text[len(before) : len(text) - len(behind)]


def _prove_text(derived: type[Derived]) -> None:
    """Token ids of a turn with a video of four steps, written whole by the processor and step by step."""
    scribe, written = derived.scribe, derived.written
    prompt: Prompt = derived.prompt(scribe.tokenizer)
    adapter = derived(SimpleNamespace(config=None), Pixels(), scribe.tokenizer)
    frames, seconds = scribe.four_steps(written.frames, 2.0)
    want = scribe.whole(scribe.turn(), frames, 2.0, scribe.wide)["input_ids"][0].tolist()
    visual = scribe.tokenizer.convert_tokens_to_ids(written.visual)
    places = (want.count(visual) - written.closing) // 4
    got = prompt.before()
    said = [*adapter.wording(seconds[: written.frames]), *adapter.wording(seconds[written.frames :], 1)]
    for before, behind in said:
        got += [*adapter.ids(before), *[visual] * places, *adapter.ids(behind)]
    got += [visual] * written.closing + prompt.after(scribe.question)
    if got != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), min(len(got), len(want)))
        decode = scribe.tokenizer.decode
        raise Unwritten(
            f"of a video of four steps it writes {decode(want[max(at - 3, 0) : at + 9])!r} where the same steps by "
            f"themselves come to {decode(got[max(at - 3, 0) : at + 9])!r} (token {at} of {len(want)})"
        )
