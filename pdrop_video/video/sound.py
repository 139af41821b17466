"""Sound beside frames: samples at a rate, checked once, where they enter. Refuses to know models and files."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..common.checks import whole
from ..errors import ConfigError, FrameError

_CHANNELS = 32
"""More than that come from samples that stand first."""


def as_sound(sound: object, rate: object) -> tuple[Tensor, int]:
    """Samples [samples], float32 from -1 to 1, of one channel, and how many a second, out of what a caller has.

    Parameters
    ----------
    sound : numpy.ndarray or Tensor [samples] or [channels, samples], of int16 or a floating type
        Channels are averaged.
    rate : int
        Samples a second.

    Raises
    ------
    FrameError
        If type, shape or numbers are others, or there is no rate.
    """
    if rate is None:
        raise FrameError("sound came without a rate; give push(..., sound=samples, rate=16000) its samples a second.")
    try:
        rate = whole("rate", rate, 1, 10**6)
    except ConfigError as error:
        raise FrameError(str(error)) from None
    if isinstance(sound, np.ndarray):
        if sound.dtype.kind not in "fi":
            raise FrameError(_wrong_dtype(str(sound.dtype)))
        copied = not sound.flags.writeable or any(stride < 0 for stride in sound.strides)
        sound = torch.from_numpy(sound.copy() if copied else sound)
    if not isinstance(sound, Tensor):
        raise FrameError(
            f"sound is a {type(sound).__name__}; expected a numpy array or torch tensor [samples] or [channels, "
            "samples], of int16 or of floating point from -1 to 1."
        )
    if sound.dtype != torch.int16 and not sound.is_floating_point():
        raise FrameError(_wrong_dtype(str(sound.dtype)))
    shape = tuple(sound.shape)
    if sound.layout != torch.strided or sound.is_meta or sound.ndim not in (1, 2) or min(shape) < 1:
        raise FrameError(f"sound has shape {shape}; expected [samples] or [channels, samples], at least one sample.")
    if sound.ndim == 2 and shape[0] > _CHANNELS:
        raise FrameError(f"sound has shape {shape}; expected [channels, samples]. Transpose it with sound.T.")
    scale = 2**15 if sound.dtype == torch.int16 else 1
    samples = sound.detach().to("cpu", torch.float32) / scale
    samples = samples.mean(0) if samples.ndim == 2 else samples
    if not bool(samples.isfinite().all()):
        raise FrameError("sound holds numbers that are not finite; expected samples from -1 to 1.")
    if float(samples.abs().max()) > _LOUDEST:
        raise FrameError(
            f"sound reaches {float(samples.abs().max()):g}; expected samples from -1 to 1. Divide whole numbers by the "
            "largest of their type, or hand them over as int16."
        )
    return samples, rate


_LOUDEST = 16.0
"""Floating samples a little beyond 1 come out of resamplers and mixers; whole numbers in floating point go further."""


def _wrong_dtype(dtype: str) -> str:
    return f"sound has dtype {dtype}; expected int16, or floating point from -1 to 1. Divide others by their largest."
