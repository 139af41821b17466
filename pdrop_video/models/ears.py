"""Ears: sound to tokens, and their places among visual ones. What families that hear share; each says its own numbers.

Knows an audio tower and the order in which its tokens stand. Refuses to know where sound comes from and who waits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..common.hooks import inputs_on
from .base import Adapter
from .chunk import SoundRows, VisualChunk
from .mel import Mel
from .positions import MRopePositions, Place


@dataclass(frozen=True, slots=True)
class Ears:
    """What a family says of its hearing.

    Attributes
    ----------
    mel : Mel
        The numbers of its features.
    stretch : int
        Features that the tower looks at together: no token of one stretch depends on sound of another.
    chunk : int
        Features that the tower's convolutions look at together.
    tokens : tuple of int
        How many tokens so many features of one chunk make, by their number, from 0 to `chunk`.
    together : int
        Tokens of sound that follow the pictures of the same time in one go; 1 if they follow one by one.
    opening, ending : str
        Tokens in front of the first and behind the last of a video with sound.
    doubled : bool
        Whether these have the same position as the vision token beside them.
    """

    mel: Mel
    stretch: int
    chunk: int
    tokens: tuple[int, ...]
    together: int
    opening: str
    ending: str
    doubled: bool

    @property
    def unit(self) -> int:
        """Samples that are heard together."""
        return self.stretch * self.mel.hop

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self.unit / self.mel.rate

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens[-1] * self.mel.rate / (self.chunk * self.mel.hop)

    def count(self, samples: int) -> int:
        """Tokens of so many samples of one unit."""
        whole, rest = divmod(samples // self.mel.hop if samples >= self.mel.least else 0, self.chunk)
        return whole * self.tokens[-1] + self.tokens[rest]

    def before(self, position: float) -> int:
        """How many tokens of a video's sound stand in front of a step that is so many positions behind its start."""
        near = 1e-6  # times such as 0.1 + 0.2 are whole all the same
        if self.together > 1:
            return math.floor((position + near) / self.together) * self.together
        return math.ceil(position - near)


