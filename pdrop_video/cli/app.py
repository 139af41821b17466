"""The command line: `pdrop-video ask`, `info` and `search`. Parses and prints; everything else is the library's."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer
from rich.markup import escape
from rich.table import Table

import pdrop_video as pv

from .. import plots
from ..costs.decoder import DecoderShape, prefill_flops
from ..memory import EVICTORS
from ..models import describe
from ..plots import Album
from ..pyramid import ALLOCATORS, SCORERS
from ..search.search import Clip, Tried, checked
from ..search.search import search as find_schedule
from ..stream.asking import checked_for_asking
from ..video import Connection
from ..video.address import Address
from ..video.sampling import Sampling
from .console import CONSOLE, ERRORS, clear_errors, print_costs, print_live, progress, until_interrupted
from .options import check_choice, check_out, check_questions, memory_of, pyramid_of

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    help="Let a video-LLM watch a video in chunks, drop visual tokens stage by stage, and answer questions about it.",
)

_ASK_EXAMPLES = """
[bold]Examples[/bold]

  pdrop-video ask clip.mp4 "What is shown first?" "How many things are shown?"

  pdrop-video ask match.mp4 "Who scored?" --model Qwen/Qwen2.5-VL-7B-Instruct --fps 1 --memory 6144

  pdrop-video ask clip.mp4 "Which way does it move?" --ratios none --memory none --json

  pdrop-video ask rtsp://camera/stream "Has anybody come in?" --end 600 --timeout 30 --retries 20

  pdrop-video ask film.mkv "How does it end?" --start 5400 --frames 64
"""
_INFO_EXAMPLES = """
[bold]Examples[/bold]

  pdrop-video info

  pdrop-video info Qwen/Qwen2.5-VL-7B-Instruct --ratios 0.6,0.3,0.1
"""

_SEARCH_EXAMPLES = """
[bold]Example[/bold]

  pdrop-video search a.mp4 b.mp4 c.mp4 d.mp4 --question "What happens?" --budget 0.4 --out schedule.json
