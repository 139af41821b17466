"""What the whole way of a video costs, from its frames into the memory: gate, tower, reducer, decoder.

Adds up what each of them says. Equal FLOPs are equal over the whole way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..models import Adapter
from .stream import StreamShape, stream_flops


@dataclass(frozen=True, slots=True)
class WayFlops:
    """FLOPs by part.

    Attributes
    ----------
    tower : int or None
        Patch embedding, blocks, and what stands between them and the decoder; None where the family does not say.
    decoder : int or None
        Layers, ranking and probe; None where it is not counted.
    gate, reducer : int
        What these methods say of themselves.
    """

    tower: int | None
    decoder: int | None
    gate: int = 0
    reducer: int = 0

    @property
    def total(self) -> int | None:
        """Of all parts; None where one of them is not counted, since a part is no whole."""
        if self.tower is None or self.decoder is None:
            return None
        return self.tower + self.decoder + self.gate + self.reducer


def video_flops(
    adapter: Adapter,
    shape: StreamShape,
    steps: int,
    size: tuple[int, int],
    *,
    chunk: int | None = None,
    glue: int = 0,
    prefix: int = 0,
    encoded: int | None = None,
    left: int | None = None,
    gate: int = 0,
    reducer: int = 0,
    knowing: Iterable[str] = (),
) -> WayFlops:
    """FLOPs of watching a video, by part. Needs no weights: an adapter that `describe` made will do.

    Parameters
    ----------
    adapter : Adapter
    shape : StreamShape
    steps : int
        Steps of the video, ``ceil(frames / adapter.frames_per_step)``.
    size : (h, w)
        Visual tokens of a step, down and across, as ``adapter.preprocess`` says.
    chunk : int, optional
        Steps that enter together; all by default.
    glue : int
        Tokens of text around each step.
    prefix : int
        Tokens of the prompt in front of the video.
    encoded : int, optional
        Steps that a gate lets through; all by default.
    left : int, optional
        Visual tokens that a reducer leaves of a step; all by default.
    gate, reducer : int
        FLOPs of their own, of the whole video.
    knowing : iterable of str
        What the reducer must know of the tower (`Reducer.needs`).

    Examples
    --------
    >>> from pdrop_video import Pyramid
    >>> from pdrop_video.costs.decoder import DecoderShape
    >>> from pdrop_video.models import describe
    >>> config, adapter = describe()
    >>> shape = StreamShape(DecoderShape.of(config), Pyramid(stages=4).resolve(8))
    >>> minute = video_flops(adapter, shape, steps=60, size=(4, 4))
    >>> f"tower {minute.tower / 1e9:.2f}, decoder {minute.decoder / 1e9:.2f} GFLOPs"
    'tower 8.49, decoder 6.56 GFLOPs'
    """
    encoded = steps if encoded is None else encoded
    down, across = size
    visual, at_once = down * across if left is None else left, encoded if chunk is None else chunk
    full, rest = divmod(encoded, at_once) if at_once else (0, 0)
    pieces = [(n * visual, n * glue) for n in (*[at_once] * full, rest) if n]
    counted = not shape.decoder.uncounted
    return WayFlops(
        tower=adapter.look_flops(size, encoded, None, knowing),
        decoder=stream_flops(shape, pieces, prefix=prefix).flops if counted else None,
        gate=gate,
        reducer=reducer,
    )
