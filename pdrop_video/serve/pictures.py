"""Pictures that somebody sent, as frames: JPEG, PNG and WebP, of a bounded size. Knows bytes and pixels."""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Iterator, Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import FrameError
from ..video import FrameChunk

_FORMATS = ("JPEG", "PNG", "WEBP")


def decoded(data: bytes, most: int) -> NDArray[np.uint8]:
    """One picture [height, width, 3], upright.

    Parameters
    ----------
    data : bytes
    most : int
        Pixels; what has more is refused before it is decoded.

    Raises
    ------
    FrameError
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=_FORMATS) as picture:
                width, height = picture.size
                if width * height > most:
                    raise FrameError(f"a picture has {width} x {height} pixels; expected {most:,} at most.")
                return np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(picture).convert("RGB")))
    except FrameError:
        raise
    except Exception as error:  # whatever a stranger's bytes do to a decoder
        raise FrameError(f"a picture of {len(data):,} bytes cannot be read; expected JPEG, PNG or WebP.") from error


def from_base64(text: str, *, kind: str = "image") -> bytes:
    """The bytes of a ``data:`` address, or of plain base64.

    Raises
    ------
    FrameError
    """
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise FrameError(
                f"a data address begins with {head[:40]!r}; expected data:{kind}/...;base64, and the bytes."
            )
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FrameError(f"the bytes of one {kind} are no base64; encode them anew.") from error


def in_chunks(
    pictures: Sequence[NDArray[np.uint8]], seconds: Sequence[float], most: int, source: str = ""
) -> Iterator[FrameChunk]:
    """Pictures as chunks of one size each, of at most so many."""
    begun = 0
    for i in range(1, len(pictures) + 1):
        if i == len(pictures) or i - begun == most or pictures[i].shape != pictures[begun].shape:
            yield FrameChunk.of(np.stack(pictures[begun:i]), seconds[begun:i], source=source)
            begun = i
