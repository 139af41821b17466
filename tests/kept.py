"""Which tokens stay in a few streams, as JSON: run by `test_portable.py` under other kernels and numbers of threads.

`python tests/kept.py [DTYPE]`; the dtype is that of the models, float64 unless given.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from families import FAMILIES, build, video

import pdrop_video as pv

METHODS = (
    ("contrast", "joint", "pyramid"),
    ("novelty", "global", "oldest"),
    ("product", "uniform", "infinipot_v"),
    ("value_norm", "joint", "stream_mem"),
    ("relevance", "global", "hermes"),
)


def frames() -> torch.Tensor:
    """What a live camera gives at one frame a second: things that move, a still picture, black, the picture again."""
    still = video(1, seed=3).expand(3, -1, -1, -1)
    return torch.cat([video(4), still, torch.zeros_like(still), still[:2]])


def kept(lm: Any, chunk: int) -> dict[str, list[list[int]]]:
    """By methods, the numbers of the tokens held in each stage."""
    found = {}
    for scorer, allocator, evictor in METHODS:
        pyramid = pv.Pyramid(stages=3, scorer=scorer, allocator=allocator)
        stream = lm.stream(pyramid, pv.Memory(tokens=160, evictor=evictor))
        for i in range(0, len(frames()), chunk):
            part = frames()[i : i + chunk]
            stream.push(part, list(range(i, i + len(part))))
        found[f"{scorer}, {allocator}, {evictor}"] = [stream.held(stage).index.tolist() for stage in range(3)]
    return found


if __name__ == "__main__":
    dtype = getattr(torch, sys.argv[1] if len(sys.argv) > 1 else "float64")
    everything = {}
    for family in FAMILIES:
        lm = build(family)
        lm.model.to(dtype)
        everything |= {
            f"{family}, {chunk} a push: {of}": held for chunk in (1, 4) for of, held in kept(lm, chunk).items()
        }
    json.dump(everything, sys.stdout)
