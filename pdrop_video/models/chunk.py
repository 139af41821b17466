"""`VisualChunk`: the tokens of a chunk as they enter the language model, all of them or what a gate and a reducer left.

Knows tensors and how steps lie in them. Refuses to know families.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SoundRows:
    """The tokens of sound among those of a chunk.

    Attributes
    ----------
    mask : Tensor [tokens], bool
        Which they are.
    steps : tuple of int
        How many stand among the tokens of each step.
    seconds : tuple of float
        Time of each.
    sharing : tuple of int
        The step of the chunk whose time each shares, with which it is forgotten; below 0 if that came before the chunk.
    """

    mask: Tensor
    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    sharing: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.seconds)

    def split(self, first: int, last: int, rows: slice) -> SoundRows:
        """Those among the steps from `first` to `last`, whose tokens are `rows`."""
        begin = sum(self.steps[:first])
        end = begin + sum(self.steps[first:last])
        sharing = tuple(step - first for step in self.sharing[begin:end])
        return SoundRows(self.mask[rows], self.steps[first:last], self.seconds[begin:end], sharing)


@dataclass(frozen=True, slots=True)
class VisualChunk:
    """Tokens of one chunk, as they enter the language model: visual ones, and the text glue between them.

    It may be ragged: after a gate or a reducer steps have different numbers of visual tokens, or none. Each that is
    left goes on standing at its own place of the whole grid.

    Attributes
    ----------
    embeds : Tensor [tokens, hidden]
        Embeddings, step by step; within a step in the order row, column.
    visual : Tensor [tokens], bool
        False for glue (timestamps, separators), which is never dropped and is forgotten with its step.
    steps : tuple of int
        Tokens of each step, glue included.
    seconds : tuple of float
        Time of each step.
    size : (h, w)
        Places of a step's grid along height and width: its visual tokens, where none is left out.
    lead : tuple of int
        Tokens of glue in front of each step's visual ones.
    deepstack : tuple of Tensor [tokens, hidden]
        What Qwen3-VL adds behind its first layers; zero for glue. Empty for other families.
    until : tuple of float, optional
        Up to which moment each step shows what was to be seen; its own time where left out.
    origin : Tensor [tokens], int64, optional
        Which of the whole chunk's tokens each is; all of them where left out.
    whole : tuple of int, optional
        Tokens of each step before any was left out.
    ids : Tensor [tokens], int64, optional
        Token ids, for a decoder that reads them beside the embeddings (Gemma 4).
    sound : SoundRows, optional
        Tokens of sound, which are neither visual nor glue.
    saliency : Tensor [tokens], float32, optional
        What a gate said of each visual token; 0 for others.
    tower : mapping of Tensor [tokens], float32
        What the vision tower knew of each visual token, as far as it was asked; 0 for others.
    standby : tuple of (int, int)
        Visual tokens that a trained part made of each step besides, which stand behind those of its grid: at which
        place of the grid each is positioned, as (row, column). None where left out.
    """

    embeds: Tensor
    visual: Tensor
    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    size: tuple[int, int]
    lead: tuple[int, ...]
    deepstack: tuple[Tensor, ...] = ()
    until: tuple[float, ...] | None = None
    origin: Tensor | None = None
    whole: tuple[int, ...] | None = None
    ids: Tensor | None = None
    sound: SoundRows | None = None
    saliency: Tensor | None = None
    tower: Mapping[str, Tensor] = field(default_factory=dict)
    standby: tuple[tuple[int, int], ...] = ()

    @classmethod
    def plain(
        cls, embeds: Tensor, grid: tuple[int, int, int], seconds: tuple[float, ...], deepstack: tuple[Tensor, ...] = ()
    ) -> VisualChunk:
        """A chunk without glue: `embeds` [t * h * w, hidden] on a (t, h, w) grid."""
        t, h, w = grid
        visual = torch.ones(len(embeds), dtype=torch.bool, device=embeds.device)
        return cls(embeds, visual, (h * w,) * t, seconds, (h, w), (0,) * t, deepstack)

    def __len__(self) -> int:
        return len(self.embeds)

    @property
    def whole_steps(self) -> tuple[int, ...]:
        """Tokens of each step before any was left out."""
        return self.steps if self.whole is None else self.whole

    @property
    def places(self) -> int:
        """Places of a step: those of its grid, and behind them those of standby tokens."""
        return self.size[0] * self.size[1] + len(self.standby)

    @property
    def glue_steps(self) -> tuple[int, ...]:
        """Tokens of glue of each step."""
        others = (tokens - self.places for tokens in self.whole_steps)
        return tuple(n - heard for n, heard in zip(others, self.sound_steps, strict=True))

    @property
    def sound_steps(self) -> tuple[int, ...]:
        """Tokens of sound among those of each step."""
        return (0,) * len(self.steps) if self.sound is None else self.sound.steps

    @property
    def sound_tokens(self) -> int:
        """How many tokens are sound."""
        return sum(self.sound_steps)

    @property
    def visual_steps(self) -> tuple[int, ...]:
        """Visual tokens of each step."""
        others = zip(self.glue_steps, self.sound_steps, strict=True)
        return tuple(tokens - glue - heard for tokens, (glue, heard) in zip(self.steps, others, strict=True))

    @property
    def visual_tokens(self) -> int:
        """How many tokens are visual."""
        return sum(self.visual_steps)

    def step(self) -> Tensor:
        """Which step of the chunk each token belongs to [tokens]."""
        return self._by_step(range(len(self.steps)))

    def place(self) -> Tensor:
        """At which of its step's `places` each visual token stands, row by row [tokens]; -1 for glue."""
        row = torch.arange(len(self), device=self.embeds.device) if self.origin is None else self.origin
        begins, begin = [], 0
        for tokens, lead in zip(self.whole_steps, self.lead, strict=True):
            begins.append(begin + lead)
            begin += tokens
        return torch.where(self.visual, row - self._by_step(begins), -1)

    def visual_rows(self) -> Tensor:
        """Row numbers [visual tokens] of the visual tokens, ascending."""
        return self.visual.long().argsort(descending=True, stable=True)[: self.visual_tokens]

    def with_standby(self, tokens: Tensor, standby: tuple[tuple[int, int], ...]) -> VisualChunk:
        """A chunk that has all of its visual tokens and no glue, with more of them behind those of each step.

        Parameters
        ----------
        tokens : Tensor [steps, n, hidden]
        standby : tuple of (int, int)
            The places of the n.
        """
        steps, n, hidden = tokens.shape
        places = self.places
        assert self.steps == (places,) * steps
        assert not self.deepstack
        assert n == len(standby)
        embeds = torch.cat([self.embeds.view(steps, places, hidden), tokens.to(self.embeds)], dim=1).flatten(0, 1)
        plain = VisualChunk.plain(embeds, (steps, places + n, 1), self.seconds)
        ids = None if self.ids is None else self.ids[:1].expand(len(embeds))
        return replace(plain, size=self.size, ids=ids, until=self.until, standby=standby)

    def keep(self, kept: Tensor, weights: Tensor | None = None) -> VisualChunk:
        """The same chunk with some of its visual tokens only, all of its glue, and everybody at his place.

        Parameters
        ----------
        kept : Tensor [kept], int64
            Numbers of visual tokens, ascending.
        weights : Tensor [kept, visual tokens], optional
            What each becomes a mean of.
        """
        visual = self.visual_rows()
        stays = (~self.visual).index_fill(0, visual[kept], True)
        rows = stays.long().argsort(descending=True, stable=True)[: len(self) - len(visual) + len(kept)]
        states = [self.embeds, *self.deepstack]
        if weights is not None:
            # a mean of many sixteen-bit numbers would lose digits
            kind = torch.promote_types(states[0].dtype, torch.float32)
            means = [(weights.to(kind) @ state[visual].to(kind)).to(state) for state in states]
            states = [state.index_copy(0, visual[kept], mean) for state, mean in zip(states, means, strict=True)]
        embeds, *deepstack = (state[rows] for state in states)
        per_step = torch.bincount(self.step()[visual[kept]], minlength=len(self.steps)).tolist()  # on the host: sizes
        return replace(
            self,
            embeds=embeds,
            visual=self.visual[rows],
            steps=tuple(
                glue + heard + int(n)
                for glue, heard, n in zip(self.glue_steps, self.sound_steps, per_step, strict=True)
            ),
            deepstack=tuple(deepstack),
            origin=rows if self.origin is None else self.origin[rows],
            whole=self.whole_steps,
            ids=None if self.ids is None else self.ids[rows],
            saliency=None if self.saliency is None else self.saliency[rows],
            tower={name: known[rows] for name, known in self.tower.items()},
            sound=None if self.sound is None else replace(self.sound, mask=self.sound.mask[rows]),
        )

    def split(self, steps: int) -> list[VisualChunk]:
        """The same tokens in chunks of at most `steps` steps."""
        chunks = []
        for first in range(0, len(self.steps), steps):
            last = min(first + steps, len(self.steps))
            start, end = sum(self.steps[:first]), sum(self.steps[:last])
            before = sum(self.whole_steps[:first])
            chunks.append(
                VisualChunk(
                    self.embeds[start:end],
                    self.visual[start:end],
                    self.steps[first:last],
                    self.seconds[first:last],
                    self.size,
                    self.lead[first:last],
                    tuple(features[start:end] for features in self.deepstack),
                    None if self.until is None else self.until[first:last],
                    None if self.origin is None else self.origin[start:end] - before,
                    None if self.whole is None else self.whole[first:last],
                    None if self.ids is None else self.ids[start:end],
                    None if self.sound is None else self.sound.split(first, last, slice(start, end)),
                    None if self.saliency is None else self.saliency[start:end],
                    {name: known[start:end] for name, known in self.tower.items()},
                    self.standby,
                )
            )
        return chunks

    def _by_step(self, values: Iterable[int]) -> Tensor:
        """One number a step, for every token of it."""
        device = self.embeds.device
        numbers = torch.tensor(list(values), device=device)
        return numbers.repeat_interleave(torch.tensor(self.steps, device=device), output_size=len(self))
