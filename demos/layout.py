"""The parts of the page and where they stand. Knows no session, and not what happens when a part is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from . import views
from .form import fields
from .gallery import BUILT_IN, Clip
from .presets import PRESETS, USUAL
from .watching import Progress

_INTRO = """
# Ask a video
A model watches your video and remembers it in bounded memory. Ask at any time, also while it is still watching.
"""
_PICTURES = """
The model keeps fewer and fewer pieces of the picture from stage to stage: its early layers see nearly all, its deep
layers only what mattered. Dark places are forgotten by that stage, or never came to it: an edge tells those that were
left out before it, or merged into others. A picture that was left out, since nothing had changed, is framed by stripes
and shows what is kept of the one that stands for it.
"""
_SAVING = """
The conversation is saved as Markdown, or as JSON with all that its answers rested on; the stream as a file that holds
what the model remembers, and none of the pictures. A page with the same model opens it again.
"""
_COMPARE = """
One question, two recipes: the same video is watched once more, without dropping anything (or with the usual dropping,
where nothing was dropped), and both are asked.
"""
_SCRIPTS = {path.stem: path.read_text(encoding="utf-8") for path in (Path(__file__).parent / "scripts").glob("*.js")}
_ADDRESS: dict[str, Any] = {"lines": 1, "max_lines": 1}


class Layout:
    """All parts, made inside the blocks that are being built.

    Parameters
    ----------
    clips : sequence of Clip
    models : list of str
        Names that may be chosen.
    """

    def __init__(self, clips: Sequence[Clip], models: list[str]) -> None:
        gr.Markdown(_INTRO, elem_id="intro")
        self.name = gr.Textbox(visible=False)
        self.soon, self.later = gr.Timer(0.5, active=False), gr.Timer(3.0, active=False)
        self.pulse = gr.Timer(10.0)
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="watch"):
                with gr.Tabs(selected="video") as self.tabs:
                    self._video(clips)
                    self._live()
                    self._pictures()
                    self._compare()
                self._under()
            with gr.Column(elem_id="talk"):
                self._talk()
            with gr.Column(elem_id="more"):
                self._standing("Is a fish shown?" if BUILT_IN in models else "Is a dog in the picture?")
                self._saving()
                self._settings(models)

    def _video(self, clips: Sequence[Clip]) -> None:
        with gr.Tab("Video", id="video"):
            with gr.Row(elem_classes="pv-gallery"):
                self.clips = [
                    gr.Button(clip.label, size="sm", min_width=80, elem_classes="pv-example") for clip in clips
                ]
                gr.Button("Another file", size="sm", min_width=80, elem_id="another")
            self.address = gr.Textbox(
                label="A file in the server's folder, or a video on the web",
                placeholder="Or a path or address: https://...",
                submit_btn="Watch",
                container=False,
                elem_id="address",
                **_ADDRESS,
            )
            self.video = gr.Video(
                label="Video",
                sources=["upload", "webcam"],
                include_audio=True,
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="video",
            )

    def _live(self) -> None:
        with gr.Tab("Live", id="live"):
            self.live = gr.Textbox(
                label="A network camera, a live stream, or /dev/video0 for the server's own camera",
                placeholder="A stream's address: rtsp://...",
                submit_btn="Watch live",
                container=False,
                elem_id="live",
                **_ADDRESS,
            )
            self.last = gr.HTML("", elem_id="last-picture")
            self.camera = gr.Image(
                label="Webcam",
                sources=["webcam"],
                streaming=True,
                type="numpy",
                height=260,
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="camera",
            )

    def _pictures(self) -> None:
        with gr.Tab("Pictures", id="pictures"):
            gr.Markdown(_PICTURES)
            self.moment = gr.Slider(0, 1, value=0, label="Moment, in seconds", interactive=False, elem_id="moment")
            self.frames = gr.HTML(views.overlays(None, 0), label="Frames", elem_id="frames")
            self.charts = [gr.HTML(chart, elem_classes="pv-charts") for chart in views.charts(None)]

    def _compare(self) -> None:
        with gr.Tab("Compare", id="compare"):
            gr.Markdown(_COMPARE)
            with gr.Row(elem_classes="pv-ask-row"):
                self.compare_question = gr.Textbox(
                    label="Question to compare",
                    placeholder="Ask both",
                    container=False,
                    scale=1,
                    min_width=120,
                    elem_id="compare-question",
                    **_ADDRESS,
                )
                self.compare = gr.Button(
                    "Compare", variant="primary", size="md", min_width=90, scale=0, elem_id="compare"
                )
            self.compared = gr.HTML("", elem_id="compared")

    def _under(self) -> None:
        """What stands under the player."""
        self.progress = gr.HTML(views.progress(Progress()), padding=True, container=True, elem_id="progress")
        self.timeline = gr.HTML("", elem_id="timeline")
        self.seen = gr.HTML("", elem_id="seen", js_on_load=_SCRIPTS["seen"])
        self.alert = gr.HTML("", elem_id="alert")
        with gr.Row():
            self.stop_watching = gr.Button(
                "Stop watching", size="sm", min_width=100, elem_id="stop-watching", interactive=False
            )
            self.clear = gr.Button("Start over", size="sm", min_width=100, elem_id="clear", interactive=False)
            self.let_go = gr.Button("Let the camera go", visible="hidden", elem_id="let-go")
        gr.HTML(views.explained())

    def _talk(self) -> None:
        self.chat = gr.Chatbot(
            label="Questions and answers",
            height=360,
            render_markdown=False,
            sanitize_html=False,  # it would take the moments out of the buttons; `views.chat` escapes all that is text
            placeholder="Choose a video, then ask about it.",
            feedback_options=None,
            buttons=[],
            elem_id="chat",
        )
        with gr.Column(elem_id="ask-bar"):
            self.suggested = gr.HTML("", elem_id="suggested", js_on_load=_SCRIPTS["suggested"])
            with gr.Row():
                self.question = gr.Textbox(
                    label="Your question",
                    placeholder="Ask about the video",
                    lines=1,
                    max_lines=4,
                    container=False,
                    scale=1,
                    min_width=120,
                    elem_id="question",
                )
                self.ask = gr.Button("Ask", variant="primary", size="md", min_width=64, scale=0, elem_id="ask")
                self.stop_answer = gr.Button(
                    "Stop", size="md", min_width=64, scale=0, elem_id="stop-answer", interactive=False
                )

    def _standing(self, for_example: str) -> None:
        with gr.Accordion("Tell me when", open=False, elem_id="tell"):
            with gr.Row():
                self.tell_me = gr.Textbox(
                    label="Tell me when",
                    placeholder=for_example,
                    info="Asked again about every second of the video.",
                    elem_id="tell-me",
                )
                self.wanted = gr.Textbox(
                    label="is answered with",
                    placeholder="yes",
                    info="The answer to wait for; empty for yes. Behind commas: what else it may be.",
                    elem_id="wanted",
                )
            with gr.Row():
                self.look_out = gr.Button("Look out for it", size="sm", min_width=100, elem_id="look-out")
                self.forget = gr.Button("Remove all", size="sm", min_width=100)
            self.standing = gr.HTML(views.standing([]), elem_id="standing", js_on_load=_SCRIPTS["standing"])

    def _saving(self) -> None:
        with gr.Accordion("Save and open", open=False, elem_id="saving"):
            gr.Markdown(_SAVING)
            with gr.Row():
                self.exports = {
                    kind: gr.Button(said, size="sm", min_width=100, elem_id=f"save-{kind}")
                    for kind, said in (("md", "Conversation, to read"), ("json", "Conversation, with evidence"))
                }
                self.save = gr.Button("Stream", size="sm", min_width=100, elem_id="save-stream")
                self.reopen = gr.UploadButton("Open a stream", size="sm", min_width=100, elem_id="reopen")
            self.exported, self.stored = gr.Textbox(visible=False), gr.Textbox(visible=False)

    def _settings(self, models: list[str]) -> None:
        with gr.Accordion("Settings, for the next video", open=False, elem_id="settings"):
            self.preset = gr.Radio(
                list(PRESETS), value=USUAL, label="Begin with", info="Sets what is below.", elem_id="preset"
            )
            with gr.Row(elem_id="fields"):
                self.settings: list[Any] = fields(models)
            with gr.Row():
                self.again = gr.Button(
                    "Watch again with these settings",
                    size="sm",
                    variant="primary",
                    min_width=100,
                    elem_id="again",
                    interactive=False,
                )
                self.reset = gr.Button("Reset", size="sm", min_width=100, elem_id="reset")

    @property
    def panel(self) -> list[Any]:
        """What every look at a session brings up to date."""
        return [self.name, self.progress, self.standing, self.soon]

    @property
    def pictures(self) -> list[Any]:
        """What is drawn while it is looked at."""
        return [self.moment, self.frames, *self.charts]

    @property
    def around(self) -> list[Any]:
        """What follows from the progress."""
        return [self.last, self.timeline, self.alert, self.stop_watching, self.clear, self.again, self.suggested]
