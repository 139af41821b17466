"""Log-mel features of sound, by a checkpoint's own numbers. Knows samples; refuses to know models and streams."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

_HIGHEST = 8000.0
"""Hz of the topmost band's end, in every checkpoint whose features are those of Whisper."""
_LINEAR, _PER_OCTAVE = 1000.0, 27 / math.log(6.4)
"""Slaney's scale: bands of equal width up to so many Hz, and of equal ratio above, so many to a factor of e."""


@dataclass(frozen=True, slots=True)
class Mel:
    """The numbers of a checkpoint's feature extractor.

    Attributes
    ----------
    bins : int
        Bands of a feature.
    rate : int
        Samples a second.
    hop : int
        Samples from one feature to the next.
    window : int
        Samples that a feature looks at.
    """

    bins: int = 128
    rate: int = 16000
    hop: int = 160
    window: int = 400

    @classmethod
    def of(cls, config: dict[str, Any]) -> Mel:
        """Read the entries of a feature extractor's file."""
        names = {"bins": "feature_size", "rate": "sampling_rate", "hop": "hop_length", "window": "n_fft"}
        return cls(**{ours: int(config[theirs]) for ours, theirs in names.items() if config.get(theirs)})

    @property
    def least(self) -> int:
        """Samples of the shortest sound that has features."""
        return max(self.window // 2 + 1, self.hop)

    def features(self, samples: Tensor) -> Tensor:
        """Features [bins, samples // hop] of one stretch of sound [samples], float32.

        What is more than 80 dB below the loudest of the stretch counts as that.
        """
        window = torch.hann_window(self.window, dtype=torch.float32, device=samples.device)
        spectrum = torch.stft(samples.float(), self.window, self.hop, window=window, return_complex=True)[..., :-1]
        power = (spectrum.abs() ** 2).contiguous()
        loudness = (_bands(self).to(power) @ power).clamp(min=1e-10).log10()
        return (torch.maximum(loudness, loudness.max() - 8) + 4) / 4


def _mels(hertz: Tensor) -> Tensor:
    """Where frequencies stand on the scale, in bands: 3 for every 200 Hz at its lower end."""
    above = _LINEAR * 3 / 200 + (hertz.clamp(min=_LINEAR) / _LINEAR).log() * _PER_OCTAVE
    return torch.where(hertz < _LINEAR, hertz * 3 / 200, above)


def _hertz(mels: Tensor) -> Tensor:
    """The inverse."""
    edge = _LINEAR * 3 / 200
    return torch.where(mels < edge, mels * 200 / 3, _LINEAR * ((mels - edge).clamp(min=0) / _PER_OCTAVE).exp())


@cache
def _bands(mel: Mel) -> Tensor:
    """How much of each frequency [bins, 1 + window // 2] a band takes: triangles of equal area, side by side."""
    exact: dict[str, Any] = dict(dtype=torch.float64, device="cpu")
    highest = _mels(torch.tensor(_HIGHEST, **exact))
    corners = _hertz(torch.linspace(0, float(highest), mel.bins + 2, **exact))
    frequency = torch.linspace(0, mel.rate // 2, 1 + mel.window // 2, **exact)
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    return (torch.minimum(rising, falling).clamp(min=0) * 2 / (high - low)).float()
