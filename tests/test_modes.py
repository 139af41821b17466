"""Every mode of torch, every thread, and a failure at any operation: what a stream keeps is the same, bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from families import build, video
from rawkeys import small
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pdrop_video as pv

QUESTION = "what is shown first ?"
MODES = (nullcontext, torch.inference_mode, torch.no_grad, torch.enable_grad)
PYRAMID = pv.Pyramid(stages=3)


def kept(stream: pv.VideoStream) -> Iterator[Tensor]:
    """All tensors that a stream keeps."""
    state = stream._state
    cache = state.cache
    for layer, table in zip(cache.layers, cache.tables, strict=True):
        room = layer.columns.room
        yield from (*room.parts, layer.keys, layer.values, *table.columns())
    yield from (cache.queries or {}).values()
    waiting = None if state.waiting is None else state.waiting.frames
    yield from (each for each in (*state.usual.values(), waiting) if each is not None)
    for block in () if cache.archive is None else cache.archive.blocks:
        yield from (*block.steps.values(), *block.sums.values())
        for piece in block.pieces.values():
            yield from (piece.keys, piece.values, *piece.table.columns())


def remembered(stream: pv.VideoStream) -> tuple[Any, ...]:
    """All that a stream remembers, as one plain value that can be compared."""
    state = stream._state
    cache = state.cache
    tensors = [layer.keys for layer in cache.layers] + [layer.values for layer in cache.layers]
    tensors += [layer.entered for layer in cache.layers if layer.entered is not None]
    tensors += [column for table in cache.tables for column in table.columns()]
    tensors += [*(cache.queries or {}).values(), *state.usual.values()]
    if state.waiting is not None:
        tensors.append(state.waiting.frames)
    blocks = () if cache.archive is None else cache.archive.blocks
    tensors += [piece.keys for block in blocks for piece in block.pieces.values()]
    numbers = tuple(tensor.nan_to_num(-7).tolist() for tensor in tensors)
    lengths = cache.lengths(), [layer.columns.room.used for layer in cache.layers]
    plain = (state.place, state.rows, state.steps, state.frames, state.span, state.told, state.answered, state.chunks)
    return numbers, lengths, plain, tuple(cache.shifts), stream.status


def memory(evictor: str, tokens: int = 70, folder: Path | None = None) -> pv.Memory:
    where = None if folder is None else str(folder)
    return pv.Memory(tokens=tokens, evictor=evictor, archive=10**7, archive_folder=where)


def in_thread(work: Callable[[], Any]) -> Any:
    """What another thread, which has modes of its own, makes of it."""
    made: list[Any] = []
    thread = Thread(target=lambda: made.append(work()))
    thread.start()
    thread.join()
    return made[0]


def history(lm: pv.VideoLM, evictor: str, modes: Iterator[type], path: Path, *, threads: bool) -> list[Any]:
    """Pushes, questions, a kept turn, told text, a fork, a file, each in the mode that comes next."""
    said: list[Any] = []

    def does(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        mode = next(modes)
        if threads and mode is torch.no_grad:
            return in_thread(lambda: work(*arguments, **named))
        with mode():
            return work(*arguments, **named)

    step = lm.adapter.frames_per_step
    stream = does(lm.stream, PYRAMID, memory(evictor, folder=path / "archive"))
    for i in range(8):
        seconds = [5.0 * i + 0.5 * j for j in range(2 * step + 1)]
        frames = does(video, 2 * step + 1, seed=i)
        if i == 2:
            with stream.feed() as feed:
                does(feed.put, frames, seconds)
        else:
            does(stream.push, frames, seconds)
        if i == 3:
            stream = does(stream.fork)
        if i == 5:
            does(stream.save, path / "a.pdrop")
            stream = does(lm.resume, path / "a.pdrop")
        if i % 2:
            answer = does(stream.ask, QUESTION, 3, keep=i == 3, retrieve=2, pyramid=pv.Pyramid(stages=2))
            said.append((answer.token_ids, answer.evidence))
        if i == 6:
            does(stream.add_text, "red")
            said.append(does(stream.likelihood, QUESTION, ["red", "blue seven"]))
        said.append(remembered(stream))
        assert not any(tensor.is_inference() for tensor in kept(stream))
    return said


@pytest.mark.parametrize(
    ("family", "evictor"), [("qwen2_5_vl", "stream_mem"), ("internvl", "pyramid"), ("llava_onevision", "hermes")]
)
def test_any_mix_of_modes_and_threads_is_the_same(family: str, evictor: str, tmp_path: Path) -> None:
    lm, want = build(family), None
    lm.model.config.get_text_config().max_position_embeddings = 100 if family == "qwen2_5_vl" else 220  # soon full
    for pattern in range(4):
        modes = itertools.repeat(nullcontext) if pattern == 0 else itertools.cycle(MODES[pattern % 4 :] + MODES[:2])
        (tmp_path / str(pattern)).mkdir()
        got = history(lm, evictor, modes, tmp_path / str(pattern), threads=pattern == 3)
        want = want or got
        assert got == want


def test_a_model_made_in_inference_mode_and_layers_that_enter_it() -> None:
    """Parameters that are inference tensors, and a decoder whose layers run in a mode of their own."""
    plain = build("qwen2_5_vl")
    with torch.inference_mode():
        odd = build("qwen2_5_vl")
    for layer in odd.model.get_decoder().layers:
        layer.forward = torch.inference_mode()(layer.forward)
    streams = [lm.stream(PYRAMID, memory("stream_mem")) for lm in (plain, odd)]
    for i in range(6):
        for stream in streams:
            stream.push(video(4, seed=i), [4.0 * i + j for j in range(4)])
        assert not any(
            part.is_inference() for layer in streams[1]._state.cache.layers for part in layer.columns.room.parts
        )
    assert remembered(streams[0]) == remembered(streams[1])


class Failing(TorchDispatchMode):
    """Counts operations, and fails at one of them."""

    def __init__(self, at: int = -1, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.at, self.error, self.count = at, error, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if self.count == self.at:
            raise self.error("out of memory")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("family", "evictor", "positions"),
    [
        ("qwen2_5_vl", "stream_mem", "window"),
        ("qwen2_5_vl", "pyramid", "compact"),
        ("internvl", "hermes", "original"),
    ],
)
def test_a_failure_at_any_operation_leaves_no_trace(family: str, evictor: str, positions: str, tmp_path: Path) -> None:
    """Also while a fork reads the same storage, with an archive, once positions were moved, and in any mode."""
    lm = small(family)
    step = lm.adapter.frames_per_step
    how = pv.Memory(tokens=70, evictor=evictor, positions=positions, archive=10**7, archive_folder=str(tmp_path))
    stream, calm = (lm.stream(PYRAMID, how) for _ in range(2))
    errors, modes, forks = itertools.cycle((RuntimeError, KeyboardInterrupt)), itertools.cycle(MODES), list[Any]()

    def push(each: pv.VideoStream, i: int) -> None:
        each.push(video(3 * step + 1, seed=i), [10.0 * i + j for j in range(3 * step + 1)])

    for i in range(8):
        if i >= 6:  # by now every layer forgets, and some positions were moved
            before = remembered(stream)
            if i == 7:
                forks = [(fork, remembered(fork)) for fork in (stream.fork(), calm.fork())]
            with Failing() as all_of_it:
                push(calm, i)
            for part in range(6):
                at, error = 1 + all_of_it.count * (2 * part + 1) // 12, next(errors)
                with pytest.raises(error, match="out of memory"), next(modes)(), Failing(at, error):
                    push(stream, i)
                assert remembered(stream) == before
        else:
            push(calm, i)
        with next(modes)():
            push(stream, i)
        assert remembered(stream) == remembered(calm)
    assert all(remembered(fork) == as_it_was for fork, as_it_was in forks)


def test_ctrl_c_while_going_back_is_of_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer's way back is interrupted once, at its beginning, in its middle, at its end."""
    lm = small("qwen2_5_vl")
    stream, calm = (lm.stream(PYRAMID, memory("uniform")) for _ in range(2))
    for each in (stream, calm):
        for i in range(8):
            each.push(video(4, seed=i), [4.0 * i + j for j in range(4)])
    layers = stream._state.cache.layers
    interrupts = {(i, place): 1 for i in range(len(layers)) for place in range(3)}
    for i, layer in enumerate(layers):
        rollback = layer.rollback

        def interrupted(i: int = i, layer: Any = layer, rollback: Callable[[], None] = rollback) -> None:
            for place in range(3):
                if place == 1 and interrupts[i, place]:
                    undo = layer.columns.undo
                    assert undo
                    undo[-1]()
                if place == 2:
                    rollback()
                if interrupts[i, place]:
                    interrupts[i, place] = 0
                    raise KeyboardInterrupt

        monkeypatch.setattr(layer, "rollback", interrupted)
    before = remembered(stream)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(lm.model.get_decoder().layers[5].mlp, "forward", lambda *a: 1 / 0)
        stream.push(video(6, seed=8), [32.0 + j for j in range(6)])
    assert not any(interrupts.values()) and remembered(stream) == before
    monkeypatch.undo()
    for each in (stream, calm):
        each.push(video(6, seed=8), [32.0 + j for j in range(6)])
    assert remembered(stream) == remembered(calm)
