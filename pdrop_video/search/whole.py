"""What a recipe costs on clips, the whole way from frames to an answer's first token, and what it remembers.

Two ways: measured, by watching a clip with the recipe; and foreseen, from what gate and reducer leave of a clip, which
one look per front tells, for every schedule and memory behind it. Knows streams and costs; refuses to know what is
good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..costs.decoder import DecoderShape
from ..costs.stream import StreamShape, stream_flops
from ..errors import ConfigError
from ..memory import Memory
from ..pyramid import Pyramid
from ..pyramid.scorers import Learner, scorer_named
from ..stream.cost import pushed_flops, shape_of
from ..stream.lm import VideoLM
from ..stream.recipe import Recipe
from ..stream.stream import VideoStream
from ..stream.turns import question_ids
from .judge import Clip, Reference


@dataclass(frozen=True, slots=True)
class Spent:
    """What a clip cost.

    Attributes
    ----------
    flops : int
        Of tower, gate, reducer, decoder, and of one question's prefill, the mean over the clip's.
    bytes : int
        The most that the stream held after any push: keys, values, states, and what methods carry.
    """

    flops: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A recipe on a clip.

    Attributes
    ----------
    divergences : tuple of float
        One for each question, in nats.
    spent : Spent
    """

    divergences: tuple[float, ...]
    spent: Spent

    @property
    def divergence(self) -> float:
        """The clip's mean."""
        return sum(self.divergences) / len(self.divergences)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"divergences": list(self.divergences), "spent": asdict(self.spent)}

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Judged:
        """What `as_dict` gave."""
        return cls(tuple(given["divergences"]), Spent(**given["spent"]))


def watched(lm: VideoLM, clip: Clip, stream: VideoStream) -> Spent:
    """Let an open stream watch a clip, and count what that, and one question, cost.

    Raises
    ------
    ConfigError
        If the family does not say what its vision tower costs.
    """
    decoder, flops, most = DecoderShape.of(lm.model.config), 0, 0
    flops += shape_of(stream, decoder).text_flops([0] * decoder.layers, len(stream._ingest.prefix))
    for chunk in clip.chunks:
        held, before = stream.cache_tokens, stream._state
        stream.push(chunk)
        height, width = chunk.frames.shape[1:3]
        flops += whole(pushed_flops(stream, decoder, before, held, (len(chunk), height, width)).total)
        status = stream.status
        most = max(most, status.cache_bytes + sum(status.carried_bytes.values()))
    cost, past = shape_of(stream, decoder), stream.cache_tokens
    rows = [_rows(stream, question) for question in clip.questions]
    flops += round(sum(cost.asking_flops(past, each) for each in rows) / len(rows))
    return Spent(flops, most)


def whole(flops: int | None) -> int:
    """FLOPs of all parts; `ConfigError` where one of them is not counted."""
    if flops is None:
        raise ConfigError(
            "this model's family does not say what its vision tower costs, so that nothing is known of the whole way; "
            "search schedules alone (--space schedule)."
        )
    return flops


def judged(lm: VideoLM, clip: Clip, recipe: Recipe, references: Sequence[Reference]) -> Judged:
    """A recipe on a clip: how far its answers are from what the full model says, and what it cost."""
    with lm.stream(recipe) as stream:
        spent = watched(lm, clip, stream)
        far = [known.divergence(stream, asked) for known, asked in zip(references, clip.questions, strict=True)]
    return Judged(tuple(far), spent)


def _rows(stream: VideoStream, question: str) -> int:
    """Tokens of a question in its turn, with those that close the video."""
    return len(stream._ingest.closing_of(stream._state)) + len(question_ids(stream.lm, stream._state, question, ""))


@dataclass(frozen=True, slots=True)
class Left:
    """What gate and reducer leave of a clip.

    Attributes
    ----------
    pieces : tuple of (int, int)
        Visual tokens and glue of each push.
    flops : int
        Of gate, tower and reducer.
    carried : int
        Most bytes that the two carried.
    rows : tuple of int
        Tokens of each question in its turn.
    """

    pieces: tuple[tuple[int, int], ...]
    flops: int
    carried: int
    rows: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Left:
        """What `as_dict` gave."""
        pieces = tuple((visual, glue) for visual, glue in given["pieces"])
        return cls(pieces, given["flops"], given["carried"], tuple(given["rows"]))


