"""Sound on its way into a stream: it waits until a stretch is whole that the model hears at once, its frames with it.

Knows an adapter's ears and a stream's state. Refuses to know layers, budgets and text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import ConfigError, FrameError
from ..models import Adapter, Hearing, VisualChunk
from ..video import FrameChunk
from .state import Heard, Seen, StreamState

_NEAR = 0.25
"""Seconds by which sound and frames may be apart before they are brought together."""
_FAR = 1.0
"""Seconds by which sound may run ahead of its frames, and is cut."""
_PAUSE = 60.0
"""Seconds of silence that stand for what nobody pushed."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a push brings in: frames, sound or both.

    Attributes
    ----------
    seen : Seen or None
    units : tuple of Tensor [samples]
        Stretches of sound.
    """

    seen: Seen | None
    units: tuple[Tensor, ...]


def check_hearing(adapter: Adapter, state: StreamState, chunk: FrameChunk, *, gated: bool) -> None:
    """Whether a stream can take a chunk's sound, or its silence, before anything is done with it.

    Raises
    ------
    ConfigError
        If the model takes no sound, a gate stands before them, or a video goes on otherwise than it began.
    FrameError
        If the sound does not fit the frames, or has another rate than the model's.
    """
    if chunk.sound is None:
        if state.heard is not None:
            raise ConfigError(
                "a chunk came without sound, but this video began with it; give every push its sound, zeros where "
                "there is silence."
            )
        return
    if not isinstance(adapter, Hearing):
        raise ConfigError(
            f"models of type {adapter.model_types[0]!r} do not take sound; leave it out, and give what is said as "
            "text: stream.add_text, or --subtitles FILE.srt on the command line."
        )
    ears = adapter.ears
    if len(adapter.ids(ears.opening)) != 1 or len(adapter.ids(ears.ending)) != 1:
        raise ConfigError(f"the tokenizer does not know {ears.opening} and {ears.ending}, between which sound stands.")
    if gated:
        raise ConfigError("a gate leaves out frames that their sound would miss; open the stream without a gate.")
    if state.heard is None and state.answered is None and (state.steps > state.first_step or state.waiting is not None):
        raise ConfigError(
            "sound came to a video that began without it; open another stream, and push sound throughout."
        )
    if chunk.rate != ears.mel.rate:
        raise FrameError(
            f"sound has {chunk.rate:,} samples a second; this model hears {ears.mel.rate:,}. Resample it, or let "
            "open_video(..., sound=True) do so."
        )
    length, span = len(chunk.sound) / chunk.rate, chunk.seconds[-1] - chunk.seconds[0]
    before = () if state.span is None else (state.span[1],)
    times = (*before, *chunk.seconds)
    apart = max((b - a for a, b in pairwise(times)), default=None)
    if length < span - _NEAR or (apart is not None and length > span + apart + _FAR):
        raise FrameError(
            f"{length:.2f} s of sound came with frames that go on for {span:.2f} s; expected sound from the first of "
            "them up to the first frame of the next push."
        )
    if state.heard is not None:
        gap = chunk.seconds[0] - state.heard.until(ears.mel.rate)
        if gap < -_FAR or gap > _PAUSE:
            raise FrameError(
                f"sound was pushed up to {state.heard.until(ears.mel.rate):.2f} s, and the next begins with its frames "
                f"at {chunk.seconds[0]:.2f} s; expected sound that goes on where it ended. Push zeros for silence."
            )
    waiting = state.waiting
    if waiting is not None and waiting.frames.shape[1:] != chunk.frames.shape[1:]:
        raise FrameError(
            f"frames change from {tuple(waiting.frames.shape[1:3])} to {tuple(chunk.frames.shape[1:3])} pixels within "
            f"{ears.seconds:g} s of sound that are heard together; resize them."
        )


def admit(adapter: Hearing, state: StreamState, chunk: FrameChunk) -> list[Taken]:
    """What of a checked chunk and of what waited can go in; the rest waits in `state`."""
    ears, heard, samples = adapter.ears, state.heard, chunk.sound
    assert samples is not None
    if heard is None:
        heard = Heard(samples[:0], chunk.seconds[0])
    gap = chunk.seconds[0] - heard.until(ears.mel.rate)
    missing = round(abs(gap) * ears.mel.rate) if abs(gap) > _NEAR else 0
    samples = torch.cat([samples.new_zeros(missing), samples]) if gap > 0 else samples[missing:]
    samples = torch.cat([heard.samples, samples])  # a copy, which does not keep the caller's alive
    seen = Seen(chunk.frames, chunk.seconds, chunk.seconds)
    seen = seen if state.waiting is None else state.waiting.then(seen)
    units, frames = 0, 0
    while (units + 1) * ears.unit <= len(samples):
        end = heard.begun + (heard.taken + (units + 1) * ears.unit) / ears.mel.rate
        here = sum(each < end - 1e-6 for each in seen.seconds[:: adapter.frames_per_step]) * adapter.frames_per_step
        if here > len(seen):
            break  # its last step lacks a frame
        units, frames = units + 1, here
    return _taken(adapter, state, heard, seen, samples, frames, [ears.unit] * units)


def rest(adapter: Hearing, state: StreamState) -> list[Taken]:
    """All that waits."""
    heard, unit = state.heard, adapter.ears.unit
    assert heard is not None
    whole, tail = divmod(len(heard.samples), unit)
    sizes = [unit] * whole + [tail] * bool(adapter.ears.count(tail))
    frames = 0 if state.waiting is None else len(state.waiting)
    return _taken(adapter, state, heard, state.waiting, heard.samples, frames, sizes)


def _taken(
    adapter: Hearing,
    state: StreamState,
    heard: Heard,
    seen: Seen | None,
    samples: Tensor,
    frames: int,
    sizes: Sequence[int],
) -> list[Taken]:
    """Let so many frames and such stretches of sound go in, and the rest wait."""
    ends = sum(sizes)
    units = samples[:ends].split(list(sizes)) if sizes else ()
    state.heard = replace(heard, samples=samples[ends:].clone(), taken=heard.taken + ends)
    state.waiting = None
    if seen is not None and frames < len(seen):
        state.waiting = seen.part(frames, len(seen), clone=True)
    if not (units or frames):
        return []
    return [Taken(seen.part(0, frames) if seen is not None and frames else None, tuple(units))]


def hear(adapter: Hearing, state: StreamState, chunk: VisualChunk | None, units: Sequence[Tensor]) -> VisualChunk:
    """A chunk of pictures with its sound between them, or sound alone."""
    assert state.heard is not None
    before = state.place.sound > 1
    sound = [adapter.hear(unit, first=not before and i == 0) for i, unit in enumerate(units)]
    if chunk is not None:
        state.heard = replace(state.heard, size=chunk.size)
    return adapter.weave(chunk, sound, state.place, state.heard.size, state.heard.begun)
