"""Gates and reducers that see no borders of chunks: in streams of every family, each behind every gate."""

from __future__ import annotations

import pytest
import torch
from test_any_gate import film
from test_any_reducer import INVARIANT
from test_exact import chunks, next_logits
from test_front_methods import FAMILIES, GATE_LINES, model

import pdrop_video as pv

pytestmark = pytest.mark.slow  # a minute of streams


@pytest.mark.parametrize(
    "place, line",
    [
        pytest.param(number, line, id=line, marks=[] if number % 4 == 0 else pytest.mark.slow)
        for number, line in enumerate(line for line in INVARIANT if line.partition(":")[0] != "desap")
    ],
)
def test_behind_any_gate_what_sees_no_borders_sees_none(place: int, line: str) -> None:
    """However pushes are cut the same tokens enter, last as long, and are answered from alike."""
    if line == "aot":
        line += ":anchors=features"
    for number, gate in enumerate(GATE_LINES):
        lm = model(FAMILIES[(place + number) % len(FAMILIES)], torch.float64)
        frames, streams = film(18), []
        for sizes in ([18], [1] * 18, [5, 1, 7, 2, 3]):
            stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), gate=gate, reducer=line)
            for part, seconds in chunks(frames, [0.5 * i for i in range(18)], sizes):
                stream.push(part, seconds)
            stream._ingest.fill_up(stream._state)
            streams.append(stream)
        whole, *others = streams
        assert whole.visual_tokens > 0
        for other in others:
            assert (other.visual_tokens, other.status.skipped) == (whole.visual_tokens, whole.status.skipped)
            for name in ("step", "row", "column", "until", "seconds"):
                one, same = (getattr(table, name) for table in (whole.held(), other.held()))
                torch.testing.assert_close(one, same, equal_nan=True)
            torch.testing.assert_close(next_logits(other), next_logits(whole), atol=1e-9, rtol=0)
