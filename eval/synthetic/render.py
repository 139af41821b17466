"""Pixels and mp4 files of a clip; knows nothing of questions, models or training."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from eval.synthetic.backgrounds import background
from eval.synthetic.fonts import FONTS, font
from eval.synthetic.world import DIGITS, Clip, Marker, Thing, generator

SIDE = 224
FPS = 8
RGB = {
    "red": (222, 30, 36),
    "orange": (250, 135, 10),
    "yellow": (246, 226, 40),
    "green": (30, 170, 60),
    "blue": (36, 76, 225),
    "purple": (165, 50, 200),
}
UPSCALE = 3
"""Things are drawn so many times larger and then reduced, for smooth edges."""


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape in a square from -1 to 1."""
    if shape == "star":
        turns = np.arange(10) * np.pi / 5 - np.pi / 2
        radius = np.where(np.arange(10) % 2 == 0, 1.1, 0.45)
        return [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radius, turns, strict=True)]
    if shape == "heart":
        a = np.linspace(0, 2 * np.pi, 60)
        x = 16 * np.sin(a) ** 3
        y = 13 * np.cos(a) - 5 * np.cos(2 * a) - 2 * np.cos(3 * a) - np.cos(4 * a)
        return [(float(u / 16), float(-v / 16 - 0.08)) for u, v in zip(x, y, strict=True)]
    if shape == "circle":
        a = np.linspace(0, 2 * np.pi, 60)
        return [(float(0.95 * np.cos(u)), float(0.95 * np.sin(u))) for u in a]
    w = 0.34
    corners: dict[str, list[tuple[float, float]]] = {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "triangle": [(0, -1), (1, 0.85), (-1, 0.85)],
        "diamond": [(0, -1.1), (0.8, 0), (0, 1.1), (-0.8, 0)],
        "cross": [
            (-w, -1),
            (w, -1),
            (w, -w),
            (1, -w),
            (1, w),
            (w, w),
            (w, 1),
            (-w, 1),
            (-w, w),
            (-1, w),
            (-1, -w),
            (-w, -w),
        ],
    }
    return corners[shape]


def _stencil(rng: np.random.Generator, glyph: str, split: str, edge: bool) -> tuple[Image.Image, Image.Image]:
    """Opacity of a thing's body and of its dark edge, as two 8-bit pictures of the same size."""
    height = rng.uniform(56, 84) * SIDE / 224
    stretch, turn = rng.uniform(0.85, 1.2), rng.uniform(-10, 10)
    room = int(height * 2) * UPSCALE
    rim = round(height * UPSCALE * 0.05) if edge else 0
    layers = []
    name = FONTS[split][int(rng.integers(len(FONTS[split])))]
    for grow in (0, rim):
        layer = Image.new("L", (room, room))
        draw = ImageDraw.Draw(layer)
        if glyph in DIGITS:
            face = font(name, int(height * UPSCALE * 1.25))
            draw.text((room / 2, room / 2), glyph, 255, font=face, anchor="mm", stroke_width=grow)
        else:
            half = height * UPSCALE * 0.47
            corners = [(room / 2 + half * x, room / 2 + half * y) for x, y in _outline(glyph)]
            draw.polygon(corners, 255)
            if grow:
                draw.line([*corners, corners[0], corners[1]], 255, 2 * grow, joint="curve")
        box = (room * (1 - 1 / stretch) / 2, 0, room * (1 + 1 / stretch) / 2, room)
        small = layer.rotate(turn, Image.Resampling.BILINEAR).resize(
            (room // UPSCALE, room // UPSCALE), Image.Resampling.BOX, box=box if stretch > 1 else None
        )
        layers.append(small)
    return layers[0], layers[1]


def _paste(picture: NDArray[np.float32], stencil: Image.Image, rgb: NDArray[np.float32], x: float, y: float) -> None:
    """Blend a colour into `picture` [height, width, 3] where the stencil, centred at pixel (x, y), is opaque."""
    alpha = np.asarray(stencil, np.float32)[..., None] / 255
    left, top = round(x - alpha.shape[1] / 2), round(y - alpha.shape[0] / 2)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + alpha.shape[1], picture.shape[1]), min(top + alpha.shape[0], picture.shape[0])
    alpha = alpha[y0 - top : y1 - top, x0 - left : x1 - left]
    part = picture[y0:y1, x0:x1]
    part += alpha * (rgb - part)


