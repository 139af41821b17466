"""What a stream may remember. Knows numbers only."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True, slots=True)
class Memory:
    """The budget of a stream's KV cache.

    Parameters
    ----------
    tokens : int or None
        Most tokens that any decoder layer holds while frames are pushed: text prefix, remembered visual tokens, and
        the chunk and probe in flight. None keeps everything. Questions and answers live on a fork and come on top.

    Raises
    ------
    ConfigError
        If `tokens` is not a whole number from 1.
    """

    tokens: int | None = 6144

    def __post_init__(self) -> None:
        if self.tokens is None:
            return
        if isinstance(self.tokens, bool) or not isinstance(self.tokens, int) or self.tokens < 1:
            raise ConfigError(f"Memory(tokens={self.tokens!r}): expected a whole number from 1, or None for no limit.")
