"""How much faster is a prefill, and is that what the FLOPs promise? A random decoder of the 0.5 B shape, bf16.

`python -m eval.bench.prefill --json`. Every row is timed in turns within one run: full tokens, pruned, nothing dropped,
and the bare matrix products of the pruned shapes.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

import pdrop_video as pv
from pdrop_video.flops import DecoderShape, prefill_flops
from pdrop_video.pyramid import Schedule
from pdrop_video.pyramid.scorers import Ranking
from pdrop_video.pyramid.scorers.relevance import Relevance

TEXT_TOKENS = 32
PYRAMIDS = {
    "pyramid": pv.Pyramid(ratios=(0.5, 0.25, 0.125)),
    "fastv": pv.Pyramid(layers=(2,), ratios=(0.25,)),  # FastV (arXiv 2403.06764) is a pyramid with one early boundary
}


class TimedRelevance:
    """PyramidDrop's score with a stopwatch around it."""

    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = False

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, ranking: Ranking) -> Tensor:
        """Score and count the time."""
        begun = time.perf_counter()
        scores = Relevance()(ranking)
        self.seconds += time.perf_counter() - begun
        return scores


def random_model() -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL decoder of hidden size 896, 24 layers, 14 heads, 2 KV heads; its vision tower is tiny and unused."""
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 1024,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "bos_token_id": None,
            "eos_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
        },
        vision_config={"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 896},
    )
    torch.manual_seed(0)
    with torch.device("meta"):
        empty: Any = Qwen2_5_VLForConditionalGeneration(config)
    model = empty.to(torch.bfloat16).to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else torch.nn.init.ones_(parameter)
    text = model.get_decoder()
    text.rotary_emb = type(text.rotary_emb)(config=config.text_config)  # its buffers were on the meta device
    return model.eval()


def bare_products(shape: DecoderShape, schedule: Schedule, visual: int) -> Callable[[], None]:
    """The prefill's matrix products alone, layer by layer, in bf16."""
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = [
        (shape.hidden, wide + 2 * narrow),
        (wide, shape.hidden),
        (shape.hidden, 2 * shape.mlp),
        (shape.mlp, shape.hidden),
    ]
    weights = [torch.randn(b, a, dtype=torch.bfloat16) for a, b in sizes]
    inputs = {
        n: [torch.randn(n, a, dtype=torch.bfloat16) for a, _ in sizes]
        for n in {count + TEXT_TOKENS for count in schedule.counts(visual)}
    }

    def run() -> None:
        for n in schedule.per_layer(visual):
            for x, weight in zip(inputs[n + TEXT_TOKENS], weights, strict=True):
                torch.nn.functional.linear(x, weight)

    return run


def seconds(run: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def measure(model: Any, name: str, visual: int, repeats: int) -> dict[str, float | int | str]:
    """One row of the table."""
    shape, layers = DecoderShape.of(model.config), len(model.get_decoder().layers)
    scorer = TimedRelevance()
    given = PYRAMIDS[name]
    pyramid = pv.Pyramid(layers=given.layers, ratios=given.ratios, scorer=scorer)
    schedule, full = pyramid.resolve(layers), pv.Pyramid(stages=1).resolve(layers)
    rows = visual + TEXT_TOKENS
    inputs = {
        "inputs_embeds": torch.randn(1, rows, shape.hidden, dtype=torch.bfloat16),
        "position_ids": torch.arange(rows).expand(3, 1, -1),
        "use_cache": True,
        "logits_to_keep": 1,
    }
    mask = torch.zeros(1, rows, dtype=torch.bool)
    mask[:, 4 : 4 + visual] = True

    def dropped(schedule_of: pv.Pyramid) -> Callable[[], Any]:
        def run() -> Any:
            with pv.pyramid_drop(model, schedule_of, visual=mask):
                return model(**inputs)

        return run

    runs: dict[str, Callable[[], Any]] = {
        "full": lambda: model(**inputs),
        "pruned": dropped(pyramid),
        "ratio1": dropped(pv.Pyramid(stages=1)),
        "bare": bare_products(shape, schedule, visual),
    }
    times: dict[str, list[float]] = {key: [] for key in runs}
    with torch.no_grad():
        for turn in range(repeats + 1):
            for key, run in runs.items():
                taken = seconds(run)
                if turn:  # the first turn warms up
                    times[key].append(taken)
                else:
                    scorer.seconds = 0.0
    median = {key: statistics.median(values) for key, values in times.items()}
    cost = prefill_flops(shape, schedule, visual, TEXT_TOKENS)
    counted = sum(2 * (n + TEXT_TOKENS) * _weights(shape) for n in schedule.per_layer(visual))
    return {
        "schedule": name,
        "tokens": visual,
        "full_s": median["full"],
        "pruned_s": median["pruned"],
        "speedup": statistics.median(a / b for a, b in zip(times["full"], times["pruned"], strict=True)),
        "flops_speedup": prefill_flops(shape, full, visual, TEXT_TOKENS) / cost,
        "gemm_fraction": (cost / median["pruned"]) / (counted / median["bare"]),
        "ranking_fraction": scorer.seconds / sum(times["pruned"]),
        "ratio1_slowdown": statistics.median(a / b for a, b in zip(times["ratio1"], times["full"], strict=True)),
    }


def _weights(shape: DecoderShape) -> int:
    """Numbers in one layer's matrices."""
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return shape.hidden * (2 * wide + 2 * narrow + 3 * shape.mlp)


def main(
    tokens: Annotated[str, typer.Option(help="Visual tokens, comma-separated.")] = "1024,2048,4096",
    repeats: Annotated[int, typer.Option(help="Timed turns.", min=1)] = 5,
    out: Annotated[Path | None, typer.Option(help="Folder for prefill.csv.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Prefill with and without dropping, against what FLOPs predict."""
    model = random_model()
    rows = []
    for name in PYRAMIDS:
        for visual in map(int, tokens.split(",")):
            rows.append(measure(model, name, visual, repeats))
            print(f"{name}, {visual} visual tokens: {rows[-1]['speedup']:.2f} x", flush=True)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
        (out / "prefill.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    typer.run(main)
