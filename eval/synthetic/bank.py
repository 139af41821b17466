"""A bank of grids (pairs of frames) that really went through mp4, with labels, on disk; several processes fill it.

Row g holds two frames as the model sees them, `[2, 112, 112, 3]` uint8, and five labels: colour, glyph, the merged cell
that holds the glyph's centre, the marker's direction, the cell that holds the marker in the first frame.
"""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from .moving import CODES, moving_clip
from .render import FPS, read_mp4, write_clip
from .world import COLOURS, DIRECTIONS, GLYPHS, Clip, sample_clip

PIXELS = 112
CELLS = 4
NO_COLOUR, NO_GLYPH, NO_MARKER = len(COLOURS), len(GLYPHS), len(DIRECTIONS)
FIRST_CODE = NO_GLYPH + 1
"""Number of the first of `moving.CODES`, where glyphs are numbered."""
MOVING_FPS = 4
"""Frames a second of a bank's clips of moving cameras, of which two are taken."""
LABELS = ("colour", "glyph", "cell", "direction", "marker_cell")
SECONDS = 8
"""Every clip of a bank is so long, so that clip i owns rows 8 i to 8 i + 7."""


@dataclass(frozen=True)
class Bank:
    """Frames `[grids, 2, 112, 112, 3]` uint8 (mapped from disk) and labels `[grids, 5]`, columns as in `LABELS`."""

    frames: NDArray[np.uint8]
    labels: NDArray[np.int64]


def shrink(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bicubic, antialiased resize of `[frames, height, width, 3]` to 112 x 112, rounded to uint8."""
    tensor = rearrange(torch.from_numpy(pictures), "f h w c -> f c h w").float()
    small = torch.nn.functional.interpolate(tensor, size=(PIXELS, PIXELS), mode="bicubic", antialias=True)
    return rearrange(small.round().clamp(0, 255).to(torch.uint8), "f c h w -> f h w c").numpy()


def cell_of(x: float, y: float) -> int:
    """The merged cell, 0 to 15 row by row, that holds a point given in frame sides."""
    return min(int(y * CELLS), CELLS - 1) * CELLS + min(int(x * CELLS), CELLS - 1)


def glyph_number(glyph: str) -> int:
    """The number of a glyph or code in labels."""
    return GLYPHS.index(glyph) if glyph in GLYPHS else FIRST_CODE + CODES.index(glyph)


def glyph_of(number: int) -> str:
    """The glyph or code of a number in labels, which is not `NO_GLYPH`."""
    return GLYPHS[number] if number < NO_GLYPH else CODES[number - FIRST_CODE]


def labels_of(clip: Clip) -> NDArray[np.int64]:
    """Labels of every second of a clip, `[seconds, 5]`; -1 is no cell."""
    rows = np.tile(np.array([NO_COLOUR, NO_GLYPH, -1, NO_MARKER, -1]), (clip.seconds, 1))
    for thing in clip.things:
        for second in thing.seen:
            where = cell_of(*thing.at(second + (0.25 if thing.lasts > 1 or any(thing.velocity) else 0)))
            rows[second, :3] = COLOURS.index(thing.colour), glyph_number(thing.glyph), where
    if clip.marker:
        for second in range(clip.seconds):
            rows[second, 3:] = DIRECTIONS.index(clip.marker.direction), cell_of(*clip.marker.at(second))
    return rows


def clip_grids(clip: Clip) -> NDArray[np.uint8]:
    """The grids of a clip after encoding and decoding, `[seconds, 2, 112, 112, 3]`."""
    with io.BytesIO() as file:
        write_clip(clip, file, MOVING_FPS if clip.moving else FPS)
        file.seek(0)
        return rearrange(shrink(read_mp4(file)), "(s t) h w c -> s t h w c", t=2)


def bank_clip(split: str, seed: int, index: int, still: int) -> Clip:
    """A bank's clip: the first `still` ones are of the world of still cameras, the others of `moving`."""
    draw = sample_clip if index < still else moving_clip
    return draw(split, seed, index, seconds=SECONDS, dense=True)


def _fill(folder: Path, split: str, seed: int, clips: range, total: int, still: int) -> int:
    torch.set_num_threads(1)
    frames = np.memmap(folder / "frames.u8", np.uint8, "r+", shape=(total, 2, PIXELS, PIXELS, 3))
    labels = np.memmap(folder / "labels.i64", np.int64, "r+", shape=(total, len(LABELS)))
    for index in clips:
        clip = bank_clip(split, seed, index, still)
        rows = slice(index * SECONDS, (index + 1) * SECONDS)
        frames[rows], labels[rows] = clip_grids(clip), labels_of(clip)
    return len(clips)


def open_bank(folder: Path, split: str, seed: int, clips: int, workers: int = 2, still: int | None = None) -> Bank:
    """Open the bank in `folder`, filling it first where it is missing or was left half done.

    Parameters
    ----------
    folder : Path
        Where it is kept; 75 kB a grid.
    split, seed : str, int
        Which clips.
    clips : int
        How many clips of 8 grids.
    workers : int
        Processes.
    still : int, optional
        How many of them are of still cameras; all if left out.
    """
    still = clips if still is None else still
    total = clips * SECONDS
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "done.txt"
    finished = set(done.read_text().split()) if done.exists() else set()
    for name, size in (("frames.u8", total * 2 * PIXELS * PIXELS * 3), ("labels.i64", total * len(LABELS) * 8)):
        with open(folder / name, "ab") as file:
            file.truncate(size)
    pieces = [range(start, min(start + 50, clips)) for start in range(0, clips, 50)]
    with ProcessPoolExecutor(workers) as pool:
        jobs = {
            piece: pool.submit(_fill, folder, split, seed, piece, total, still)
            for piece in pieces
            if str(piece.start) not in finished
        }
        for number, (piece, job) in enumerate(jobs.items()):
            job.result()
            with done.open("a") as file:
                file.write(f"{piece.start}\n")
            if number % 10 == 0:
                print(f"bank {split}: {number + 1}/{len(jobs)} pieces", flush=True)
    return Bank(
        np.memmap(folder / "frames.u8", np.uint8, "r", shape=(total, 2, PIXELS, PIXELS, 3)),
        np.array(np.memmap(folder / "labels.i64", np.int64, "r", shape=(total, len(LABELS)))),
    )
