"""Pixels and mp4 files of a clip; knows nothing of questions, models or training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .camera import MovingScene
from .fonts import FONTS, font
from .moving import CODES
from .outlines import holes, outline, strokes
from .pen import Pen
from .scenes import Scene
from .world import DIGITS, Clip, Marker, Thing, generator

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
PENNED = 0.4
"""Share of the digits that are written with a pen in training, not set in a font."""
WALL, WALL_SPEED = 0.25, 5.0
"""Half the side of what hides a thing, in frame sides, and how fast it comes and goes, in frame sides a second."""
UPSCALE = 3
"""Things are drawn so many times larger and then reduced, for smooth edges."""


def stencil(rng: np.random.Generator, glyph: str, split: str, edge: bool) -> tuple[Image.Image, Image.Image]:
    """Opacity of a thing's body and of its dark edge, as two 8-bit pictures of the same size."""
    height = rng.uniform(56, 84) * SIDE / 224
    stretch, turn = rng.uniform(0.85, 1.2), rng.uniform(-10, 10)
    room = int(height * 2) * UPSCALE
    rim = round(height * UPSCALE * 0.05) if edge else 0
    layers = []
    name = FONTS[split][int(rng.integers(len(FONTS[split])))]
    pen = Pen(rng, glyph) if split == "train" and glyph in DIGITS and rng.random() < PENNED else None
    for grow in (0, rim):
        layer = Image.new("L", (room, room))
        draw = ImageDraw.Draw(layer)
        if pen:
            pen.draw(draw, room / 2, height * UPSCALE * 0.47, grow)
        elif glyph in DIGITS or glyph in CODES:
            face = font(name, int(height * UPSCALE * (1.25 if glyph in DIGITS else 0.9)))
            draw.text((room / 2, room / 2), glyph.upper(), 255, font=face, anchor="mm", stroke_width=grow)
        else:
            _draw_outline(draw, glyph, room / 2, height * UPSCALE * 0.47, grow)
        box = (room * (1 - 1 / stretch) / 2, 0, room * (1 + 1 / stretch) / 2, room)
        small = layer.rotate(turn, Image.Resampling.BILINEAR).resize(
            (room // UPSCALE, room // UPSCALE), Image.Resampling.BOX, box=box if stretch > 1 else None
        )
        layers.append(small)
    return layers[0], layers[1]


def _draw_outline(draw: ImageDraw.ImageDraw, glyph: str, middle: float, half: float, grow: int) -> None:
    """A shape or icon of half size `half`, its edges moved out by `grow`."""

    def scaled(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(middle + half * x, middle + half * y) for x, y in points]

    for line in strokes(glyph):
        draw.line(scaled(line), 255, int(half * 0.24) + 2 * grow, joint="curve")
    for part in outline(glyph):
        corners = scaled(part)
        draw.polygon(corners, 255)
        if grow:
            draw.line([*corners, corners[0], corners[1]], 255, 2 * grow, joint="curve")
    for hole in holes(glyph) if not grow else []:
        draw.polygon(scaled(hole), 0)


def _paste(picture: NDArray[np.float32], stencil: Image.Image, rgb: NDArray[np.float32], x: float, y: float) -> None:
    """Blend a colour into `picture` [height, width, 3] where the stencil, centred at pixel (x, y), is opaque."""
    alpha = np.asarray(stencil, np.float32)[..., None] / 255
    left, top = round(x - alpha.shape[1] / 2), round(y - alpha.shape[0] / 2)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + alpha.shape[1], picture.shape[1]), min(top + alpha.shape[0], picture.shape[0])
    alpha = alpha[y0 - top : y1 - top, x0 - left : x1 - left]
    part = picture[y0:y1, x0:x1]
    part += alpha * (rgb - part)


