"""`pdrop-video serve`: the model behind OpenAI's API, and live sessions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import pdrop_video as pv

from .arguments import (
    AllowDevices,
    AllowPrivate,
    Chunk,
    Device,
    Dtype,
    Fps,
    Gate,
    Model,
    Parts,
    Ratios,
    RecipeFile,
    Reducer,
)
from .console import clear_errors
from .fetching import announced
from .options import recipe_of
from .replicas import serve_many

EXAMPLES = """
[bold]Examples[/bold]

  pdrop-video serve --port 8000

  pdrop-video serve --model Qwen/Qwen2.5-VL-7B-Instruct --host 0.0.0.0 --api-key SECRET --videos /srv/videos

  pdrop-video serve --saves /var/lib/pdrop-video --gate static --memory 8192

  pdrop-video serve --ray --replicas 4 --replica-gpus 1 --shared /mnt/everywhere/sessions --model M
"""
BUILT_IN = "built-in"


def _bound(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Limits", min=1)


def _many(*names: str, **how: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Many machines", **how)


def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8000,
    name: Annotated[
        str | None, typer.Option(help="By which clients call the model; left out: as --model, or built-in.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Streams whose work is packed into one forward.", min=1)] = 8,
    api_key: Annotated[
        list[str] | None,
        typer.Option(envvar="PDROP_VIDEO_API_KEY", help="What clients must send; may be repeated. Left out: nothing."),
    ] = None,
    host_name: Annotated[
        list[str] | None, typer.Option(help="A name of this machine, by which it answers without keys; repeatable.")
    ] = None,
    videos: Annotated[
        list[Path] | None,
        typer.Option(help="Folder whose videos may be named; may be repeated.", exists=True, file_okay=False),
    ] = None,
    saves: Annotated[
        Path | None, typer.Option(help="Folder for saved sessions; left out: none are saved.", file_okay=False)
    ] = None,
    allow_private: AllowPrivate = False,
    allow_devices: AllowDevices = False,
    fps: Fps = None,
    chunk: Chunk = 8,
    recipe: RecipeFile = None,
    gate: Gate = None,
    reducer: Reducer = None,
    parts: Parts = None,
    ratios: Ratios = None,
    memory: Annotated[str | None, typer.Option(help="Most tokens that a layer remembers; left out: 6144.")] = None,
    max_sessions: Annotated[int, _bound("Sessions open at a time.")] = 128,
    max_sessions_each: Annotated[int, _bound("Of them, of one key, or address where there are no keys.")] = 128,
    max_session_megabytes: Annotated[int, _bound("Memory that all sessions together can come to take.")] = 8192,
    idle_minutes: Annotated[float, _bound("A session that nobody uses ends after so long.")] = 15,
    max_requests: Annotated[int, _bound("Requests at a time.")] = 512,
    max_requests_each: Annotated[int, _bound("Of them, of one key or address.")] = 512,
    per_minute: Annotated[int, _bound("Requests a minute of one key or address.")] = 12_000,
    max_megabytes: Annotated[int, _bound("Largest request.")] = 64,
    max_video_megabytes: Annotated[int, _bound("Largest video that is fetched.")] = 256,
    max_minutes: Annotated[float, _bound("Longest video of one request.")] = 120,
    deadline: Annotated[float, _bound("Seconds for a request.")] = 600,
    max_answer: Annotated[int, _bound("Tokens of an answer.")] = 4096,
    max_tokens: Annotated[int, _bound("Tokens that a client's own recipe may have a layer remember.")] = 32_768,
    prefixes: Annotated[int, _bound("Beginnings of conversations that are remembered.")] = 32,
    prefix_megabytes: Annotated[int, _bound("Memory that they take at most.")] = 2048,
    ray: Annotated[bool, _many("--ray", help="Many replicas, by Ray Serve.")] = False,
    replicas: Annotated[int | None, _many(help="How many; left out: 2.", min=1)] = None,
    shared: Annotated[Path | None, _many(help="Folder for copies of sessions; all machines see it.")] = None,
    save_every: Annotated[float, _many(help="Seconds from one copy of a session to the next.", min=0.05)] = 5,
    replica_cpus: Annotated[float, _many(help="CPUs that each replica takes.", min=0)] = 1,
    replica_gpus: Annotated[float, _many(help="GPUs that each replica takes.", min=0)] = 0,
    ray_address: Annotated[str | None, _many(help="Of a running cluster, or auto; left out: this machine.")] = None,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Serve OpenAI's chat completions about videos, live sessions and metrics. Ctrl-C stops it."""
    try:
        from ..serve import Limits, Settings, create_app
        from ..serve.replicas import Cluster
        from ..serve.running import listening, server_of
    except ImportError as error:
        raise SystemExit(
            f"The server needs {error.name}, which is missing: pip install 'pdrop-video[serve]'."
        ) from error
    mib = 2**20
    with clear_errors():  # what is wrong is said before a model is loaded
        settings = Settings(
            name=name or model or BUILT_IN,
            recipe=recipe_of(recipe, gate=gate, reducer=reducer, ratios=ratios, memory=memory),
            fps=fps,
            chunk=chunk,
            keys=tuple(api_key or ()),
            hosts=tuple(host_name or ()),
            folders=tuple(videos or ()),
            saves=saves,
            private=allow_private,
            devices=allow_devices,
            limits=Limits(
                body=max_megabytes * mib,
                media=max_video_megabytes * mib,
                seconds=60 * max_minutes,
                answer=max_answer,
                memory=max_tokens,
                deadline=deadline,
                requests=max_requests,
                requests_each=max_requests_each,
                per_minute=per_minute,
                sessions=max_sessions,
                sessions_each=max_sessions_each,
                session_bytes=max_session_megabytes * mib,
                idle=60 * idle_minutes,
                prefixes=prefixes,
                prefix_bytes=prefix_megabytes * mib,
            ),
        )
        if any(not key.strip() for key in settings.keys):
            raise pv.ConfigError("an --api-key is empty; give one that nobody guesses, or none at all.")
        if saves is not None:
            try:
                saves.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise pv.ConfigError(f"--saves {saves} can't be made: {error.strerror}; choose another.") from error
        if ray:
            if shared is None:
                raise pv.ConfigError("--ray needs --shared FOLDER, where copies of sessions are kept.")
            cluster = Cluster(shared, replicas or 2, save_every, replica_cpus, replica_gpus, ray_address)
            how: dict[str, Any] = dict(device=device, dtype=dtype, batch=batch, parts=tuple(parts or ()))
            make = partial(pv.load, announced(model).fetch(), **how)
            serve_many(make, settings, cluster, host, port)
            return
        if not (replicas is None and shared is None and ray_address is None):
            raise pv.ConfigError("--replicas, --shared and --ray-address are for many machines; give --ray, too.")
        with listening(host, port) as place:
            lm = pv.load(announced(model).fetch(), device=device, dtype=dtype, batch=batch, parts=parts or ())
            at = f"[{host}]" if ":" in host else host
            typer.echo(f"The server is at http://{at}:{place.getsockname()[1]}/v1 - Ctrl-C stops it.")
            server_of(create_app(lm, settings), largest=settings.limits.body).run(sockets=[place])
