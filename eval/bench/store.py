"""What does it cost to store keys and values smaller? One layer of the 0.5 B shape.

    python -m eval.bench.store --json

A layer that is full takes a chunk's columns in and lets as many go: `append_ms` is that, with what leaves the recent
window being quantised. `token_ms` is what one token of an answer costs in the layer's attention, `chunk_ms` what a
chunk does: all keys and values read, and so many rows' attention to them; projections come on top. The storages take
turns; times are of the process's own processors, ratios to `full`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import pandas as pd
import torch
import torch.nn.functional as F
import typer
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from pdrop_video.common.kinds import LayerKind
from pdrop_video.memory import STORAGES, Ahead, Limits, StreamCache, TokenTable, Window
from pdrop_video.memory.evictors import evictor_named
from pdrop_video.memory.limits import Tier
from pdrop_video.memory.storages import recent_in, storage_named
from pdrop_video.pyramid import LayerLoop, Pyramid

from .common import TINY, AsJson, Out, in_turns, report, usual_type

HEADS, WIDTH, QUERIES = 2, 64, 14
"""Of keys and values; heads of queries."""


def turning() -> Any:
    """The rotation of the shape's keys."""
    text: dict[str, Any] = dict(
        vocab_size=256, hidden_size=896, intermediate_size=64, num_hidden_layers=1, num_attention_heads=QUERIES
    )
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    text |= {"num_key_value_heads": HEADS, "rope_parameters": rope, "bos_token_id": None, "eos_token_id": None}
    config = Qwen2_5_VLConfig(text_config=text, vision_config={**TINY, "out_hidden_size": 896})
    return LayerLoop(Qwen2_5_VLForConditionalGeneration(config).get_decoder(), Pyramid(stages=1)).turn


class Filled:
    """A cache of one layer that is full of so many columns, after some chunks.

    Parameters
    ----------
    storage : str
    columns, chunk : int
    turn : Turn
    """

    def __init__(self, storage: str, columns: int, chunk: int, turn: Any) -> None:
        method = storage_named(storage)
        recent = recent_in(method)
        tier = None if recent is None else Tier((min(recent, columns // 4),), (1,), (1,), (1,))
        limits = Limits((columns,), (columns,), Window(1 << 20, turn), tier)
        self.cache = StreamCache((LayerKind("full"),), limits, evictor_named("oldest"), storage=method, turn=turn)
        self.cache.tables, self.turn, self.chunk, self.rows = [_rows(0, 0)], turn, chunk, 0
        self.generator = torch.Generator().manual_seed(0)
        while self.rows < columns + 2 * chunk:
            self.append()

    def append(self) -> None:
        """A chunk in, as many columns out."""
        end = self.rows + self.chunk
        self.cache.make_room([self.chunk], Ahead(self.rows, end, end))
        states = torch.randn(1, HEADS, self.chunk, WIDTH, generator=self.generator).to(usual_type())
        layer = self.cache.layers[0]
        if layer.is_initialized:  # as `update` does, but for the reading, which is timed apart
            layer.columns.append(*layer._encoded(states, states))
        else:
            layer.update(states, states)
        self.cache.record([_rows(self.rows, self.chunk)])
        self.rows = end

    def attend(self, query: Tensor) -> Tensor:
        """All keys and values read, and some rows' attention to them."""
        keys, values = self.cache.layers[0].keys, self.cache.layers[0].values
        return F.scaled_dot_product_attention(query, keys, values, enable_gqa=True)

    def move(self) -> None:
        """Every position by a hundred."""
        table = self.cache.tables[0]
        closer = replace(table, now=table.now - 100)
        self.cache.layers[0].rotate(partial(self.turn, 0), closer.now - closer.entered)
        self.cache.tables[0] = closer
        self.cache.stand()


def _rows(first: int, count: int) -> TokenTable:
    """Visual tokens, sixteen a step."""
    index = torch.arange(first, first + count)
    place = torch.stack([index // 16, index // 4 % 4, index % 4], -1) + 100
    table = TokenTable.text(index, place, place, chunk=first)
    return replace(
        table, visual=index >= 0, step=index // 16, seconds=index / 16.0, until=index / 16.0, row=index // 4 % 4
    )


def measure(columns: int, chunk: int, repeats: int) -> pd.DataFrame:
    """A row for each storage; times are this process's own."""
    turn = turning()
    filled = {name: Filled(name, columns, chunk, turn) for name in STORAGES}
    found: dict[str, pd.DataFrame] = {}
    found["append"] = in_turns({name: each.append for name, each in filled.items()}, repeats)
    for each in filled.values():
        each.move()
    for what, rows in {"token": 1, "chunk": chunk}.items():
        query = torch.randn(1, QUERIES, rows, WIDTH).to(usual_type())
        found[what] = in_turns({name: partial(each.attend, query) for name, each in filled.items()}, repeats)
    rows_: list[dict[str, Any]] = []
    for name, each in filled.items():
        row: dict[str, Any] = {"storage": name, "columns": columns, "bytes": each.cache.nbytes}
        for what, times in found.items():
            cpu = times.attrs["cpu"]
            row[f"{what}_ms"] = cpu[name].median() * 1e3
            row[f"{what}_ratio"] = (cpu[name] / cpu.full).median()
        rows_.append(row)
    return pd.DataFrame(rows_)


def main(
    columns: Annotated[str, typer.Option(help="Columns that the layer holds, comma-separated.")] = "1024,6144",
    chunk: Annotated[int, typer.Option(help="Columns of a chunk.", min=16)] = 576,
    repeats: Annotated[int, typer.Option(help="Timed turns.", min=1)] = 20,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Times of taking in and reading back, and their ratios to `full`."""
    with torch.no_grad():
        table = pd.concat([measure(int(n), chunk, repeats) for n in columns.split(",")], ignore_index=True)
    report("store", table, _draw, out, as_json, {"chunk": chunk})


def _draw(table: pd.DataFrame) -> Any:
    return table.plot.bar(x="storage", y=["append_ms", "token_ms", "chunk_ms"])


if __name__ == "__main__":
    typer.run(main)
