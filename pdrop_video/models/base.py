"""What every family's adapter says: how frames become tokens, what closes a video, how positions run.

Knows transformers. Refuses to know streams, budgets and stages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from .chunk import VisualChunk
from .pixels import Pixels
from .positions import Place, Positions
from .prompt import Prompt
from .tower import Tower

_GRIDS = 64
"""Sizes of pictures whose grid is remembered."""
LATEST = 1e11
"""Seconds that a stream's times stay below, some three thousand years: what counts longer ones counts smaller units."""


class Adapter(ABC):
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
    knows : tuple of str
        What of its vision tower the family can hand over to a reducer that asks for it.
    """

    model_types: ClassVar[tuple[str, ...]]
    frames_per_step: ClassVar[int] = 1
    video_token: ClassVar[str]
    placeholder: ClassVar[str] = ""
    opening: ClassVar[str] = ""
    ending: ClassVar[str] = ""
    template: ClassVar[str | None] = None
    fps: ClassVar[float] = 2.0
    keeps_shape: ClassVar[bool] = False
    names: ClassVar[bool] = False
    knows: ClassVar[tuple[str, ...]] = ()

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

    def tokens(self, frames: Tensor, seconds: tuple[float, ...]) -> tuple[tuple[Tensor, ...], tuple[int, int, int]]:
        """Visual tokens [t * h * w, hidden] of frames at `seconds`, deepstack features behind them, and the grid.

        The last step is filled up with its last frame, as transformers fills it.
        """
        if missing := -len(frames) % self.frames_per_step:
            frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
        values, grid = self.preprocess(frames.to(self.model.device))
        return self.encode(values.to(self.model.dtype), grid), grid

    def tower(self, height: int, width: int) -> Tower | None:
        """What `encode` multiplies for one step of so many visual tokens down and across; None if nobody said.

        Read from the config and the preprocessing numbers alone, so that no weights are needed.
        """
        return None

    @property
    def stands_for(self) -> int | None:
        """The id of a visual token, for a decoder that reads ids beside embeddings; None where it reads none."""
        return None

    def beside(self, embeds: Tensor, ids: Tensor) -> Tensor:
        """Embeddings with what the decoder reads of ids behind them; the embeddings alone where it reads none.

        Parameters
        ----------
        embeds : Tensor [tokens, hidden]
        ids : Tensor [tokens], int64
            Of text; `stands_for` where a token is visual.

        Returns
        -------
        Tensor [tokens, hidden or more]
            As they enter the decoder.
        """
        return embeds

    def bound(self, ids: Tensor) -> Tensor | None:
        """Which tokens of a step see each other [tokens], bool; None where visual ones alone may do so.

        Parameters
        ----------
        ids : Tensor [tokens], int64
            As for `beside`.
        """
        return None

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        """Text in front of and behind the visual tokens of a stream's step `number` (from 0) at `seconds`; or none."""
        return "", ""

    def wording(self, seconds: tuple[float, ...], first: int = 0) -> list[tuple[str, str]]:
        """The glue of each step of frames at `seconds`, behind `first` steps of the stream."""
        return [self.glue(first + i, moment) for i, moment in enumerate(self.times(seconds))]

    def longest_glue(self) -> int:
        """Most tokens of glue around a step of a stream, whatever its number and its time come to."""
        steps, seconds = (123_456_789_012, 999_999_999_999), (12_345_678_901.2, LATEST - 0.1)
        said = [text for n in steps for s in seconds for text in (self.glue(n, s), self.glue(n, -s))]
        return max(sum(len(self.ids(part)) for part in text) for text in said)

    def times(self, seconds: tuple[float, ...]) -> tuple[float, ...]:
        """The time of each step, from the times of its frames: that of its first one."""
        return seconds[:: self.frames_per_step]

    def closing(self) -> Tensor:
        """Embeddings [tokens, hidden] that end a video before the template's text goes on; none by default."""
        return self.rows([])

    @classmethod
    def per_frame(cls, pixels: Pixels) -> Pixels:
        """A checkpoint's numbers as a stream needs them, which never knows a whole video's length."""
        return pixels

    @staticmethod
    def flat(pooled: Any) -> Tensor:
        """Features [tokens, hidden] of one video, which transformers nests by family and version: lists, frames."""
        whole = pooled if isinstance(pooled, Tensor) else torch.cat(tuple(pooled))
        return whole.reshape(-1, whole.shape[-1])

    @staticmethod
    def named(tokenizer: Any, name: str, usual: str) -> str:
        """A token that the tokenizer may call by a name, as the family's processor asks it; else the usual one."""
        return getattr(tokenizer, name, None) or usual

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

    def look(self, frames: Tensor, seconds: tuple[float, ...], first: int = 0) -> VisualChunk:
        """Frames to visual tokens with the family's glue around each step.

        Parameters
        ----------
        frames : Tensor [frames, height, width, 3], uint8
        seconds : tuple of float
            Time of each frame.
        first : int
            Steps of the stream before these.
        """
        times = self.times(seconds)
        (embeds, *deepstack), grid = self.tokens(frames, seconds)
        _, h, w = grid
        text, token = [tuple(map(self.ids, said)) for said in self.wording(seconds, first)], self.stands_for
        if not any(before or after for before, after in text):
            chunk = VisualChunk.plain(embeds, grid, times, tuple(deepstack))
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
        whole = chunk.whole_steps
        if sum(whole) == len(whole) * h * w:
            ids, place = self.positions.video((len(whole), h, w), chunk.seconds, place)
        else:
            parts = []
            for tokens, lead, seconds in zip(whole, chunk.lead, chunk.seconds, strict=True):
                before, place = self.positions.text(lead, place)
                visual, place = self.positions.video((1, h, w), (seconds,), place)
                after, place = self.positions.text(tokens - lead - h * w, place)
                parts += [before, visual, after]
            ids = torch.cat(parts, dim=-1)
        return (ids if chunk.origin is None else ids[..., chunk.origin.to(ids.device)]), place

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of visual tokens that a frame of so many pixels makes."""
        if (height, width) not in self._grids:
            if len(self._grids) >= _GRIDS:
                self._grids.clear()
            blank = torch.zeros(self.frames_per_step, height, width, 3, dtype=torch.uint8)
            self._grids[height, width] = self.preprocess(blank)[1][1:]
        return self._grids[height, width]

    def ids(self, text: str) -> list[int]:
        """Token ids of text that stands between special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def embed(self, ids: list[int]) -> Tensor:
        """Embeddings [tokens, hidden] of text."""
        table = self.model.get_input_embeddings()
        return table(torch.tensor(ids, dtype=torch.long, device=table.weight.device))

    def rows(self, ids: list[int]) -> Tensor:
        """The same as they enter the decoder; see `beside`."""
        embeds = self.embed(ids)
        return self.beside(embeds, torch.tensor(ids, dtype=torch.long, device=embeds.device))
