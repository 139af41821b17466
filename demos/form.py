"""The page's form of settings, in plain words. Knows the methods that are listed, and refuses to know what they do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import gradio as gr

from pdrop_video.gate import GATES
from pdrop_video.memory import EVICTORS
from pdrop_video.reduce import REDUCERS

_FORGETTING = {
    "oldest": "the oldest first",
    "window": "all but the newest",
    "random": "any, by chance",
    "uniform": "evenly, over the whole past",
    "streaming_vlm": "StreamingVLM: the middle",
    "infinipot_v": "InfiniPot-V: what did not change",
    "stream_mem": "StreamMem: what no answer would need",
    "hermes": "HERMES: old or unattended, by layer",
    "pyramid": "the unimportant, never a whole period",
    "standby": "POINTS-Long: all but the last steps and what stands by for older ones, where steps have any",
    "two_tier": "all but the last steps and a few pieces of each older one",
    "two_tier_means": "the same, each of those few a mean of its neighbours",
    "fluxmem": "FluxMem: what is like the step before, then what is alike in a step",
}
_PICTURES = {
    "none": "none: the model looks at every one",
    "static": "those that show what the last one showed",
}
_PIECES = {
    "none": "none: the model reads every one",
    "evs": "EVS: those that changed least, half of all",
    "evs:keep=0.25": "EVS: those that changed least, three of four",
}


_STAGES = {
    "0.5, 0.25, 0.125": "a half, then a quarter, then an eighth",
    "0.75, 0.5, 0.25": "three quarters, then a half, then a quarter",
    "0.25, 0.06, 0.02": "a quarter, then a sixteenth, then a fiftieth",
    "none": "all: nothing is dropped",
}
_ANSWERING = {
    "": "all that is remembered",
    "0.5, 0.25": "a half of it, then a quarter",
    "0.25, 0.125": "a quarter of it, then an eighth",
}


def fields(models: list[str]) -> list[Any]:
    """The settings, in the order of `Settings`, each with a line of help."""
    return [
        gr.Dropdown(models, value=models[0], label="Model", info="What watches and answers."),
        gr.Number(
            0,
            minimum=0,
            maximum=60,
            label="Frames a second",
            info="More catch faster changes; 0 for the model's own.",
        ),
        gr.Number(
            8,
            minimum=1,
            maximum=64,
            precision=0,
            label="Pictures at a time",
            info="How many the model takes at once; of a live stream no more than one second has.",
        ),
        gr.Dropdown(
            _choices(_STAGES),
            value="0.5, 0.25, 0.125",
            label="Pieces kept, from stage to stage",
            info="Share of a picture's pieces that the deeper layers still see; or write shares such as 0.6, 0.3.",
            allow_custom_value=True,
        ),
        gr.Number(
            6144,
            minimum=1,
            precision=0,
            label="Memory",
            info="Most pieces of picture and text (tokens) that each layer of the model remembers.",
        ),
        gr.Dropdown(
            _choices(_FORGETTING, EVICTORS),
            value="pyramid",
            label="Forgetting",
            info="Which pieces go when the memory is full.",
        ),
        gr.Textbox(
            "",
            label="Question known beforehand",
            info="Keeps what matters to this question while watching; empty if you don't know it yet.",
        ),
        gr.Dropdown(
            _choices(_ANSWERING),
            value="",
            label="An answer looks at",
            info="Fewer remembered pieces make answers faster; or write shares such as 0.6, 0.3.",
            allow_custom_value=True,
        ),
        gr.Dropdown(
            _choices(_PICTURES, GATES),
            value="none",
            label="Leaving out pictures",
            info="Saves looking at what shows nothing new; its time counts to the picture before.",
        ),
        gr.Dropdown(
            _choices(_PIECES, (name for name, each in REDUCERS.items() if not getattr(each, "parts", ()))),
            value="none",
            label="Leaving out pieces",
            info="Keeps pieces of the picture from the model, before its first layer.",
        ),
    ]


def _choices(words: Mapping[str, str], listed: Iterable[str] = ()) -> list[tuple[str, str]]:
    """What may be chosen: words and value of each that has any, and of each method that is listed."""
    return [(words.get(value, value), value) for value in dict.fromkeys((*words, *listed))]
