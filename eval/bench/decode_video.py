"""What does choosing frames cost? `open_video` against a bare PyAV loop that decodes the same packets.

python -m eval.bench.decode_video
python -m eval.bench.decode_video --minutes 1 --frames 16 --json
"""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import pandas as pd
import typer

import pdrop_video as pv

from ..runner.frames import Frames, Viewing
from .common import AsJson, Out, in_turns, report

RATE, WIDTH, HEIGHT, KEYFRAMES = 25, 854, 480, 250
"""Frames a second, size, and frames between keyframes, as x264 sets them by default."""


def write(path: Path, minutes: float, seed: int) -> None:
    """Write H.264 of 480 lines with B-frames: a textured picture that drifts, under grain.

    A minute at most is encoded; longer videos repeat its packets, which cost as much to decode each time.
    """
    generator = np.random.default_rng(seed)
    texture = np.kron(generator.integers(40, 200, (30, 61)), np.ones((16, 14))).astype(np.uint8)
    grain = generator.integers(0, 24, (8, HEIGHT, WIDTH), np.uint8)
    total = int(minutes * 60 * RATE)
    length = min(total, 60 * RATE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "g": str(KEYFRAMES)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        packets = []
        for index in range(length):
            planes[:HEIGHT] = np.roll(texture, (index // 3, index), (0, 1))[:HEIGHT, :WIDTH] + grain[index % 8]
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            packets += stream.encode(frame)
        packets += stream.encode()
        for begin in range(0, total - length + 1, length):
            for packet in packets:
                assert packet.pts is not None
                assert packet.dts is not None
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts, copy.time_base = packet.pts + begin, packet.dts + begin, packet.time_base
                copy.duration, copy.is_keyframe, copy.stream = packet.duration, packet.is_keyframe, stream
                container.mux(copy)


def plan(path: Path, frames: int) -> list[tuple[int, int]]:
    """Where a bare loop has to go: for each wanted frame, the keyframe before it and the frame itself (time stamps)."""
    with av.open(str(path)) as container:
        packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.pts is not None]
    keys = sorted(stamp for stamp, key in packets if key)
    stamps = sorted(stamp for stamp, _ in packets)
    wanted = [stamps[index] for index in np.linspace(0, len(stamps) - 1, frames, dtype=int)]
    return [(keys[bisect_right(keys, stamp) - 1], stamp) for stamp in wanted]


def bare(path: Path, places: list[tuple[int, int]]) -> list[np.ndarray]:
    """Seek and decode, knowing from somewhere where to go; nothing is checked."""
    pictures, here = [], -1
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        decoded = container.decode(stream)
        for key, stamp in places:
            if key > here:
                container.seek(key, stream=stream)
                decoded = container.decode(stream)
            frame = next(frame for frame in decoded if frame.pts == stamp)
            pictures.append(frame.to_ndarray(format="rgb24"))
            here = stamp
    return pictures


def sampled(path: Path, frames: int, decoder: str = "pyav") -> list[np.ndarray]:
    """Do the same by the library."""
    with pv.open_video(path, frames=frames, decoder=decoder) as video:  # type: ignore[arg-type]
        return [picture for chunk in video for picture in chunk.frames.numpy()]


def watched(path: Path, frames: int) -> list[np.ndarray]:
    """Do the same as a benchmark's run does."""
    viewing = Viewing(path, start=0.0, end=None, fps=None, frames=frames, rule="linspace", chunk=8)
    return [picture for chunk in Frames()(viewing) for picture in chunk.frames.numpy()]


def main(
    video: Annotated[
        Path | None, typer.Option(help="A file with a whole index, in place of one made for this.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Length of the video that is made.")] = 10.0,
    frames: Annotated[int, typer.Option(help="Frames to take, evenly spaced.", min=1)] = 64,
    repeats: Annotated[int, typer.Option(help="Timed turns of each.", min=1)] = 5,
    seed: Annotated[int, typer.Option(help="Of the pictures.")] = 0,
    decord: Annotated[bool, typer.Option("--decord", help="Also time decord.")] = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Time all in turns, and check first that they give the same pictures."""
    with tempfile.TemporaryDirectory() as folder:
        path = video or Path(folder) / "video.mp4"
        if video is None:
            write(path, minutes, seed)
        places = plan(path, frames)
        runs = {
            "bare PyAV loop": lambda: bare(path, places),
            "open_video": lambda: sampled(path, frames),
            "eval.run": lambda: watched(path, frames),
        }
        expected = bare(path, places)
        for run in runs.values():
            for one, other in zip(expected, run(), strict=True):
                assert np.array_equal(one, other), "all must give the same frames"
        del expected
        if decord:
            runs["decord"] = lambda: sampled(path, frames, "decord")
        times = in_turns(runs, repeats)
    ratios = times.div(times["bare PyAV loop"], axis=0).median()
    table = pd.DataFrame({"reader": times.columns, "seconds": times.median().values, "ratio": ratios.values})
    report(
        "decode_video",
        table,
        lambda rows: rows.plot.bar(x="reader", y="ratio", legend=False, ylabel="time / bare loop's", rot=0),
        out,
        as_json,
        {
            "video": str(video or f"{minutes:g} minutes made here"),
            "frames": frames,
            "ratio": float(ratios["open_video"]),
            "target": 1.1,
        },
    )


if __name__ == "__main__":
    typer.run(main)