"""

Model = Annotated[str | None, typer.Option(help="Folder or name on the hub; left out: the built-in model.")]
Ratios = Annotated[
    str | None,
    typer.Option(
        help="Share of visual tokens left after each boundary, as 0.5,0.25,0.125; 'none' drops nothing; "
        "or a .json file that search wrote."
    ),
]


def _away(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Addresses and cameras")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(pv.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command(epilog=_ASK_EXAMPLES)
def ask(
    video: Annotated[str, typer.Argument(help="A video file, or an address: http, https, rtsp, rtmp, tcp or udp.")],
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION...", help="One or more questions.")],
    model: Model = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second to watch; left out: the model's own.")] = None,
    chunk: Annotated[int, typer.Option(help="Frames per push.", min=1)] = 8,
    frames: Annotated[
        int | None, typer.Option(help="Watch so many frames, evenly spaced, instead of so many a second.", min=1)
    ] = None,
    start: Annotated[float | None, typer.Option(help="Watch from this second on.", min=0)] = None,
    end: Annotated[float | None, typer.Option(help="Stop watching at this second.", min=0)] = None,
    decoder: Annotated[str, typer.Option(help="What decodes: pyav, or decord in a process of its own.")] = "pyav",
    timeout: Annotated[float, _away("Seconds to wait for the source to open, and for each packet of it.")] = 10.0,
    retries: Annotated[int, _away("Attempts to make a lost connection again.")] = 6,
    policy: Annotated[
        str | None, _away("If frames come too fast: block, or latest to drop the oldest; left out: latest.")
    ] = None,
    protocols: Annotated[
        str | None, _away("What may read the source and all that it names, as file,http,tcp; left out: what it needs.")
    ] = None,
    ratios: Ratios = None,
    memory: Annotated[
        str, typer.Option(help="Most tokens that a layer remembers while watching; 'none' for no limit.")
    ] = "6144",
    scorer: Annotated[
        str | None, typer.Option(help=f"What ranks visual tokens: {', '.join(SCORERS)}; left out: the best known.")
    ] = None,
    allocator: Annotated[str, typer.Option(help=f"How they are split over time: {', '.join(ALLOCATORS)}.")] = "joint",
    evictor: Annotated[str, typer.Option(help=f"What is forgotten: {', '.join(EVICTORS)}.")] = "pyramid",
    archive: Annotated[
        int | None, typer.Option(help="Bytes on the host for what is forgotten, for --retrieve.", min=1)
    ] = None,
    retrieve: Annotated[
        int | None, typer.Option(help="How many moments each question brings back from the archive.", min=1)
    ] = None,
    ask_ratios: Annotated[
        str | None, typer.Option(help="Share of the memory that a question keeps after each boundary, as --ratios.")
    ] = None,
    standing: Annotated[
        bool, typer.Option("--standing", help="Let the first question rank visual tokens while watching.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)] = 128,
    device: Annotated[str | None, typer.Option(help="For example cuda or cpu; left out: the best there is.")] = None,
    dtype: Annotated[str, typer.Option(help="For example bfloat16; auto takes the checkpoint's own.")] = "auto",
    attn: Annotated[str | None, typer.Option(help="Attention: sdpa, eager, flash_attention_2, ...")] = None,
    save_plots: Annotated[
        Path | None, typer.Option(help="Folder for pictures of what is remembered and what each answer rested on.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Watch a video and answer questions about it. Ctrl-C ends the watching of a live source, and the answers come."""
    with clear_errors():
        # all that is wrong is said before a model is loaded, and long before a video is watched
        check_questions(questions)
        pyramid, remembering = pyramid_of("--ratios", ratios, scorer, allocator), memory_of(memory, evictor, archive)
        asking = None if ask_ratios is None else checked_for_asking(pyramid_of("--ask-ratios", ask_ratios))
        if retrieve is not None and archive is None:
            raise pv.ConfigError(f"--retrieve {retrieve} without an archive to retrieve from; give --archive BYTES.")
        patience = Connection(connect_timeout=timeout, read_timeout=timeout, retries=retries)
        check_choice("decoder", decoder, "pyav", "decord")
        check_choice("policy", policy or "block", "block", "latest")
        Sampling.of(1.0 if fps is None else fps, chunk, start, end, frames, None)
        Address.of(video, None, protocols)
        if save_plots is not None:
            plots.check_folder(save_plots)
        layers = DecoderShape.of(describe(model)[0]).layers
        for each in (pyramid, asking or pyramid):
            each.resolve(layers)
        lm = pv.load(model, device=device, dtype=dtype, attn=attn)
        for question in questions:
            lm.bounded("one of the questions", question)
        stream = lm.stream(
            pyramid,
            remembering,
            standing_question=questions[0] if standing else None,
        )
        album = Album()
        rate = lm.adapter.fps if fps is None else fps
        with pv.open_video(
            video,
            fps=rate,
            chunk=chunk,
            frames=frames,
            start=start,
            end=end,
            decoder=cast(Any, decoder),
            policy=cast(Any, policy),
            protocols=protocols,
            connection=patience,
        ) as reader:
            with until_interrupted(live=reader.info.duration is None):
                for part in reader if as_json else progress(reader, lm):
                    stream.push(part)
                    if save_plots is not None:
                        album.add(stream, part)
            lost = list(reader.warnings)
        answers = []
        for question in questions:
            live = stream.ask(question, max_new_tokens, stream=True, pyramid=asking, retrieve=retrieve)
            answers.append(live.finish() if as_json else print_live(question, live))
        saved = [] if save_plots is None else plots.save(save_plots, stream, album, answers)
        if as_json:
            named = video if Path(video).is_file() else reader.source  # an address without its password
            typer.echo(json.dumps({"video": named, "warnings": lost, "answers": [asdict(a) for a in answers]}))
            return
        for sentence in lost:
            ERRORS.print(f"[yellow]warning:[/yellow] {escape(sentence)}", highlight=False, soft_wrap=True)
        print_costs(answers[-1], stream)
        for picture in saved:
            ERRORS.print(f"wrote {escape(str(picture))}", highlight=False, soft_wrap=True)


