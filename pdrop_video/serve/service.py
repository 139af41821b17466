"""What all of a server's addresses share: the model, the guard, what is remembered, and the figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from ..common import checks
from ..errors import ConfigError, VideoError
from ..guard import Guard, Source, reading
from ..stream import AsyncVideoStream, Recipe, Sampling, VideoLM
from ..stream.aio import apart
from ..video import Connection, open_video
from .media import Library
from .metrics import Metrics
from .prefixes import Prefixes
from .refusals import Refusal
from .sessions import Sessions
from .settings import Settings
from .watching import Opening
from .wire import Drawn

_AHEAD = 2
"""Chunks decoded ahead of the model; a reader that waits for its source can then be closed by another thread."""
_USUAL = 128
"""Tokens of an answer where nobody says how many."""
_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,mjpeg,h264,hevc,ivf,m4v,gif"
"""None that lists other files."""
_FILE = re.compile(r"weights", re.IGNORECASE)

Keeping = Callable[[VideoLM, Settings, Metrics], Sessions]


class Service:
    """One server's.

    Parameters
    ----------
    lm : VideoLM
    settings : Settings
    sessions : callable
        Makes what keeps sessions.
    """

    def __init__(self, lm: VideoLM, settings: Settings, sessions: Keeping = Sessions) -> None:
        self.lm, self.settings = lm, settings
        self.guard = Guard(tuple(settings.folders), private=settings.private, devices=settings.devices)
        self.library = Library(self.guard, settings.limits)
        self.prefixes = Prefixes(settings.limits.prefixes, settings.limits.prefix_bytes)
        self.metrics = Metrics()
        self.sessions = sessions(lm, settings, self.metrics)
        self.fps = settings.fps or lm.adapter.fps
        self._add_figures()

    def _add_figures(self) -> None:
        def held(of: str) -> float:
            streams = [each.stream for each in self.sessions.all]
            return float(sum(_held(stream, of) for stream in streams))

        now = self.metrics.now
        now("pdrop_streams", "Streams open on the model.", lambda: len(self.lm.streams))
        now("pdrop_sessions", "Sessions open.", lambda: len(self.sessions))
        now("pdrop_queue", "Requests with frames that wait in sessions.", lambda: self.sessions.waiting)
        now(
            "pdrop_tokens_remembered",
            "Tokens that sessions remember, in their fullest layers.",
            partial(held, "tokens"),
        )
        now("pdrop_bytes_remembered", "Bytes that sessions remember.", partial(held, "bytes"))
        now("pdrop_prefixes", "Beginnings of conversations remembered.", lambda: len(self.prefixes))
        now("pdrop_prefix_bytes", "Bytes that they remember.", lambda: self.prefixes.bytes)

    # -- how it watches ---------------------------------------------------------------------------------------------

    def opening(self, source: Source, motion: bool, **how: Any) -> Opening:
        """Opens a checked source for `watch`; the rest as for `open_video`."""
        options = source.options or {"format_whitelist": _FORMATS}

        def read(target: str) -> AbstractContextManager[Any]:
            return open_video(
                target,
                how.get("fps") or self.fps,
                self.settings.chunk,
                start=how.get("start"),
                end=how.get("end"),
                frames=how.get("frames"),
                ahead=_AHEAD,
                policy="latest" if source.live else "block",
                protocols=source.protocols,
                connection=Connection(options=options),
                motion=motion,
            )

        @contextmanager
        def opened() -> Iterator[Any]:
            try:
                with reading(source, read) as reader:
                    yield reader
            except VideoError as error:  # nobody is told where on this machine a file is
                raise VideoError(str(error).replace(source.target, source.name)) from error

        return opened

    def check_length(self, reader: Any, *, fps: float | None = None) -> None:
        """Refuse a video that is too long for one request.

        Raises
        ------
        Refusal
        """
        lasts, most = reader.info.duration, self.settings.limits.seconds
        if lasts is None:
            raise Refusal("A video of one request must have an end; open a session for what is live.", 400, "no_end")
        if lasts > most:
            raise Refusal(f"A video lasts {lasts:g} seconds; this server watches {most:g} at most.", 413, "too_long")

    # -- how it answers ---------------------------------------------------------------------------------------------

    async def bounded(self, name: str, text: str) -> str:
        """A text, if it is short enough.

        Raises
        ------
        ConfigError
        """
        return await apart(partial(self.lm.bounded, name, text, self.settings.limits.text))

    def asked_with(self, drawn: Drawn, most: int | None = None, logprobs: int | None = None) -> dict[str, Any]:
        """Arguments of `AsyncVideoStream.ask`."""
        how: dict[str, Any] = {"max_new_tokens": min(most or drawn.max_tokens or _USUAL, self.settings.limits.answer)}
        if drawn.temperature:  # left out or 0: greedily
            how["sampling"] = Sampling(drawn.temperature, 1.0 if drawn.top_p is None else drawn.top_p, drawn.seed)
        if drawn.stops:
            how["stop"] = [text for text in drawn.stops if text]
        if logprobs is not None:
            how["logprobs"] = logprobs
        return how

    def recipe_of(self, given: dict[str, Any] | None) -> Recipe:
        """A stranger's recipe, if it names no files and remembers no more than he may.

        Raises
        ------
        ConfigError
        """
        if given is None:
            return self.settings.recipe
        memory = given.get("memory")
        if isinstance(memory, dict) and memory.get("archive_folder") is not None:
            raise ConfigError("a recipe names archive_folder, a place on the server; leave it out.")
        if _FILE.search(repr(given)):
            raise ConfigError("a recipe names weights, a file on the server; leave them out.")
        recipe, most = Recipe.from_dict(given), self.settings.limits.memory
        if recipe.memory.bytes is None:
            checks.whole("tokens of the recipe's memory", recipe.memory.tokens, 1, most)
        return recipe

    async def open(self, recipe: Recipe, system: str | None, standing: str | None = None) -> AsyncVideoStream:
        """A new stream."""
        if system is not None:
            await self.bounded("the system prompt", system)
        return await self.lm.async_stream(recipe, system=system, standing_question=standing)


def _held(stream: AsyncVideoStream, of: str) -> int:
    if stream.closed:
        return 0
    status = stream.status
    return max(status.cache_tokens) if of == "tokens" else status.cache_bytes + status.archive_bytes
