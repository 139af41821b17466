"""A checkpoint's own processor, asked for one step after another: pixel values, and the text that stands for them.

Every step is a video of its own, in one call for a whole chunk, so that no size can depend on a chunk's length. Knows
transformers' processors. Refuses to know models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.video_utils import VideoMetadata

from ...errors import ModelError

Times = tuple[float, ...]

_TICKS = 1000
"""Of a second, in which the time of a frame is told: indices of frames are whole numbers."""
_WIDE = {"shortest_edge": 1, "longest_edge": 2**40}


class Scribe:
    """A processor as this library uses it.

    Parameters
    ----------
    processor : ProcessorMixin
        As ``AutoProcessor`` loads it.

    Attributes
    ----------
    tokenizer : PreTrainedTokenizerBase
    template : str or None
        The checkpoint's chat template, where the processor has one.
    keeps_shape : bool
        Whether pictures are resized to within limits of pixels.
    factor : int
        Pixels of which the sides of such a picture are multiples.
    """

    question: ClassVar[str] = "?"
    """What is asked in a turn that is tried."""

    def __init__(self, processor: Any) -> None:
        self.processor, self.tokenizer, self.videos = processor, processor.tokenizer, processor.video_processor
        template = getattr(processor, "chat_template", None)
        self.template: str | None = template.get("default") if isinstance(template, dict) else template
        size = getattr(self.videos, "size", None) or {}
        patch, merge = (getattr(self.videos, name, None) for name in ("patch_size", "merge_size"))
        limited = all(dict(size).get(name) for name in _WIDE)
        self.keeps_shape = limited and isinstance(patch, int)
        self.factor = patch * (merge if isinstance(merge, int) else 1) if isinstance(patch, int) else 32

    def __call__(
        self, steps: Sequence[Tensor], times: Sequence[Times], size: dict[str, int] | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        """What the video processor makes of steps, and the text of each.

        Parameters
        ----------
        steps : sequence of Tensor [frames, height, width, 3], uint8
        times : sequence of tuple of float
            Seconds of each step's frames.
        size : dict, optional
            Limits of pixels, in place of the checkpoint's own.
        """
        metadata = [
            self.metadata(float(_TICKS), [round(s * _TICKS) for s in seconds], step)
            for step, seconds in zip(steps, times, strict=True)
        ]
        # cloned: some processors draw the time on frames in place
        videos = [step.permute(0, 3, 1, 2).clone() for step in steps]
        made = self.videos(videos, video_metadata=metadata, return_metadata=True, **self.how(size))
        return made, [self._text(made, i, metadata[i], len(step)) for i, step in enumerate(steps)]

    def whole(self, text: str, frames: Tensor, fps: float, size: dict[str, int] | None = None) -> dict[str, Any]:
        """The model's inputs for a text with one placeholder and a whole video of so many frames a second."""
        metadata = self.metadata(fps, list(range(len(frames))), frames)
        kinds = "mm_token_type_ids"
        more = {f"return_{kinds}": True} if kinds in self.processor.model_input_names else {}

        def made(said: Any) -> dict[str, Any]:
            videos = dict(videos=[frames.permute(0, 3, 1, 2).clone()], video_metadata=said, return_metadata=True)
            return dict(self.processor(text=[text], **videos, **more, **self.how(size)))

        try:
            return made([metadata])
        except AttributeError:  # NVIDIA's takes what is known of its one video by itself
            return made(metadata)

    def placed(self, text: str, replacement: str) -> str:
        """A text with something in the place of its placeholder, wrappers of the template's replaced with it."""
        return str(self.processor.get_text_with_replacements([text], videos_replacements=[replacement])[0][0])

    def how(self, size: dict[str, int] | None = None) -> dict[str, Any]:
        """Arguments of every call."""
        how: dict[str, Any] = {"do_sample_frames": False, "return_tensors": "pt"}
        if "cap_pixels_per_frame" in getattr(self.videos.valid_kwargs, "__annotations__", {}):
            how["cap_pixels_per_frame"] = False  # our limits are those of a step
        return how | ({"size": dict(size)} if size is not None and self.keeps_shape else {})

    @property
    def wide(self) -> dict[str, int]:
        """Limits that small pictures of any number of frames lie within."""
        return dict(_WIDE)

    def noise(self, frames: int, seed: int = 0) -> Tensor:
        """Small random pictures [frames, height, width, 3], wider than high, of no round size."""
        generator = torch.Generator().manual_seed(seed)
        side = self.factor if self.keeps_shape else 32
        return torch.randint(0, 256, (frames, 2 * side + 5, 3 * side - 5, 3), generator=generator, dtype=torch.uint8)

    def four_steps(self, step: int, fps: float) -> tuple[Tensor, Times]:
        """A small video of four steps, the first of which stands still for a second one, and its frames' times."""
        still, *others = (self.noise(step, seed) for seed in range(3))
        frames = torch.cat([still, still, *others])
        return frames, tuple(i / fps for i in range(len(frames)))

    def turn(self) -> str:
        """The chat template's text of one turn with a video and a question."""
        content = [{"type": "video"}, {"type": "text", "text": self.question}]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": content}],
                    chat_template=self.template,
                    tokenize=False,
                    add_generation_prompt=True,
                )
            )
        except Exception as error:  # jinja raises many kinds, transformers its own
            raise ModelError(f"the checkpoint's chat template can't render a video turn: {error}") from error

    @staticmethod
    def metadata(fps: float, indices: list[int], frames: Tensor) -> VideoMetadata:
        """What a processor wants to know of a video."""
        height, width = frames.shape[1:3]
        return VideoMetadata(
            total_num_frames=len(frames),
            fps=fps,
            width=width,
            height=height,
            duration=len(frames) / fps,
            frames_indices=[*indices],
        )

    def _text(self, made: dict[str, Any], number: int, metadata: VideoMetadata, frames: int) -> str:
        """What the processor writes for one of the videos."""
        # what some processors hand to the method besides, each under a name of its own
        more: dict[str, Any] = {"num_frames": frames, "video_metadata": metadata}
        if hasattr(self.processor, "video_token_divisor"):
            more["video_token_divisor"] = self.processor.video_token_divisor
        try:
            return str(self.processor.replace_video_token(made, video_idx=number, **more))
        except NotImplementedError as error:
            raise ModelError(
                f"{type(self.processor).__name__} can't write the text of a video (it has no replace_video_token of "
                "its own); this model type needs an adapter of its own."
            ) from error
