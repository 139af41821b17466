"""Run a benchmark: `python -m eval.run videomme --data DIR --model M --frames 64 --out DIR`.

Parses, locks the output, lets a driver carry out what is left, writes each record down, and reports.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import pdrop_video as pv
from pdrop_video.common.checks import real
from pdrop_video.gate import GATES
from pdrop_video.reduce import REDUCERS

from .drivers import Place, local, place_of, threads, torchrun_place
from .drivers.jobs import Driver, Job, failed, serial
from .drivers.ray import RayOptions, ray_replicas
from .runner.config import RunConfig, configured
from .runner.doors import clear_errors, encodable, out_folder
from .runner.execute import execute
from .runner.report import show
from .stats.record import Record
from .tasks import TASKS

_out, _err = Console(), Console(stderr=True)

WITH_ERRORS = 3
"""Exit code of a run that is finished and written, with errors on record."""


def main(
    task: Annotated[str | None, typer.Argument(help=f"One of {', '.join(TASKS)}; or in the YAML file.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML with any of these settings, by the names below.")] = None,
    data: Annotated[Path | None, typer.Option(help="The benchmark's folder, as downloaded.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the run is written; the same folder again resumes it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub name; left out: the built-in model.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a model on the hub.")] = None,
    parts: Annotated[
        list[str] | None,
        typer.Option("--part", help="A trained part: a name, a file, NAME=FILE, or a folder; may be repeated."),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="For example bfloat16; left out: the checkpoint's own.")] = None,
    attn: Annotated[str | None, typer.Option(help="Attention: sdpa, flash_attention_2, ...")] = None,
    device: Annotated[str | None, typer.Option(help="Left out: workers are spread over the CUDA devices.")] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="A .yaml or .json file that says the next four at once; each of them, if given, wins."),
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option(help=f"Which frames are encoded: 'none', {', '.join(GATES)}; parameters as static:threshold=5."),
    ] = None,
    reducer: Annotated[
        str | None,
        typer.Option(help=f"Which visual tokens enter: 'none', {', '.join(REDUCERS)}; parameters as evs:keep=0.25."),
    ] = None,
    pyramid: Annotated[
        str | None,
        typer.Option(
            help="'none'; ratios as 0.5,0.25,0.125; YAML: '{ratios: [.5], scorer: fusion}'; or a file of "
            "`pdrop-video search`."
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="'none'; a number of tokens; or YAML: '{tokens: 6144, evictor: window, positions: compact, archive: "
            "1073741824}'."
        ),
    ] = None,
    ask_pyramid: Annotated[
        str | None,
        typer.Option(
            help="As --pyramid, but no scorer or allocator: drops from the memory at each question, by its attention; "
            "left out: nothing."
        ),
    ] = None,
    retrieve: Annotated[
        int | None, typer.Option(help="Steps of time that each question gets back from the memory's archive.")
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(
            help="What an answer's tokens look at: dstp, fixation, none for what a question saw; left out: dstp with "
            "--ask-pyramid."
        ),
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second; or")] = None,
    frames: Annotated[int | None, typer.Option(help="so many frames in all, by the benchmark's own rule.")] = None,
    chunk: Annotated[int | None, typer.Option(help="Frames a push (8).")] = None,
    last_frames: Annotated[
        int | None,
        typer.Option(help="Recency baseline: no memory, the last so many frames; all that gate and reducer let by."),
    ] = None,
    answer: Annotated[str | None, typer.Option(help="generate (default), or likelihood of the options' texts.")] = None,
    question_aware: Annotated[
        bool | None, typer.Option("--question-aware", help="Each question ranks while its video is watched anew.")
    ] = None,
    paraphrase: Annotated[
        str | None, typer.Option(help="Questions in other words: a rule of eval.runner.paraphrases, or a JSONL file.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer, in place of the task's own.")] = None,
    seed: Annotated[int | None, typer.Option(help="For methods that draw at random (0).")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many items.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded frames for the next run.")] = None,
    cache_gb: Annotated[float | None, typer.Option(help="Its size at most (50).")] = None,
    strict: Annotated[bool | None, typer.Option("--strict", help="Stop at an item's error.")] = None,
    retry: Annotated[bool | None, typer.Option("--retry", help="Do items with an error on record again.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Videos at once on one model, computed together (1); without --workers.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine, or replicas on Ray.")] = 1,
    shard: Annotated[str | None, typer.Option(help="i/n, i from 0: this process does every n-th video.")] = None,
    on_ray: Annotated[
        bool, typer.Option("--ray", help="Carry the work out on Ray (pip install pdrop-video[ray]).")
    ] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="Of a running cluster; left out: one on this machine.")
    ] = None,
    ray_cpus: Annotated[float, typer.Option(help="CPUs of a replica.")] = 1.0,
    ray_gpus: Annotated[float, typer.Option(help="GPUs of a replica.")] = 0.0,
    ray_timeout: Annotated[float, typer.Option(help="Seconds to wait for a replica's resources.")] = 300.0,
) -> None:
    """Run a benchmark through the streaming path; killed at any moment and started again, it goes on."""
    given = {name: value for name, value in locals().items() if name in RunConfig.model_fields}
    with clear_errors():
        for name, value in {"config": config, "shard": shard, "ray-address": ray_address}.items():
            encodable(f"--{name}", value)
        real("--ray-cpus", ray_cpus, 0, 1e6)
        real("--ray-gpus", ray_gpus, 0, 1e6)
        real("--ray-timeout", ray_timeout, 0, above=True)
        settings = configured(config, given)
        out_folder(settings.out)
        if settings.batch > 1 and (workers > 1 or on_ray):
            raise pv.ConfigError(
                f"--batch {settings.batch} computes several videos in one process, and --workers or --ray asks for "
                "more processes; use one of them (--shard shares a batched run out)."
            )
        place = place_here(shard)
        options = RayOptions(ray_address, workers, ray_cpus, ray_gpus, ray_timeout) if on_ray else None
        summary = execute(settings, place, driver_of(settings, workers, options))
        show(summary, _out)
        _out.print(f"written to {settings.out}", soft_wrap=True, highlight=False)
        items = summary["items"]
        if items["errors"] and items["finished"] == items["expected"]:  # torchrun ends shares beside one that failed
            _err.print(
                f"[red]{items['errors']} of {items['finished']} items ended in an error[/red] and count as wrong; "
                "their records say why, and the same command with --retry does them again.",
                soft_wrap=True,
                highlight=False,
            )
            raise typer.Exit(WITH_ERRORS)


def driver_of(config: RunConfig, workers: int, options: RayOptions | None) -> Driver:
    """How jobs are carried out: on Ray, in several processes, or in this one."""

    def give_up(job: Job, why: str) -> Iterator[Record]:
        if config.strict:
            raise pv.PDropError(f"video {job.video}: {why}.")
        for item in job.items:
            yield failed(item, config.task, config.digest, why)

    if options is not None:
        return lambda jobs, make: ray_replicas(jobs, make, options, give_up)
    if config.batch > 1:
        return lambda jobs, make: threads(jobs, make, config.batch)
    if workers > 1:
        return lambda jobs, make: local(jobs, make, workers, give_up)
    return serial


def place_here(shard: str | None) -> Place:
    """Which share this process does: as it was given, or by torchrun's environment, or everything."""
    spread = torchrun_place(os.environ)
    if shard is None:
        return spread or Place()
    if spread is not None:
        raise pv.ConfigError(f"--shard {shard} was given under torchrun, which shares the work out itself; use one.")
    return place_of(shard)


if __name__ == "__main__":
    typer.run(main)
