"""What the benchmarks share: a random model of a real shape, times taken in turns, and one way to hand out figures.

Knows clocks, tables and files. Refuses to know what is measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import pandas as pd
import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from pdrop_video import VideoLM, load
from pdrop_video.models import Pixels, adapter_for
from pdrop_video.models.number_type import chosen, default_device

Out = Annotated[Path | None, typer.Option("--out", help="Folder for the table (CSV) and the chart (PNG).")]
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON object on the last line.")]


TINY: dict[str, Any] = dict(depth=1, hidden_size=32, intermediate_size=32, num_heads=2)
"""A vision tower that is not meant to be used."""


def usual_type() -> torch.dtype:
    """What `load` takes on this machine for checkpoints in bfloat16, and with it what is measured; it is printed."""
    if default_device() == "cpu" and chosen(torch.bfloat16, lambda: 0).name == "float32":
        return torch.float32
    return torch.bfloat16


def random_model(
    dtype: torch.dtype | None = None, kv_heads: int = 2, tower: Mapping[str, Any] = TINY
) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL's decoder with random weights, about 0.5 B of them.

    Hidden size 896, 24 layers, 14 heads, a vocabulary of 151,936: the language model of Qwen2.5-0.5B.

    Parameters
    ----------
    dtype : torch.dtype, optional
        By default `usual_type`.
    kv_heads : int
        Heads of keys and values: 2 as in Qwen2.5-0.5B, 14 for a model without grouped queries.
    tower : mapping
        Sizes of its vision tower, by the config's names; a tiny one by default.
    """
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 151_936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": kv_heads,
            "bos_token_id": None,
            "eos_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
        },
        vision_config={**tower, "out_hidden_size": 896},
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device("meta"):
        empty: Any = Qwen2_5_VLForConditionalGeneration(config)
    dtype = dtype or usual_type()
    model = empty.to(dtype).to_empty(device="cpu")
    model.tie_weights()
    model.model.visual = type(model.model.visual)._from_config(config.vision_config).to(dtype)  # with its buffers
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else torch.nn.init.ones_(parameter)
    text = model.get_decoder()
    text.rotary_emb = type(text.rotary_emb)(config=config.text_config)  # its buffers were on the meta device
    return model.eval()


def random_lm(dtype: torch.dtype | None = None, tower: Mapping[str, Any] = TINY) -> VideoLM:
    """The random model with the built-in model's words, for streams whose answers mean nothing."""
    words, family = load().tokenizer, adapter_for("qwen2_5_vl")
    model = random_model(dtype, tower=tower)
    pixels = Pixels(size={"shortest_edge": 1, "longest_edge": 1 << 40})  # frames are taken in the size they come in
    return VideoLM(model, family(model, pixels, words), family.prompt(words), "random")


def seconds(run: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    begun = time.perf_counter()
    run()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - begun


def in_turns(runs: Mapping[str, Callable[[], Any]], repeats: int, warming: int = 1) -> pd.DataFrame:
    """Time every run once a turn, so that what disturbs the machine disturbs them alike.

    Parameters
    ----------
    runs : mapping of str to callable
    repeats : int
        Timed turns. Every other turn goes through the runs backwards.
    warming : int
        Turns before them that warm up; none for runs that take long and were warmed in another way.

    Returns
    -------
    DataFrame
        Seconds; a column for each run, a row for each turn. ``(times.a / times.b).median()`` is a paired ratio. The
        same in seconds of this process's processors, all threads together, is in ``times.attrs["cpu"]``: what others
        do on the machine disturbs it less.
    """
    turns, busy = [], []
    for turn in range(warming + repeats):
        order = list(runs) if turn % 2 else list(runs)[::-1]
        taken, used = {}, {}
        for name in order:
            begun = time.process_time()
            taken[name] = seconds(runs[name])
            used[name] = time.process_time() - begun
        turns.append([taken[name] for name in runs])
        busy.append([used[name] for name in runs])
    times = pd.DataFrame(turns[warming:], columns=list(runs))
    times.attrs["cpu"] = pd.DataFrame(busy[warming:], columns=list(runs))
    return times


def report(
    name: str,
    table: pd.DataFrame,
    draw: Callable[[pd.DataFrame], Any],
    out: Path | None,
    as_json: bool,
    figures: Mapping[str, Any] | None = None,
) -> None:
    """Print a table; write ``name.csv`` and ``name.png`` where `out` is given; end with JSON where `as_json`.

    Parameters
    ----------
    name : str
        Of the benchmark.
    table : DataFrame
    draw : callable
        Gets the table and returns the matplotlib axes that it drew on; pandas' ``table.plot`` does.
    out : Path or None
        A folder, made if need be.
    as_json : bool
    figures : mapping, optional
        Stands in the JSON object beside ``rows``, the table's rows.
    """
    shown = Table(*map(str, table.columns), title=f"{name}, random models in {usual_type()}")
    for row in table.itertuples(index=False):
        shown.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    Console(width=1000).print(shown)  # as wide as the table needs: a line that a terminal wraps keeps its figures
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / f"{name}.csv", index=False)
        matplotlib.use("agg")  # a chart needs no screen
        draw(table).figure.savefig(out / f"{name}.png", dpi=150, bbox_inches="tight")
    if as_json:
        rows = json.loads(table.to_json(orient="records"))  # plain numbers, null for what is missing
        print(
            json.dumps({"dtype": str(usual_type()).removeprefix("torch."), **(figures or {}), "rows": rows}), flush=True
        )
