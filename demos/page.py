"""The page: which action each of its parts starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from .actions import Actions
from .api import endpoints
from .extras import Extras
from .layout import Layout
from .plainly import Page
from .presets import USUAL, chosen
from .visitor import Visitor

_HERE = Path(__file__).parent
CSS = (_HERE / "style.css").read_text(encoding="utf-8")
_SCRIPTS = [(_HERE / "scripts" / f"{name}.js").read_text(encoding="utf-8").strip() for name in ("page", "visit")]
SCRIPT = f"() => {{ {' '.join(f'({script})();' for script in _SCRIPTS)} }}"
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
    # as the theme has them they are too pale to be read easily
    background_fill_primary="*neutral_50",  # as it was: it does not outlive `set`
    color_accent="*primary_600",
    block_label_text_color="*primary_700",
    block_label_text_color_dark="*primary_100",
    block_title_text_color="*primary_700",
    block_title_text_color_dark="*primary_100",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_dark="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_hover_dark="*primary_700",
    checkbox_label_background_fill_selected="*primary_600",
    checkbox_label_background_fill_selected_dark="*primary_600",
)
_KEY = "pdrop_video"
_KEEP = f"(name) => {{ sessionStorage.setItem('{_KEY}', name || ''); return [name]; }}"
_FIND = f"() => [sessionStorage.getItem('{_KEY}') || '']"
_SAVE = "(file) => { pvSave(JSON.parse(file)); return []; }"
HEAD = """
<style>
footer .divider { display: none !important; } /* a dot that gradio leaves beside a single link */
@media (max-width: 768px) { html { scroll-padding-bottom: 160px; } } /* what is scrolled to lies above the question */
#pv-notice {
  position: fixed; z-index: 1000; inset: 0 0 auto; padding: 10px 16px; background: #8a1f11; color: #fff;
  text-align: center; font-family: system-ui, sans-serif;
}
#pv-notice:empty { display: none; }
.pv-lost #progress { opacity: 0.5; }
</style>
"""
"""What the page's own style does not reach."""
_CAMERA_OFF = """() => {
    if (document.querySelector("#video [data-testid='webcam-video']"))
        document.querySelector("#video [aria-label='Upload file']").click();
    return [{ __type__: "update", interactive: false }];
}"""
"""A camera is let go when its part of the page is: a recorder's, and the one that is watched."""
_CAMERA_AGAIN = "() => [{ __type__: 'update', interactive: true }]"


