"""What the tokens of a chunk or of some text are, for the tables of each layer. Knows no model and no keys."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..memory import Shift, TokenTable
from ..memory.table import time_dtype
from ..models import Adapter, VisualChunk
from ..pyramid import Layout, Rows, Schedule
from ..pyramid.sound import Sound


def chunk_table(
    piece: VisualChunk, positions: Tensor, *, index: int, step: int, chunk: int, since: float = 0.0
) -> TokenTable:
    """The tokens of a chunk, before any is dropped.

    Parameters
    ----------
    piece : VisualChunk
    positions : Tensor [1, tokens] or [3, 1, tokens]
        In the stream.
    index, step, chunk : int
        Numbers of its first token, its first step, and itself.
    since : float
        From when the table counts seconds.
    """
    count, device = len(piece), piece.embeds.device
    number, (row, column) = piece.step(), _where(piece)
    seconds, until = (
        torch.tensor([s - since for s in times], dtype=time_dtype(device), device=device)[number]
        for times in (piece.seconds, piece.seconds if piece.until is None else piece.until)
    )
    position = positions.reshape(-1, count).T
    heard = piece.visual
    if piece.sound is not None:  # it has the step whose time it shares, a second of its own, and no place in a picture
        at = piece.sound.mask.long().argsort(descending=True, stable=True)[: len(piece.sound)]  # no device waits
        times = torch.tensor([s - since for s in piece.sound.seconds], dtype=seconds.dtype, device=device)
        number = number.index_copy(0, at, torch.tensor(piece.sound.sharing, dtype=number.dtype, device=device))
        seconds, until = (column.index_copy(0, at, times) for column in (seconds, until))
        heard = heard | piece.sound.mask
    return TokenTable(
        index=torch.arange(index, index + count, device=device),
        seconds=seconds,
        until=until,
        chunk=torch.full_like(number, chunk),
        step=number + step,
        row=row,
        column=column,
        score=torch.zeros(count, dtype=torch.float32, device=device),
        visual=heard,
        position=position,
        entered=position,
        now=position,
    )


def _where(piece: VisualChunk) -> tuple[Tensor, Tensor]:
    """Row and column of each token [tokens], as a table has them."""
    place, (height, width) = piece.place(), piece.size
    row, column = (torch.where(piece.visual, each, -1) for each in (place // width, place % width))
    if not piece.standby:
        return row, column
    beside, number = place >= height * width, (place - height * width).clamp(min=0)
    rows = torch.tensor([row for row, _ in piece.standby], device=place.device)
    return torch.where(beside, rows[number.clamp(max=len(rows) - 1)], row), torch.where(beside, -2 - number, column)


def stage_tables(
    whole: TokenTable, rows: Rows, schedule: Schedule, visual_tokens: int, sound_tokens: int, shifts: list[Shift]
) -> list[TokenTable]:
    """What each layer now holds more: the rows of its stage, with the score of the stage's closing boundary."""
    count, stages = len(whole), len(schedule.layers) + 1
    alive, score = torch.arange(count, device=whole.index.device), whole.score
    glue = count - visual_tokens - sound_tokens
    held = [n + glue for n in schedule.counts(visual_tokens, sound_tokens)]
    tables = []
    for stage in range(stages):
        if stage > 0:  # the chunk's rows came before the probe, so they are still the first of what was kept
            alive = rows.boundaries[stage - 1].kept[0, : held[stage]]
        if stage < len(rows.boundaries):  # the stage's own tokens are ranked where it ends
            score = score.scatter(0, alive, rows.boundaries[stage].settled[0, : held[stage]].float())
        tables.append(replace(whole, score=score).take(alive))
    return _per_layer([tables[schedule.stage(layer)] for layer in range(schedule.num_layers)], shifts)


def text_tables(index: Tensor, position: Tensor, chunk: int, step: int, shifts: list[Shift]) -> list[TokenTable]:
    """Rows of text [tokens] at `position` [tokens, axes], the same in every layer that holds columns."""
    table = TokenTable.text(index, position, position, chunk=chunk, step=step)
    return _per_layer([table] * len(shifts), shifts)


def _per_layer(tables: list[TokenTable], shifts: list[Shift]) -> list[TokenTable]:
    """The same tokens where each layer's positions stand; layers that agree share a table."""
    made: dict[tuple[int, Shift], TokenTable] = {}
    for table, shift in zip(tables, shifts, strict=True):
        if (id(table), shift) not in made:
            now = shift.move(table.position, table.pictured)
            made[id(table), shift] = replace(table, entered=now, now=now)
    return [made[id(table), shift] for table, shift in zip(tables, shifts, strict=True)]


def layout_of(table: TokenTable, piece: VisualChunk, first: int, text: int) -> Layout:
    """Where a chunk's tokens and the text behind them stand; steps are counted from the stream's step `first`."""
    frame = torch.where(piece.visual, table.step - first, -1)
    frame, place = (F.pad(of, (0, text), value=-1)[None] for of in (frame, piece.place()))
    salient = None if piece.saliency is None else F.pad(piece.saliency, (0, text))[None]
    return Layout(frame, place, len(piece.steps), piece.places, piece.size[1], first, salient)


def bound_of(adapter: Adapter, piece: VisualChunk, text: int) -> Tensor | None:
    """The step of each token that sees all others of its step, where more than visual ones do; text comes behind."""
    bound = None if piece.ids is None else adapter.bound(piece.ids)
    return None if bound is None else F.pad(torch.where(bound, piece.step(), -1), (0, text), value=-1)[None]


def sound_of(piece: VisualChunk, before: int, text: int) -> Sound | None:
    """The rows of sound of a piece that so many came before, and text comes behind."""
    if piece.sound is None or not len(piece.sound):
        return None
    return Sound(F.pad(piece.sound.mask, (0, text))[None], len(piece.sound), before)