@dataclass(frozen=True)
class _Look:
    """How a thing is drawn: layers of opacity and colour, the lowest first."""

    thing: Thing
    layers: tuple[tuple[Image.Image, NDArray[np.float32]], ...]

    @classmethod
    def of(cls, thing: Thing, split: str, rng: np.random.Generator) -> _Look:
        edge = bool(rng.random() < 0.5)
        body, rim = stencil(rng, thing.glyph, split, edge)
        rgb = np.array(RGB[thing.colour], np.float32) * rng.uniform(0.85, 1.0) + rng.uniform(-8, 8, 3)
        below = ((rim, np.array((20, 20, 20), np.float32)),) if edge else ()
        return cls(thing, (*below, (body, rgb.astype(np.float32))))

    def draw(self, picture: NDArray[np.float32], seconds: float) -> None:
        x, y = self.thing.at(seconds)
        if int(seconds) not in self.thing.hidden:
            for stencil, rgb in self.layers:
                _paste(picture, stencil, rgb, x * SIDE, y * SIDE)
        for second in self.thing.hidden:
            _hide(picture, x, y, max(second - seconds, seconds - second - 0.9, 0.0))


def _hide(picture: NDArray[np.float32], x: float, y: float, apart: float) -> None:
    """A dull wall before a thing at (x, y); `apart` seconds before and after that it stands beside it, then outside."""
    left = round((x - WALL + apart * WALL_SPEED) * SIDE)
    top, edge = max(round((y - WALL) * SIDE), 0), max(left, 0)
    picture[top : round((y + WALL) * SIDE), edge : max(round(left + 2 * WALL * SIDE), 0)] = picture.mean((0, 1)) * 0.8


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


def _scene(clip: Clip, rng: np.random.Generator, second: int) -> Scene:
    if clip.moving:
        return MovingScene(rng, clip.split, SIDE, second)
    return Scene(rng, clip.split, SIDE, second, clip.restless)


def each_frame(clip: Clip, fps: int = FPS) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video one by one, `[SIDE, SIDE, 3]`, RGB.

    Parameters
    ----------
    clip : Clip
        What to show.
    fps : int
        Frames a second.
    """
    rng = generator(clip.split, *clip.look, 11)
    radius = rng.uniform(14, 19) * SIDE / 224
    shown = {second: thing for thing in clip.things for second in range(thing.second, thing.second + thing.lasts)}
    scene: Scene | None = None
    look: _Look | None = None
    for second in range(clip.seconds):
        if scene is None or second == scene.end:
            scene = _scene(clip, rng, second)
        thing = shown.get(second)
        if thing is None:
            look = None
        elif look is None or thing is not look.thing:  # a thing looks the same as long as it lasts
            look = _Look.of(thing, clip.split, rng)
        for number in range(second * fps, (second + 1) * fps):
            drawn = scene.at(number / fps)
            if look:
                look.draw(drawn, number / fps)
            picture = np.clip(drawn, 0, 255).astype(np.uint8)
            if clip.marker:
                _draw_marker(picture, clip.marker, number / fps, radius)
            yield picture


def frames(clip: Clip, fps: int = FPS) -> NDArray[np.uint8]:
    """All frames of a clip, `[frames, SIDE, SIDE, 3]`, RGB."""
    return np.stack(list(each_frame(clip, fps)))


def write_mp4(pictures: Iterable[NDArray[np.uint8]], where: Path | BinaryIO, fps: int = FPS, crf: int = 22) -> None:
    """Encode frames as H.264 in an mp4 container.

    Parameters
    ----------
    pictures : iterable of array
        `[height, width, 3]`, uint8 RGB; even height and width.
    where : Path or binary file
        Where to write.
    fps, crf : int
        Frames a second; quality of the codec (lower is better).
    """
    target = str(where) if isinstance(where, Path) else where
    with av.open(target, "w", format="mp4") as container:
        # with mbtree x264 gives other bits from one run to the next
        options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_clip(clip: Clip, where: Path | BinaryIO, fps: int = FPS) -> None:
    """Render a video and encode it with a quality drawn from its own seed."""
    crf = int(generator(clip.split, *clip.look, 13).integers(17, 28))
    write_mp4(each_frame(clip, fps), where, fps, crf)


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