def build(actions: Actions, *, answers_at_once: int = 4) -> gr.Blocks:
    """Build the page.

    Parameters
    ----------
    actions : Actions
    answers_at_once : int
        Questions beyond so many at a time wait in a queue, which shows their place.
    """
    with Page(title="Ask a video", analytics_enabled=False) as page:
        extras = Extras(actions)
        at = Layout(extras.clips, list(actions.sessions.models))
        name, settings = at.name, at.settings
        begun = [*at.panel, at.chat, at.video]

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

        def suggested(event: gr.EventData, name: str) -> Iterator[list[Any]]:
            yield from actions.ask(name, event._data["question"])

        def remove(event: gr.EventData, name: str) -> list[Any]:
            return actions.forget_standing(name, event._data["key"])

        def show(event: gr.EventData, name: str) -> str:
            return extras.seen(name, event._data["seconds"])

        def keep(event: Any) -> None:
            """Let the browser's tab remember its session, for a reload."""
            event.then(None, name, None, js=_KEEP, api_visibility="private")

        def begin(event: Any) -> None:
            """Something else is watched: keep it, and show no moment of what was watched before."""
            keep(event)
            event.then(None, None, at.seen, js="() => ['']", api_visibility="private")

        for trigger in (at.video.upload, at.video.stop_recording):
            begin(on(trigger, seen(actions.file), [name, at.video, *settings], begun))
        for button, clip in zip(at.clips, extras.clips, strict=True):
            begin(on(button.click, seen(_always(actions.address, str(clip.path))), [name, *settings], begun))
        begin(on(at.address.submit, seen(actions.address), [name, at.address, *settings], begun))
        begin(on(at.live.submit, seen(actions.stream), [name, at.live, *settings], begun))
        begin(on(at.again.click, seen(extras.again), [name, *settings], begun))

        keep(on(at.camera.stream, seen(actions.picture), [name, at.camera, *settings], begun, stream_every=0.5))
        told = [*at.panel, at.tell_me, at.wanted]
        keep(on(at.look_out.click, seen(actions.look_out), [name, at.tell_me, at.wanted], told))
        on(at.forget.click, actions.forget_standing, name, at.panel, queue=False)
        on(at.standing.click, remove, name, at.panel, queue=False)

        gone = [at.address.submit, at.live.submit, at.again.click, at.stop_watching.click, at.clear.click]
        gone += [at.let_go.click, at.video.upload, at.video.stop_recording, at.reopen.upload]
        gone += [button.click for button in at.clips]
        off = gr.on(gone, None, None, at.camera, js=_CAMERA_OFF, api_visibility="private")
        off.then(None, None, at.camera, js=_CAMERA_AGAIN, api_visibility="private")

        on(at.soon.tick, seen(actions.tick), name, at.panel, queue=False)
        on(at.pulse.tick, actions.pulse, name, at.panel, queue=False)
        for part in (at.progress, at.standing):
            on(part.change, extras.around, name, at.around, queue=False)
        on(at.seen.click, show, name, at.seen, queue=False)
        drawn = [name, at.moment], at.pictures
        on(at.later.tick, actions.draw, *drawn)
        on(at.moment.release, actions.draw, *drawn)
        on(on(at.tabs.select, _selected, None, at.later).then, actions.draw, *drawn)
        on(page.load, restore, name, [*begun, at.stop_answer], js=_FIND)
        page.unload(leave)

        for trigger, act, inputs in (
            (at.ask.click, actions.ask, [name, at.question]),
            (at.question.submit, actions.ask, [name, at.question]),
            (at.suggested.click, suggested, [name]),
        ):
            if act is not suggested:  # whose question is known to its event alone
                trigger = on(trigger, actions.askable, inputs, None, trigger_mode="multiple").success
            asked = on(
                trigger,
                act,
                inputs,
                [at.chat, at.question, at.stop_answer],
                show_progress="minimal",
                show_progress_on=at.chat,
                concurrency_limit=answers_at_once,
                concurrency_id="answers",
                trigger_mode="multiple",
            )
            on(asked.then, actions.draw, *drawn)
        on(at.stop_answer.click, actions.stop_answer, name, None, queue=False)
        on(at.stop_watching.click, seen(actions.stop_watching), name, None, queue=False)
        on(at.chat.clear, actions.clear_chat, name, None, queue=False)
        begin(on(at.clear.click, seen(actions.clear), name, [*begun, *at.pictures], queue=False))

        for trigger in (at.compare.click, at.compare_question.submit):
            on(
                trigger,
                extras.compare,
                [name, at.compare_question],
                at.compared,
                show_progress="minimal",
                concurrency_limit=1,
                concurrency_id="compare",
            )
        for kind, button in at.exports.items():
            exported = on(button.click, _always(extras.export, kind), name, at.exported)
            exported.success(None, at.exported, None, js=_SAVE, api_visibility="private")

        stored = on(at.save.click, seen(extras.save), name, at.stored)
        stored.success(None, at.stored, None, js=_SAVE, api_visibility="private")
        begin(on(at.reopen.upload, seen(extras.reopen), [name, at.reopen, settings[0]], begun))

        on(at.preset.input, chosen, [at.preset, settings[0]], settings, queue=False)
        on(at.reset.click, _usual, settings[0], [at.preset, *settings], queue=False)
        endpoints(actions)
    return page


def _usual(model: str) -> list[Any]:
    """The form as it was at first, but for the model."""
    return [USUAL, *chosen(USUAL, model)]


def _always(act: Callable[..., Any], text: str) -> Callable[..., Any]:
    """An action with its text given."""

    def acting(name: str, *values: Any, **named: Any) -> Any:
        return act(name, text, *values, **named)

    return acting


def _selected(event: gr.SelectData) -> gr.Timer:
    """Draw again and again while the pictures are looked at."""
    return gr.Timer(active=event.value == "Pictures")


__all__ = ["CSS", "HEAD", "SCRIPT", "THEME", "build"]
