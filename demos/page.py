"""The page: its parts, where they stand, and which action each of them starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from . import views
from .actions import Actions
from .api import endpoints
from .form import fields
from .plainly import Page
from .visitor import Visitor
from .watching import Progress

CSS = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
_KEY = "pdrop_video"
_KEEP = f"(name) => {{ sessionStorage.setItem('{_KEY}', name || ''); return [name]; }}"
_FIND = f"() => [sessionStorage.getItem('{_KEY}') || '']"
QUIET = """() => document.addEventListener("error", event => {
    if (event.target.tagName === "VIDEO") event.stopImmediatePropagation();
}, true)"""
"""What a browser can't play gradio calls an error; the page's own panel says what is wrong, if anything is."""
HEAD = "<style>footer .divider { display: none !important; }</style>"
"""A dot that gradio leaves beside a single link; the page's own style does not reach it."""
_INTRO = """
# Ask a video
A model watches your video and remembers it in bounded memory. Ask at any time, also while it is still watching.
"""
_BUILT_IN = """
*The built-in model is tiny and was trained on synthetic clips like the example: ask it for the first or last colour,
digit or shape, which things are shown, where, in which colour and after what, how many there are, or which way the
marker goes. For real videos start the page with a real model: `--model NAME`.*
"""
_PICTURES = """
The model keeps fewer and fewer pieces of the picture from stage to stage: its early layers see nearly all, its deep
layers only what mattered. Dark places are forgotten by that stage, or never came to it: an edge tells those that were
left out before it, or merged into others. A picture that was left out, since nothing had changed, is framed by stripes
and shows what is kept of the one that stands for it.
"""