@app.command(epilog=_INFO_EXAMPLES)
def info(
    model: Annotated[
        str | None, typer.Argument(help="Folder or name on the hub; left out: the built-in model.")
    ] = None,
    ratios: Ratios = None,
    height: Annotated[int, typer.Option(help="Height of the frames, in pixels.", min=1, max=8192)] = 720,
    width: Annotated[int, typer.Option(help="Width of the frames, in pixels.", min=1, max=8192)] = 1280,
) -> None:
    """Show what a schedule means for a model: boundaries, tokens, FLOPs, bytes. Reads no weights."""
    with clear_errors():
        pyramid = pyramid_of("--ratios", ratios)
        config, adapter = describe(model)
        shape = DecoderShape.of(config)
        schedule = pyramid.resolve(shape.layers)
        step = adapter.frames_per_step
        _, (t, h, w) = adapter.preprocess(torch.zeros(step, height, width, 3, dtype=torch.uint8))
        minute = int(60 * adapter.fps / step) * t * h * w
        full = prefill_flops(shape, pv.Pyramid(stages=1).resolve(shape.layers), minute, 0)
        kept = prefill_flops(shape, schedule, minute, 0)
    table = Table(title=escape(model or "built-in model"), show_header=False)
    for name, value in (
        ("family", config.model_type),
        ("decoder layers", shape.layers),
        ("drops before layers", ", ".join(map(str, schedule.layers)) or "none"),
        ("visual tokens left", ", ".join(f"{r:.3g}" for r in (1.0, *schedule.ratios))),
        (f"visual tokens per {step} frame(s) of {width} x {height}", f"{t * h * w} ({h} x {w})"),
        (f"visual tokens per minute at {adapter.fps:g} fps", f"{minute:,}"),
        ("mean over the layers", f"{schedule.average(minute):,.0f}"),
        ("prefill of that minute", f"{full / 1e12:.4g} -> {kept / 1e12:.4g} TFLOPs ({kept / full:.0%})"),
        ("KV cache per token (16 bit)", f"{shape.kv_bytes_per_token():,} bytes"),
        ("trained positions", f"{config.get_text_config().max_position_embeddings:,}"),
    ):
        table.add_row(name, str(value))
    CONSOLE.print(table)


@app.command(epilog=_SEARCH_EXAMPLES)
def search(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Two or more; every second is held out.")],
    out: Annotated[Path, typer.Option(help="The JSON file that Pyramid.load reads.")],
    question: Annotated[list[str], typer.Option(help="Asked of every video; may be repeated.")],
    model: Model = None,
    budget: Annotated[float, typer.Option(help="Share of the FLOPs of all visual tokens.")] = 0.5,
    stages: Annotated[int, typer.Option(help="Stages, from 2.")] = 4,
    trials: Annotated[int, typer.Option(help="Random schedules.")] = 32,
    steps: Annotated[int, typer.Option(help="Steps of local search from the best of them.")] = 32,
    frames: Annotated[int, typer.Option(help="Of each video, evenly spaced; kept decoded.", min=1)] = 32,
    chunk: Annotated[int, typer.Option(help="Frames per push.", min=1)] = 8,
    scorer: Annotated[str | None, typer.Option(help="What ranks visual tokens; left out: the best known.")] = None,
    allocator: Annotated[str, typer.Option(help=f"How they are split over time: {', '.join(ALLOCATORS)}.")] = "joint",
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    device: Annotated[str | None, typer.Option(help="For example cuda or cpu; left out: the best there is.")] = None,
    dtype: Annotated[str, typer.Option(help="For example bfloat16; auto takes the checkpoint's own.")] = "auto",
) -> None:
    """Find the stages that change a model's answers least at a FLOPs budget. Needs videos and questions, no answers."""
    with clear_errors():
        base = pyramid_of("--ratios", None, scorer, allocator)
        budget, stages, trials, steps = checked(len(videos), budget, stages, trials, steps)
        check_questions(question)
        for video in videos:
            Address.of(video)
        check_out(out)
        pv.Pyramid(stages=stages).resolve(DecoderShape.of(describe(model)[0]).layers)
        lm, clips = pv.load(model, device=device, dtype=dtype), []
        for asked in question:
            lm.bounded("one of the questions", asked)
        for video in videos:
            with pv.open_video(video, frames=frames, chunk=chunk) as reader:
                clips.append(Clip(reader.source, list(reader), question))
        number = count(1)

        def watch(tried: Tried) -> None:
            ERRORS.print(
                f"{next(number)} of at most {1 + trials + steps}: {tried.divergence:.4f} nats", highlight=False
            )

        found = find_schedule(
            lm, clips, budget, stages=stages, trials=trials, steps=steps, base=base, seed=seed, watch=watch
        )
        rows = {"chosen": found.chosen, "paper's shape": found.paper, f"best of {trials} random": found.best_random}
        notes = {"model": lm.name, "budget": budget, "seed": seed, "videos": [clip.name for clip in clips]}
        found.chosen.pyramid.save(out, search=notes | {name: asdict(tried) for name, tried in rows.items()})
    table = Table("", "before layers", "left", "FLOPs", "KL, searched on", "KL, held out")
    for name, tried in rows.items():
        layers, ratios = tried.pyramid.layers or (), tried.pyramid.ratios or ()
        shares = " ".join(f"{ratio:.3f}" for ratio in ratios)
        figures = (f"{tried.flops:.1%}", f"{tried.divergence:.4f}", f"{tried.held_out:.4f}")
        table.add_row(name, " ".join(map(str, layers)), shares, *figures)
    CONSOLE.print(table)
    CONSOLE.print(f"written to {escape(str(out))}", highlight=False, soft_wrap=True)