class Hearing(Adapter):
    """An adapter of a family that hears as well as it sees: sound stands in time order between the pictures."""

    mel: Mel | None = None

    @property
    def ears(self) -> Ears:
        """What the family says of its hearing."""
        raise NotImplementedError

    @property
    def clock(self) -> MRopePositions:
        """The family's positions, which count time."""
        positions = self.positions
        assert isinstance(positions, MRopePositions)
        return positions

    def numbers(self) -> Mel:
        """The checkpoint's numbers of features."""
        return Mel(bins=self.model.config.audio_config.num_mel_bins) if self.mel is None else self.mel

    @torch.no_grad()
    def hear(self, samples: Tensor, *, first: bool = False) -> Tensor:
        """Tokens [tokens, hidden] of one unit of sound [samples], or of what there is of the last one.

        `first` says whether nothing was heard before it.
        """
        ears = self.ears
        count = ears.count(len(samples))
        if not count:
            return self.embed([])
        features = [ears.mel.features(samples.to(inputs_on(self.model)))]
        if not first and features[0].shape[1] < ears.chunk:
            # the tower fills up the last of several chunks to the length of the others, and only then: here is another
            features.insert(0, torch.zeros_like(features[0][:, :1]).expand(-1, ears.chunk))
        lengths = [each.shape[1] for each in features]
        whole = torch.stack([torch.nn.functional.pad(each, (0, max(lengths) - each.shape[1])) for each in features])
        mask = torch.arange(max(lengths), device=whole.device) < torch.tensor(lengths, device=whole.device)[:, None]
        made: Any = self.model.get_audio_features(
            whole.to(self.model.dtype), feature_attention_mask=mask.long(), return_dict=True
        )
        return getattr(made, "last_hidden_state", made)[-count:]

    def weave(
        self, chunk: VisualChunk | None, sound: list[Tensor], place: Place, size: tuple[int, int], seconds: float
    ) -> VisualChunk:
        """Sound between the steps of a chunk that has no glue, as the family lays them out.

        Parameters
        ----------
        chunk : VisualChunk or None
            None where there is sound alone: it becomes a step of its own that shows nothing.
        sound : list of Tensor [tokens, hidden]
            Unit by unit.
        place : Place
            Where the chunk comes.
        size : (h, w)
            The grid of the pictures.
        seconds : float
            When the video began, its sound with it.
        """
        ears, first = self.ears, max(place.sound - 1, 0)
        heard = torch.cat([self.embed([]), *sound])
        last = first + len(heard)
        times = tuple(seconds + k / ears.rate for k in range(first, last))
        begins = not place.sound
        if chunk is None:
            every, places = torch.ones(len(heard), dtype=torch.bool, device=heard.device), size[0] * size[1]
            return VisualChunk(
                heard,
                ~every,
                (len(heard),),
                (times[0],),
                size,
                (0,),
                origin=torch.arange(places, places + len(heard), device=heard.device),
                whole=(places + len(heard),),
                sound=SoundRows(every, (len(heard),), times, (0,) * len(heard)),
            )
        here = [(each - seconds) * self.clock.tokens_per_second for each in chunk.seconds]
        fronts = [min(max(ears.before(each), first), last) for each in here]
        edges = [first, *fronts, last]  # the tokens of sound in front of each step, and behind the last one
        opening = self.embed(self.ids(ears.opening)) if begins else heard[:0]
        states = (chunk.embeds, *chunk.deepstack)
        rows: list[list[Tensor]] = [[] for _ in states]
        visual: list[bool] = []
        mask: list[bool] = []
        counts, steps, lead = [], [], []
        for i, tokens in enumerate(chunk.steps):
            between = edges[0] if i == 0 else edges[i + 1]  # what stands in front of the first step is the first step's
            front = [opening, heard[: edges[1] - first]] if i == 0 else []
            behind = heard[edges[i + 1] - first : edges[i + 2] - first]
            begin = sum(chunk.steps[:i])
            for of, state in zip(rows, states, strict=True):
                extra = [*front, state[begin : begin + tokens], behind]
                plain = of is rows[0]
                of += extra if plain else [part if part is extra[-2] else torch.zeros_like(part) for part in extra]
            ahead = [len(part) for part in front]
            heard_here = edges[i + 2] - between
            visual += [False] * sum(ahead) + [True] * tokens + [False] * len(behind)
            mask += [False] * sum(ahead[:1]) + [True] * sum(ahead[1:]) + [False] * tokens + [True] * len(behind)
            counts.append(heard_here)
            steps.append(sum(ahead) + tokens + len(behind))
            lead.append(sum(ahead))
        embeds, *deepstack = (torch.cat(parts) for parts in rows)
        seen = torch.tensor(visual, device=embeds.device)
        tower = {name: known.new_zeros(len(seen)).masked_scatter(seen, known) for name, known in chunk.tower.items()}
        sharing = [sum(s <= time + 1e-6 for s in chunk.seconds) - 1 for time in times]
        return replace(
            chunk,
            embeds=embeds,
            visual=seen,
            steps=tuple(steps),
            lead=tuple(lead),
            deepstack=tuple(deepstack),
            tower=tower,
            sound=SoundRows(torch.tensor(mask, device=embeds.device), tuple(counts), times, tuple(sharing)),
        )

    def place(self, chunk: VisualChunk, place: Place) -> tuple[Tensor, Place]:
        """Position ids [3, 1, tokens] and where the next chunk comes; a token of sound takes one position."""
        if chunk.sound is None:
            return super().place(chunk, place)
        ears, (h, w), clock, parts = self.ears, chunk.size, self.clock, []
        heard = max(place.sound - 1, 0)

        def sounding(tokens: int) -> Tensor:
            assert place.start is not None
            return torch.arange(place.start + heard, place.start + heard + tokens, device="cpu").expand(3, 1, -1)

        for tokens, lead, own, seconds in zip(
            chunk.whole_steps, chunk.lead, chunk.sound.steps, chunk.seconds, strict=True
        ):
            behind = tokens - lead - h * w
            front = own - behind
            if opening := lead - front:
                at = place.next - (1 if ears.doubled else 0)
                parts.append(torch.arange(at, at + opening, device="cpu").expand(3, 1, -1))
                place = replace(place, next=at + opening)
            if front:
                parts.append(sounding(front))
                heard += front
            ids, place = clock.video((1, h, w), (seconds,), place)
            parts.append(ids)
            parts.append(sounding(behind))
            heard += behind
            assert place.start is not None
            place = replace(place, next=max(place.next, place.start + heard), sound=1 + heard)
        ids = torch.cat(parts, dim=-1)
        return (ids if chunk.origin is None else ids[..., chunk.origin.to(ids.device)]), place


class HearingPositions(MRopePositions):
    """M-RoPE of a family that hears, by which a video's last two tokens, of sound and of vision, may share a place."""

    def __init__(self, tokens_per_second: float, doubled: bool) -> None:
        super().__init__(tokens_per_second)
        self.doubled = doubled

    def text(self, tokens: int, place: Place) -> tuple[Tensor, Place]:
        """Position ids [3, 1, tokens]; behind a video with sound the first two tokens close it."""
        ids, after = super().text(tokens, place)
        if not (self.doubled and place.sound and tokens > 1):
            return ids, after
        ids = torch.cat([ids[..., :1], ids[..., :-1]], dim=-1)
        return ids, replace(after, next=after.next - 1)
