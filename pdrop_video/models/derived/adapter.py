"""`Derived`: the adapter of a family that has none of its own, by its checkpoint's own processor."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...common.hooks import inputs_on
from ...errors import ModelError
from ..base import Adapter
from ..pixels import Pixels
from ..positions import LinearPositions, Positions
from .scribe import Scribe
from .wording import Wording

_FRAME = 768
"""Most visual tokens of a frame where a checkpoint's limits are for whole videos, as in Qwen's reference pipeline."""


class Derived(Adapter):
    """A family without a file of its own: a class is made of this one for each checkpoint by `derive`.

    What it does comes in three steps, each a method that a family's file may say better: `wording` writes the text of
    steps, `tokens` makes their visual tokens, `positions` is the rule for their position ids. `prove` holds all three
    against one forward of the model's own.

    A checkpoint's limits of pixels count for each step by itself. Where they are for a whole video, whose length a
    stream does not know, a step gets what a video of this one step would get, but no frame more than 768 tokens.
    """

    scribe: ClassVar[Scribe]
    written: ClassVar[Wording]
    shares_limits: ClassVar[bool] = False
    """Whether the processor's limits of pixels are for all frames of a video together."""

    def __init__(self, model: Any, pixels: Pixels, tokenizer: Any = None) -> None:
        super().__init__(model, pixels, tokenizer)
        self.rule: Positions | None = None
        self._end: Tensor | None = None

    @property
    def positions(self) -> Positions:
        """The rule that `prove` found; one number a token until then."""
        return LinearPositions() if self.rule is None else self.rule

    @classmethod
    def per_frame(cls, pixels: Pixels) -> Pixels:
        """Limits of a whole video made limits of a frame; the processor's own where the checkpoint has none."""
        if cls.keeps_shape and not pixels.size:
            pixels = replace(pixels, size={name: cls.scribe.videos.size[name] for name in cls.scribe.wide})
        if not cls.shares_limits:
            return pixels
        lowest, highest = pixels.limits
        most = min(highest // cls.frames_per_step, _FRAME * cls.scribe.factor**2)
        return pixels.within(min(max(lowest // 4, 1), most), most)  # of at least four frames

    # -- text -------------------------------------------------------------------------------------------------------

    def wording(self, seconds: tuple[float, ...], first: int = 0) -> list[tuple[str, str]]:
        """What the processor writes in front of and behind each step."""
        times = self._steps_of(seconds)
        if self.written.plain:
            return [("", "")] * len(times)
        small = [self.scribe.noise(len(moments)) for moments in times]
        _, texts = self.scribe(small, times, self.scribe.wide)
        return [self.written.around(text, first + i) for i, text in enumerate(texts)]

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        """The same of a step whose frames are all of one moment."""
        return self.wording((seconds,) * self.frames_per_step, number)[0]

    # -- tokens -----------------------------------------------------------------------------------------------------

    def tokens(
        self, frames: Tensor, seconds: tuple[float, ...], worth: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], tuple[int, int, int]]:
        """Visual tokens by the model's own features of pixel values that the processor made, all of them."""
        return self.seen(frames, seconds, self.size)

    def seen(
        self, frames: Tensor, seconds: tuple[float, ...], size: dict[str, int] | None
    ) -> tuple[tuple[Tensor, ...], tuple[int, int, int]]:
        """The same, with pictures of this size."""
        made, grid = self._made(frames.to(inputs_on(self.model)), seconds, size)
        return tuple(whole[:, : grid[1] * grid[2]].flatten(0, 1) for whole in self.features(made, grid)), grid

    def features(self, made: dict[str, Any], grid: tuple[int, int, int]) -> list[Tensor]:
        """Features [steps, tokens, hidden] of what the video processor made; behind them the deepstack features.

        Raises
        ------
        ModelError
            If the model has no method that makes them, or makes another number of them than the text has places for.
        """
        made = {name: self._moved(value) for name, value in made.items() if isinstance(value, Tensor)}
        find = next((f for name in ("get_video_features", "get_image_features") if (f := self._method(name))), None)
        if find is None:
            raise ModelError(
                f"{type(self.model).__name__} has neither get_video_features nor get_image_features; this model type "
                "needs an adapter of its own."
            )
        tokens = grid[0] * (grid[1] * grid[2] + self.written.closing)
        said = ""
        for given in _ways(find, made):
            try:
                seen = find(**given, return_dict=True)
                pooled = getattr(seen, "pooler_output", seen)
                whole = [self.flat(each) for each in (pooled, *(getattr(seen, "deepstack_features", None) or ()))]
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
                said = said or f"{type(error).__name__}: {error}"
                continue
            if all(len(each) == tokens for each in whole):
                return [each.unflatten(0, (grid[0], -1)) for each in whole]
            said = said or f"it makes {len(whole[0])} visual tokens where the text has places for {tokens}"
        raise ModelError(
            f"the visual tokens of models of type {self.model_types[0]!r} can't be made step by step by "
            f"{find.__name__}: {said}; this model type needs an adapter of its own."
        )

    def closing(self) -> Tensor:
        """The tokens that the model puts behind a video's last step, the same for every video."""
        if not self.written.closing:
            return self.rows([])
        if self._end is None:
            step = self.scribe.noise(self.frames_per_step).to(inputs_on(self.model))
            made, grid = self._made(step, (0.0,) * len(step), self.scribe.wide)
            self._end = self.features(made, grid)[0][0, grid[1] * grid[2] :]
        return self._end

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """The processor's pixel values, and the grid."""
        made, grid = self._made(frames, (0.0,) * len(frames), self.size)
        return next(value for name, value in made.items() if name.startswith("pixel_values")), grid

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Not from pixel values alone, of which some families' processors say more."""
        raise ModelError("a derived adapter makes visual tokens of frames; call tokens.")

    # -- what decoder layers are told ------------------------------------------------------------------------------

    @cached_property
    def marks(self) -> Tensor | None:
        """Ids that decoder layers are told to be visual, as the processor marks them; None where it marks none."""
        mark = getattr(self.scribe.processor, "create_moe_mm_token_type_ids", None)
        if mark is None:
            return None
        ids = sorted(self.scribe.tokenizer.get_vocab().values())
        marked = [number for number, kind in zip(ids, mark([ids])[0], strict=True) if kind]
        return torch.tensor(marked, device=inputs_on(self.model))

    @property
    def stands_for(self) -> int | None:
        """The token that stands for a visual one, where layers are told which are."""
        if self.marks is None:
            return None
        return int(self.scribe.tokenizer.convert_tokens_to_ids(self.written.visual))

    def beside(self, embeds: Tensor, ids: Tensor) -> Tensor:
        """Embeddings, and behind each a one if layers are told that it is visual."""
        if self.marks is None:
            return embeds
        return torch.cat([embeds, torch.isin(ids, self.marks)[:, None].to(embeds)], dim=1)

    # -- within -----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> dict[str, int] | None:
        """Limits of pixels of a step, as the processor takes them."""
        if not self.keeps_shape:
            return None
        times = self.frames_per_step if self.shares_limits else 1
        return {
            name: times * limit
            for name, limit in zip(("shortest_edge", "longest_edge"), self.pixels.limits, strict=True)
        }

    def _steps_of(self, seconds: tuple[float, ...]) -> list[tuple[float, ...]]:
        """Times of the frames of each step, the last one filled up where it has to be."""
        step = self.frames_per_step
        if self.written.fills and (missing := -len(seconds) % step):
            seconds = (*seconds, *seconds[-1:] * missing)
        return [seconds[i : i + step] for i in range(0, len(seconds), step)]

    def _made(
        self, frames: Tensor, seconds: tuple[float, ...], size: dict[str, int] | None
    ) -> tuple[dict[str, Any], tuple[int, int, int]]:
        """What the video processor makes of each step by itself, and the grid of visual tokens."""
        times = self._steps_of(seconds)
        if missing := sum(map(len, times)) - len(frames):
            frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
        made, texts = self.scribe(frames.split(self.frames_per_step), times, size)
        counts = {self.written.tokens(text) for text in texts}
        if len(counts) != 1:
            raise ModelError(
                f"steps of one chunk have {sorted(counts)} visual tokens; expected the same number for pictures of one "
                "size. This model type needs an adapter of its own."
            )
        return made, (len(times), *self._sides(made, counts.pop(), frames.shape[1] / frames.shape[2]))

    def _sides(self, made: dict[str, Any], tokens: int, shape: float) -> tuple[int, int]:
        """Rows and columns of a step's visual tokens."""
        grid = made.get("video_grid_thw", made.get("video_grids"))
        if grid is not None:
            _, height, width = (int(edge) for edge in grid[0])
            for merge in range(1, 9):
                if (height // merge) * (width // merge) == tokens:
                    return height // merge, width // merge
        # the processor does not say
        if not self.keeps_shape:
            square = math.isqrt(tokens)
            return (square, square) if square**2 == tokens else (1, tokens)
        # the rectangle nearest to the picture's shape
        down = min(
            (n for n in range(1, tokens + 1) if tokens % n == 0), key=lambda n: abs(math.log(n * n / tokens / shape))
        )
        return down, tokens // down

    def _moved(self, value: Tensor) -> Tensor:
        device = inputs_on(self.model)
        return value.to(device, self.model.dtype) if value.is_floating_point() else value.to(device)

    def _method(self, name: str) -> Any:
        """A method of what the model holds, or of the model."""
        for owner in (getattr(self.model, "model", None), self.model):  # the outer one may hide arguments
            if owner is not None and hasattr(owner, name):
                return getattr(owner, name)
        return None


def _ways(find: Any, made: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Arguments for a method that makes features, in the order in which they are tried.

    Methods for pictures know pixel values and grids by the pictures' names, and some want frames in one row.
    """
    wanted = inspect.signature(find).parameters
    named = dict(made)
    for name, value in made.items():
        named.setdefault(name.replace("pixel_values_videos", "pixel_values"), value)
        named.setdefault(name.replace("video_", "image_"), value)
    given = {name: value for name, value in named.items() if name in wanted}
    ways = [given]
    pixels = next((name for name in given if name.startswith("pixel_values")), None)
    if pixels is not None and given[pixels].ndim == 5:
        ways.append(given | {pixels: given[pixels].flatten(0, 1)})
    return ways
