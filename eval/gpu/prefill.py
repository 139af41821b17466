"""How much faster is a prefill, and is that what the FLOPs promise? Qwen2.5-VL-7B's decoder with random weights.

`generate` for one token in turns: by the unmodified model, by the library's loop with nothing dropped, by the paper's
pyramid, and by FastV's one boundary. `share` is the rate of a prefill, by the FLOPs of its products, over that of one
large product on this device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape, prefill_flops

from .machine import Machine
from .parts import Setting
from .shapes import PYRAMID, WHOLE, large
from .state import Row

TEXT = 32
WAYS = {
    "ratio 1": WHOLE,
    "pyramid": PYRAMID,
    "fastv": pv.Pyramid(layers=(2,), ratios=(0.25,)),  # FastV (arXiv 2403.06764): one early boundary
}


def cases(setting: Setting) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """The rate of a product, and one case for each number of visual tokens."""
    machine = Machine.of(setting)
    rate = cache(partial(matrix_rate, machine))
    yield "matrix rate", lambda: [{"matrix_tflops": rate() / 1e12, "dtype": str(machine.dtype)}]
    for visual in (256,) if machine.small else (4096, 16_384, 32_768):
        yield f"{visual:,} visual tokens", partial(measure, machine, visual, rate)


def matrix_rate(machine: Machine) -> float:
    """FLOPs a second of one square product, the best of some."""
    side = 256 if machine.small else 8192
    a, b = (torch.randn(side, side, device=machine.device, dtype=machine.dtype) for _ in range(2))
    repeats = 10

    def run() -> None:
        for _ in range(repeats):
            a @ b

    run()
    return 2 * side**3 * repeats / min(machine.seconds(run) for _ in range(3))


def gib(size: int | None) -> float | None:
    """Bytes in GiB."""
    return None if size is None else size / 2**30


def measure(machine: Machine, visual: int, rate: Callable[[], float]) -> list[Row]:
    """A row for each way; `rate` gives that of one large product."""
    model: Any = large(machine).model
    shape, rows = DecoderShape.of(model.config), visual + TEXT
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(16, 1000, (1, rows), generator=generator).to(machine.device)  # none stands for pictures
    places = torch.arange(rows, device=machine.device)
    mask = ((places >= 4) & (places < 4 + visual))[None]
    how = dict(max_new_tokens=1, do_sample=False, attention_mask=torch.ones_like(ids))

    def generate() -> None:
        model.generate(ids, **how)

    def under(pyramid: pv.Pyramid) -> None:
        with pv.pyramid_drop(model, pyramid, visual=mask):
            generate()

    runs: dict[str, Callable[[], None]] = {"transformers": generate}
    runs |= {name: partial(under, pyramid) for name, pyramid in WAYS.items()}
    schedules = {name: pyramid.resolve(shape.layers, shape.rank_at) for name, pyramid in WAYS.items()}
    schedules["transformers"] = schedules["ratio 1"]
    with torch.no_grad():
        peaks = {name: machine.peak(run) for name, run in runs.items()}  # beside the weights
        times = machine.in_turns(runs, 1 if machine.small else 3)
    flops = {name: prefill_flops(shape, schedules[name], visual, TEXT, newest=True) for name in runs}
    return [
        {
            "visual": visual,
            "way": name,
            "seconds": times[name],
            "speedup": times["transformers"] / times[name],
            "promised": flops["transformers"] / flops[name],
            "of_promise": times["transformers"] / times[name] / (flops["transformers"] / flops[name]),
            "share": flops[name] / times[name] / rate(),
            "peak_gib": gib(peaks[name]),
        }
        for name in runs
    ]
