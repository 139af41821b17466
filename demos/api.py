"""The endpoints for programs: open, push, ask, status, close. The page's own rules hold for them."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator
from dataclasses import asdict
from io import BytesIO
from typing import Any

import gradio as gr
import numpy as np
from gradio.events import api
from PIL import Image, ImageOps

import pdrop_video as pv

from .actions import Actions
from .plainly import plainly
from .session import Session
from .settings import Settings
from .visitor import Visitor

_MOST_FRAMES = 64
_MOST_PIXELS = 2**27
_FORMATS = ("PNG", "JPEG")


def endpoints(actions: Actions) -> None:
    """Add the endpoints to the page that is being built.

    Parameters
    ----------
    actions : Actions
    """
    sessions = actions.sessions

    @plainly
    def open(
        request: gr.Request,
        source: Any = "",
        model: str = "",
        fps: float = 0,
        chunk: int = 8,
        ratios: str = "0.5, 0.25, 0.125",
        memory: int = 6144,
        evictor: str = "pyramid",
        probe: str = "",
        ask_ratios: str = "",
        live: bool = False,
        gate: str = "none",
        reducer: str = "none",
    ) -> str:
        """Open a session and let it watch a source; returns its name, a secret that the other endpoints want.

        source: a file made by gradio_client.handle_file, a file in the server's folder, an address, or "" to push
        frames. fps: frames a second, 0 for the model's own. chunk: frames at a time. ratios: shares of visual tokens
        left after each stage, or "none". memory: most tokens a layer remembers. evictor: what is forgotten. probe: a
        question known beforehand. ask_ratios: the pyramid while answering. live: whether an address has no end. gate:
        which frames are encoded, "static" or "none". reducer: which visual tokens enter, "evs:keep=0.25" or "none".
        """
        settings = Settings(model, fps, chunk, ratios, memory, evictor, probe, ask_ratios, gate, reducer)
        visitor = Visitor(client=Visitor.of(request).client)  # a program has no page
        text = source.get("path") if isinstance(source, dict) else source
        if not isinstance(text, str):
            raise pv.ConfigError(
                'the source is no text and no file; expected an address, a file, or "" to push frames.'
            )
        if text:
            return actions.begin("", text, settings, live=live, visitor=visitor).name
        with actions.beginning("", visitor) as session:
            session.begin(settings, "frames of a program", None)
        return session.name

    @plainly
    def push(session: str, frames: list[str], seconds: list[float]) -> dict[str, Any]:
        """Push frames into a session that was opened without a source.

        frames: up to 64 PNG or JPEG files in base64, all of one size once their EXIF data has turned them upright.
        seconds: the time of each, rising. Returns what the push did: frames, visual_tokens, kept by stage, seconds it
        took, frames skipped by the gate.
        """
        return asdict(sessions.get(session).push(_chunk(frames, seconds)))

    def ask(session: str, question: str, max_new_tokens: int = 128) -> Iterator[str]:
        """Ask about all that was watched so far; streams the answer, each time the whole text so far."""
        here, turn = _begin(session, question, max_new_tokens)
        for now in here.follow(turn):
            yield now.text
        if turn.error:
            raise gr.Error(turn.error, print_exception=False)
        yield turn.text.strip()

    @plainly
    def _begin(session: str, question: str, max_new_tokens: int) -> tuple[Session, Any]:
        here = sessions.get(session)
        return here, here.ask(question, max_new_tokens)

    @plainly
    def status(session: str) -> dict[str, Any]:
        """How far watching is: state, frames, those skipped, seconds, total, kept by stage, cache_bytes, message ..."""
        return asdict(sessions.get(session).progress)

    def close(session: str) -> bool:
        """Close a session and free its memory; false if there is none of this name."""
        return sessions.close(session)

    api(open, api_name="open", concurrency_limit=4)
    api(push, api_name="push", concurrency_limit=4)
    api(ask, api_name="ask", concurrency_id="answers")
    api(status, api_name="status", concurrency_limit=None)
    api(close, api_name="close", concurrency_limit=None)


def _chunk(frames: list[str], seconds: list[float]) -> pv.FrameChunk:
    if not isinstance(frames, list) or not 1 <= len(frames) <= _MOST_FRAMES:
        raise pv.FrameError(f"expected a list of 1 to {_MOST_FRAMES} pictures in base64; push more in several calls.")
    try:
        pictures = [Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=_FORMATS) for text in frames]
        width, height = max((picture.size for picture in pictures), key=math.prod)  # nothing is decoded before this
        if width * height * len(pictures) > _MOST_PIXELS:
            raise pv.FrameError(f"{len(pictures)} pictures of {width} x {height} are too many at a time; push fewer.")
        upright = [ImageOps.exif_transpose(picture).convert("RGB") for picture in pictures]  # as a phone was held
        if len({picture.size for picture in upright}) > 1:
            raise pv.FrameError("the pictures differ in size; push those of one size together.")
        decoded = np.stack([np.asarray(picture) for picture in upright])
    except pv.FrameError:
        raise
    except (binascii.Error, Image.DecompressionBombError, OSError, SyntaxError, TypeError, ValueError) as error:
        raise pv.FrameError(f"a picture cannot be read ({error}); expected a PNG or JPEG file in base64.") from error
    return pv.FrameChunk.of(decoded, seconds, "client")
