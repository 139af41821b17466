"""What tests of trained parts share: lines about tiny videos, and trainings of a few steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from media import write_video

import pdrop_video as pv
from pdrop_video.parts import PARTS, Part, identity, write_part
from pdrop_video.training import TRAINERS, Plan, read_lines, train

SECONDS = 4
SMALL: dict[str, dict[str, Any]] = {
    "evocomp": {"population": 4, "generations": 1, "videos": 2, "lines": 1},
    "dualcomp": {"videos": 2, "lines": 1},
    "videorouter": {"policies": 2},
}
"""Settings of searches that end soon."""
ANSWERS = ("red", "blue", "first")


def write_data(folder: Path, videos: int = 4) -> Path:
    """Videos of noise, and two questions about each; the first has evidence in its second second."""
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for n in range(videos):
        pictures = [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(4 * SECONDS)]
        write_video(folder / f"{n}.mp4", [i / 4 for i in range(len(pictures))], pictures=pictures, rate=4)
        name, answer = f"{n}.mp4", ANSWERS[n % len(ANSWERS)]
        lines.append({"video": name, "question": "what is shown", "answer": answer, "evidence": [1.0]})
        lines.append({"video": name, "question": "how many ?", "answer": f"{n} {answer}"})
    path = folder / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def trained(lm: pv.VideoLM, name: str, data: Path, place: Path, steps: int = 6, **how: Any) -> Part | None:
    """A part after a few steps."""
    stop, settings = how.pop("stop", lambda step: False), {**SMALL.get(name, {}), **how.pop("settings", {})}
    plan = Plan(**dict(steps=steps, batch=2, rate=1e-2, frames=8, every=2) | how)
    return train(TRAINERS[name](lm, **settings), read_lines(data), place / "out", place / "work", plan, stop=stop)


def random_part(lm: pv.VideoLM, name: str, seed: int = 0) -> Part:
    """A part that nobody trained, with weights large enough that its scores differ."""
    torch.manual_seed(seed)
    part = PARTS[name].of(lm.model)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    part.attach(lm.model)
    return part.eval().requires_grad_(False)


def with_parts(lm: pv.VideoLM, *parts: Part) -> pv.VideoLM:
    """The same model with parts beside it."""
    return pv.VideoLM(lm.model, lm.adapter, lm.prompt, lm.name, parts={part.name: part for part in parts})


def written(lm: pv.VideoLM, name: str, path: Path, seed: int = 0) -> Part:
    """A random part in a file, for this model."""
    part = random_part(lm, name, seed)
    write_part(path, part, identity(lm.model), settings={"seed": seed}, figures={})
    return part
