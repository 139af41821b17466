"""`pdrop-video ask`: watch a video and answer questions about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

import pdrop_video as pv

from .. import plots
from ..costs.decoder import DecoderShape
from ..memory import EVICTORS
from ..memory.storages import STORAGES
from ..models import Hearing, describe
from ..plots import Album
from ..pyramid import ALLOCATORS, INSIDES, SCORERS
from ..stream.looking import DECODES, chosen
from ..stream.terms import checked_for_asking, checked_for_looking
from ..video import Connection
from ..video.address import Address
from ..video.opening import DECODERS
from ..video.sampling import Sampling
from ..video.subtitles import interleaved, load_srt
from .arguments import (
    Chunk,
    Device,
    Dtype,
    End,
    Fps,
    Gate,
    Model,
    OrBuiltIn,
    Parts,
    Policy,
    Protocols,
    Ratios,
    RecipeFile,
    Reducer,
    Retries,
    Start,
    Timeout,
)
from .console import ERRORS, clear_errors, print_costs, print_live, progress, until_interrupted
from .fetching import announced
from .options import check_choice, check_questions, pyramid_of, recipe_of

EXAMPLES = """
[bold]Examples[/bold]

  pdrop-video ask clip.mp4 "What is shown first?" "How many things are shown?"

  pdrop-video ask match.mp4 "Who scored?" --model Qwen/Qwen2.5-VL-7B-Instruct --fps 1 --memory 6144

  pdrop-video ask clip.mp4 "Which way does it move?" --ratios none --memory none --json

  pdrop-video ask rtsp://camera/stream "Has anybody come in?" --end 600 --gate static --timeout 30 --retries 20

  pdrop-video ask film.mkv "How does it end?" --start 5400 --frames 64 --subtitles film.srt
"""


def _away(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Addresses and cameras")


def ask(
    video: Annotated[str, typer.Argument(help="A video file, or an address: http, https, rtsp, rtmp, tcp or udp.")],
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION...", help="One or more questions.")],
    model: Model = None,
    or_built_in: OrBuiltIn = False,
    fps: Fps = None,
    chunk: Chunk = 8,
    frames: Annotated[
        int | None, typer.Option(help="Watch so many frames, evenly spaced, instead of so many a second.", min=1)
    ] = None,
    start: Start = None,
    end: End = None,
    decoder: Annotated[str, typer.Option(help="What decodes: pyav, torchcodec (on a card), or decord.")] = "pyav",
    sound: Annotated[bool, typer.Option("--sound", help="Hear the video as well, with a model that can.")] = False,
    subtitles: Annotated[
        Path | None, typer.Option(help="An srt file; what is said is told to the model at its moments, as text.")
    ] = None,
    timeout: Timeout = 10.0,
    retries: Retries = 6,
    policy: Policy = None,
    protocols: Protocols = None,
    recipe: RecipeFile = None,
    gate: Gate = None,
    reducer: Reducer = None,
    parts: Parts = None,
    ratios: Ratios = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Most tokens that a layer remembers while watching; 'none' for no limit; left out: 6144."),
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help=f"What ranks visual tokens: {', '.join(SCORERS)}; left out: the best known.")
    ] = None,
    allocator: Annotated[
        str | None, typer.Option(help=f"How they are split over time: {', '.join(ALLOCATORS)}; left out: joint.")
    ] = None,
    inside: Annotated[
        str | None,
        typer.Option(help=f"What layers leave out of tokens that stay: {', '.join(INSIDES)}; left out: nothing."),
    ] = None,
    evictor: Annotated[
        str | None, typer.Option(help=f"What is forgotten: {', '.join(EVICTORS)}; left out: pyramid.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help=f"How keys and values are stored: {', '.join(STORAGES)}; left out: full.")
    ] = None,
    archive: Annotated[
        int | None, typer.Option(help="Bytes on the host for what is forgotten, for --retrieve.", min=1)
    ] = None,
    retrieve: Annotated[
        int | None, typer.Option(help="How many moments each question brings back from the archive.", min=1)
    ] = None,
    ask_ratios: Annotated[
        str | None, typer.Option(help="Share of the memory that a question keeps after each boundary, as --ratios.")
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(
            help=f"What an answer's tokens look at: {', '.join(DECODES)}, none for what the question saw and no more; "
            "left out: dstp with --ask-ratios."
        ),
    ] = None,
    standing: Annotated[
        bool, typer.Option("--standing", help="Let the first question rank visual tokens while watching.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)] = 128,
    device: Device = None,
    dtype: Dtype = "auto",
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
        opened = recipe_of(
            recipe,
            gate=gate,
            reducer=reducer,
            ratios=ratios,
            memory=memory,
            scorer=scorer,
            allocator=allocator,
            inside=inside,
            evictor=evictor,
            storage=storage,
            archive=archive,
        )
        asking = None if ask_ratios is None else checked_for_asking(pyramid_of("--ask-ratios", ask_ratios))
        if retrieve is not None and opened.memory.archive is None:
            raise pv.ConfigError(f"--retrieve {retrieve} without an archive to retrieve from; give --archive BYTES.")
        chosen(decode, hides=asking is not None)
        patience = Connection(connect_timeout=timeout, read_timeout=timeout, retries=retries)
        check_choice("decoder", decoder, *DECODERS)
        check_choice("policy", policy or "block", "block", "latest")
        Sampling.of(1.0 if fps is None else fps, chunk, start, end, frames, None)
        Address.of(video, None, protocols)
        if save_plots is not None:
            plots.check_folder(save_plots)
        cues = [] if subtitles is None else load_srt(subtitles)
        if cues and sound:
            raise pv.ConfigError("--subtitles and --sound were both given; the model hears what is said, or reads it.")
        coming = announced(model, or_built_in)
        config, adapter = describe(coming.model)
        if sound and not isinstance(adapter, Hearing):
            raise pv.ConfigError(
                f"--sound: models of type {config.model_type!r} do not take sound; leave it out, give what is said "
                "with --subtitles FILE.srt, or choose one that hears, such as Qwen/Qwen2.5-Omni-7B."
            )
        shape = DecoderShape.of(config)
        for each in (opened.pyramid, asking or opened.pyramid):
            each.resolve(shape.layers, shape.rank_at)
        hides = (asking or pv.Pyramid(stages=1)).resolve(shape.layers, shape.rank_at)
        checked_for_looking(decode, hides, shape.kinds, opened.memory.archive)
        lm = pv.load(coming.fetch(), device=device, dtype=dtype, attn=attn, parts=parts or ())
        for question in questions:
            lm.bounded("one of the questions", question)
        stream = lm.stream(opened, standing_question=questions[0] if standing else None)
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
            sound=sound,
            motion=opened.uses_motion,
        ) as reader:
            with until_interrupted(live=reader.info.duration is None):
                watched = reader if as_json else progress(reader, lm)
                for part in interleaved(watched, cues) if cues else watched:
                    if isinstance(part, str):
                        stream.add_text(part)
                        continue
                    stream.push(part)
                    if save_plots is not None:
                        album.add(stream, part)
            lost = list(reader.warnings)
        answers = []
        for question in questions:
            how: dict[str, Any] = dict(pyramid=asking, retrieve=retrieve, decode=decode)
            live = stream.ask(question, max_new_tokens, stream=True, **how)
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
