"""`load` and `VideoLM`: a loaded model that streams can be opened on."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from ..common import checks
from ..errors import ConfigError, ModelError
from ..gate import Gate, gate_named
from ..memory import Memory
from ..models.loading import read
from ..parts import PARTS, located, opened
from ..pyramid import LayerLoop, Pyramid
from ..reduce import Reducer, reducer_named
from . import session
from .aio import AsyncAnswer, AsyncVideoStream, apart
from .answering import AnswerStream
from .recipe import Recipe
from .sampling import Sampling
from .shared import SharedModel
from .stream import VideoStream
from .talk import talk


class VideoLM(SharedModel):
    """A video-LLM, ready for streams.

    Made by `load`. One model can carry any number of streams; the weights are shared and never changed.

    Parameters
    ----------
    model : PreTrainedModel
        In eval mode.
    adapter : Adapter
        Its family.
    prompt : Prompt
        Its tokenizer and chat template.
    name : str
        For messages.
    dtype_why : str
        Why it is computed in its number type.
    batch : int
        Most streams whose rows are computed together; see `load`.
    compile : bool
        Whether tokens of answers are computed by one compiled step; see `load`.
    parts : mapping of str to Part, optional
        Trained parts by name; see `load`.

    Attributes
    ----------
    parts : mapping of str to Part
        The trained parts that are loaded beside it, which methods of their name may use.
    engine : Engine or None
        What does so, where `batch` is more than 1.
    turnstile : Turnstile
        Streams may be used from any number of threads: they take turns at the model. Use it around calls of your own
        while streams run, ``with lm.turnstile: lm.model(...)``.
    number_type : str
        What it is computed in, and why.
    """

    def __repr__(self) -> str:
        return f"VideoLM({self.name!r}, {self.model.config.model_type}, {self.num_layers} layers, {self.device})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise ModelError(
            "a loaded model can't be copied or pickled: its weights are never changed, and any number of streams share "
            "them. Use it as it is, or load it again, in another process by load there."
        )

    @property
    def streams(self) -> tuple[VideoStream, ...]:
        """The streams that are open, in the order of opening; see `VideoStream.status`.

        A stream that was closed, or that nobody holds any more, is not among them.
        """
        return super().streams

    def stream(
        self,
        pyramid: Pyramid | Recipe | None = None,
        memory: Memory | None = None,
        *,
        gate: str | Gate | None = None,
        reducer: str | Reducer | None = None,
        standing_question: str | None = None,
        system: str | None = None,
    ) -> VideoStream:
        """Open a stream.

        Parameters
        ----------
        pyramid : Pyramid or Recipe, optional
            How visual tokens are dropped; ``Pyramid()`` by default, ``Pyramid(stages=1)`` for none. An evictor that
            goes by scores has tokens ranked all the same. A recipe says that and all of the next three.
        memory : Memory, optional
            What may be remembered; ``Memory()`` by default, ``Memory(tokens=None)`` for everything.
        gate : str or Gate, optional
            What goes to the vision tower, for example "static"; by default every frame.
        reducer : str or Reducer, optional
            What goes from there to the language model, for example "evs:keep=0.5"; by default every visual token.
        standing_question : str, optional
            A question known before the frames: it ranks the visual tokens, by relevance to it unless `pyramid` names
            another scorer. Without one contrast ranks; scorers that need a probe get the model's answer-turn template.
        system : str, optional
            A system prompt.

        Raises
        ------
        ConfigError
            If the schedule or the budget does not fit the model; if a recipe is given beside parts of one; if an
            argument is of the wrong kind; if a text can't be encoded, or has more tokens than budget or trained range
            have room for.
        ModelError
            If the model has no weights, or its decoder does not compute here what it computes by itself.
        """
        if isinstance(pyramid, Recipe):
            if not (memory is None and gate is None and reducer is None):
                raise ConfigError("a recipe was given beside memory, gate or reducer; put them into the recipe.")
            recipe = pyramid
        else:
            dropping = Pyramid() if pyramid is None else pyramid
            recipe = Recipe(gate, reducer, dropping, Memory() if memory is None else memory)
        pyramid = recipe.pyramid
        if pyramid.scorer is None:
            pyramid = replace(pyramid, scorer="contrast" if standing_question is None else "relevance")
        loop = LayerLoop(self.model.get_decoder(), pyramid)
        return VideoStream(
            self,
            loop,
            recipe.memory,
            standing_question=standing_question,
            system=system,
            gate=None if recipe.gate is None else gate_named(recipe.gate),
            reducer=None if recipe.reducer is None else reducer_named(recipe.reducer),
        )

    def chat(
        self,
        said: Sequence[str],
        max_new_tokens: int = 128,
        *,
        system: str | None = None,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
    ) -> AnswerStream:
        """Answer text alone: what the model itself answers to it, with nothing watched and nothing remembered.

        Parameters
        ----------
        said : sequence of str
            What the user said, what was answered, and so on in turns; the user's last.
        max_new_tokens : int
            Longest answer, in tokens.
        system : str, optional
            A system prompt.
        sampling, stop, logprobs
            As for `VideoStream.ask`.

        Returns
        -------
        AnswerStream
            Iterate over its pieces, or `finish` it for the whole `Answer`, whose frames and seconds are 0.

        Raises
        ------
        ConfigError
            If a text is empty or can't be encoded; if there is an even number of them, or they have more tokens than
            the model was trained on; if a number is out of its bounds.
        ModelError
            If the model's chat template does not take text alone.
        """
        return talk(self, said, max_new_tokens, system, sampling=sampling, stop=stop, logprobs=logprobs)

    def async_chat(self, said: Sequence[str], max_new_tokens: int = 128, **how: Any) -> AsyncAnswer:
        """The same for asyncio: await it, or iterate over it; what is wrong with the arguments is said then."""
        return AsyncAnswer(partial(self.chat, said, max_new_tokens, **how))

    def resume(self, path: str | os.PathLike[str]) -> VideoStream:
        """Go on with a stream that `VideoStream.save` wrote.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        StreamError
            If the file is not a saved stream, or not as it was written.
        ModelError
            If it was saved by another model; the message names the difference.
        """
        how = session.read(self, path)
        with session.intact(path):
            lookout = how.pop("lookout")
            stream = VideoStream(self, **how)
            stream._look_out(lookout)
            return stream

    async def async_stream(self, *args: Any, **kwargs: Any) -> AsyncVideoStream:
        """Open a stream for asyncio: ``async with await lm.async_stream(...) as stream``.

        Parameters
        ----------
        *args, **kwargs
            As for `stream`; so are the errors.
        """
        return AsyncVideoStream(await apart(partial(self.stream, *args, **kwargs)))

    async def async_resume(self, path: str | os.PathLike[str]) -> AsyncVideoStream:
        """Go on, in asyncio, with a stream that was saved; see `resume`."""
        return AsyncVideoStream(await apart(partial(self.resume, path)))


def load(
    name: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    attn: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    split_special_tokens: bool = True,
    batch: int = 1,
    compile: bool = False,
    parts: str | os.PathLike[str] | Collection[str | os.PathLike[str]] = (),
    **kwargs: Any,
) -> VideoLM:
    """Load a video-LLM.

    A family that has no file of its own here is watched through its checkpoint's processor, which needs torchvision;
    what that processor and the model make of a small video in chunks is held against one forward of the model on the
    whole. ``pdrop-video families`` lists every type of models.

    Parameters
    ----------
    name : str or Path, optional
        A folder, or a model's name on the hub such as "Qwen/Qwen2.5-VL-7B-Instruct". Left out: the built-in model,
        which needs no network.
    device : str or torch.device, optional
        Where to put it; by default the first CUDA device if there is one, else the CPU. Not with `device_map`.
    dtype : str or torch.dtype
        "float32", "float16", "bfloat16" or "float64"; "auto" takes the checkpoint's own, or float32 on a
        CPU that has no instructions for products in it, if that fills at most half of the machine's memory.
        `VideoLM.number_type` says what was taken and why.
    attn : str, optional
        transformers' attention implementation: "sdpa" (its default), "eager", "flash_attention_2", ...
    min_pixels, max_pixels : int, optional
        Limits on the pixels of a resized frame, in place of the checkpoint's own, for families that keep a frame's
        shape (Qwen). A checkpoint that has limits for images only is capped at 768 * 28 * 28 pixels a frame, as in
        Qwen's reference video pipeline.
    split_special_tokens : bool
        Special tokens that somebody types, in a question, a system prompt, told text or the beginning of an answer, are
        read as ordinary text: ``<|im_end|>`` ends no turn and ``<|video_pad|>`` is no video. False lets them be
        special, as transformers does unless told otherwise.
    batch : int
        Up to so many streams, each used from a thread of its own, are computed together: pieces of chunks, questions
        and tokens of answers in one forward, which reads the weights once for all of them. What a stream gives is what
        it would give alone, but for the last bits; with 1, in which streams take turns, bit for bit.
    compile : bool
        Compute tokens of answers by one compiled step, over the memory's own storage: faster, the more of a token's
        time is Python's. Compiling takes a minute or two at load, once for a model on a machine, and a C++ compiler or
        a GPU. For families whose layers only attend; what stores columns in other forms (as ``Memory(bytes=...)`` does)
        or looks again (as ``ask(pyramid=...)`` does) goes on without. Not with `batch`.
    parts : str, path, or several
        Trained parts, for methods that use one: the name of one that ships with the built-in model, as "learnpruner";
        the file of one that `python -m pdrop_video.train_part` wrote; ``name=file``; or a folder of such files.
    **kwargs
        Passed to ``from_pretrained``: `revision`, `device_map`, `quantization_config`, ...

    Returns
    -------
    VideoLM

    Raises
    ------
    ModelError
        If there is no such model, it has no safetensors weights, or its family is not supported, with the reason; if
        torchvision is missing where it is needed; if a part was trained for another model.
    ConfigError
        If an argument is none of those described; if there is no such part; if limits of pixels are wrong, or the
        family has none; if both `device` and `device_map` are given.
    """
    batch, compile = checks.whole("batch", batch), checks.switch("compile", compile)
    paths = located(parts, PARTS, builtin=name is None)
    checkpoint = read(
        name,
        device=device,
        dtype=dtype,
        attn=attn,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        split_special_tokens=split_special_tokens,
        **kwargs,
    )
    return VideoLM(*checkpoint, batch=batch, compile=compile, parts=opened(paths, PARTS, checkpoint.model))
