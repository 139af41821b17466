"""Frames into a stream: what is remembered, and every way of pushing. `VideoStream` adds the questions.

Knows the adapter, the ingestor and the state that a push changes. Refuses to know questions and files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter
from typing import Any

from typing_extensions import Self

from ..common import checks
from ..common.renamed import renamed
from ..errors import ConfigError
from ..gate import Gate
from ..memory import Memory, TokenTable, lasting
from ..pyramid import LayerLoop
from ..pyramid.acceptance import accept
from ..reduce import Reducer
from ..video import FrameChunk
from .access import StreamAccess
from .answer import Pushed, Status
from .feed import Feed, Policy
from .front import Front, check_times
from .ingest import Ingestor
from .shared import SharedModel
from .state import StreamState
from .turns import check_told, follow_up, told_still


class Watching:
    """The half of `VideoStream` that watches and remembers."""

    def __init__(
        self,
        lm: SharedModel,
        loop: LayerLoop,
        memory: Memory,
        *,
        standing_question: str | None = None,
        system: str | None = None,
        gate: Gate | None = None,
        reducer: Reducer | None = None,
        restore: Callable[[Ingestor], StreamState] | None = None,
    ) -> None:
        if loop.compact:
            raise ConfigError(
                'positions="compact" renumbers one whole prompt and can\'t go on from chunk to chunk; use '
                'positions="original" for streams (compact works in pyramid_drop).'
            )
        if system is not None:
            checks.text("system", system, empty=True)
        if standing_question is not None:
            checks.text("standing_question", standing_question, empty=True)
        self.lm, self.loop, self.memory = lm, loop, memory
        self.system, self.standing_question = system, standing_question
        with lm.turnstile, lasting():
            accept(loop.text, lm.model)
            if loop.inner is not None:
                loop.inner.fit(loop)
            before, probe = lm.prompt.before(system), lm.prompt.after(standing_question or "")
            front = Front(lm.adapter, gate, reducer, standing_question, lm.parts)
            self._ingest = Ingestor(lm.model, front, loop, memory, before, probe, lm.turnstile, lm.compiled)
            if restore is None:
                self._open(self._ingest.begin())
        if restore is not None:
            with lasting():
                state = restore(self._ingest)  # outside of a turn, since an archive takes a while
            state.noted = told_still(lm, self._ingest, state.noted)
            state.told = told_still(lm, self._ingest, state.told, state.noted)
            with lm.turnstile:
                self._open(state)

    def _open(self, state: StreamState) -> None:
        self._access = StreamAccess(self.lm.turnstile)
        self._state = state
        self.lm.note(self)

    def __repr__(self) -> str:
        if self.closed:
            return "VideoStream(closed)"
        status = self.status
        span = "" if status.seconds is None else f", {status.seconds[0]:g} to {status.seconds[1]:g} s"
        kept = f", {status.archive_bytes / 2**20:.1f} MiB archived" if status.archive_bytes else ""
        held = f"{max(status.cache_tokens)} tokens a layer, {status.cache_bytes / 2**20:.1f} MiB{kept}"
        return f"VideoStream({status.frames} frames{span}, {held})"

    @property
    def _state(self) -> StreamState:
        self._access.check()
        return self._current

    @_state.setter
    def _state(self, state: StreamState) -> None:
        self._current, self._status = state, state.status()

    @contextmanager
    def _changing(self, state: StreamState) -> Iterator[StreamState]:
        """What the block makes of `state`, a copy of the stream's, becomes the stream's; if it fails, nothing does."""
        before = self._current, self._status
        with lasting(), state.cache.transaction():
            try:
                yield state
                self._state = state
            except BaseException:
                self._current, self._status = before
                raise

    # -- pushing ----------------------------------------------------------------------------------------------------

    def push(
        self, frames: FrameChunk | Any, seconds: Any = None, *, sound: Any = None, rate: int | None = None
    ) -> Pushed:
        """Watch some more frames, and hear their sound.

        Parameters
        ----------
        frames : FrameChunk, or array or Tensor [frames, height, width, 3] of uint8
            RGB. Frames at irregular times are welcome.
        seconds : sequence of float, optional
            The time of each frame; only, and always, with an array.
        sound : array or Tensor [samples] or [channels, samples], optional
            What is to be heard from the first of these frames up to the first of the next push, int16 or floating point
            from -1 to 1; for models that hear. A video has sound from its first push on, or none.
        rate : int, optional
            Samples a second, which must be the model's; only, and always, with sound.

        Returns
        -------
        Pushed

        Raises
        ------
        FrameError
            If dtype, shape or times are wrong, or times go back; if sound and frames do not fit each other. The stream
            stays as it was.
        ConfigError
            If a single step of frames does not fit into the budget; if there is sound and the model takes none. The
            stream stays as it was.

        Notes
        -----
        A family that merges frames in pairs holds an odd last frame over to the next push; `ask` sees it meanwhile.
        Sound, and the frames with it, wait likewise until a stretch is whole that the model hears at once: 2 seconds
        for Qwen2.5-Omni, 8 for Qwen3-Omni.
        """
        begun = perf_counter()
        chunk = FrameChunk.checked(frames, seconds, sound, rate)
        with self._access.whole():
            check_times(chunk, self._state.span)
            before = self._state
            self._ingest.front.check(before, chunk)
            with self._changing(
                replace(before, kept=[0] * self._ingest.stages, pieces=(), reduced=(), looked=0)
            ) as state:
                state.span = (chunk.seconds[0] if before.span is None else before.span[0], chunk.seconds[-1])
                state.frames += len(chunk)
                runs = self._ingest.front.take(state, chunk)
                if runs or state.waiting is not None:
                    follow_up(self.lm, self._ingest, state)
                for taken in runs:
                    self._ingest.visual(state, self._ingest.front.perceive(state, taken), self._access.give_way)
                spent = perf_counter() - begun
                state.push_seconds += spent
        waiting = 0 if state.waiting is None else len(state.waiting)
        entered, skipped = state.visual_tokens - before.visual_tokens, state.skipped - before.skipped
        heard = state.sound_tokens - before.sound_tokens
        return Pushed(len(chunk), waiting, entered, tuple(state.kept), spent, skipped, heard)

    def add_text(self, text: str) -> None:
        """Let text, such as a subtitle, into the stream between the frames before and those to come.

        It is forgotten with the frame that follows it.

        Parameters
        ----------
        text : str

        Raises
        ------
        ConfigError
            If there is no text, it can't be encoded, or the memory can't hold it with what was told since the last
            frame. The stream stays as it was.
        """
        checks.text("text", text)
        with self._access.serial():
            if self._state.heard is not None:
                raise ConfigError(
                    "text can't be added in the middle of a video with sound, which stands in one piece; add it before "
                    "the first frame, or ask with keep=True."
                )
            told = (*self._state.told, text)
            check_told(self.lm, self._ingest, (*self._state.noted, *told))
            self._state = replace(self._state, told=told)

    def tell(self, text: str) -> None:
        """The old name of `add_text`."""
        renamed("VideoStream.tell", "VideoStream.add_text")
        self.add_text(text)

    def feed(self, queue: int = 8, policy: Policy = "block") -> Feed:
        """A bounded queue in front of `push`, with a thread that empties it: for sources that don't wait.

        Parameters
        ----------
        queue : int
            Most chunks that wait.
        policy : "block" or "drop_oldest"
            What a full queue does: let `Feed.put` wait, or drop the chunk that waits longest. Both are counted in
            `Feed.stats`.

        Returns
        -------
        Feed

        Raises
        ------
        ConfigError
            If `queue` is below 1 or the policy unknown.
        """
        with self._access.serial():
            feed = Feed(self, queue, policy)
            self._access.dependents.add(feed)
        return feed

    # -- remembering ------------------------------------------------------------------------------------------------

    def held(self, stage: int = 0) -> TokenTable:
        """What the layers of a stage remember: one row a token, in the order of time, with its place and score.

        Parameters
        ----------
        stage : int
            0 for the shallow layers (nothing, where a boundary stands before the first layer that attends to
            everything), -1 for the deepest stage.
        """
        anchors, stage = self.loop.anchors, checks.whole("stage", stage, -(2**31))
        if not -len(anchors) <= stage < len(anchors):
            raise ConfigError(f"there is no stage {stage}; this stream has stages 0 to {len(anchors) - 1}.")
        with self._access.serial():
            state, anchor = self._state, anchors[stage]
            table = state.cache.tables[state.cache.anchor if anchor is None else anchor]
            table = table.take(table.index[:0]) if anchor is None else table.in_time()
            return replace(table, seconds=state.told_times(table.seconds), until=state.told_times(table.until))

    @property
    def status(self) -> Status:
        """What the stream holds, as its last whole push left it; never waits."""
        self._access.check()
        return self._status

    @property
    def span(self) -> tuple[float, float] | None:
        """Times of the first and the last frame watched."""
        return self.status.seconds

    @property
    def cache_tokens(self) -> tuple[int, ...]:
        """Tokens that each layer remembers."""
        return self.status.cache_tokens

    @property
    def cache_bytes(self) -> int:
        """Bytes of the keys and values remembered."""
        return self.status.cache_bytes

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values in one of the layers that the budget bounds, on average."""
        return self._ingest.sizes.mean(self.loop.rank_at)

    @property
    def cache_bound(self) -> int | None:
        """Most bytes that `cache_bytes` can reach while frames are pushed; None for no limit.

        The storage of so much is a sixteenth larger, and 16 columns in each layer. Beside it stand: the columns of a
        question while it is open; in layers with a window, those that are in flight; and during a push what it
        forgets, at most another memory, so that it can be taken back.
        """
        if self.memory.bytes is not None:
            return self.memory.bytes
        limits, moved = self._ingest.limits.moved, [layer.moved for layer in self._state.cache.layers]
        return None if limits is None else self._ingest.sizes.bound(self.loop.rank_at, limits, moved)

    @property
    def visual_tokens(self) -> int:
        """Visual tokens that entered the language model so far."""
        return self._state.visual_tokens

    def close(self) -> None:
        """Stop what runs on the stream at its next turn, and free what it remembers. A second call does nothing.

        Whoever is in the middle of a push, of reading an answer or of waiting to get in, and whoever comes later, gets
        a `StreamError`. A stream that nobody holds any more is freed without.
        """
        self._access.close(lambda: self.__dict__.pop("_current", None))

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._access.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
