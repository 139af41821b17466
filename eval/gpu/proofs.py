"""Correctness on the device: proofs 1, 2, 3, 5 and 6 of the design, on tiny random models of four families.

Two kinds of them. What a stream computes is held against one masked forward of unmodified transformers on the same
device, in which each layer sees exactly what the stream's cache held at that time (`tests/reference.py`): the largest
difference between logits, over the largest logit, stays below `TOLERANCE`. A control, the same forward under the masks
of neighbouring layers, must be off by ten times as much in float32, and by more than the tolerance in bfloat16. What is
promised bit for bit is compared so. Products in TF32 are switched off for all of it.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pdrop_video as pv

from ..bench.threads import at_once
from .machine import Machine
from .operators import operators
from .parts import Setting
from .state import Row

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl")
EVICTORS = ("pyramid", "uniform", "infinipot_v")
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.06}
"""Of the largest logit. bfloat16 has 8 bits, and errors of six layers add up; wrong masks are off by much more."""
DROPPING = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25))
QUESTION = "what is shown first ?"
STREAMS = 4
_FLASH = "_scaled_dot_product_flash_attention"  # and ..._for_cpu

_TESTS = Path(__file__).resolve().parents[2] / "tests"
if str(_TESTS) not in sys.path:
    sys.path.insert(0, str(_TESTS))
tiny: Any = importlib.import_module("families")
reference: Any = importlib.import_module("reference")


def cases(setting: Setting) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """Every proof for every family and type."""
    machine = Machine.of(setting)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    types = (torch.float32,) if machine.small else (torch.float32, torch.bfloat16)
    for family in ("qwen2_5_vl",) if machine.small else FAMILIES:
        for dtype in types:
            proofs = Proofs(machine, family, dtype)
            yield f"{family}, {proofs.type}", proofs.all
        flash = Proofs(machine, family, torch.bfloat16)
        yield f"{family}, flash", flash.flash


def difference(got: Tensor, want: Tensor) -> float:
    """The largest, over the largest number that is wanted."""
    got, want = got.double().cpu(), want.double().cpu()
    return float((got - want).abs().max() / want.abs().max())


def alike(left: pv.VideoStream, right: pv.VideoStream) -> bool:
    """Whether two streams remember the same, bit for bit, wherever they are."""
    a, b = left._state, right._state
    pairs = [(getattr(x, name), getattr(y, name)) for x, y in _layers(a, b) for name in ("keys", "values")]
    for x, y in zip(a.cache.tables, b.cache.tables, strict=True):
        pairs += [(getattr(x, name), getattr(y, name)) for name in ("index", "now", "visual")]
        pairs += [(getattr(x, name).nan_to_num(), getattr(y, name).nan_to_num()) for name in ("seconds", "score")]
    return a.place == b.place and a.rows == b.rows and all(torch.equal(x.cpu(), y.cpu()) for x, y in pairs)


def _layers(a: Any, b: Any) -> Iterator[tuple[Any, Any]]:
    return zip(a.cache.layers, b.cache.layers, strict=True)


class Proofs:
    """The proofs for one family in one number type.

    Parameters
    ----------
    machine : Machine
    family : str
        As `tests/families.py` builds it.
    dtype : torch.dtype
    """

    def __init__(self, machine: Machine, family: str, dtype: torch.dtype) -> None:
        self.machine, self.family, self.dtype = machine, family, dtype
        self.type = str(dtype).removeprefix("torch.")
        self.tolerance = TOLERANCE[dtype]
        self.build = cache(partial(tiny.build, family, dtype=dtype))

    @property
    def lm(self) -> pv.VideoLM:
        """The model on the device."""
        return self.build(device=str(self.machine.device))

    def row(self, proof: str, passed: bool, error: float | None = None, **more: Any) -> Row:
        """One line of the report."""
        said = {"family": self.family, "dtype": self.type, "proof": proof, "passed": passed}
        return {**said, "error": error, "tolerance": None if error is None else self.tolerance, "note": "", **more}

    def all(self) -> list[Row]:
        """Proofs 1, 2, 3, 5 and 6, and streams in threads."""
        rows = [self.nothing_dropped(sizes) for sizes in ([9], [3, 1, 4, 1])]
        rows.append(self.masked("2: drops equal masks", None, "pyramid"))
        rows += [self.masked(f"3: evictions by {name} equal masks", 2.6, name) for name in EVICTORS]
        rows += [self.ask_leaves_no_trace(), *self.resumed(), self.in_threads()]
        if self.dtype == torch.float32:  # others may rank near ties otherwise among other rows
            rows.append(self.packed())
        return rows

    # -- against transformers -----------------------------------------------------------------------------------------

    def prompt(self, frames: Tensor, seconds: list[float]) -> tuple[dict[str, Any], int, int]:
        """Inputs of one forward of the unmodified model, on the device, and tokens of prefix and video."""
        frames = frames.to(self.machine.device)  # resized there, as a stream resizes them: kernels round otherwise
        inputs, prefix, pushed = reference.full_prompt(self.lm, frames, seconds, QUESTION)
        return {name: value.to(self.machine.device) for name, value in inputs.items()}, prefix, pushed

    def forward(self, inputs: dict[str, Any], allowed: Tensor | None) -> Tensor:
        """The last row's logits, under masks [layers, rows, rows]."""
        allowed = None if allowed is None else allowed.to(self.machine.device)
        logits: Tensor = reference.masked_forward(self.lm, inputs, allowed)
        return logits[-1]

    def nothing_dropped(self, sizes: list[int], lm: pv.VideoLM | None = None) -> Row:
        """Proof 1: frames pushed by so many, with irregular times and an odd last one."""
        frames, seconds = tiny.video(9), [0.0, 0.5, 1.0, 1.5, 2.2, 3.0, 7.5, 7.6, 9.0]
        want = self.forward(self.prompt(frames, seconds)[0], None)
        stream = (lm or self.lm).stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
        _push(stream, frames, seconds, sizes)
        off = difference(stream.next_logits(QUESTION), want)
        return self.row(f"1: nothing dropped, pushes of {'+'.join(map(str, sizes))}", off <= self.tolerance, off)

    def masked(self, proof: str, room: float | None, evictor: str) -> Row:
        """Proofs 2 and 3, with room for so many steps."""
        lm = self.lm
        step, tokens = lm.adapter.frames_per_step, tiny.budget(lm, room)
        frames, seconds = tiny.video(6 * step), [0.5 * i for i in range(6 * step)]
        inputs, prefix, pushed = self.prompt(frames, seconds)
        stream = lm.stream(DROPPING, pv.Memory(tokens=tokens, evictor=evictor))
        held = _held_by_piece(stream)
        _push(stream, frames, seconds, [2 * step] * 3)
        bounded = tokens is None or max(len(index) for snapshot in held for index in snapshot) <= tokens
        allowed = reference.stream_masks(held, prefix, inputs["input_ids"].shape[1], held[-1])
        got = stream.next_logits(QUESTION)
        off, control = (difference(got, self.forward(inputs, masks)) for masks in (allowed, allowed.roll(1, 0)))
        told_apart = control > self.tolerance * (10 if self.dtype == torch.float32 else 1)
        whole = int(held[-1][0].max()) + 1 == prefix + pushed
        note = f"control {control:.2g}" + ("" if bounded else ", over the budget")
        return self.row(proof, off <= self.tolerance and told_apart and bounded and whole, off, note=note)

    # -- bit for bit --------------------------------------------------------------------------------------------------

    def opened(self, lm: pv.VideoLM) -> pv.VideoStream:
        """A stream that drops and forgets."""
        return lm.stream(DROPPING, pv.Memory(tokens=tiny.budget(self.lm, 2.6)))

    def ask_leaves_no_trace(self) -> Row:
        """Proof 5, with an answer left open while frames are pushed."""
        quiet, asked = self.opened(self.lm), self.opened(self.lm)
        answers = []
        for number in range(4):
            _watch(quiet, number)
            _watch(asked, number)
            answers.append([asked.ask(QUESTION, 4).token_ids for _ in range(2)])
            next(asked.ask("how many ?", 50, stream=True))
        same = alike(quiet, asked) and torch.equal(quiet.next_logits(QUESTION), asked.next_logits(QUESTION))
        return self.row("5: asking leaves no trace", same and all(first == second for first, second in answers))

    def resumed(self) -> list[Row]:
        """Proof 6, on the device and on the CPU."""
        kept = self.opened(self.lm)
        _watch(kept, 0)
        _watch(kept, 1)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "stream"
            kept.save(file)
            here, there = self.lm.resume(file), self.build(device="cpu").resume(file)
        moved, off = alike(kept, there), difference(there.next_logits(QUESTION), kept.next_logits(QUESTION))
        for stream in (kept, here):
            _watch(stream, 2)
        same = alike(kept, here) and torch.equal(kept.next_logits(QUESTION), here.next_logits(QUESTION))
        _watch(there, 2)
        going_on = there.status.frames == kept.status.frames and there.cache_tokens == kept.cache_tokens
        return [
            self.row("6: resumed on the device", same),
            self.row("6: saved on the device, resumed on the CPU", moved and going_on and off <= self.tolerance, off),
        ]

    def in_threads(self) -> Row:
        """Streams in threads, each as it would be alone."""
        alone, together = ([self.opened(self.lm) for _ in range(STREAMS)] for _ in range(2))
        answers: dict[tuple[str, int], list[tuple[int, ...]]] = {}

        def live(name: str, number: int, stream: pv.VideoStream) -> None:
            answers[name, number] = []
            for turn in range(3):
                _watch(stream, turn, seed=number)
                answers[name, number].append(stream.ask(QUESTION, 4).token_ids)

        for number, stream in enumerate(alone):
            live("alone", number, stream)
        at_once([partial(live, "together", number, stream) for number, stream in enumerate(together)])
        same = all(alike(left, right) for left, right in zip(alone, together, strict=True))
        said = all(answers["alone", number] == answers["together", number] for number in range(STREAMS))
        return self.row(f"{STREAMS} streams in threads, in turns", same and said)

    def packed(self) -> Row:
        """The same in one forward."""
        lm = self.lm
        engine = pv.VideoLM(lm.model, lm.adapter, lm.prompt, lm.name, batch=STREAMS)
        alone, together = ([self.opened(each) for _ in range(STREAMS)] for each in (lm, engine))
        met: list[int] = []
        shared: Any = engine.engine
        compute = shared._compute

        def computing(leader: Any) -> None:
            met.append(len(leader.leads))
            compute(leader)

        shared._compute = computing

        for turn in range(3):
            for number, stream in enumerate(alone):
                _watch(stream, turn, seed=number)
            at_once([partial(_watch, each, turn, seed=number) for number, each in enumerate(together)], shared)
        logits = [(b.next_logits(QUESTION), a.next_logits(QUESTION)) for a, b in zip(alone, together, strict=True)]
        off, most = max(difference(got, want) for got, want in logits), max(met, default=1)
        note = f"{sum(met)} calls of modules became {len(met)}, {most} streams in one at most"
        return self.row(f"{STREAMS} streams in one forward", off <= self.tolerance and most > 1, off, note=note)

    # -- flash --------------------------------------------------------------------------------------------------------

    def flash(self) -> list[Row]:
        """Proof 1 where sdpa's flash kernels go first, and with flash-attn where it is installed."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        order = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        rows: list[Row] = []
        with sdpa_kernel(order, set_priority=True):
            seen = operators(lambda: rows.append(self.nothing_dropped([4, 5])))
        calls = sum(times for name, times in seen.items() if name.startswith(_FLASH))
        row = rows.pop()
        rows.append(
            {**row, "proof": f"{row['proof']}, sdpa's flash first", "note": f"{calls} calls of flash attention"}
        )
        if not self.machine.facts["flash-attn"]:
            return rows
        lm = tiny.build(self.family, "flash_attention_2", dtype=self.dtype, device=str(self.machine.device))
        row = self.nothing_dropped([4, 5], lm)
        return [*rows, {**row, "proof": f"{row['proof']}, flash-attn"}]


def _push(stream: pv.VideoStream, frames: Tensor, seconds: list[float], sizes: list[int]) -> None:
    start = 0
    for size in sizes:
        stream.push(frames[start : start + size], seconds[start : start + size])
        start += size


def _watch(stream: pv.VideoStream, number: int, seed: int = 0) -> None:
    stream.push(tiny.video(4, seed=100 * seed + number), [4.0 * number + i for i in range(4)])


def _held_by_piece(stream: pv.VideoStream) -> list[list[Tensor]]:
    """A list that grows with every piece that enters this stream: the numbers of the tokens that each layer holds."""
    pieces: list[list[Tensor]] = []
    cache_: Any = stream._state.cache
    record = cache_.record

    def recording(new: Any) -> None:
        record(new)
        pieces.append([table.index.cpu() for table in cache_.tables])

    cache_.record = recording
    return pieces
