"""From frames to the tokens that enter the language model: gate, vision tower, reducer, and what the two carry on.

Knows an adapter, a gate, a reducer and a stream's state. Refuses to know layers, budgets and text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from ..common import checks
from ..common.checks import shown
from ..errors import ConfigError, FrameError
from ..gate import Gate, Watched
from ..memory import lasting
from ..models import Adapter, Hearing, VisualChunk
from ..models.base import LATEST
from ..parts import Part, taken
from ..reduce import Reducer, Tokens, asks_for
from ..video import FrameChunk
from . import hearing
from .sifted import sifted_steps
from .sight import look, look_flops, most_bytes, sight_of
from .state import Seen, StreamState

GATE, TOWER, REDUCER = "gate", "tower", "reducer"
"""Slots of what is carried."""
_MOST = 4096
"""Steps that a reducer may take together at most: their frames are held back meanwhile."""


class Front:
    """What stands in front of the language model.

    Parameters
    ----------
    adapter : Adapter
        The model's family.
    gate : Gate, optional
    reducer : Reducer, optional
    asked : str, optional
        The standing question.
    parts : mapping of str to Part, optional
        Trained parts that are loaded; those that gate and reducer use are in its attribute `parts`.

    Raises
    ------
    ConfigError
        If the reducer needs what the family can't say of its vision tower, or a trained part that is not loaded; or if
        it refuses to work with the family for a reason of its own, such as that no question is known.
    """

    def __init__(
        self,
        adapter: Adapter,
        gate: Gate | None = None,
        reducer: Reducer | None = None,
        asked: str | None = None,
        parts: Mapping[str, Part] | None = None,
    ) -> None:
        self.adapter, self.gate, self.reducer, self.asked = adapter, gate, reducer, asked or None
        if (check := getattr(reducer, "check", None)) is not None:  # which knows a better reason than the one below
            check(adapter.model_types[0], adapter.knows, self.asked)
        missing = sorted(set(() if reducer is None else reducer.needs) - set(adapter.knows))
        if missing:
            raise ConfigError(
                f"the reducer {reducer!r} needs {' and '.join(missing)} of the vision tower, which models of type "
                f"{adapter.model_types[0]!r} don't hand over; choose another one."
            )
        self.parts = taken(parts or {}, gate, reducer)
        self.sight = sight_of(self.parts)
        self.knowing = asks_for(reducer, adapter.knows)
        self.unit = 1 if reducer is None else checks.whole("unit of the reducer", getattr(reducer, "unit", 1), 1, _MOST)

    @cached_property
    def _question(self) -> Tensor | None:
        """The standing question's own words as they enter the language model [words, hidden]."""
        if self.asked is None or self.reducer is None:
            return None
        with lasting():
            return self.adapter.embed(self.adapter.ids(self.asked))

    # -- before the tower -------------------------------------------------------------------------------------------

    def check(self, state: StreamState, chunk: FrameChunk) -> None:
        """Refuse sound that can't go in, before anything is done; see `hearing.check_hearing`."""
        hearing.check_hearing(self.adapter, state, chunk, gated=self.gate is not None)

    def take(self, state: StreamState, chunk: FrameChunk) -> list[hearing.Taken]:
        """What of a chunk, its sound included, can go in; what is left over waits in `state`."""
        state.sifting = state.sifting.begun()
        if chunk.sound is not None:
            assert isinstance(self.adapter, Hearing)
            return hearing.admit(self.adapter, state, chunk)
        return [hearing.Taken(seen, ()) for seen in self.admit(state, chunk)]

    def rest(self, state: StreamState) -> list[hearing.Taken]:
        """All that waits, to go in without what it waits for."""
        if state.heard is not None:
            assert isinstance(self.adapter, Hearing)
            return hearing.rest(self.adapter, state)
        waiting, state.waiting = state.waiting, None
        return [] if waiting is None else [hearing.Taken(waiting, ())]

    def admit(self, state: StreamState, chunk: FrameChunk) -> list[Seen]:
        """Runs of frames that make whole steps, and units of the reducer's; what is left over waits in `state`.

        What the gate leaves out extends the time of the step before it. It has no say where a video begins, in a stream
        or in a turn of a conversation, nor in the middle of a step.
        """
        step, waiting = self.adapter.frames_per_step, state.waiting
        state.waiting = None
        runs = []
        if waiting is not None and waiting.frames.shape[1:] != chunk.frames.shape[1:]:
            # pictures of another size: the odd frame finds no partner and is filled up by itself
            runs.append(waiting)
            waiting = None
        kept, worth, saliency = self._gated(state, chunk)
        begins = state.steps == state.first_step or state.answered is not None
        going, until, lasting = [], [], None
        begun = 0 if waiting is None else len(waiting)
        for number, seconds in enumerate(chunk.seconds):
            if number in kept or begun % step or (begins and not (begun or runs)):
                going.append(number)
                until.append(seconds)
                begun += 1
            elif until:
                until[-1] = seconds
            elif waiting is not None:
                waiting = waiting.lasting(seconds)
            elif runs:
                runs[-1] = runs[-1].lasting(seconds)
            else:
                lasting = seconds
        state.skipped += len(chunk) - len(going)
        state.sifting = state.sifting.gated(chunk.seconds, going)
        if lasting is not None:
            state.extend(lasting)
        if not going:
            state.waiting = waiting
            return runs
        all_of_it = len(going) == len(chunk)
        seen = Seen(
            frames=chunk.frames if all_of_it else chunk.frames[going],
            seconds=chunk.seconds if all_of_it else tuple(chunk.seconds[number] for number in going),
            until=tuple(until),
            worth=None if worth is None else worth[going],
            saliency=None if saliency is None else saliency[going],
        )
        seen = seen if waiting is None else waiting.then(seen)
        whole = len(seen) - len(seen) % (step * self.unit)
        if whole < len(seen):
            # cloned, so that one waiting frame does not keep the caller's whole chunk alive
            state.waiting = seen.part(whole, len(seen), clone=True)
        return runs + ([seen.part(0, whole)] if whole else [])

    def _gated(
        self, state: StreamState, chunk: FrameChunk
    ) -> tuple[frozenset[int] | range, Tensor | None, Tensor | None]:
        """Which frames of a chunk go on, what of each is worth having, and how much happens where."""
        if self.gate is None:
            return range(len(chunk)), None, None
        height, width = chunk.frames.shape[1:3]
        watched = Watched(chunk.frames, chunk.seconds, self.adapter.grid(height, width), chunk.motion)
        gated, carried = self.gate(watched, dict(state.carried.get(GATE, {})))
        shape = (len(chunk), *watched.grid)
        for said, of, dtype in (
            ("what is worth having", gated.worth, torch.bool),
            ("how much happens", gated.saliency, torch.float32),
        ):
            if of is not None and (of.dtype != dtype or tuple(of.shape) != shape):
                raise ConfigError(
                    f"the gate {self.gate!r} says {said} in {of.dtype} of shape {tuple(of.shape)}; expected {dtype} of "
                    f"shape {shape}, [frames, rows, columns]."
                )
        kept = frozenset(int(number) for number in gated.kept)
        if not kept <= frozenset(range(len(chunk))):
            raise ConfigError(
                f"the gate {self.gate!r} keeps {shown(gated.kept)} of {len(chunk)} frames; expected numbers from 0 to "
                f"{len(chunk) - 1}."
            )
        _carry(state, GATE, carried, self.gate, self.gate.most_bytes(height, width))
        return kept, gated.worth, gated.saliency

    # -- behind the tower -------------------------------------------------------------------------------------------

    def perceive(self, state: StreamState, taken: hearing.Taken) -> VisualChunk:
        """The tokens that enter the language model: of pictures, and of sound where there is any."""
        if state.heard is None:
            assert taken.seen is not None
            return self.look(state, taken.seen)
        assert isinstance(self.adapter, Hearing)
        pictures = None
        if taken.seen is not None:
            pictures = self._seen(state, taken.seen)
        chunk = hearing.hear(self.adapter, state, pictures, taken.units)
        return chunk if taken.seen is None else self._reduced(state, chunk, taken.seen)

    def look(self, state: StreamState, seen: Seen) -> VisualChunk:
        """The visual tokens that enter the language model, as family, gate and reducer make them of whole steps."""
        return self._reduced(state, self._seen(state, seen), seen)

    def _seen(self, state: StreamState, seen: Seen) -> VisualChunk:
        """The same before the reducer."""
        step, worth, first = self.adapter.frames_per_step, self.worth(seen), state.steps - state.first_step
        if self.sight is None:
            chunk = self.adapter.look(seen.frames, seen.seconds, first, worth, self.knowing)
        else:
            before = state.carried.get(TOWER, {})
            chunk, carried = look(self.sight, self.adapter, seen.frames, seen.seconds, first, before, worth)
            _carry(state, TOWER, carried, self.sight, most_bytes(self.sight))
        cost = self.look_flops(seen)
        state.looked = None if cost is None or state.looked is None else state.looked + cost
        chunk = replace(chunk, until=tuple(seen.until[min(i + step, len(seen)) - 1] for i in range(0, len(seen), step)))
        if seen.saliency is not None:
            means = torch.stack([part.mean(0) for part in seen.saliency.split(step)]).flatten(1)
            means = torch.cat([means, means.mean(1, keepdim=True)], dim=1).to(chunk.embeds.device)  # of a whole step
            place = chunk.place().clamp(max=means.shape[1] - 1)
            chunk = replace(chunk, saliency=means[chunk.step(), place].masked_fill(~chunk.visual, 0))
        return chunk

    def worth(self, seen: Seen) -> Tensor | None:
        """Which visual tokens of each step are worth having [steps, rows, columns]; None for all."""
        if seen.worth is None:
            return None
        return torch.stack([part.any(0) for part in seen.worth.split(self.adapter.frames_per_step)])

    def look_flops(self, seen: Seen) -> int | None:
        """FLOPs of the vision tower for such frames, with what the reducer must know; None if the family says none."""
        steps, size = -(-len(seen) // self.adapter.frames_per_step), self.adapter.grid(*seen.frames.shape[1:3])
        if self.sight is not None:
            return look_flops(self.sight, self.adapter, size, steps)
        return self.adapter.look_flops(size, steps, self.worth(seen), self.knowing)

    def _reduced(self, state: StreamState, chunk: VisualChunk, seen: Seen) -> VisualChunk:
        """What the reducer leaves, if there is one, and a note of it."""
        came = seen.seconds, self.adapter.frames_per_step, chunk, seen.worth is not None
        if self.reducer is None or not chunk.visual_tokens:
            state.sifting = state.sifting.entered(sifted_steps(*came))
            return chunk
        rows = chunk.visual_rows()
        place = chunk.place()[rows]
        tokens = Tokens(
            features=chunk.embeds[rows],
            step=chunk.step()[rows],
            row=place // chunk.size[1],
            column=place % chunk.size[1],
            seconds=chunk.seconds,
            grid=chunk.size,
            since=state.steps,
            tower={name: known[rows] for name, known in chunk.tower.items()},
            saliency=None if chunk.saliency is None else chunk.saliency[rows],
            question=self._question,
            asked=self.asked,
            parts=self.parts,
        )
        state.reduced += (len(tokens),)
        reduced, carried = self.reducer(tokens, dict(state.carried.get(REDUCER, {})))
        hidden, number = tokens.features.shape[1], tokens.features.element_size()
        _carry(state, REDUCER, carried, self.reducer, self.reducer.most_bytes(tokens.places, hidden, number))
        kept = reduced.kept
        ordered = kept.ndim == 1 and kept.dtype == torch.int64
        if ordered and len(kept):  # one answer of the device a chunk, before numbers of a stranger's are gone by
            ordered = bool((kept[1:] > kept[:-1]).all() & (kept[0] >= 0) & (kept[-1] < len(tokens)))
        if not ordered:
            raise ConfigError(
                f"the reducer {self.reducer!r} keeps {kept.dtype} {tuple(kept.shape)}; expected numbers of its "
                f"{len(tokens)} tokens, torch.int64 [kept], ascending, each once."
            )
        shape = (len(kept), len(tokens))
        if reduced.weights is not None and tuple(reduced.weights.shape) != shape:
            raise ConfigError(
                f"the reducer {self.reducer!r} gives weights of shape {tuple(reduced.weights.shape)}; expected "
                f"{shape}, [kept, tokens]."
            )
        state.sifting = state.sifting.entered(sifted_steps(*came, kept, reduced.weights))
        return chunk.keep(kept, reduced.weights)


def _carry(state: StreamState, slot: str, carried: Mapping[str, Tensor], method: object, most: int) -> None:
    """Let a slot carry tensors on, within the bound that its method names."""
    size = sum(tensor.nbytes for tensor in carried.values())
    if size > most:
        raise ConfigError(
            f"{method!r} carries {size:,} bytes from chunk to chunk; it promised {most:,} at most. Let most_bytes say "
            "more, or let it carry less."
        )
    others = {name: held for name, held in state.carried.items() if name != slot}
    state.carried = {**others, slot: dict(carried)} if carried else others


def check_times(chunk: FrameChunk, span: tuple[float, float] | None) -> None:
    """Refuse frames whose times are none, or that were pushed already; `span` is that of the frames before."""
    if max(abs(chunk.seconds[0]), abs(chunk.seconds[-1])) >= LATEST:
        raise FrameError(
            f"a chunk runs from {chunk.seconds[0]:g} to {chunk.seconds[-1]:g} s; expected times in seconds, below "
            f"{LATEST:g}, as Unix time is. Milliseconds are divided by 1e3, nanoseconds by 1e9."
        )
    if span is not None and chunk.seconds[0] <= span[1]:
        raise FrameError(
            f"times go back: the chunk starts at {chunk.seconds[0]:g} s, but frames up to "
            f"{span[1]:g} s were pushed already; push frames in the order of their times, each once."
        )
