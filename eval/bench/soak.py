"""Does memory grow, does a chunk get dearer? Hours of synthetic video at 1 frame a second through the built-in model.

python -m eval.bench.soak --hours 10
python -m eval.bench.soak --frames 3000 --json
python -m eval.bench.soak --family qwen3_5 --frames 3000
python -m eval.bench.soak --storage int4 --frames 3000
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.memory import STORAGES
from pdrop_video.pyramid.rows import CACHE

from .common import AsJson, Out, report
from .families import TINY, tiny_of

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


class Guard:
    """Looks at the cache while chunks are in flight, when it is at its fullest: as the last layer is through.

    Parameters
    ----------
    budget : int
        Most bytes.

    Attributes
    ----------
    peak : int
        Most bytes seen.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.peak = budget, 0

    def check(self, held: int) -> None:
        """Note a sample; an AssertionError if it is over the budget."""
        self.peak = max(self.peak, held)
        assert held <= self.budget, f"over budget: {held:,} bytes are held, {self.budget:,} were given."

    @contextmanager
    def watching(self, lm: pv.VideoLM) -> Iterator[None]:
        """Check within every push of the block; questions, which come on top of the budget, stay outside."""

        def hook(layer: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            self.check(kwargs[CACHE].nbytes)

        handle = lm.model.get_decoder().layers[-1].register_forward_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def soak(
    total: int, tokens: int, evictor: str, seed: int, lm: pv.VideoLM | None = None, storage: str = "full"
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Push `total` frames; a row for each hour, or each third of a shorter run, and the figures."""
    hour = min(3600, total // 3) // CHUNK  # chunks
    lm = lm or pv.load()
    sizes = DecoderShape.of(lm.model.config)
    columns = tokens * sizes.kv_bytes_per_token(lm.model.dtype.itemsize)
    guard = Guard(columns + sum(sizes.state_bytes(lm.model.dtype.itemsize)))
    stream = lm.stream(memory=pv.Memory(bytes=guard.budget, evictor=evictor, storage=storage))
    rows: list[dict[str, Any]] = []
    costs, busy, resident, most = [], [], 0, 0
    for first in range(0, total, CHUNK):
        pictures = frames_of(first, seed)
        with guard.watching(lm):
            begun, used = time.perf_counter(), time.process_time()
            stream.push(pictures, range(first, first + CHUNK))
            costs.append(time.perf_counter() - begun)
            busy.append(time.process_time() - used)
        guard.check(stream.cache_bytes)
        most = max(most, *stream.cache_tokens)
        resident = max(resident, rss())
        if len(costs) == hour:
            answer = stream.ask("how many things are shown?", max_new_tokens=4)
            resident = max(resident, rss())  # with what a question takes, in the first hour as in the others
            rows.append(
                {
                    "hour": len(rows) + 1,
                    "frames": first + CHUNK,
                    "chunk_ms": statistics.median(costs) * 1e3,
                    "chunk_cpu_ms": statistics.median(busy) * 1e3,
                    "first_token_ms": answer.timings.first_token * 1e3,
                    "peak_rss_mib": resident / 2**20,
                    "cache_mib": stream.cache_bytes / 2**20,
                    "answer": str(answer),
                }
            )
            print(f"hour {len(rows)}: {rows[-1]['chunk_ms']:.1f} ms a chunk, {answer}", flush=True)
            costs, busy, resident = [], [], 0
    table = pd.DataFrame(rows)
    peak = max(table.peak_rss_mib.max(), resident / 2**20)
    return table, {
        "frames": total,
        "rss_growth": peak / table.peak_rss_mib.iloc[0] - 1,
        "chunk_cost_growth": table.chunk_ms.iloc[-1] / table.chunk_ms.iloc[1],
        "chunk_cpu_growth": table.chunk_cpu_ms.iloc[-1] / table.chunk_cpu_ms.iloc[1],
        "most_tokens": most,
        "peak_cache_bytes": guard.peak,
        "budget_bytes": guard.budget,
    }


def main(
    hours: Annotated[float, typer.Option(help="Hours of video at 1 frame a second.")] = 10.0,
    frames: Annotated[int | None, typer.Option(help="Frames in all, in place of --hours.", min=3 * CHUNK)] = None,
    tokens: Annotated[int, typer.Option(help="The budget: the bytes of so many tokens a layer.")] = 1024,
    evictor: Annotated[str, typer.Option(help="What is forgotten.")] = "pyramid",
    storage: Annotated[str, typer.Option(help=f"How keys and values are stored: {', '.join(STORAGES)}.")] = "full",
    seed: Annotated[int, typer.Option(help="Of the pictures.")] = 0,
    family: Annotated[
        str | None, typer.Option(help=f"A tiny random model in place of the built-in one: {', '.join(TINY)}.")
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Push, measure every chunk, ask every hour; assert the budget at every chunk, also while it is in flight."""
    total = (int(hours * 3600) if frames is None else frames) // CHUNK * CHUNK
    if family is not None and family not in TINY:
        raise typer.BadParameter(f"{family} is not known here; choose {', '.join(TINY)}.")
    table, figures = soak(total, tokens, evictor, seed, None if family is None else tiny_of(family), storage)
    figures = {"family": family or "built-in", "storage": storage, **figures}
    for name, value in figures.items():
        shown = f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        print(f"{name:18} {shown}")
    report(
        "soak",
        table,
        lambda shown: shown.plot(x="hour", y=["chunk_ms", "peak_rss_mib"], subplots=True, marker="o")[0],
        out,
        as_json,
        figures,
        family or "the built-in model",
    )


if __name__ == "__main__":
    typer.run(main)
