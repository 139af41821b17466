"""What every family's adapter says: how frames become tokens, what closes a video, how positions run.

Knows transformers. Refuses to know streams, budgets and stages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..common.hooks import inputs_on
from .chunk import VisualChunk
from .pixels import Pixels
from .positions import Place, Positions
from .prompt import Prompt
from .received import Attended, whole
from .tower import Tower
from .words import LATEST, Worded

__all__ = ["LATEST", "Adapter"]

_GRIDS = 64
"""Sizes of pictures whose grid is remembered."""


class Adapter(Worded, Attended, ABC):
    """One family of models.

    Parameters
    ----------
    model : PreTrainedModel
        As ``AutoModelForImageTextToText`` loads it.
    pixels : Pixels
        The checkpoint's preprocessing numbers.
    tokenizer : PreTrainedTokenizerBase, optional
        For the text between steps; families that have none do without.

    Attributes
    ----------
    frames_per_step : int
        Frames that become one step of visual tokens; a last frame that lacks its partner waits for the next push.
    video_token : str
        The token that stands for each visual one in transformers' input ids.
    placeholder : str
        What the family's chat template writes for a video; `video_token` where empty.
    opening, ending : str
        Text that the family's processor writes in front of a video's first step and behind its last one.
    template : str or None
        A chat template that the family's processor prefers to the checkpoint's own where there is a video.
    fps : float
        Frames per second that the family was trained at.
    keeps_shape : bool
        Whether frames are resized to within limits of pixels, keeping their shape, and not to one size.
    names : bool
        Whether the family's processor asks the tokenizer which token `video_token` is.
    parts : bool
        Whether the tower can leave out patches, so that `encode_some` costs less than `encode`.
    knows, late
        See `Attended`.
    """

    model_types: ClassVar[tuple[str, ...]]
    video_token: ClassVar[str]
    placeholder: ClassVar[str] = ""
    opening: ClassVar[str] = ""
    ending: ClassVar[str] = ""
    template: ClassVar[str | None] = None
    fps: ClassVar[float] = 2.0
    keeps_shape: ClassVar[bool] = False
    names: ClassVar[bool] = False
    parts: ClassVar[bool] = False

    def __init__(self, model: Any, pixels: Pixels, tokenizer: Any = None) -> None:
        self.model = model
        self.pixels = pixels
        self.tokenizer = tokenizer
        self._grids: dict[tuple[int, int], tuple[int, int]] = {}

    # -- what a family says -----------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def positions(self) -> Positions:
        """The family's rule for position ids."""

    @abstractmethod
    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Pixel values in the layout of the model's vision tower, and the (t, h, w) grid of visual *tokens*.

        Parameters
        ----------
        frames : Tensor [frames, height, width, 3], uint8
            A whole number of steps.
        """

    @abstractmethod
    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Visual tokens [t * h * w, hidden] of what `preprocess` gave; behind them the deepstack features, if any.

        Parameters
        ----------
        values : Tensor
            Pixel values in the model's dtype.
        grid : (t, h, w)
        """

    def encode_some(self, values: Tensor, grid: tuple[int, int, int], worth: Tensor) -> tuple[Tensor, ...]:
        """The same of those tokens [wanted] alone of which `worth` [t, h, w] says so, one or more; see `parts`."""
        rows = worth.flatten().nonzero()[:, 0].to(values.device)
        return tuple(each[rows] for each in self.encode(values, grid))

    def tokens(
        self, frames: Tensor, seconds: tuple[float, ...], worth: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], tuple[int, int, int]]:
        """Visual tokens [t * h * w, hidden] of frames at `seconds`, deepstack features behind them, and the grid.

        With `worth` [t, h, w] other tokens are not encoded, but zero.
        """
        values, grid = self.values_of(frames)
        if worth is None:
            return self.encode(values, grid), grid
        if not worth.any():
            return (self.embed([]).new_zeros(worth.numel(), self.embed([]).shape[1]),), grid
        some, rows = self.encode_some(values, grid, worth), worth.flatten().nonzero()[:, 0].to(values.device)
        return tuple(each.new_zeros(worth.numel(), each.shape[1]).index_copy(0, rows, each) for each in some), grid

    def values_of(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Pixel values of frames, in the model's type and where it takes them, and the grid; see `preprocess`.

        The last step is filled up with its last frame, as transformers fills it.
        """
        if missing := -len(frames) % self.frames_per_step:
            frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
        values, grid = self.preprocess(frames.to(inputs_on(self.model)))
        return values.to(self.model.dtype), grid

    def tower(self, height: int, width: int) -> Tower | None:
        """What `encode` multiplies for one step of so many visual tokens down and across; None if nobody said.

        Read from the config and the preprocessing numbers alone, so that no weights are needed.
        """
        return None

    def part(self, worth: Tensor) -> Tower | None:
        """What `encode_some` multiplies for one step of which `worth` [rows, columns] says what is encoded; or None."""
        return self.tower(*worth.shape)

    def look_flops(
        self, size: tuple[int, int], steps: int, worth: Tensor | None = None, knowing: Iterable[str] = ()
    ) -> int | None:
        """FLOPs of `look` at so many steps of (h, w) visual tokens; None if nobody said what the tower multiplies."""
        if (tower := self.tower(*size)) is None:
            return None
        told = {*self.told(knowing, len(tower.layers)).values()}
        if worth is None or not self.parts:
            return tower.flops(steps, told)
        towers = [self.part(step) for step in worth]
        flops = [tower.flops(1, told) for tower in towers if tower is not None]
        return sum(flops) if len(flops) == len(towers) else None

    @classmethod
    def per_frame(cls, pixels: Pixels) -> Pixels:
        """A checkpoint's numbers as a stream needs them, which never knows a whole video's length."""
        return pixels

    @staticmethod
    def flat(pooled: Any) -> Tensor:
        """Features [tokens, hidden] of one video, which transformers nests by family and version: lists, frames."""
        whole = pooled if isinstance(pooled, Tensor) else torch.cat(tuple(pooled))
        return whole.reshape(-1, whole.shape[-1])

    # -- what follows from it ---------------------------------------------------------------------------------------

    @classmethod
    def prompt(cls, tokenizer: Any, template: str | None = None, *, split_special_tokens: bool = True) -> Prompt:
        """The family's prompt around a video; `template` stands in for the tokenizer's own chat template."""
        return Prompt(
            tokenizer,
            cls.named(tokenizer, "video_token", cls.video_token) if cls.names else cls.video_token,
            cls.template or template,
            placeholder=cls.placeholder,
            opening=cls.opening,
            ending=cls.ending,
            split_special_tokens=split_special_tokens,
        )

    def look(
        self,
        frames: Tensor,
        seconds: tuple[float, ...],
        first: int = 0,
        worth: Tensor | None = None,
        knowing: tuple[str, ...] = (),
    ) -> VisualChunk:
        """Frames to visual tokens with the family's glue around each step.

        Parameters
        ----------
        frames : Tensor [frames, height, width, 3], uint8
        seconds : tuple of float
            Time of each frame.
        first : int
            Steps of the stream before these.
        worth : Tensor [t, h, w], bool, optional
            The visual tokens that are wanted. A family that leaves out `parts` encodes these alone, so that they see
            nothing else of their step; others encode everything first.
        knowing : tuple of str
            What the chunk's `tower` shall say, of what the family `knows`.
        """
        encoded = worth if self.parts and worth is not None and not worth.all() else None
        with self.telling(knowing) as notes:
            (embeds, *deepstack), grid = (
                self.tokens(frames, seconds) if encoded is None else self.tokens(frames, seconds, encoded)
            )
        chunk = self.laid_out(embeds, tuple(deepstack), grid, seconds, first)
        if notes and (encoded is None or encoded.any()):
            known = {name: self.per_token(whole(rows), grid, encoded).float() for name, rows in notes.items()}
            tower = {
                name: each.new_zeros(len(chunk)).masked_scatter(chunk.visual, each) for name, each in known.items()
            }
            chunk = replace(chunk, tower=tower)
        return chunk if worth is None else chunk.keep(worth.flatten().nonzero()[:, 0].to(chunk.embeds.device))

    def laid_out(
        self,
        embeds: Tensor,
        deepstack: tuple[Tensor, ...],
        grid: tuple[int, int, int],
        seconds: tuple[float, ...],
        first: int,
    ) -> VisualChunk:
        """Visual tokens of a whole grid with the glue around each step."""
        times, (_, h, w) = self.times(seconds), grid
        text, token = [tuple(map(self.ids, said)) for said in self.wording(seconds, first)], self.stands_for
        if not any(before or after for before, after in text):
            chunk = VisualChunk.plain(embeds, grid, times, deepstack)
            return (
                chunk if token is None else replace(chunk, ids=torch.full_like(chunk.visual, token, dtype=torch.long))
            )
        ids, visual = [], []
        for before, after in text:
            ids += [*before, *[token or 0] * (h * w), *after]  # the visual ones' embeddings are overwritten
            visual += [False] * len(before) + [True] * (h * w) + [False] * len(after)
        rows, mask = self.embed(ids), torch.tensor(visual, device=embeds.device)
        return VisualChunk(
            rows.masked_scatter(mask[:, None], embeds.to(rows)),
            mask,
            tuple(len(before) + h * w + len(after) for before, after in text),
            times,
            (h, w),
            tuple(len(before) for before, _ in text),
            tuple(torch.zeros_like(rows).masked_scatter(mask[:, None], f.to(rows)) for f in deepstack),
            ids=None if token is None else torch.tensor(ids, device=embeds.device),
        )

    def place(self, chunk: VisualChunk, place: Place) -> tuple[Tensor, Place]:
        """Position ids [1, tokens] or [3, 1, tokens] of a chunk that comes at `place`, and where the next one comes.

        Glue counts as text, so that a step with glue around it is a video of one step. What was left out of a chunk
        keeps its positions to itself: they are those of the whole grid, of which the tokens that are there have theirs.
        """
        h, w = chunk.size
        whole, places = chunk.whole_steps, chunk.places
        if sum(whole) == len(whole) * places:
            ids, place = self.positions.video((len(whole), h, w), chunk.seconds, place)
            ids = self._beside(ids, chunk)
        else:
            parts = []
            for tokens, lead, seconds in zip(whole, chunk.lead, chunk.seconds, strict=True):
                before, place = self.positions.text(lead, place)
                visual, place = self.positions.video((1, h, w), (seconds,), place)
                after, place = self.positions.text(tokens - lead - places, place)
                parts += [before, self._beside(visual, chunk), after]
            ids = torch.cat(parts, dim=-1)
        return (ids if chunk.origin is None else ids[..., chunk.origin.to(ids.device)]), place

    @staticmethod
    def _beside(ids: Tensor, chunk: VisualChunk) -> Tensor:
        """Position ids of whole grids with those of standby tokens behind each step: their places', once more."""
        if not chunk.standby:
            return ids
        h, w = chunk.size
        steps = ids.unflatten(-1, (-1, h * w))
        places = torch.tensor([row * w + column for row, column in chunk.standby], device=ids.device)
        return torch.cat([steps, steps[..., places]], dim=-1).flatten(-2)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of visual tokens that a frame of so many pixels makes."""
        if (height, width) not in self._grids:
            if len(self._grids) >= _GRIDS:
                self._grids.clear()
            blank = torch.zeros(self.frames_per_step, height, width, 3, dtype=torch.uint8)
            self._grids[height, width] = self.preprocess(blank)[1][1:]
        return self._grids[height, width]
