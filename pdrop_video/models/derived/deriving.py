"""`derive`: an adapter for a checkpoint, made from its own processor, and its text proved before weights are read."""

from __future__ import annotations

import json
import secrets
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoProcessor
from transformers.utils.import_utils import is_torchvision_available

from ...errors import ModelError, PDropError
from ..arguments import first_line
from ..pixels import Pixels
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
    try:
        return _proved(derived_from(processor, kind))
    except PDropError:
        raise
    except Exception as error:  # whatever a stranger's code raises
        raise Unwritten(f"it fails on a small one ({type(error).__name__}: {first_line(error)})") from error


def _proved(derived: type[Derived]) -> type[Derived]:
    """The adapter, with what the processor writes besides, if it writes step by step what the processor does whole."""
    _one_run(derived)
    want, got = _texts(derived, 4)
    if want != got:
        derived = _widened(derived, want, got)
    for steps in (4, 1):  # and nothing of it goes by their number
        want, got = _texts(derived, steps)
        if want != got:
            raise _different(derived, steps, want, got)
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


def _one_run(derived: type[Derived]) -> None:
    """Refuse a processor that cuts large pictures into several: the small ones of the other trials are whole."""
    blank = torch.zeros(derived.frames_per_step, 720, 1280, 3, dtype=torch.uint8)
    derived.written.around(derived.scribe([blank], [(0.0,) * len(blank)])[1][0], 0)


def _texts(derived: type[Derived], steps: int) -> tuple[list[int], list[int]]:
    """Token ids of a turn with a video of so many steps, written whole by the processor, and step by step."""
    scribe, written = derived.scribe, derived.written
    frames, seconds = scribe.four_steps(written.frames, 2.0)
    frames, seconds = frames[: steps * written.frames], seconds[: steps * written.frames]
    want = scribe.whole(scribe.turn(), frames, 2.0, scribe.wide)["input_ids"][0].tolist()
    visual = scribe.tokenizer.convert_tokens_to_ids(written.visual)
    before, after = _around(derived)
    return want, [*before, *_steps(derived, seconds, visual, (want.count(visual) - written.closing) // steps), *after]


def _around(derived: type[Derived]) -> tuple[list[int], list[int]]:
    """Token ids in front of a video and behind it."""
    prompt = derived.prompt(derived.scribe.tokenizer)
    return prompt.before(), prompt.after(derived.scribe.question)


def _steps(derived: type[Derived], seconds: tuple[float, ...], visual: int, places: int) -> list[int]:
    """Token ids of steps of so many visual tokens, in chunks of one and of the rest."""
    written = derived.written
    adapter = derived(SimpleNamespace(config=None), Pixels(), derived.scribe.tokenizer)
    cut, ids = written.frames, list[int]()
    said = [
        each
        for part, first in ((seconds[:cut], 0), (seconds[cut:], 1))
        if part
        for each in adapter.wording(part, first)
    ]
    for before, behind in said:
        ids += [*adapter.ids(before), *[visual] * places, *adapter.ids(behind)]
    return ids + [visual] * written.closing


def _widened(derived: type[Derived], want: list[int], got: list[int]) -> type[Derived]:
    """The same, with what the processor writes besides in front of the text, and around the video as a whole."""
    before, after = _around(derived)
    steps = got[len(before) : len(got) - len(after)]
    at = next((i for i in range(len(want)) if want[i : i + len(steps)] == steps), None)
    if at is None:
        return derived
    front, behind = want[:at], want[at + len(steps) :]
    decode = derived.scribe.tokenizer.decode
    more: dict[str, str] = {}
    if front[: len(before)] == before:
        more["opening"] = derived.opening + decode(front[len(before) :])
    elif front[len(front) - len(before) :] == before:
        more["template"] = f"{{{{ {json.dumps(decode(front[: len(front) - len(before)]))} }}}}{derived.template or ''}"
    if behind[len(behind) - len(after) :] == after:
        more["ending"] = decode(behind[: len(behind) - len(after)]) + derived.ending
    return type(derived.__name__, (derived,), more)


def _different(derived: type[Derived], steps: int, want: list[int], got: list[int]) -> Unwritten:
    at = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), min(len(got), len(want)))
    decode = derived.scribe.tokenizer.decode
    return Unwritten(
        f"of a video of {steps} step(s) it writes {decode(want[max(at - 3, 0) : at + 9])!r} where the same steps by "
        f"themselves come to {decode(got[max(at - 3, 0) : at + 9])!r} (token {at} of {len(want)})"
    )
