"""What a reducer asks of the vision tower reaches it through a stream, and is counted with what was encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import omni
import pytest
import torch
from families import budget, build, video
from test_flops_stream import counting
from test_front import Chequered
from test_sound import RATE, noise
from test_tower_attention import frames_of, made
from torch import Tensor

import pdrop_video as pv
from eval.runner.clock import Clock
from eval.runner.metered import Metered
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.costs.stream import StreamShape
from pdrop_video.costs.way import video_flops
from pdrop_video.models import describe
from pdrop_video.models.received import BOTH
from pdrop_video.reduce import Reduced, Tokens


@dataclass(frozen=True)
class Looked:
    """A reducer that keeps the half of the tokens that receive most."""

    needs: ClassVar[tuple[str, ...]] = BOTH
    given: ClassVar[list[Tokens]] = []

    def __call__(self, tokens: Tokens, carried: Any) -> tuple[Reduced, dict[str, Tensor]]:
        self.given.append(tokens)
        return Reduced(tokens.best(tokens.tower["attention"], max(1, len(tokens) // 2))), {}

    def left(self, tokens: int) -> int | None:
        return max(1, tokens // 2)

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        return 0


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava_onevision", "smolvlm"])
def test_a_reducer_gets_what_it_needs(family: str) -> None:
    lm = made(family)
    frames, seconds = frames_of(lm)
    stream = lm.stream(pv.Pyramid(layers=(), ratios=()), pv.Memory(tokens=None), reducer=Looked())
    Looked.given.clear()
    stream.push(frames, seconds)
    (tokens,) = Looked.given
    with torch.no_grad():
        whole = lm.adapter.look(frames, seconds, knowing=BOTH)
    for name in BOTH:
        assert torch.equal(tokens.tower[name], whole.tower[name][whole.visual])
    assert stream._state.looked == lm.adapter.look_flops(whole.size, len(whole.steps), None, BOTH)
    assert stream._state.looked > lm.adapter.look_flops(whole.size, len(whole.steps))
    kept = whole.keep(torch.arange(0, whole.visual_tokens, 2))
    parts = kept.split(1)
    for name in BOTH:
        assert torch.equal(kept.tower[name][kept.visual], whole.tower[name][whole.visual][::2])
        assert torch.equal(torch.cat([part.tower[name] for part in parts]), kept.tower[name])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava_onevision"])
def test_a_run_records_what_was_encoded(family: str) -> None:
    """Parts of steps where the tower leaves them out, what the reducer asked of it, an odd frame that waits."""
    lm = build(family, "eager", dtype=torch.float32)
    memory = pv.Memory(tokens=budget(lm, 4))
    for reducer in (None, Looked()):
        stream = lm.stream(pv.Pyramid(stages=3), memory, gate=Chequered(), reducer=reducer)
        metered = Metered(stream, DecoderShape.of(lm.model.config), Clock(), causal=False)
        pictures = video(13)
        with counting() as watched:
            for first, last in ((0, 3), (3, 9), (9, 13)):
                metered.push(pv.FrameChunk(pictures[first:last], tuple(i / 2 for i in range(first, last))))
        assert watched.total == metered.flops + metered.tower
        if reducer is None:
            assert (stream._state.waiting is not None) == (lm.adapter.frames_per_step > 1)
            with counting() as asked:
                stream.ask("what is shown ?", 1)
            rows = metered.rows("what is shown ?")
            assert asked.total == metered.asking_flops(rows, 1) + metered.asking_tower()


def test_a_recipe_counts_what_its_reducer_asks_of_the_tower() -> None:
    config, adapter = describe()
    shape = StreamShape(DecoderShape.of(config), pv.Pyramid().resolve(8))
    plain, asking = (video_flops(adapter, shape, 5, (4, 4), knowing=names) for names in ((), BOTH))
    assert asking.tower - plain.tower == 5 * 2 * 128 * 64**2  # both are the one layer without windows
    assert asking.decoder == plain.decoder


@pytest.mark.parametrize("family", omni.OMNI)
def test_sound_between_pictures_moves_what_is_known_with_its_tokens(family: str) -> None:
    lm = made(family)
    stream, frames = lm.stream(pv.Pyramid(layers=(), ratios=()), pv.Memory(tokens=None), reducer=Looked()), video(16)
    seconds = tuple(0.5 * i for i in range(16))
    Looked.given.clear()
    stream.push(frames, seconds, sound=noise(8), rate=RATE)
    (tokens,) = Looked.given
    with torch.no_grad():
        whole = lm.adapter.look(frames, seconds, knowing=BOTH)
    for name in BOTH:
        assert torch.equal(tokens.tower[name], whole.tower[name][: len(tokens)])
