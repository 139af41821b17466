"""Questions about videos in any number and order: each video is watched once, each answer is on the disk at once.

Knows streams, videos and a journal. Refuses to know whose questions they are; harnesses are adapted to it in files of
their own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pdrop_video as pv

from ..common import checks
from ..common.journal import Journal, read_journal
from ..common.kinds import LayerKind, kinds_of, rank_at
from ..errors import ConfigError
from ..gate import Gate, gate_named
from ..reduce import Reducer, reducer_named
from ..stream.front import Front
from ..stream.lm import VideoLM
from ..stream.looking import Decode, chosen
from ..stream.session import fingerprint
from ..stream.stream import VideoStream
from ..stream.terms import checked_for_asking, checked_for_looking


@dataclass(frozen=True, slots=True)
class Watching:
    """How videos are watched.

    Attributes
    ----------
    pyramid : Pyramid
    memory : Memory
    fps : float or None
        Frames a second; None with `max_frames` takes that many evenly, without it the family's own rate.
    max_frames : int or None
        Most frames of a video: where `fps` would give more, so many are taken evenly.
    chunk : int
        Frames a push.
    standing : bool
        Let each question rank visual tokens while its video is watched, once more for each question.
    ask_pyramid : Pyramid or None
        Drops from the memory at each question; None attends to all of it.
    retrieve : int or None
        Steps of time that each question gets back from the memory's archive.
    decode : str, Decode or None
        What the tokens of generated answers look at; see `pdrop_video.VideoStream.ask`.
    gate, reducer : str, Gate, Reducer or None
        What stands in front of the language model; see `pdrop_video.Recipe`.

    Raises
    ------
    ConfigError
        If a value is of the wrong kind, `ask_pyramid` has more than stages and ratios, or there is no archive to
        `retrieve` from.
    """

    pyramid: pv.Pyramid
    memory: pv.Memory
    fps: float | None = None
    max_frames: int | None = None
    chunk: int = 8
    standing: bool = False
    ask_pyramid: pv.Pyramid | None = None
    retrieve: int | None = None
    gate: str | Gate | None = field(default=None, repr=False)
    reducer: str | Reducer | None = field(default=None, repr=False)
    decode: str | Decode | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        pv.Recipe(self.gate, self.reducer, self.pyramid, self.memory)  # which says what is wrong with its parts
        if self.fps is not None:
            object.__setattr__(self, "fps", checks.real("fps", self.fps, 0, above=True))
        for name in ("max_frames", "chunk", "retrieve"):
            if name == "chunk" or getattr(self, name) is not None:
                object.__setattr__(self, name, checks.whole(name, getattr(self, name)))
        checks.switch("standing", self.standing)
        if self.ask_pyramid is not None:
            checked_for_asking(self.ask_pyramid)
        if self.retrieve is not None and self.memory.archive is None:
            raise ConfigError(
                f"retrieve={self.retrieve} without an archive to retrieve from; give the memory one, for example "
                "archive=1073741824 (bytes)."
            )
        chosen(self.decode, hides=False)

    @property
    def front(self) -> tuple[Gate | None, Reducer | None]:
        """What stands in front of the language model, names looked up."""
        gate = None if self.gate is None else gate_named(self.gate)
        return gate, None if self.reducer is None else reducer_named(self.reducer)

    @property
    def asking(self) -> dict[str, Any]:
        """What each question is asked with, beside its own."""
        return {"pyramid": self.ask_pyramid, "retrieve": self.retrieve}

    @property
    def looking(self) -> Decode | None:
        """What the tokens of answers look at, the default looked up."""
        return chosen(self.decode, hides=self.ask_pyramid is not None)

    def check(self, kinds: Sequence[LayerKind]) -> None:
        """Whether a model with such layers can be asked like this.

        Raises
        ------
        ConfigError
        """
        asking = self.ask_pyramid or pv.Pyramid(stages=1)
        for pyramid in (self.pyramid, asking):
            schedule = pyramid.resolve(len(kinds), rank_at(kinds))
        checked_for_looking(self.decode, schedule, kinds, self.memory.archive)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question about one video, or a part of it.

    Attributes
    ----------
    video : str
        A path.
    text : str
        What the user says behind the video.
    start, end : float or None
        The part of the video that is watched, in seconds.
    system : str or None
    prefix : str
        How the answer is made to begin; not part of what is returned.
    """

    video: str
    text: str
    start: float | None = None
    end: float | None = None
    system: str | None = None
    prefix: str = ""


