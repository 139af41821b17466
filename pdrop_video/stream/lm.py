"""`VideoLM`: a loaded model that streams can be opened on."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, NoReturn
from weakref import ref

import torch

from ..common import checks
from ..errors import ConfigError, ModelError
from ..memory import Memory
from ..models import Adapter, Prompt
from ..pyramid import LayerLoop, Pyramid
from . import session
from .stream import VideoStream
from .turnstile import Turnstile

MOST_TOKENS = 4096
"""Tokens of a text that a page, a command line or a server lets in, where a model would read more."""
_CHARACTERS = 16
"""Of a token, more than any language needs on average: what is longer need not be tokenized to be too long."""


class VideoLM:
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

    Attributes
    ----------
    turnstile : Turnstile
        Streams may be used from any number of threads: they take turns at the model. Use it around calls of your own
        while streams run, ``with lm.turnstile: lm.model(...)``.
    """

    def __init__(self, model: Any, adapter: Adapter, prompt: Prompt, name: str = "") -> None:
        self.model, self.adapter, self.prompt, self.name = model, adapter, prompt, name
        self.turnstile = Turnstile()
        self._opened: list[ref[VideoStream]] = []

    def __repr__(self) -> str:
        return f"VideoLM({self.name!r}, {self.model.config.model_type}, {self.num_layers} layers, {self.device})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise ModelError(
            "a loaded model can't be copied or pickled: its weights are never changed, and any number of streams share "
            "them. Use it as it is, or load it again, in another process by load there."
        )

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.prompt.tokenizer

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.model.device

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.model.get_decoder().layers)

    @property
    def streams(self) -> tuple[VideoStream, ...]:
        """The streams that are open, in the order of opening; see `VideoStream.status`.

        A stream that was closed, or that nobody holds any more, is not among them.
        """
        opened = (each() for each in self._opened)
        return tuple(stream for stream in opened if stream is not None and not stream.closed)

    def bounded(self, name: str, text: str, most: int = MOST_TOKENS) -> str:
        """A text that somebody sent, if it is short enough that reading it keeps nobody else waiting.

        Streams themselves take what finds room in memory and trained range, which may be very much more.

        Parameters
        ----------
        name : str
            For the message.
        text : str
        most : int
            Tokens.

        Raises
        ------
        ConfigError
            If it has more, is no text, or can't be encoded.
        """
        checks.text(name, text)
        most = checks.whole("most", most)
        if len(text) > most * _CHARACTERS:
            raise ConfigError(f"{name} has {len(text):,} characters; expected {most:,} tokens at most.")
        if (tokens := len(self.prompt.words(text))) > most:
            raise ConfigError(f"{name} has {tokens:,} tokens; expected {most:,} at most.")
        return text

    def note(self, stream: VideoStream) -> None:
        """Let a stream, which calls this within a turn as it opens, be among `streams`."""
        self._opened = [ref(each) for each in (*self.streams, stream)]

    def stream(
        self,
        pyramid: Pyramid | None = None,
        memory: Memory | None = None,
        *,
        standing_question: str | None = None,
        system: str | None = None,
    ) -> VideoStream:
        """Open a stream.

        Parameters
        ----------
        pyramid : Pyramid, optional
            How visual tokens are dropped; ``Pyramid()`` by default, ``Pyramid(stages=1)`` for none. An evictor that
            goes by scores has tokens ranked all the same.
        memory : Memory, optional
            What may be remembered; ``Memory()`` by default, ``Memory(tokens=None)`` for everything.
        standing_question : str, optional
            A question known before the frames: it ranks the visual tokens, by relevance to it unless `pyramid` names
            another scorer. Without one contrast ranks; scorers that need a probe get the model's answer-turn template.
        system : str, optional
            A system prompt.

        Raises
        ------
        ConfigError
            If the schedule or the budget does not fit the model; if an argument is of the wrong kind; if a text can't
            be encoded, or has more tokens than budget or trained range have room for.
        ModelError
            If the model has no weights, or its decoder does not compute here what it computes by itself.
        """
        pyramid = checks.instance("pyramid", Pyramid() if pyramid is None else pyramid, Pyramid, "Pyramid(ratios=...)")
        memory = checks.instance("memory", Memory() if memory is None else memory, Memory, "Memory(tokens=...)")
        if pyramid.scorer is None:
            pyramid = replace(pyramid, scorer="contrast" if standing_question is None else "relevance")
        loop = LayerLoop(self.model.get_decoder(), pyramid)
        return VideoStream(self, loop, memory, standing_question=standing_question, system=system)

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
            return VideoStream(self, **how)