def build(
    actions: Actions, *, examples: dict[str, str], questions: list[str], answers_at_once: int = 4, built_in: bool = True
) -> gr.Blocks:
    """Build the page.

    Parameters
    ----------
    actions : Actions
    examples : dict of str to str
        Labels of the example clips, and their paths.
    questions : list of str
        Offered below the chat.
    answers_at_once : int
        Questions beyond so many at a time wait in a queue, which shows their place.
    built_in : bool
        Whether to say what the built-in model can do.
    """
    with Page(title="Ask a video", analytics_enabled=False) as page:
        gr.Markdown(_INTRO + (_BUILT_IN if built_in else ""))
        name = gr.Textbox(visible=False)
        soon, later = gr.Timer(0.5, active=False), gr.Timer(3.0, active=False)
        settings: list[Any] = []
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                with gr.Tabs(selected="video") as tabs:
                    with gr.Tab("Video", id="video"):
                        video = gr.Video(
                            label="Video",
                            sources=["upload", "webcam"],
                            include_audio=True,
                            webcam_options=gr.WebcamOptions(mirror=False),
                            elem_id="video",
                        )
                        with gr.Row():
                            clips = [gr.Button(label, size="sm", elem_classes="pv-example") for label in examples]
                        address = gr.Textbox(
                            label="Or a path or address",
                            placeholder="https://...",
                            info="A file in the server's folder, or a video on the web.",
                            submit_btn="Watch",
                            max_length=2000,
                            elem_id="address",
                        )
                    with gr.Tab("Live", id="live"):
                        camera = gr.Image(
                            label="Webcam",
                            sources=["webcam"],
                            streaming=True,
                            type="numpy",
                            height=260,
                            webcam_options=gr.WebcamOptions(mirror=False),
                            elem_id="camera",
                        )
                        live = gr.Textbox(
                            label="Or a stream's address",
                            placeholder="rtsp://...",
                            info="A network camera, a live stream, or /dev/video0 for the server's own camera.",
                            submit_btn="Watch live",
                            max_length=2000,
                            elem_id="live",
                        )
                        with gr.Group():
                            tell_me = gr.Textbox(
                                label="Tell me when",
                                placeholder="Is a dog in the picture?",
                                info="Asked again about every second of the video.",
                                max_length=500,
                                elem_id="tell-me",
                            )
                            wanted = gr.Textbox(
                                label="is answered with",
                                placeholder="yes",
                                info="The answer to wait for; empty for yes. Behind commas: what else it may be.",
                                max_length=200,
                                elem_id="wanted",
                            )
                        with gr.Row():
                            look_out = gr.Button("Look out for it", size="sm", min_width=100, elem_id="look-out")
                            forget = gr.Button("Remove all", size="sm", min_width=100)
                        standing = gr.HTML(views.standing([]), elem_id="standing")
                    with gr.Tab("Pictures", id="pictures"):
                        gr.Markdown(_PICTURES)
                        moment = gr.Slider(
                            0, 1, value=0, step=0.1, label="Moment, in seconds", interactive=False, elem_id="moment"
                        )
                        frames = gr.HTML(views.overlays(None, 0), label="Frames", elem_id="frames")
                        charts = [gr.HTML(chart, elem_classes="pv-charts") for chart in views.charts(None)]
                with gr.Accordion("Settings, for the next video", open=False):
                    settings += fields(list(actions.sessions.models))
            with gr.Column(scale=5, min_width=320):
                progress = gr.HTML(views.progress(Progress()), padding=True, container=True, elem_id="progress")
                gr.HTML(views.explained())
                with gr.Row():
                    stop_watching = gr.Button("Stop watching", size="sm", min_width=100, elem_id="stop-watching")
                    clear = gr.Button("Start over", size="sm", min_width=100, elem_id="clear")
                chat = gr.Chatbot(
                    label="Questions and answers",
                    height=360,
                    render_markdown=False,
                    placeholder="Choose a video, then ask about it.",
                    feedback_options=None,
                    buttons=["copy"],
                    elem_id="chat",
                )
                question = gr.Textbox(
                    label="Your question", placeholder="What happens first?", max_length=2000, elem_id="question"
                )
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", size="md", min_width=100, elem_id="ask")
                    stop_answer = gr.Button("Stop the answer", size="md", min_width=100, elem_id="stop-answer")
                gr.Examples(questions, question, label="Questions to try", examples_per_page=12)

        panel = [name, progress, standing, soon]
        pictures = [moment, frames, *charts]

        def on(trigger: Callable[..., Any], act: Callable[..., Any], inputs: Any, outputs: Any, **how: Any) -> Any:
            """Bind an action that is the page's own business, not the clients'."""
            how = {"show_progress": "hidden", "concurrency_limit": None, **how}
            how |= {"api_visibility": "private", "api_name": "of_the_page"}  # or it would take an endpoint's name
            return trigger(act, inputs, outputs, **how)

        def seen(act: Callable[..., Any]) -> Callable[..., Any]:
            """An action that is told who asks for it."""

            def acting(request: gr.Request, *values: Any) -> Any:
                return act(*values, visitor=Visitor.of(request))

            return acting

        def restore(request: gr.Request, name: str) -> Iterator[list[Any]]:
            yield from actions.restore(name, Visitor.of(request))

        def leave(request: gr.Request) -> None:
            actions.leave(Visitor.of(request))

        def keep(event: Any) -> None:
            """Let the browser's tab remember its session, for a reload."""
            event.then(None, name, None, js=_KEEP, api_visibility="private")

        for trigger in (video.upload, video.stop_recording):
            keep(on(trigger, seen(actions.file), [name, video, *settings], [*panel, chat, video]))
        for button, path in zip(clips, examples.values(), strict=True):
            act = _always(actions.address, path)
            keep(on(button.click, seen(act), [name, *settings], [*panel, chat, video]))
        keep(on(address.submit, seen(actions.address), [name, address, *settings], [*panel, chat, video]))
        keep(on(live.submit, seen(actions.stream), [name, live, *settings], [*panel, chat, video]))

        keep(
            on(camera.stream, seen(actions.picture), [name, camera, *settings], [*panel, chat, video], stream_every=0.5)
        )
        keep(on(look_out.click, seen(actions.look_out), [name, tell_me, wanted], [*panel, tell_me, wanted]))
        on(forget.click, actions.forget_standing, name, panel, queue=False)

        on(soon.tick, seen(actions.tick), name, panel, queue=False)
        on(later.tick, actions.draw, [name, moment], pictures)
        on(moment.release, actions.draw, [name, moment], pictures)
        on(on(tabs.select, _selected, None, later).then, actions.draw, [name, moment], pictures)
        on(page.load, restore, name, [*panel, chat, video], js=_FIND)
        page.unload(leave)

        for trigger in (ask.click, question.submit):
            asked = on(
                trigger,
                actions.ask,
                [name, question],
                [chat, question],
                show_progress="minimal",
                show_progress_on=chat,
                concurrency_limit=answers_at_once,
                concurrency_id="answers",
            )
            on(asked.then, actions.draw, [name, moment], pictures)
        on(stop_answer.click, actions.stop_answer, name, None, queue=False)
        on(stop_watching.click, actions.stop_watching, name, None, queue=False)
        on(chat.clear, actions.clear_chat, name, None, queue=False)
        keep(on(clear.click, actions.clear, name, [*panel, chat, video, *pictures], queue=False))
        endpoints(actions)
    return page


def _always(act: Callable[..., Any], text: str) -> Callable[..., Any]:
    """An action with its text given."""

    def acting(name: str, *values: Any, **named: Any) -> Any:
        return act(name, text, *values, **named)

    return acting


def _selected(event: gr.SelectData) -> gr.Timer:
    """Draw again and again while the pictures are looked at."""
    return gr.Timer(active=event.value == "Pictures")


__all__ = ["CSS", "HEAD", "QUIET", "THEME", "build"]