def _draw_thing(picture: NDArray[np.float32], thing: Thing, split: str, rng: np.random.Generator) -> None:
    edge = bool(rng.random() < 0.5)
    body, rim = _stencil(rng, thing.glyph, split, edge)
    if edge:
        _paste(picture, rim, np.array((20, 20, 20), np.float32), thing.x * SIDE, thing.y * SIDE)
    rgb = np.array(RGB[thing.colour], np.float32) * rng.uniform(0.85, 1.0) + rng.uniform(-8, 8, 3)
    _paste(picture, body, rgb.astype(np.float32), thing.x * SIDE, thing.y * SIDE)


def _draw_marker(picture: NDArray[np.uint8], marker: Marker, seconds: float, radius: float) -> None:
    """A white disc with a black ring, drawn twice where it crosses the frame's edge."""
    x, y = marker.at(seconds)
    reach = int(radius + 2)
    steps = np.arange(-reach, reach + 1)
    for cx in (x * SIDE, x * SIDE - SIDE, x * SIDE + SIDE):
        for cy in (y * SIDE, y * SIDE - SIDE, y * SIDE + SIDE):
            px, py = steps + int(cx), steps + int(cy)
            px, py = px[(px >= 0) & (px < SIDE)], py[(py >= 0) & (py < SIDE)]
            if len(px) and len(py):
                far = np.hypot(px[None, :] + 0.5 - cx, py[:, None] + 0.5 - cy)[..., None]
                part = picture[py[0] : py[-1] + 1, px[0] : px[-1] + 1]
                part[:] = np.where(far < radius * 0.68, 250, np.where(far < radius, 5, part))


def frames(clip: Clip, fps: int = FPS) -> NDArray[np.uint8]:
    """All frames of a clip, `[frames, SIDE, SIDE, 3]`, RGB.

    Parameters
    ----------
    clip : Clip
        What to show.
    fps : int
        Frames a second.
    """
    rng = generator(clip.split, *clip.look, 11)
    ground = background(rng, clip.split, SIDE)
    radius = rng.uniform(14, 19) * SIDE / 224
    shown = {thing.second: thing for thing in clip.things}
    out = np.empty((clip.seconds * fps, SIDE, SIDE, 3), np.uint8)
    for second in range(clip.seconds):
        still = ground.copy()
        if second in shown:
            _draw_thing(still, shown[second], clip.split, rng)
        out[second * fps : (second + 1) * fps] = np.clip(still, 0, 255).astype(np.uint8)
    if clip.marker:
        for number, picture in enumerate(out):
            _draw_marker(picture, clip.marker, number / fps, radius)
    return out


def write_mp4(pictures: NDArray[np.uint8], where: Path | BinaryIO, fps: int = FPS, crf: int = 22) -> None:
    """Encode frames `[frames, height, width, 3]` as H.264 in an mp4 container.

    Parameters
    ----------
    pictures : array
        uint8 RGB; even height and width.
    where : Path or binary file
        Where to write.
    fps, crf : int
        Frames a second; quality of the codec (lower is better).
    """
    target = str(where) if isinstance(where, Path) else where
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = pictures.shape[1], pictures.shape[2], "yuv420p"
        stream.thread_count = 1
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_clip(clip: Clip, where: Path | BinaryIO) -> None:
    """Render a clip and encode it with a quality drawn from the clip's own seed."""
    crf = int(generator(clip.split, *clip.look, 13).integers(17, 28))
    write_mp4(frames(clip), where, crf=crf)


def read_mp4(where: Path | BinaryIO, fps: float = 2.0) -> NDArray[np.uint8]:
    """Decode one frame every 1 / fps seconds, `[frames, height, width, 3]`; sequential, by presentation time."""
    target = str(where) if isinstance(where, Path) else where
    kept: list[NDArray[np.uint8]] = []
    with av.open(target, "r") as container:
        container.streams.video[0].thread_count = 1
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= len(kept) / fps - 1e-3:
                kept.append(frame.to_ndarray(format="rgb24").astype(np.uint8))
    return np.stack(kept)


def montage(pictures: NDArray[np.uint8], columns: int = 8) -> Image.Image:
    """Frames side by side, for looking at."""
    missing = -len(pictures) % columns
    padded = np.concatenate([pictures, np.zeros((missing, *pictures.shape[1:]), np.uint8)])
    return Image.fromarray(rearrange(padded, "(r c) h w x -> (r h) (c w) x", c=columns))
