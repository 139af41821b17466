"""Does memory grow, does a chunk get dearer? Hours of synthetic video at 1 frame a second through the built-in model.

python -m eval.bench.soak --hours 10
python -m eval.bench.soak --frames 3000 --json
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

import pdrop_video as pv

CHUNK = 8
"""Frames a push."""


def rss() -> int:
    """Resident memory of this process, in bytes."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def frames_of(first: int, seed: int) -> torch.Tensor:
    """Moving gradients with a patch of another colour now and then [CHUNK, 112, 112, 3]."""
    rng = np.random.default_rng((seed, first))
    y, x = np.mgrid[0:112, 0:112]
    pictures = np.empty((CHUNK, 112, 112, 3), np.uint8)
    for i in range(CHUNK):
        wave = 127 + 60 * np.sin((x + 2 * (first + i)) / 17)[..., None] * np.cos(y / 23)[..., None]
        pictures[i] = (wave + rng.normal(0, 6, (112, 112, 3))).clip(0, 255)
        if rng.random() < 0.3:
            top, left = rng.integers(0, 80, 2)
            pictures[i, top : top + 30, left : left + 30] = rng.integers(0, 256, 3)
    return torch.from_numpy(pictures)


def main(
    hours: Annotated[float, typer.Option(help="Hours of video at 1 frame a second.")] = 10.0,
    frames: Annotated[int | None, typer.Option(help="Frames in all, in place of --hours.")] = None,
    tokens: Annotated[int, typer.Option(help="Memory budget, in tokens a layer.")] = 1024,
    evictor: Annotated[str, typer.Option(help="What is forgotten.")] = "pyramid",
    seed: Annotated[int, typer.Option(help="Of the pictures.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Push, measure every chunk, ask every hour; assert the budget at every chunk."""
    total = (int(hours * 3600) if frames is None else frames) // CHUNK * CHUNK
    hour = min(3600, total // 3) // CHUNK  # chunks in an hour, or in a third of a shorter run
    lm = pv.load()
    stream = lm.stream(memory=pv.Memory(tokens=tokens, evictor=evictor))
    budget = tokens * lm.num_layers * stream.token_bytes
    costs: list[float] = []
    peaks: list[int] = []
    most = 0
    for number, first in enumerate(range(0, total, CHUNK)):
        pictures = frames_of(first, seed)
        begun = time.perf_counter()
        stream.push(pictures, range(first, first + CHUNK))
        costs.append(time.perf_counter() - begun)
        most = max(most, stream.cache_bytes)
        assert max(stream.cache_tokens) <= tokens, f"over budget at frame {first}: {stream.cache_tokens}"
        peaks.append(rss())
        if number % hour == hour - 1:
            answer = stream.ask("how many things are shown?", max_new_tokens=4)
            recent = statistics.median(costs[-hour:]) * 1e3
            print(
                f"{first + CHUNK:6} frames  {recent:6.1f} ms a chunk  {peaks[-1] / 2**20:7.1f} MiB  {answer}",
                flush=True,
            )
    by_hour = [costs[start : start + hour] for start in range(0, len(costs) - hour + 1, hour)]
    figures = {
        "frames": total,
        "rss_growth": max(peaks) / max(peaks[:hour]) - 1,
        "chunk_cost_growth": statistics.median(by_hour[-1]) / statistics.median(by_hour[1]),
        "peak_cache_bytes": most,
        "budget_bytes": budget,
    }
    table = Table("measure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
    Console().print(table)
    if as_json:
        print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