class Answerer:
    """A model that answers questions about videos and remembers its answers on the disk.

    Parameters
    ----------
    lm : VideoLM
    watching : Watching
    journal : path or None
        A folder for finished answers, one file a process, each answer forced to the disk before the next question.
        Answers found there, whoever wrote them, are given again where model, method, video and question are the same.
        None keeps nothing.
    rank : int
        Number of this process, where several share the folder.
    """

    def __init__(
        self, lm: VideoLM, watching: Watching, journal: str | os.PathLike[str] | None = None, rank: int = 0
    ) -> None:
        watching.check(kinds_of(lm.model.config.get_text_config()))  # said now, not after the first video
        Front(lm.adapter, *watching.front, parts=lm.parts)  # likewise
        self.lm, self.watching = lm, watching
        self._identity = {"model": fingerprint(lm), "watching": repr(watching), "version": pv.__version__}
        if watching.front != (None, None):  # and else nothing, so that answers from before there was any are found
            self._identity["front"] = repr(watching.front)
        if (looking := watching.looking) is not None:
            self._identity["decode"] = repr(looking)
        self._watched: tuple[Any, VideoStream] | None = None
        self._known: dict[str, Any] = {}
        self._journal: Journal | None = None
        if journal is not None:
            mine = Path(journal) / f"{_digest(self._identity)}-{rank}.jsonl"
            for path in sorted(mine.parent.glob(f"{_digest(self._identity)}-*.jsonl")):
                self._known |= {entry["key"]: entry["result"] for entry in read_journal(path)}
            self._journal = Journal(mine)

    @property
    def known(self) -> int:
        """Answers that are on the disk."""
        return len(self._known)

    def answer(self, asked: Asked, max_new_tokens: int, until: Sequence[str] = ()) -> str:
        """Answer greedily.

        Parameters
        ----------
        asked : Asked
        max_new_tokens : int
        until : sequence of str
            The answer ends before the first of these texts.

        Returns
        -------
        str
        """

        def generate() -> str:
            stream, how = self._stream(asked), self.watching.asking
            how["decode"] = self.watching.decode
            text = stream.ask(asked.text, max_new_tokens, answer_prefix=asked.prefix, **how).text
            return text[: min((at for end in until if (at := text.find(end)) >= 0), default=len(text))].rstrip()

        return str(self._once(generate, "answer", asked, max_new_tokens=max_new_tokens, until=list(until)))

    def loss(self, asked: Asked, continuation: str) -> tuple[float, bool]:
        """How unlikely an answer is.

        Returns
        -------
        loss : float
            The mean negative log-likelihood of its tokens, in nats.
        greedy : bool
            Whether the model would give it.
        """

        def compare() -> tuple[float, bool]:
            stream, how = self._stream(asked), self.watching.asking
            (likelihood,) = stream.likelihood(asked.text, [continuation], answer_prefix=asked.prefix, **how)
            ids = tuple(self.lm.prompt.words(continuation))
            given = stream.ask(asked.text, len(ids), answer_prefix=asked.prefix, **how).token_ids
            return -likelihood, given == ids

        loss, greedy = self._once(compare, "loss", asked, continuation=continuation)
        return float(loss), bool(greedy)

    def _once(self, work: Callable[[], Any], kind: str, asked: Asked, **settings: Any) -> Any:
        """The result on the disk, or that of `work`, on the disk before it is returned."""
        size = os.path.getsize(asked.video) if os.path.isfile(asked.video) else None
        key = _digest([kind, asdict(asked), size, settings])
        if key not in self._known:
            result = work()
            if self._journal is not None:
                self._journal.append({"key": key, "video": asked.video, "text": asked.text, "result": result})
            self._known[key] = result
        return self._known[key]

    def _stream(self, asked: Asked) -> VideoStream:
        """The stream that has watched what is asked about; the last one is kept for the next question."""
        standing = asked.text if self.watching.standing else None
        seen = (asked.video, asked.start, asked.end, asked.system, standing)
        if self._watched is None or self._watched[0] != seen:
            self._watched = None  # its memory is free before the next one fills
            how = self.watching
            recipe = pv.Recipe(how.gate, how.reducer, how.pyramid, how.memory)
            stream = self.lm.stream(recipe, standing_question=standing, system=asked.system)
            with pv.open_video(
                asked.video,
                chunk=how.chunk,
                start=asked.start,
                end=asked.end,
                motion=recipe.uses_motion,
                **self._sampling(asked),
            ) as video:
                for chunk in video:
                    stream.push(chunk)
            self._watched = seen, stream
        return self._watched[1]

    def _sampling(self, asked: Asked) -> dict[str, Any]:
        fps, most = self.watching.fps, self.watching.max_frames
        if fps is None and most is not None:
            return {"frames": most}
        rate = self.lm.adapter.fps if fps is None else fps
        if most is not None:
            with pv.open_video(asked.video) as video:
                end = min(x for x in (asked.end, video.info.duration, float("inf")) if x is not None)
            if (end - (asked.start or 0)) * rate > most:  # unknown lengths too
                return {"frames": most}
        return {"fps": rate}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
