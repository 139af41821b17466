"""Start the page: python -m demos.app. Parses, builds and serves; everything else is in the modules beside it."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__":  # a start takes some twenty seconds, most of them for what is imported from here on
    print("Reading the code; PyTorch takes some seconds.", flush=True)

import typer

import pdrop_video as pv
from pdrop_video.cli.arguments import AllowDevices, AllowPrivate, Device, Dtype, OrBuiltIn
from pdrop_video.cli.console import clear_errors
from pdrop_video.cli.fetching import announced
from pdrop_video.common import checks


def main(
    model: Annotated[
        list[str] | None, typer.Option(help="Folder or hub name; may be repeated. Left out: the built-in model.")
    ] = None,
    or_built_in: OrBuiltIn = False,
    videos: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder whose videos may be named on the page; may be repeated.", exists=True, file_okay=False
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Left out: the first free one from 7860 on.", min=1, max=65535)
    ] = None,
    seats: Annotated[int, typer.Option(help="Sessions that watch at a time; others wait in a line.", min=1)] = 4,
    most: Annotated[int, typer.Option(help="Most sessions, those in the line included.", min=1)] = 32,
    most_each: Annotated[
        int | None,
        typer.Option(help="Most of them from one address; left out: a quarter of --most, at least 2.", min=1),
    ] = None,
    idle_minutes: Annotated[float, typer.Option(help="A session that nobody looks at is closed after so long.")] = 15,
    leave_seconds: Annotated[float, typer.Option(help="A session whose page was left is closed after so long.")] = 45,
    max_minutes: Annotated[float, typer.Option(help="Longest video that is not live.")] = 120,
    max_tokens: Annotated[int, typer.Option(help="Most tokens that a layer may be set to remember.", min=1)] = 32_768,
    remember_megabytes: Annotated[
        int, typer.Option(help="Most that sessions remember together which watch no more; the oldest go.", min=1)
    ] = 4000,
    max_megabytes: Annotated[int, typer.Option(help="Largest file to upload.", min=1)] = 1024,
    most_megabytes: Annotated[
        int | None,
        typer.Option(help="Most of all uploads together, a quarter for one address; 8 of the largest.", min=1),
    ] = None,
    allow_private: AllowPrivate = False,
    allow_devices: AllowDevices = False,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Serve the page on which people ask a video. How it is watched, gate and reducer included, they choose there."""
    with clear_errors():  # what is wrong is said before a model is loaded
        _check_place(host, port)
        for name, value in (("--idle-minutes", idle_minutes), ("--leave-seconds", leave_seconds)):
            checks.real(name, value, 0, above=True)
        checks.real("--max-minutes", max_minutes, 0, above=True)
        for name in model or ():
            checks.path("--model", name)
    typer.echo("[1/3] Reading gradio, which draws the page.")
    try:
        import gradio  # noqa: F401 - to say what is missing before anything else does
    except ImportError as error:
        raise SystemExit("The page needs gradio, which is missing: pip install 'pdrop-video[demo]'.") from error
    with clear_errors():
        models = [announced(name, or_built_in).fetch() for name in model or (None,)]
    with tempfile.TemporaryDirectory(prefix="pdrop-video-") as uploads:
        # gradio reads where uploads go from the environment, and from nowhere else
        os.environ["GRADIO_TEMP_DIR"] = uploads
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from pdrop_video.guard import Guard

        from .actions import Actions
        from .door import Door
        from .gallery import BUILT_IN, gallery
        from .intake import Intake
        from .page import CSS, HEAD, SCRIPT, THEME, build
        from .sessions import Sessions
        from .uploads import Uploads

        sessions = Sessions(
            {name or BUILT_IN: partial(pv.load, name, device=device, dtype=dtype) for name in models},
            seats=seats,
            most=most,
            each=most_each,
            idle=60 * idle_minutes,
            grace=leave_seconds,
            longest=60 * max_minutes,
            largest=max_tokens,
            remember=remember_megabytes * 10**6,
        )
        stored = Uploads(
            Path(uploads),
            largest=max_megabytes * 2**20,
            most=most_megabytes and most_megabytes * 2**20,
            files_each=sessions.each,
            files=most,
        )
        sessions.sweep_for_ever(stored.sweep)
        typer.echo(f"[2/3] Loading the model: {next(iter(sessions.models))}.")
        with clear_errors():
            sessions.model("")  # before the first visitor, so that a wrong name is found now
        # a name is looked for in the host's folders first: the gallery's have an a.mp4 of their own
        folders = (Path(uploads), *(videos or ()), *(clip.path.parent for clip in gallery()))
        guard = Guard(folders, private=allow_private, devices=allow_devices)
        actions = Actions(sessions, guard, stored)
        page = build(actions, answers_at_once=seats).queue(default_concurrency_limit=seats)

        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[None]:
            """Put the door in front of all that gradio puts in front of itself."""
            intake = Intake(app.middleware_stack, upload=max_megabytes * 2**20, store=stored)
            app.middleware_stack = Door(intake, actions.shown, host, page.root_path)
            yield

        typer.echo("[3/3] Building the page and starting its server.")
        # whoever stops a service sends this; it must not leave the uploads behind
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            max_file_size=max_megabytes * 2**20,
            theme=THEME,
            css=CSS,
            js=SCRIPT,
            head=HEAD,
            share=False,
            ssr_mode=False,
            run_history=False,
            footer_links=["api"],
            enable_monitoring=False,
            state_session_capacity=max(4 * most, 128),
            app_kwargs={"lifespan": lifespan},
            quiet=True,
            prevent_thread_lock=True,
        )
        typer.echo(f"The page is at {address} - Ctrl-C stops it.")
        page.block_thread()


def _check_place(host: str, port: int | None) -> None:
    """Whether a server may listen there."""
    try:
        (kind, *_, place), *_ = socket.getaddrinfo(checks.text("--host", host), port, type=socket.SOCK_STREAM)
        with socket.socket(kind, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(place)
    except (OSError, UnicodeError) as error:
        at = host if port is None else f"{host}, port {port}"
        raise pv.ConfigError(f"the page can't listen at {at}: {error}; choose another --host or --port.") from error


if __name__ == "__main__":
    typer.run(main)
