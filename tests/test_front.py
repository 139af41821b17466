"""Gates and reducers, those of the package and strangers: the proofs of the design, on every family.

What enters the language model is fewer tokens; everything behind it must be as if the unmodified model had been given
all of them under a mask that hides those that are gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from any_reducer import BY_THEMSELVES
from families import FAMILIES, budget, build, video
from reference import full_prompt, hidden, masked, masked_forward, recorded
from test_exact import chunks, next_logits
from torch import Tensor

import pdrop_video as pv
from pdrop_video.gate import GATES, Gated, Watched
from pdrop_video.gate.static import Static
from pdrop_video.models import VisualChunk
from pdrop_video.pyramid import ALLOCATORS, SCORERS
from pdrop_video.reduce import REDUCERS, Reduced, Tokens
from pdrop_video.reduce.aot import AOT
from pdrop_video.reduce.evs import EVS
from pdrop_video.stream.front import Front
from pdrop_video.stream.ingest import Ingestor
from pdrop_video.stream.state import Seen

QUESTION = "what is shown first ?"
PYRAMID = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25))


@dataclass(frozen=True)
class Chequered:
    """A gate of one's own: every fourth frame goes, and of the others a third of the tokens; it counts the frames."""

    def __call__(self, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
        begun = int(carried.get("count", torch.zeros((), dtype=torch.int64)))
        rows, columns = watched.grid
        place = torch.arange(rows)[:, None] + torch.arange(columns)
        number = begun + torch.arange(len(watched.frames))
        worth = (place + number[:, None, None] // 2) % 3 != 0
        kept = tuple(i for i in range(len(watched.frames)) if (begun + i) % 4 != 3)
        return Gated(kept, worth), {"count": torch.tensor(begun + len(watched.frames))}

    def most_bytes(self, height: int, width: int) -> int:
        return 8

    def flops(self, frames: int, height: int, width: int) -> int:
        return 0


@dataclass(frozen=True)
class Blind:
    """A gate that finds nothing worth having in any step but the first of a push."""

    def __call__(self, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
        worth = torch.zeros(len(watched.frames), *watched.grid, dtype=torch.bool)
        worth[0] = True
        return Gated(tuple(range(len(watched.frames))), worth), {}

    def most_bytes(self, height: int, width: int) -> int:
        return 0

    def flops(self, frames: int, height: int, width: int) -> int:
        return 0


@dataclass(frozen=True)
class Thirds:
    """A reducer of one's own: two of three tokens by their place, the last chunk's mean carried on."""

    needs: ClassVar[tuple[str, ...]] = ()

    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        kept = ((tokens.place() + tokens.step + tokens.since) % 3 != 1).nonzero()[:, 0]
        mean = tokens.features.mean(0)
        return Reduced(kept), {"mean": mean + carried["mean"] if "mean" in carried else mean}

    def left(self, tokens: int) -> int | None:
        return None

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        return hidden * bytes_per_number

    def flops(self, tokens: int, hidden: int) -> int:
        return 0


@dataclass(frozen=True)
class Merged(Thirds):
    """The same, but each that stays is the mean of itself, twice, and its neighbour behind it, once."""

    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        reduced, carried = super().__call__(tokens, carried)
        own = torch.eye(len(tokens), dtype=torch.float64)[reduced.kept]
        return Reduced(reduced.kept, (2 * own + own.roll(1, 1)) / 3), dict(carried)


@dataclass(frozen=True)
class Threes(Thirds):
    """A reducer that takes three steps together: of each such unit the half of the tokens least like its mean."""

    unit: ClassVar[int] = 3

    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        kept = []
        for unit in (tokens.step // self.unit).unique():
            here = (tokens.step // self.unit == unit).nonzero()[:, 0]
            features = tokens.features[here].double()
            far = (features - features.mean(0)).norm(dim=-1)
            kept.append(here[far >= far.median()])
        return Reduced(torch.cat(kept)), {}


FRONTS: dict[str, dict[str, Any]] = {
    **{name: {"gate": name} for name in GATES},
    **{name: {"reducer": name} for name, each in BY_THEMSELVES.items() if not each.needs},
    "aot": {"reducer": "aot:anchors=features"},  # by attention families that know it alone
    "aot behind a gate": {"gate": Chequered(), "reducer": AOT(keep=0.4, anchors="features")},
    "evs behind a gate": {"gate": Chequered(), "reducer": EVS(keep=0.4)},
    "thirds": {"reducer": Thirds()},
    "merged": {"reducer": Merged()},
    "lrcp, nothing merged": {"reducer": "lrcp:merge=false"},
    "chequered": {"gate": Chequered()},
    "blind": {"gate": Blind()},
    "threes": {"reducer": Threes()},
    "threes behind a gate": {"gate": Chequered(), "reducer": Threes()},
}
"""Every listed method by itself, and strangers."""
MERGING = (
    "merged",
    "omnirefine",
    "lrcp",
    "aot",
    "aot behind a gate",
    "holitom",
    "fastvid",
    "relevance_pooling",
    "streamingtom",
)
"""Those whose tokens are means, which a mask alone is not equal to."""
CROSS = [
    (family, front)
    for number, front in enumerate(FRONTS)
    for place, family in enumerate(FAMILIES)
    # strangers go through every family, and what is listed through two, so that each family meets many
    if front not in (*GATES, *REDUCERS) or (place - number) % len(FAMILIES) in (0, 3)
]

ROOMS = [  # most are slow ones; of what is listed half are not, each method both ways
    pytest.param(
        *each,
        room,
        id=f"{'-'.join(each)}-{name}",
        marks=[pytest.mark.slow] if (number + evicts) % (2 if each[1] in (*GATES, *REDUCERS) else 4) else [],
    )
    for number, each in enumerate(CROSS)
    for evicts, (name, room) in enumerate({"unlimited": None, "evicting": 3.0}.items())
]

PAIRS = [
    (family, front)
    for number, front in enumerate(FRONTS)
    for place, family in enumerate(("qwen2_5_vl", "llava_onevision"))  # two frames a step, and one
    if front not in (*GATES, *REDUCERS) or place == number % 2
]


def still(frames: int, every: int = 3) -> Tensor:
    """A video whose picture changes with every third frame."""
    return video(-(-frames // every)).repeat_interleave(every, 0)[:frames]


class Entered:
    """What entered the language model of a stream, piece by piece, and what of it each token is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tokens: int | None) -> None:
        self.pieces: list[VisualChunk] = []
        self.seconds: list[float] = []
        self.worth: list[Tensor | None] = []
        self.snapshots = recorded(monkeypatch, tokens)
        prefill, look = Ingestor._prefill, Front.look

        def prefilled(ingest: Ingestor, state: Any, piece: VisualChunk) -> None:
            self.pieces.append(piece)
            prefill(ingest, state, piece)

        def looked(front: Front, state: Any, seen: Seen) -> VisualChunk:
            self.seconds += seen.seconds
            self.worth.append(front.worth(seen))
            return look(front, state, seen)

        monkeypatch.setattr(Ingestor, "_prefill", prefilled)
        monkeypatch.setattr(Front, "look", looked)

    @property
    def states(self) -> list[tuple[Tensor, ...]]:
        """Embeddings and deepstack features of each piece."""
        return [(piece.embeds, *piece.deepstack) for piece in self.pieces]

    def rows(self, prefix: int) -> Tensor:
        """Of every token in the order in which it entered, which row it is of a prompt that has all of them."""
        rows, begin = [torch.arange(prefix)], prefix
        for piece in self.pieces:
            rows.append(begin + (torch.arange(len(piece)) if piece.origin is None else piece.origin))
            begin += sum(piece.whole_steps)
        return torch.cat(rows)

    def masks(self, prefix: int, total: int) -> Tensor:
        """What each layer lets each row see [layers, total, total]; the question behind all sees what is held."""
        rows, done = self.rows(prefix), prefix
        allowed = torch.zeros(len(self.snapshots[0]), total, total, dtype=torch.bool)
        allowed[:, :prefix, :prefix] = True
        for snapshot in self.snapshots:
            end = int(snapshot[0].max()) + 1
            for i, index in enumerate(snapshot):
                allowed[i, rows[done:end][:, None], rows[index]] = True
            done = end
        first = prefix + sum(sum(piece.whole_steps) for piece in self.pieces)
        for i, index in enumerate(self.snapshots[-1]):
            allowed[i, first:, rows[index]] = True
        allowed[:, first:, first:] = True
        return (allowed & torch.ones(total, total, dtype=torch.bool).tril()) | torch.eye(total, dtype=torch.bool)


def watched(lm: pv.VideoLM, front: dict[str, Any], frames: Tensor, sizes: list[int], **how: Any) -> pv.VideoStream:
    stream = lm.stream(how.pop("pyramid", PYRAMID), how.pop("memory", pv.Memory(tokens=None)), **front)
    for part, times in chunks(frames, [0.5 * i for i in range(len(frames))], sizes):
        stream.push(part, times)
    return stream


def encoded_alone(lm: pv.VideoLM, entered: Entered) -> AbstractContextManager[None]:
    """The tower as it is where patches that are not worth having are not encoded, for families that leave them out."""
    if not lm.adapter.parts or all(worth is None for worth in entered.worth):
        return nullcontext()
    return hidden(lm, torch.cat([worth for worth in entered.worth if worth is not None]))


@torch.no_grad()
def decoder_logits(
    lm: pv.VideoLM, entered: Entered, allowed: Tensor, inputs: dict[str, Any], frames: Tensor, seconds: list[float]
) -> Tensor:
    """Logits of the last row by the unmodified decoder on all rows, those that entered as they did."""
    adapter, first = lm.adapter, len(lm.prompt.before())
    chunk = adapter.look(frames, tuple(seconds))
    states = [chunk.embeds, *chunk.deepstack]
    for state, merged in zip(states, zip(*entered.states, strict=True), strict=True):
        state[entered.rows(first)[first:] - first] = torch.cat(merged)
    behind = torch.cat([adapter.closing(), adapter.embed(lm.prompt.after(QUESTION))])
    embeds = torch.cat([adapter.embed(lm.prompt.before()), states[0], behind])
    visual = torch.cat([torch.zeros(first, dtype=torch.bool), chunk.visual, torch.zeros(len(behind), dtype=torch.bool)])
    deep = {}
    if chunk.deepstack:
        deep = {"visual_pos_masks": visual[None], "deepstack_visual_embeds": [s[chunk.visual] for s in states[1:]]}
    decoder = lm.model.get_decoder()
    with masked(decoder, allowed):
        out = decoder(
            inputs_embeds=embeds[None], position_ids=inputs.get("position_ids"), use_cache=False, **deep
        ).last_hidden_state
    return lm.model.get_output_embeddings()(out[0, -1])


@pytest.mark.parametrize("family, front, room", ROOMS)
def test_what_is_left_out_equals_a_mask(
    family: str, front: str, room: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proofs 2 and 3: the unmodified model on all tokens of the frames that were encoded, the others hidden."""
    lm = build(family)
    step, tokens = lm.adapter.frames_per_step, budget(lm, room)
    frames = still(6 * step)
    entered = Entered(monkeypatch, tokens)
    stream = watched(lm, FRONTS[front], frames, [2 * step, step, 3 * step], memory=pv.Memory(tokens=tokens))
    stream._ingest.fill_up(stream._state)  # a unit that was begun
    encoded = list(entered.seconds)
    inputs, prefix, pushed = full_prompt(lm, frames[[round(2 * s) for s in encoded]], encoded, QUESTION)
    assert pushed == sum(sum(piece.whole_steps) for piece in entered.pieces)
    allowed = entered.masks(prefix, inputs["input_ids"].shape[1])
    got = next_logits(stream)
    going = frames[[round(2 * s) for s in encoded]]
    want = decoder_logits(lm, entered, allowed, inputs, going, encoded)
    torch.testing.assert_close(got, want, atol=1e-9, rtol=0)
    if front not in MERGING:
        with encoded_alone(lm, entered):
            want = masked_forward(lm, inputs, allowed)[-1]
        torch.testing.assert_close(got, want, atol=1e-9, rtol=0)
    if len(entered.rows(prefix)) < prefix + pushed:  # the control: what is left out is missed
        assert (got - masked_forward(lm, inputs, None)[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl"])
def test_merged_tokens_are_means_at_their_anchors_places(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same weights for the features that Qwen3-VL adds behind its first layers."""
    lm = build(family)
    frames, seconds = video(12), [0.5 * i for i in range(12)]
    entered = Entered(monkeypatch, None)
    stream = watched(lm, {"reducer": Merged()}, frames, [12])
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    whole = lm.adapter.look(frames, tuple(seconds))
    visual = whole.visual.nonzero()[:, 0]
    (piece,) = entered.pieces
    anchors = piece.origin[piece.visual]
    following = visual[(torch.searchsorted(visual, anchors) + 1) % len(visual)]
    for got, state in zip((piece.embeds, *piece.deepstack), (whole.embeds, *whole.deepstack), strict=True):
        torch.testing.assert_close(got[piece.visual], (2 * state[anchors] + state[following]) / 3)
    allowed = entered.masks(prefix, inputs["input_ids"].shape[1])
    want = decoder_logits(lm, entered, allowed, inputs, frames, seconds)
    torch.testing.assert_close(next_logits(stream), want, atol=1e-9, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_lets_everything_through_changes_nothing(family: str) -> None:
    """Bit for bit."""
    lm = build(family)
    frames = video(9)  # every patch of every frame is new
    plain = watched(lm, {}, frames, [4, 5], memory=pv.Memory(tokens=budget(lm, 4)))
    front = watched(
        lm, {"gate": "static", "reducer": EVS(keep=1.0)}, frames, [4, 5], memory=pv.Memory(tokens=budget(lm, 4))
    )
    assert_equal(plain, front, carried=False)


def assert_equal(left: pv.VideoStream, right: pv.VideoStream, *, carried: bool = True) -> None:
    """Bit for bit: all that two streams remember and carry, and what they would answer."""
    a, b = left._state, right._state
    assert replace(left.status, carried_bytes={}) == replace(right.status, carried_bytes={})
    assert (a.place, a.rows, a.steps, a.visual_tokens, a.skipped) == (
        b.place,
        b.rows,
        b.steps,
        b.visual_tokens,
        b.skipped,
    )
    for one, other in zip(a.cache.layers, b.cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)
    for one, other in zip(a.cache.tables, b.cache.tables, strict=True):
        for column, same in zip(one.columns(), other.columns(), strict=True):
            assert torch.equal(column.nan_to_num(-1), same.nan_to_num(-1))
    assert (a.waiting is None) == (b.waiting is None)
    if a.waiting is not None and b.waiting is not None:
        assert torch.equal(a.waiting.frames, b.waiting.frames) and a.waiting.until == b.waiting.until
        assert (a.waiting.worth is None) == (b.waiting.worth is None)
        assert a.waiting.worth is None or torch.equal(a.waiting.worth, b.waiting.worth)
    if carried:
        assert left.status == right.status
        assert {slot: sorted(held) for slot, held in a.carried.items()} == {s: sorted(h) for s, h in b.carried.items()}
        for slot, held in a.carried.items():
            assert all(torch.equal(tensor, b.carried[slot][name]) for name, tensor in held.items())
    assert torch.equal(next_logits(left), next_logits(right))


def two(lm: pv.VideoLM, front: str, frames: int = 5) -> tuple[pv.VideoStream, pv.VideoStream]:
    """The same stream twice, on a budget."""
    memory = pv.Memory(tokens=budget(lm, 4))
    one, other = (watched(lm, FRONTS[front], still(frames, 2), [2, frames - 2], memory=memory) for _ in range(2))
    return one, other


@pytest.mark.parametrize("family, front", PAIRS)
def test_asking_forking_and_failing_leave_no_trace(family: str, front: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proof 5: a question sees a frame that waits, a fork goes its own way, a push that fails is undone."""
    lm = build(family)
    stream, twin = two(lm, front)
    stream.ask(QUESTION, 3)
    fork = stream.fork()
    fork.push(still(6, 2), [10.0 + i for i in range(6)])
    assert_equal(stream, twin)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(lm.model.get_decoder().layers[-1], "forward", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            stream.push(video(6, seed=5), [30.0 + i for i in range(6)])  # late enough for every gate
    assert_equal(stream, twin)
    for each in (stream, twin):
        each.push(still(5), [3.0 + i for i in range(5)])
    assert_equal(stream, twin)


@pytest.mark.parametrize("family, front", PAIRS)
def test_saved_and_resumed_is_never_having_saved(
    family: str, front: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proof 6, in the middle of a step and of a still picture."""
    monkeypatch.setitem(GATES, "chequered", Chequered())
    monkeypatch.setitem(GATES, "blind", Blind())
    monkeypatch.setitem(REDUCERS, "thirds", Thirds())
    monkeypatch.setitem(REDUCERS, "merged", Merged())
    monkeypatch.setitem(REDUCERS, "threes", Threes())
    lm = build(family)
    for frames in (3, 4, 5):
        stream, _ = two(lm, front, frames)
        stream.save(tmp_path / "a.pdrop")
        resumed = lm.resume(tmp_path / "a.pdrop")
        assert resumed._ingest.front.gate == stream._ingest.front.gate
        assert resumed._ingest.front.reducer == stream._ingest.front.reducer
        assert_equal(stream, resumed)
        for each in (stream, resumed):
            each.push(still(7), [3.0 + i for i in range(7)])
        assert_equal(stream, resumed)


def test_a_method_of_ones_own_must_be_listed_to_be_saved(tmp_path: Path) -> None:
    stream, _ = two(build("qwen2_5_vl"), "chequered")
    with pytest.raises(pv.StreamError, match=r"Chequered\(\), which no registry lists"):
        stream.save(tmp_path / "a.pdrop")


@pytest.mark.parametrize("front", ["threes", "threes behind a gate"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_units_do_not_depend_on_how_a_stream_is_cut(family: str, front: str) -> None:
    """Held back until they are whole; a question sees what waits, and what is skipped meanwhile lasts."""
    lm = build(family)
    step = lm.adapter.frames_per_step
    frames = still(13 * step, 2)
    cuts = ([len(frames)], [1] * len(frames), [5, len(frames) - 5])
    whole, *others = [watched(lm, FRONTS[front], frames, cut, pyramid=pv.Pyramid(stages=1)) for cut in cuts]
    entered = whole.visual_tokens
    for other in others:
        assert other.visual_tokens == entered > 0
        assert torch.equal(whole.held().step, other.held().step) and torch.equal(whole.held().row, other.held().row)
        torch.testing.assert_close(whole.held().until, other.held().until, equal_nan=True)
        torch.testing.assert_close(next_logits(other), next_logits(whole), atol=1e-9, rtol=0)
    waits = whole._state.waiting
    assert waits is not None and len(waits) < 3 * step  # 13 steps, or the 10 of them that the gate lets through
    before = whole.fork()
    before._ingest.fill_up(before._state)
    assert before.visual_tokens > entered and before._state.waiting is None
    assert torch.equal(next_logits(before), next_logits(whole))


# -- a still picture ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_still_picture_is_encoded_once_and_lasts(family: str) -> None:
    """However frames are pushed; a step of two frames is two that follow each other."""
    lm = build(family)
    step = lm.adapter.frames_per_step
    frames = torch.cat([video(1, seed=s).expand(n, -1, -1, -1) for s, n in ((1, 5), (2, 1), (3, 6))])
    seen = []
    for sizes in ([12], [1] * 12, [5, 7], [4, 4, 4], [3, 2, 1, 6]):
        stream = watched(lm, {"gate": "static"}, frames, sizes, pyramid=pv.Pyramid(stages=1))
        table = stream.held()
        status = stream.status
        assert status.frames == 12 and status.seconds == (0.0, 5.5)
        steps = {1: 3, 2: 2}[step]  # with pairs: frames 0 and 1, 5 and 6
        assert status.skipped == 12 - steps * step
        assert len(table.step[table.visual].unique()) == steps
        spans = set(zip(table.seconds[table.visual].tolist(), table.until[table.visual].tolist(), strict=True))
        mean = 0.25 if family == "qwen3_vl" else 0.0  # its steps have the mean of two times
        of_pairs = {(mean, 2.0), (2.5 + mean, 5.5)}
        assert spans == {1: {(0.0, 2.0), (2.5, 2.5), (3.0, 5.5)}, 2: of_pairs}[step]
        seen.append(next_logits(stream))
    for logits in seen[1:]:
        torch.testing.assert_close(logits, seen[0], atol=1e-9, rtol=0)


def test_what_lasts_is_not_old() -> None:
    """A picture that is still to be seen is as recent as the newest frame, to every evictor that goes by age."""
    lm = build("llava_onevision")
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), gate="static")
    for second in range(30):
        stream.push(video(1), [float(second)])
    stream.push(video(1, seed=1), [30.0])
    state = stream._state
    held = pv.memory.evictors.base.Held(
        state.cache.layers[0].keys[0], state.cache.layers[0].values[0], state.cache.tables[0], 0, lm.num_layers
    )
    assert held.ages()[held.table.visual].unique().tolist() == [0.0, 1.0]


def test_what_is_carried_is_counted_and_bounded() -> None:
    """And does not grow."""
    lm = build("qwen2_5_vl")
    stream = lm.stream(gate="static", reducer="evs")
    assert stream.status.carried_bytes == {}
    sizes = []
    for second in range(0, 12, 2):
        stream.push(video(2, seed=second), [second, second + 1])
        sizes.append(dict(stream.status.carried_bytes))
    hidden = lm.model.config.get_text_config().hidden_size
    assert sizes[0]["gate"] == 60 * 72 * 3 and sizes[0]["reducer"] == 9 * hidden * 8
    assert all(size == sizes[0] for size in sizes)


@pytest.mark.parametrize("slot", ["gate", "reducer"])
def test_who_carries_more_than_promised_is_refused(slot: str) -> None:
    """The stream is as it was, and goes on."""

    class Hoarder(Thirds if slot == "reducer" else Chequered):  # type: ignore[misc]
        def __call__(self, given: Any, carried: Mapping[str, Tensor]) -> Any:
            decided, _ = super().__call__(given, {})
            before = carried.get("all", torch.zeros(0))
            return decided, {"all": torch.cat([before, torch.zeros(40)])}

        def most_bytes(self, *sizes: int) -> int:
            return 300

    stream = build("llava_onevision").stream(**{slot: Hoarder()})
    stream.push(video(2), [0, 1])
    held = stream.held().index
    with pytest.raises(pv.ConfigError, match="carries 320 bytes from chunk to chunk; it promised 300"):
        stream.push(video(2, seed=1), [2, 3])
    assert torch.equal(stream.held().index, held) and stream.status.carried_bytes[slot] == 160
    assert stream.ask(QUESTION, 2).frames == 2


def test_text_and_turns_between_still_pictures() -> None:
    """What was told waits for the next frame that is encoded; a new turn's video shows something, still or not."""
    lm = build("qwen2_5_vl")
    stream = lm.stream(pv.Pyramid(stages=1), gate="static")
    stream.push(video(1).expand(4, -1, -1, -1), [0, 1, 2, 3])
    stream.add_text("red blue")
    rows = stream._state.rows
    pushed = stream.push(video(1).expand(2, -1, -1, -1), [4, 5])
    assert pushed.skipped == 2 and pushed.visual_tokens == 0 and stream._state.rows == rows
    assert stream._state.told == ("red blue",)
    stream.ask(QUESTION, 2, keep=True)
    pushed = stream.push(video(1).expand(2, -1, -1, -1), [6, 7])
    assert pushed.skipped == 0 and pushed.visual_tokens == 9
    assert stream.push(video(1).expand(2, -1, -1, -1), [8, 9]).skipped == 2


# -- every method ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_and_allocator_takes_ragged_chunks(scorer: str, allocator: str) -> None:
    """The budget is that of what entered, and who is kept does not depend on who was left out beside him."""
    lm = build("qwen2_5_vl")
    pyramid = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25), scorer=scorer, allocator=allocator)
    stream = lm.stream(pyramid, pv.Memory(tokens=None), gate=Chequered(), reducer="evs:keep=0.6")
    pushed = stream.push(video(12), [0.5 * i for i in range(12)])
    entered = pushed.visual_tokens
    assert 0 < entered < 6 * 9 * 0.7
    assert pushed.kept == (entered, entered // 2, entered // 4)
    for stage, count in enumerate(pushed.kept):
        table = stream.held(stage)
        assert int(table.visual.sum()) == count
        places = set(zip(*(c[table.visual].tolist() for c in (table.step, table.row, table.column)), strict=True))
        assert len(places) == count


# -- EVS ---------------------------------------------------------------------------------------------------------------


def tokens_of(features: Tensor, grid: tuple[int, int], since: int = 0) -> Tokens:
    """A whole chunk's tokens [steps * rows * columns, hidden]."""
    number, places = torch.arange(len(features)), grid[0] * grid[1]
    steps = tuple(float(i) for i in range(len(features) // places))
    return Tokens(features, number // places, number % places // grid[1], number % grid[1], steps, grid, since)


def by_formula(steps: list[Tensor], keep: float, before: Tensor | None) -> list[int]:
    """EVS as plain loops over steps [places, hidden] of a chunk."""
    scores = []
    for number, step in enumerate(steps):
        last = steps[number - 1] if number else before
        for place, feature in enumerate(step):
            if last is None:
                scores.append(255.0)
            else:
                scores.append(1 - float(feature @ last[place] / feature.norm() / last[place].norm()))
    count = int(len(scores) * keep)
    count = max(count, len(steps[0])) if before is None else max(count, 1)
    return sorted(sorted(range(len(scores)), key=lambda i: -scores[i])[:count])


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.5, 0.77, 1.0])
def test_evs_by_hand(keep: float) -> None:
    """Chunk by chunk, each with the past of the one before."""
    generator = torch.Generator().manual_seed(0)
    carried: dict[str, Tensor] = {}
    before = None
    for steps in (3, 1, 4):
        features = torch.randn(steps * 6, 8, generator=generator, dtype=torch.float64)
        reduced, carried = EVS(keep)(tokens_of(features, (2, 3)), carried)
        assert reduced.kept.tolist() == by_formula(list(features.split(6)), keep, before)
        before = features[-6:]
        assert torch.equal(carried["last"], before)


def test_evs_is_what_transformers_has_for_a_whole_video() -> None:
    """Nemotron's own pruning, which is vLLM's."""
    theirs = pytest.importorskip("transformers.models.nemotron_h_omni.modeling_nemotron_h_omni")
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        steps, keep = 1 + seed % 6, 0.03 + 0.9 * float(torch.rand((), generator=generator))
        features = torch.randn(steps * 12, 16, generator=generator)
        mask = theirs.compute_retention_mask(video_embeds=features, thw=(steps, 3, 4), spatial_merge_size=1, q=1 - keep)
        reduced, _ = EVS(1 - (1 - keep))(tokens_of(features, (3, 4)), {})
        assert torch.equal(mask.flatten().nonzero()[:, 0], reduced.kept)


def test_equals_are_spread_over_time_and_space() -> None:
    """A still picture has nothing new: which of its tokens stay is the rule of ties, whatever the rounding."""
    features = torch.randn(1, 6, 8).expand(5, -1, -1).reshape(30, 8)
    noise = 1 + 1e-15 * torch.randn(30, 1, dtype=torch.float64)
    first, carried = EVS(0.2)(tokens_of(features[:6].double(), (2, 3)), {})
    assert first.kept.tolist() == list(range(6))
    one, other = (
        EVS(0.2)(tokens_of(f, (2, 3), 1), carried)[0].kept for f in (features.double(), features.double() * noise)
    )
    assert torch.equal(one, other) and len(one) == 6 and len({int(i) // 6 for i in one}) >= 4


# -- at the door -------------------------------------------------------------------------------------------------------

BAD = {
    "an unknown gate": ({"gate": "statik"}, "there is no gate 'statik'; choose one of .*static"),
    "an unknown reducer": ({"reducer": "evss"}, "there is no reducer 'evss'; choose one of .*evs"),
    "a number": ({"gate": 3}, "gate is 3; expected one of .*static"),
    "a class": ({"reducer": EVS}, "reducer is <class"),
    "a reducer": ({"gate": EVS()}, r"gate is EVS\(keep=0.5\), which is a reducer; expected a gate"),
    "a gate": (
        {"reducer": Static()},
        "reducer is Static.threshold=4.0, .*; expected one of .*evs.*It lacks left, needs",
    ),
    "an unknown parameter": ({"reducer": "evs:ratio=0.5"}, "reducer evs has 'ratio=0.5'; expected keep"),
    "a parameter twice": ({"reducer": "evs:keep=0.5,keep=0.5"}, "expected keep, each once"),
    "no value": ({"reducer": "evs:keep"}, "reducer evs has 'keep'; expected keep"),
    "a word": ({"reducer": "evs:keep=half"}, "keep of reducer evs is 'half'; expected a finite number"),
    "no share": ({"reducer": "evs:keep=0"}, "keep is 0.0; expected a share"),
    "above the scale": ({"gate": "static:threshold=256"}, "threshold is 256.0; expected a number from 0 to 255"),
    "not a number": ({"gate": "static:threshold=NaN"}, "expected a finite number"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_settings(bad: str) -> None:
    front, said = BAD[bad]
    with pytest.raises(pv.ConfigError, match=said):
        build("qwen2_5_vl").stream(**front)


WRONG = {
    "out of order": [3, 1],
    "twice": [1, 1],
    "beyond": [0, 18],
    "negative": [-1, 3],
    "no whole numbers": [0.0, 1.0],
    "in two dimensions": [[0, 1]],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_reducer_must_keep_numbers_of_its_tokens(wrong: str) -> None:
    class Confused(Thirds):
        def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
            return Reduced(torch.tensor(WRONG[wrong])), {}

    stream = build("qwen2_5_vl").stream(reducer=Confused())
    with pytest.raises(pv.ConfigError, match=r"keeps torch.* expected numbers of its 18 tokens, torch.int64"):
        stream.push(video(4), [0, 1, 2, 3])
    assert stream.status.frames == 0


@pytest.mark.parametrize("wrong", ["frames", "shape", "type"])
def test_a_gate_must_decide_about_its_frames(wrong: str) -> None:
    """Numbers of them, in any form, and a mask of their tokens."""

    class Confused(Blind):
        def __call__(self, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
            kept: Any = [4] if wrong == "frames" else torch.tensor([0, 2])
            shape = (4, 1, 1) if wrong == "shape" else (4, 3, 3)
            return Gated(kept, torch.ones(shape, dtype=torch.float32 if wrong == "type" else torch.bool)), {}

    stream = build("qwen2_5_vl").stream(gate=Confused())
    said = (
        r"keeps \[4\] of 4 frames; expected numbers from 0 to 3"
        if wrong == "frames"
        else r"expected torch.bool of shape \(4, 3"
    )
    with pytest.raises(pv.ConfigError, match=said):
        stream.push(video(4), [0, 1, 2, 3])
    assert stream.status.frames == 0


def test_a_gates_numbers_may_be_a_tensor() -> None:
    class Second(Blind):
        def __call__(self, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
            return Gated(torch.tensor([0, 2])), {}  # type: ignore[arg-type]

    stream = build("llava_onevision").stream(gate=Second())
    assert stream.push(video(4), [0, 1, 2, 3]).skipped == 2


def test_a_budget_must_hold_a_whole_step_from_the_start() -> None:
    """What a gate leaves of the first steps may be less than what comes: no later push fails for it."""

    class Late(Blind):
        def __call__(self, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
            worth = torch.zeros(len(watched.frames), *watched.grid, dtype=torch.bool)
            worth[:, 0] = True
            return Gated(tuple(range(len(watched.frames))), worth), {}

    lm = build("llava_onevision")
    room = budget(lm, 1)
    assert room is not None
    lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=room, evictor="oldest"), gate=Late()).push(video(1), [0])
    with pytest.raises(pv.ConfigError, match="can't hold one step of 16 tokens"):
        lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=room - 8, evictor="oldest"), gate=Late()).push(video(1), [0])


def test_what_lasts_copies_one_column_of_a_table() -> None:
    """And whoever shared the rows keeps his."""
    lm = build("llava_onevision")
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), gate="static")
    stream.push(video(2), [0, 1])
    fork = stream.fork()
    before = stream._state.cache.tables[0]
    stream.push(video(2)[1:], [2])
    after = stream._state.cache.tables[0]
    assert after.index.data_ptr() == before.index.data_ptr() and after.until.data_ptr() != before.until.data_ptr()
    for each, seed in ((stream, 3), (fork, 4)):
        each.push(video(1, seed=seed), [3])
    mine, theirs = stream.held(), fork.held()
    assert mine.until[mine.visual].unique().tolist() == [0, 2, 3] and theirs.until[theirs.visual].unique().tolist() == [
        0,
        1,
        3,
    ]
    assert torch.equal(before.until[before.visual].unique(), torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert stream._state.cache.tables[0].index.tolist() == list(range(len(mine)))


def test_a_reducer_that_needs_what_no_family_says_is_refused() -> None:
    class Needy(Thirds):
        needs: ClassVar[tuple[str, ...]] = ("depth",)

    with pytest.raises(pv.ConfigError, match="needs depth of the vision tower, which models of type 'qwen2_5_vl'"):
        build("qwen2_5_vl").stream(reducer=Needy())


def test_static_by_hand() -> None:
    """The mean over a patch and the three colours, against the last kept frame and not against the last one."""
    frames = torch.full((6, 4, 6, 3), 100, dtype=torch.uint8)
    frames[1, 0, 0, 0] += 12  # of a patch of 2 x 2 pixels: 12 / 12 = 1
    frames[2, :2, :2] += 2  # 2 in one patch
    frames[3, :2, :2] += 3  # 3: kept, at a threshold of 2.5
    frames[4, :2, :2] += 1  # 2 less than the last kept one
    frames[5] = 100
    seconds = tuple(map(float, range(6)))
    gate = Static(2.5)
    gated, carried = gate(Watched(frames, seconds, (2, 3)), {})
    assert gated.kept == (0, 3, 5) and gated.worth is None
    assert torch.equal(carried["last"], frames[5])
    apart = [
        gate(Watched(frames[i : i + 1], seconds[i : i + 1], (2, 3)), {"last": frames[0]})[0].kept for i in range(6)
    ]
    assert apart == [(), (), (), (0,), (), ()]
