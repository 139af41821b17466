"""The clips that the page offers, what may be asked about each, and which the built-in model can know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio

BUILT_IN = "built-in"
CLIPS = Path(__file__).parent / "clips"
_MOST = 6
"""Suggestions at a time."""
_ANY = ("What happens in this video?", "What is shown first?", "What is shown now?")
"""Questions that a real model can be asked about any video."""
_UNKNOWN = (
    "The built-in model is tiny: it was taught synthetic clips of coloured shapes, digits and icons, and can't know "
    "this video. Its answers will be wrong. For real videos start the page with a real model: --model NAME."
)


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of the gallery.

    Attributes
    ----------
    label : str
        What its button says.
    path : Path
    questions : tuple of str
        Those that fit it, for the built-in model.
    """

    label: str
    path: Path
    questions: tuple[str, ...] = ()


def gallery() -> tuple[Clip, ...]:
    """All clips: two synthetic ones, and a real one that gradio's package holds, under the Apache License 2.0."""
    clips = Clip("Example: things", CLIPS / "clip.mp4", _questions("clip"))
    numbers = Clip("Example: numbers", CLIPS / "numbers.mp4", _questions("numbers"))
    earth = Clip("Real: the Earth", Path(gradio.__file__).parent / "media_assets" / "videos" / "world.mp4")
    return tuple(clip for clip in (clips, numbers, earth) if clip.path.is_file())


def _questions(name: str) -> tuple[str, ...]:
    return tuple(item["question"] for item in json.loads((CLIPS / f"{name}.json").read_text("utf-8"))["questions"])


def suggestions(source: str | None, clips: Sequence[Clip], built_in: bool) -> str:
    """What may be asked of what is watched, as buttons; or that the model can't know it.

    Parameters
    ----------
    source : str or None
        As it was opened; None where nothing is.
    clips : sequence of Clip
    built_in : bool
        Whether the built-in model watches.
    """
    if source is None:
        return ""
    fitting = next((clip.questions for clip in clips if str(clip.path) == source), ())
    if built_in and not fitting:
        return f'<p class="pv-warning" role="status">{escape(_UNKNOWN)}</p>'
    rows = "".join(
        f'<button type="button" class="pv-ask" data-ask="{escape(question)}">{escape(question)}</button>'
        for question in (fitting if built_in else _ANY)[:_MOST]
    )
    return f'<div class="pv-asks" role="group" aria-label="Questions to try">{rows}</div>'
