"""What a stream may remember. Knows numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..common import checks
from ..errors import ConfigError
from .evictors import Evictor, evictor_named
from .storages import Storage, storage_named

UNBOUNDED = 2**62
"""Columns of a layer that no budget bounds: its window does, or it holds none."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The budget of a stream's KV cache, and what is forgotten when it is reached.

    Parameters
    ----------
    tokens : int or None
        Most tokens that any decoder layer holds while frames are pushed: text prefix, remembered visual tokens, and
        the chunk and probe in flight. None keeps everything. Questions and answers run on a fork and come on top.
    bytes : int, optional
        The same bound as bytes of keys and values, as they are stored, over all layers, in place of `tokens`.
    shape : {"flat", "pyramid"}
        "flat" gives every layer the same budget, so that deep layers, which hold fewer tokens of each chunk, look
        further back. "pyramid" gives stage s the budget times its ratio: all layers look back equally far.
    evictor : str or Evictor
        Which tokens go: "pyramid", "oldest", "window", "random", "uniform", "streaming_vlm", "infinipot_v",
        "stream_mem", "hermes", "two_tier", "two_tier_means", "fluxmem", or one of your own. The default is the best
        measured: 256 tokens of up to half an hour of video keep .976 right where all keep .968 (docs/measured.md).
    positions : {"window", "original", "compact"}, optional
        "window": tokens keep their positions until the model's trained range is full; then gaps that forgotten tokens
        left are closed, by one rotation from the key as it came. From then on a layer holds its keys twice, which
        counts as bytes, so that `bytes` then hold fewer tokens. "compact": gaps are closed whenever something is
        forgotten, to nothing (StreamingVLM). "original": positions never change, whatever the range. By default what
        the evictor's authors do, which is "window" where they say nothing. The first two leave a quarter of the range
        free, 1024 positions at most, for a question and its answer, which never leave the range either. Without a
        budget the gap of a long pause is closed in the same way. A stream that leaves the range all the same, as
        "original" may, says so once, as a warning.
    archive : int, optional
        Most bytes of what was forgotten that are kept on the host, for ``VideoStream.ask(retrieve=...)``. None keeps
        nothing of it.
    archive_folder : str, optional
        Where the archive is kept in a file, in place of memory; made if need be. The file has no name and is gone with
        the stream, also after a crash; it is as long as `archive` says and what one push adds.
    storage : str or Storage, optional
        How keys and values are stored. "full": in the model's type; the default, but within `bytes`. "int8_per_token":
        all in 8 bits with a scale for each token and head, archived in the model's type; the default within `bytes`,
        which then hold almost twice the tokens of a model in bfloat16, so that of few bytes more answers are right,
        and of many as many (docs/measured.md). "int8" and "int4": in 8 or 4 bits what has left a recent window, keys
        by the channel and values by the token, and so what is archived; the window (the newest 128 tokens and the
        prompt; ``"int4:recent=64"`` for others; at most a quarter of the budget) stays in the model's type. The same
        bytes then hold up to 1.9 and 3.6 times the tokens. "rotatek": a quarter of the keys' channels for what has left
        the recent window, 1.6 times the tokens. Or one of your own.

    Raises
    ------
    ConfigError
        If a number is not a whole number from 1, both bounds are given, or a name is unknown.
    """

    tokens: int | None = 6144
    bytes: int | None = None
    shape: Literal["flat", "pyramid"] = "flat"
    evictor: str | Evictor = "pyramid"
    positions: Literal["window", "original", "compact"] | None = None
    archive: int | None = None
    archive_folder: str | None = None
    storage: str | Storage | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "bytes", "archive"):
            if (value := getattr(self, name)) is not None:
                try:
                    object.__setattr__(self, name, checks.whole(name, value, 1, 2**63 - 1))
                except ConfigError:
                    said = f"Memory({name}={checks.shown(value)})"
                    raise ConfigError(f"{said}: expected a whole number from 1, or None for no limit.") from None
        if self.archive_folder is not None:
            if self.archive is None:
                raise ConfigError(
                    f"archive_folder={self.archive_folder!r} without archive=; say how many bytes it may take."
                )
            object.__setattr__(self, "archive_folder", checks.path("archive_folder", self.archive_folder))
        if self.bytes is not None and self.tokens is not None:
            if self.tokens != 6144:  # not the default: the caller gave both
                raise ConfigError(f"both tokens={self.tokens} and bytes={self.bytes} were given; give one of them.")
            object.__setattr__(self, "tokens", None)
        checks.choice("shape", self.shape, ("flat", "pyramid"))
        evictor = evictor_named(self.evictor)
        if self.storage is None:
            object.__setattr__(self, "storage", "full" if self.bytes is None else "int8_per_token")
        _ = self.stored
        if self.positions is None:
            object.__setattr__(self, "positions", getattr(evictor, "positions", "window"))
        checks.choice("positions", self.positions, ("window", "original", "compact"))

    @property
    def said(self) -> str:
        """What it may hold, as messages say it."""
        if self.bytes is not None:
            return f"a memory of {self.bytes:,} bytes"
        return "a memory without a limit" if self.tokens is None else f"a memory of {self.tokens:,} tokens a layer"

    @property
    def stored(self) -> Storage:
        """How keys and values are stored, the name looked up."""
        assert self.storage is not None  # the default was put in its place
        return storage_named(self.storage)

    @property
    def needs_scores(self) -> bool:
        """Whether its evictor forgets by scores, which something must then give to tokens."""
        evictor = evictor_named(self.evictor)
        return (self.tokens or self.bytes) is not None and getattr(evictor, "uses_score", False)

    def budgets(
        self, shares: Sequence[float | None], token_bytes: Sequence[float], fixed: int = 0
    ) -> tuple[int, ...] | None:
        """Most tokens that each layer may hold; None for no limit.

        Parameters
        ----------
        shares : sequence of float or None
            For each layer, the ratio of its stage; None of a layer outside the budget, which may hold `UNBOUNDED`.
        token_bytes : sequence of float
            Bytes of one token in each layer.
        fixed : int
            Bytes that layers outside the budget take of it.
        """
        weights = [share if share is None or self.shape == "pyramid" else 1.0 for share in shares]
        tokens: float | None = self.tokens
        if self.bytes is not None:
            each = sum(size * weight for size, weight in zip(token_bytes, weights, strict=True) if weight is not None)
            tokens = max(self.bytes - fixed, 0) / each
        if tokens is None:
            return None
        return tuple(UNBOUNDED if weight is None else int(tokens * weight) for weight in weights)
