"""`SharedModel`: a loaded model under any number of streams, with the turnstile at which they take turns.

Knows what was loaded and which streams are open. Refuses to know what a stream does; `VideoLM` opens them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol
from weakref import ref

import torch

from ..common import checks
from ..common.hooks import inputs_on
from ..common.weights import digest_if_repacked
from ..engine import Engine, Turnstile
from ..errors import ConfigError
from ..models import Adapter, Prompt
from ..parts import Part
from ..pyramid.compiled import CompiledStep
from ..pyramid.decoder import stack_of

MOST_TOKENS = 4096
"""Tokens of a text that a page, a command line or a server lets in, where a model would read more."""
_CHARACTERS = 16
"""Of a token, more than any language needs on average: what is longer need not be tokenized to be too long."""


class Opened(Protocol):
    """A stream, as far as its model needs to know."""

    @property
    def closed(self) -> bool:
        """Whether it was closed."""


class SharedModel:
    """A video-LLM as its streams share it; parameters and attributes are those of `VideoLM`."""

    def __init__(
        self,
        model: Any,
        adapter: Adapter,
        prompt: Prompt,
        name: str = "",
        dtype_why: str = "",
        batch: int = 1,
        compile: bool = False,
        parts: Mapping[str, Part] | None = None,
    ) -> None:
        self.model, self.adapter, self.prompt, self.name = model, adapter, prompt, name
        self.dtype_why, self.weights = dtype_why, digest_if_repacked(model)
        self.parts: Mapping[str, Part] = MappingProxyType(dict(parts or {}))
        batch, compile = checks.whole("batch", batch), checks.switch("compile", compile)
        if compile and batch > 1:
            raise ConfigError(
                f"compile=True and batch={batch} were given, and what computes tokens of several answers "
                "together is no compiled step; take one of the two."
            )
        self.compiled = CompiledStep(model) if compile else None
        self.engine = Engine(model, stack_of(model.get_decoder()), batch) if batch > 1 else None
        self.turnstile = Turnstile() if self.engine is None else self.engine
        self._opened: list[ref[Any]] = []

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.prompt.tokenizer

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return inputs_on(self.model)

    @property
    def number_type(self) -> str:
        """What it is computed in, and why, where that is known."""
        name = str(self.model.dtype).removeprefix("torch.")
        return f"{name}: {self.dtype_why}" if self.dtype_why else name

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(stack_of(self.model.get_decoder()).layers)

    @property
    def streams(self) -> tuple[Any, ...]:
        """The streams that are open, in the order of opening."""
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

    def note(self, stream: Opened) -> None:
        """Let a stream, which calls this within a turn as it opens, be among `streams`."""
        self._opened = [ref(each) for each in (*self.streams, stream)]
