"""`FrameChunk`: a few frames and the second at which each is shown, checked once, where they enter.

Whatever follows in the library may rely on a chunk being well formed. This module refuses to know where frames come
from: a file, a camera or an array are the same to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.checks import real, shown, whole
from ..errors import ConfigError, FrameError
from .motion import Motion
from .sound import as_sound

Frames: TypeAlias = "torch.Tensor | NDArray[np.uint8]"
Samples: TypeAlias = "torch.Tensor | NDArray[np.int16] | NDArray[np.floating]"
Seconds: TypeAlias = "Iterable[float] | NDArray[np.floating] | torch.Tensor"


@dataclass(frozen=True, slots=True, eq=False)
class FrameChunk:
    """A run of frames in the order of their times.

    Build one from arrays with `FrameChunk.of`, which accepts more types; the constructor itself checks the same rules.

    Attributes
    ----------
    frames : torch.Tensor
        RGB pictures, uint8, `[frames, height, width, 3]`, on any device.
    seconds : tuple of float
        When each frame is shown, in seconds from the start of the video; strictly increasing.
    source : str
        Where the frames came from, for messages (a path, or empty).
    lost : int
        Packets and frames that the source could not deliver intact so far, up to and including this chunk.
    sound : torch.Tensor, optional
        What is to be heard from the first frame on, up to the first of the next chunk: one channel, float32 from -1 to
        1, `[samples]`.
    rate : int
        Samples a second; 0 without sound.
    motion : Motion, optional
        What the video's codec says of each frame; `open_video(..., motion=True)` asks for it.

    Raises
    ------
    FrameError
        If dtype, shape, number or times break one of the rules above.
    ConfigError
        If `lost` is no count.
    """

    frames: torch.Tensor
    seconds: tuple[float, ...]
    source: str = ""
    lost: int = 0
    sound: torch.Tensor | None = None
    rate: int = 0
    motion: Motion | None = None

    def __post_init__(self) -> None:
        """Check the rules that everything after this point relies on."""
        _check_frames(self.frames)
        _check_seconds(self.seconds, len(self.frames))
        if not isinstance(self.source, str):
            raise FrameError(f"source is {shown(self.source)}; expected text that says where the frames came from.")
        whole("lost", self.lost, 0)
        if whole("rate", self.rate, 0) and self.sound is None:
            raise FrameError(f"rate={self.rate} was given without sound; give both, or leave it out.")
        if self.sound is not None:
            samples, _ = as_sound(self.sound, self.rate or None)
            object.__setattr__(self, "sound", samples)
        if self.motion is not None and not isinstance(self.motion, Motion):
            raise FrameError(f"motion is {shown(self.motion)}; expected a Motion, or None.")
        if self.motion is not None and len(self.motion) != len(self.frames):
            raise FrameError(f"{len(self.frames)} frames came with the motion of {len(self.motion)}; expected as many.")

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.frames)

    def part(self, first: int, last: int) -> FrameChunk:
        """Some of the frames, without a copy; sound, which lasts from frame to frame, is left out."""
        motion = None if self.motion is None else self.motion.part(first, last)
        return FrameChunk(self.frames[first:last], self.seconds[first:last], self.source, self.lost, motion=motion)

    @classmethod
    def cat(cls, parts: Sequence[FrameChunk]) -> FrameChunk:
        """Frames of one size, one chunk after the other, without their sound."""
        told = [part.motion for part in parts if part.motion is not None]
        return cls(
            torch.cat([part.frames for part in parts]),
            tuple(second for part in parts for second in part.seconds),
            parts[-1].source,
            parts[-1].lost,
            motion=Motion.cat(told) if len(told) == len(parts) else None,
        )

    def clone(self) -> FrameChunk:
        """The same frames and motion with storage of their own."""
        motion = None if self.motion is None else self.motion.clone()
        return replace(self, frames=self.frames.clone(), motion=motion)

    def after(self, gone: FrameChunk) -> FrameChunk:
        """The same where the chunk before it was dropped: its first frame says what the codec said of that one, too."""
        if self.motion is None or gone.motion is None:
            return self
        return replace(self, motion=self.motion.after(gone.motion))

    @classmethod
    def of(
        cls,
        frames: Frames,
        seconds: Seconds,
        source: str = "",
        lost: int = 0,
        sound: Samples | None = None,
        rate: int | None = None,
        motion: Motion | None = None,
    ) -> FrameChunk:
        """Make a chunk from a numpy array or a tensor, without a copy wherever that is safe.

        Parameters
        ----------
        frames : numpy.ndarray or torch.Tensor
            RGB pictures, uint8, `[frames, height, width, 3]`. Read-only arrays and arrays with negative strides are
            copied, since a tensor can express neither.
        seconds : iterable of float, numpy.ndarray or torch.Tensor
            One time for each frame, in seconds, strictly increasing.
        source : str
            Where the frames came from.
        lost : int
            What the source could not deliver intact so far.
        sound : numpy.ndarray or torch.Tensor, optional
            Samples of int16 or floating point, `[samples]` or `[channels, samples]`, from the first frame on.
        rate : int, optional
            Samples a second; only, and always, with sound.
        motion : Motion, optional
            What a decoder of your own says of each frame, since the frame before it.

        Returns
        -------
        FrameChunk

        Raises
        ------
        FrameError
            If the frames or their times are not as described.
        """
        pictures = _as_tensor(frames)
        _check_frames(pictures)
        times = _as_seconds(seconds, most=len(pictures))
        if sound is None:
            if rate is not None:
                raise FrameError(f"a rate of {shown(rate)} came without sound; give both, or none.")
            return cls(pictures, times, source, lost, motion=motion)
        return cls(pictures, times, source, lost, *as_sound(sound, rate), motion)

    @classmethod
    def checked(
        cls,
        frames: FrameChunk | Frames,
        seconds: Seconds | None = None,
        sound: Samples | None = None,
        rate: int | None = None,
    ) -> FrameChunk:
        """Take what a caller hands over: a chunk, or frames and their times, as for `of`.

        Raises
        ------
        FrameError
            As for `of`, and if times are missing or given twice.
        """
        if isinstance(frames, FrameChunk):
            if seconds is not None:
                raise FrameError("seconds were given beside a FrameChunk, which has its own; leave them out.")
            if sound is not None or rate is not None:
                raise FrameError(
                    "sound was given beside a FrameChunk, which has its own or none; make the chunk with "
                    "FrameChunk.of(..., sound=samples, rate=hz)."
                )
            return frames
        if seconds is None:
            raise FrameError(
                "frames came without seconds; give push(frames, seconds) one time in seconds for each frame."
            )
        return cls.of(frames, seconds, sound=sound, rate=rate)


def _as_tensor(frames: object) -> torch.Tensor:
    if isinstance(frames, torch.Tensor):
        return frames
    if not isinstance(frames, np.ndarray):
        raise FrameError(
            f"frames are a {type(frames).__name__}; expected a numpy array or torch tensor of dtype uint8 and shape "
            "[frames, height, width, 3]. Stack single pictures with numpy.stack or torch.stack."
        )
    if frames.dtype != np.uint8:
        # Said here, because torch has no counterpart for some numpy dtypes and would fail with a message of its own.
        raise FrameError(_wrong_dtype(str(frames.dtype)))
    if not frames.flags.writeable or any(stride < 0 for stride in frames.strides):
        frames = frames.copy()
    return torch.from_numpy(frames)


def _as_seconds(seconds: object, most: int) -> tuple[float, ...]:
    """The times as floats; no more than one above `most` are looked at, since an iterable may go on for ever."""
    if getattr(getattr(seconds, "dtype", None), "kind", "") in ("m", "M"):
        raise FrameError(
            f"seconds have dtype {getattr(seconds, 'dtype', None)}; expected numbers of seconds. "
            "Convert them first: (times - times[0]) / numpy.timedelta64(1, 's')."
        )
    try:
        values = seconds.tolist() if isinstance(seconds, np.ndarray | torch.Tensor) else seconds
    except (RuntimeError, TypeError, ValueError) as error:  # a tensor without values, or with gaps
        raise FrameError(f"seconds are a tensor that cannot be read ({error}); give one float a frame.") from error
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise FrameError(
            f"seconds are {shown(seconds)}; expected one time in seconds for each frame, such as [0.0, 0.5, 1.0]. "
            "For a single frame, give a list with one time."
        )
    return tuple(_second(index, value) for index, value in enumerate(islice(values, most + 1)))


def _second(index: int, value: object) -> float:
    plain = value.item() if isinstance(value, torch.Tensor) and value.ndim == 0 and not value.is_meta else value
    try:
        return real(f"the time of frame {index}", plain)
    except ConfigError as error:
        if isinstance(plain, float):
            raise FrameError(str(error)) from None
        raise FrameError(
            f"seconds hold something that is not a number ({str(error).rstrip('.')}); give one float a frame."
        ) from None


def _check_frames(frames: torch.Tensor) -> None:
    if not isinstance(frames, torch.Tensor):
        raise FrameError(f"frames are a {type(frames).__name__}; expected a tensor. Use FrameChunk.of for arrays.")
    if frames.layout != torch.strided or frames.is_nested or frames.is_meta:
        sort = "nested" if frames.is_nested else "meta" if frames.is_meta else "sparse"
        raise FrameError(f"frames are a {sort} tensor; expected a dense one that holds its pixels.")
    if frames.dtype != torch.uint8:
        raise FrameError(_wrong_dtype(str(frames.dtype)))
    shape = tuple(frames.shape)
    if frames.ndim != 4 or shape[3] != 3:
        raise FrameError(f"frames have shape {shape}; expected [frames, height, width, 3].{_shape_hint(shape)}")
    if min(shape) < 1:
        raise FrameError(f"frames have shape {shape}; expected at least one frame of at least 1 x 1 pixel.")


def _wrong_dtype(dtype: str) -> str:
    return (
        f"frames have dtype {dtype}; expected uint8 with values from 0 to 255. Convert them first: values from 0 to 1 "
        "by (frames * 255).round(), then to uint8."
    )


def _shape_hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[2] == 3:
        return " This looks like one frame: add the first dimension with frames[None]."
    if len(shape) == 4 and shape[1] == 3:
        return " The colours seem to come second: move them last (permute(0, 2, 3, 1) or transpose(0, 2, 3, 1))."
    if len(shape) == 4 and shape[3] == 4:
        return " The fourth channel seems to be alpha: leave it out with frames[..., :3]."
    if len(shape) == 4 and shape[3] == 1:
        return " These seem to be grey: repeat the channel three times."
    return ""


def _check_seconds(seconds: tuple[float, ...], frames: int) -> None:
    if not isinstance(seconds, tuple):
        raise FrameError(
            f"seconds are a {type(seconds).__name__}; expected a tuple of floats. Use FrameChunk.of for others."
        )
    if len(seconds) != frames:
        raise FrameError(
            f"{frames} frames came with {len(seconds)} times; expected one time in seconds for each frame."
        )
    for index, second in enumerate(seconds):
        _second(index, second)
        if index and second <= seconds[index - 1]:
            raise FrameError(
                f"times go back: frame {index} is at {second} s after frame {index - 1} at {seconds[index - 1]} s; "
                "expected strictly increasing times. Sort the frames by time and leave out repeated ones."
            )