def left_of(lm: VideoLM, clip: Clip, gate: str | None, reducer: str | None) -> Left:
    """Look at a clip without the language model's layers."""
    flops, carried, pieces = 0, 0, []
    with lm.stream(Pyramid(stages=1), Memory(tokens=None), gate=gate, reducer=reducer) as stream:
        front, state, hidden = stream._ingest.front, replace(stream._state), DecoderShape.of(lm.model.config).hidden
        for chunk in clip.chunks:
            first = chunk.seconds[0] if state.span is None else state.span[0]
            state = replace(state, reduced=(), looked=0, span=(first, chunk.seconds[-1]))
            visual = glue = 0
            with lm.turnstile:
                for taken in front.take(state, chunk):
                    seen = front.perceive(state, taken)
                    state.steps += len(seen.steps)
                    visual, glue = visual + seen.visual_tokens, glue + len(seen) - seen.visual_tokens
            pieces.append((visual, glue))
            flops += whole(state.looked)
            flops += 0 if front.gate is None else front.gate.flops(*chunk.frames.shape[:3])
            if front.reducer is not None:
                flops += sum(front.reducer.flops(tokens, hidden) for tokens in state.reduced)
            carried = max(carried, sum(state.carried_bytes.values()))
        rows = tuple(_rows(stream, question) for question in clip.questions)
    return Left(tuple(pieces), flops, carried, rows)


def learned_bytes(lm: VideoLM, clip: Clip, scorer: str) -> int:
    """What a scorer carries from chunk to chunk for each boundary, once it has seen a clip's first chunk."""
    if not isinstance(scorer_named(scorer), Learner):
        return 0
    pyramid = Pyramid(layers=(DecoderShape.of(lm.model.config).rank_at[-1],), ratios=(0.5,), scorer=scorer)
    with lm.stream(pyramid, Memory(tokens=None)) as stream:
        stream.push(next(iter(clip.chunks)))
        return stream.status.carried_bytes.get("scorer", 0)


class Foresight:
    """FLOPs of the whole way behind what a front leaves, summed over clips, for one scorer and one memory.

    As `watched` counts them, but that pushes which a small memory cuts up run whole.

    Parameters
    ----------
    lm : VideoLM
    left : sequence of Left
        One for each clip.
    scorer : str or None
    memory : Memory
    """

    def __init__(self, lm: VideoLM, left: Sequence[Left], scorer: str | None, memory: Memory) -> None:
        self.left, self.decoder = left, DecoderShape.of(lm.model.config)
        self._lm, self._scorer, self._memory, self._shapes = lm, scorer, memory, dict[bool, StreamShape]()

    def _shape(self, drops: bool) -> StreamShape:
        """What the cost of such a stream depends on, whatever the schedule: asked of one, and once."""
        if drops not in self._shapes:
            some = Pyramid(layers=(self.decoder.rank_at[-1],), ratios=(0.5,), scorer=self._scorer)
            pyramid = some if drops else Pyramid(stages=1, scorer=self._scorer)
            with self._lm.stream(pyramid, self._memory) as stream:
                self._shapes[drops] = shape_of(stream, self.decoder)
                self._prefix = len(stream._ingest.prefix)
        return self._shapes[drops]

    def flops(self, pyramid: Pyramid, left: Sequence[Left] | None = None) -> float:
        """Of a schedule, behind what this front leaves, or another."""
        schedule = pyramid.resolve(self.decoder.layers, self.decoder.rank_at)
        shape = self._shape(bool(schedule.layers))
        shape = replace(shape, schedule=schedule, ranks_at=schedule.layers or shape.ranks_at)
        total = 0.0
        for each in self.left if left is None else left:
            seen = stream_flops(shape, each.pieces, prefix=self._prefix)
            asking = sum(shape.asking_flops(seen.held, rows) for rows in each.rows) / len(each.rows)
            total += each.flops + seen.flops + round(asking)
        return total
