"""Lines as a frozen model sees them, and the loss of the answer where some visual tokens are hidden or left out.

Knows a loaded model, its layers and gradients. Refuses to know what is trained.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.kinds import LayerKind
from ..errors import ConfigError
from ..models import Place, VisualChunk
from ..pyramid import LayerLoop, Pyramid
from ..pyramid.decoder import logits_of
from ..reduce import Reducer, Tokens
from ..reduce.base import asks_for
from ..stream.lm import VideoLM
from ..stream.records import bound_of
from ..video import FrameChunk, open_video
from .lines import Line

_ROOM = 2**30
"""Bytes of frames and visual tokens that are kept at hand."""
_CHUNK = 16


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A line, with what the vision tower sees of its video.

    Attributes
    ----------
    line : Line
    frames : FrameChunk
    chunk : VisualChunk
        All visual tokens, without gradients.
    words : Tensor [words, hidden]
        The question as it enters the language model.
    question, answer : tuple of int
        Ids of the prompt behind the video, and of the answer, its end token included where the model has one.
    """

    line: Line
    frames: FrameChunk
    chunk: VisualChunk
    words: Tensor
    question: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def features(self) -> Tensor:
        """The visual tokens [tokens, hidden]."""
        return self.chunk.embeds[self.chunk.visual_rows()]

    def tokens(self, parts: dict[str, Any] | None = None) -> Tokens:
        """What a reducer is given of them, as the first chunk of a stream."""
        rows = self.chunk.visual_rows()
        place, width = self.chunk.place()[rows], self.chunk.size[1]
        return Tokens(
            features=self.chunk.embeds[rows],
            step=self.chunk.step()[rows],
            row=place // width,
            column=place % width,
            seconds=self.chunk.seconds,
            grid=self.chunk.size,
            tower={name: known[rows] for name, known in self.chunk.tower.items()},
            question=self.words,
            asked=self.line.question,
            parts=parts or {},
        )


class Examples:
    """Lines of a file, decoded and seen when they are asked for, and kept while there is room.

    Parameters
    ----------
    lm : VideoLM
    frames : int
        Most frames of a video: at the family's own rate, or so many evenly spaced where that would be more.
    knowing : tuple of str
        What chunks say of the vision tower, as far as the family knows it.
    """

    def __init__(self, lm: VideoLM, frames: int, knowing: Sequence[str] = ()) -> None:
        self.lm, self.most = lm, frames
        self.knowing = tuple(sorted(set(knowing) & set(lm.adapter.knows)))
        self._seen: OrderedDict[str, tuple[FrameChunk, VisualChunk]] = OrderedDict()
        self._held = 0
        self._end = _end_of(lm)

    def of(self, line: Line) -> Example:
        """A line's example."""
        frames, chunk = self._look(line.video)
        with torch.no_grad():
            words = self.lm.adapter.embed(self.lm.adapter.ids(line.question))
        answer = (*self.lm.prompt.words(line.answer), *self._end)
        return Example(line, frames, chunk, words, tuple(self.lm.prompt.after(line.question)), answer)

    def _look(self, video: str) -> tuple[FrameChunk, VisualChunk]:
        if video in self._seen:
            self._seen.move_to_end(video)
            return self._seen[video]
        frames = self.frames(video)
        with torch.no_grad():
            chunk = self.lm.adapter.look(frames.frames, frames.seconds, 0, None, self.knowing)
        self._seen[video] = frames, chunk
        self._held += _bytes(frames, chunk)
        while self._held > _ROOM and len(self._seen) > 1:
            self._held -= _bytes(*self._seen.popitem(last=False)[1])
        return frames, chunk

    def frames(self, video: str) -> FrameChunk:
        """The frames that a video is seen in, whole steps of them."""
        step = self.lm.adapter.frames_per_step
        with open_video(video, fps=self.lm.adapter.fps, chunk=_CHUNK) as opened:
            chunks = list(opened)
        whole = FrameChunk.cat(chunks)
        steps = max(len(whole) // step, 1)
        if len(whole) < step:
            raise ConfigError(f"{video} has {len(whole)} frames; expected {step} or more, which make a step.")
        most = max(self.most // step, 1)
        chosen = range(steps) if steps <= most else [i * steps // most for i in range(most)]
        numbers = [n * step + i for n in chosen for i in range(step)]
        return FrameChunk(whole.frames[numbers], tuple(whole.seconds[number] for number in numbers))


def _bytes(frames: FrameChunk, chunk: VisualChunk) -> int:
    return int(frames.frames.nbytes) + chunk.embeds.nbytes * (1 + len(chunk.deepstack))


def _end_of(lm: VideoLM) -> tuple[int, ...]:
    """The token that ends an answer, if the model has one."""
    of_model = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    listed = list(of_model) if isinstance(of_model, list | tuple) else [of_model]
    found = [each for each in (lm.tokenizer.eos_token_id, *listed) if each is not None]
    return tuple(found[:1])


def answer_losses(
    lm: VideoLM, examples: Sequence[Example], chunk: VisualChunk | None = None, keep: Tensor | None = None
) -> list[Tensor]:
    """Cross entropy of each token of the right answers [answer] each, in nats; see `answer_logits`."""
    logits = answer_logits(lm, examples, chunk, keep)
    wanted = [torch.tensor(each.answer, device=of.device) for each, of in zip(examples, logits, strict=True)]
    return [F.cross_entropy(of, each, reduction="none") for of, each in zip(logits, wanted, strict=True)]


def answer_logits(
    lm: VideoLM, examples: Sequence[Example], chunk: VisualChunk | None = None, keep: Tensor | None = None
) -> list[Tensor]:
    """Logits [answer, vocabulary] of each token of the right answers, in float32 or wider.

    The prompt and the visual tokens run once through all layers, with every question and its answer behind them: each
    stands where it would stand alone, and sees none of the others. Gradients reach `chunk` and `keep`.

    Parameters
    ----------
    lm : VideoLM
    examples : sequence of Example
        About one video; one alone where layers carry states, which no mask reaches (others run one after another).
    chunk : VisualChunk, optional
        In place of the examples' own: tokens that were chosen or merged.
    keep : Tensor [visual tokens], optional
        1 for what is seen, 0 for what no other row attends to, in any layer: as if it were not there. Gradients reach
        both, by the softmax: that of a hidden token says what seeing it would change. Where layers carry states, hidden
        tokens leave and the others are scaled by it, so that they alone have gradients.
    """
    chunk = examples[0].chunk if chunk is None else chunk
    loop = LayerLoop(lm.model.get_decoder(), Pyramid(stages=1))
    if not all(kind.holds for kind in loop.kinds):
        if len(examples) > 1:
            return [logits for each in examples for logits in answer_logits(lm, [each], chunk, keep)]
        if keep is not None:
            rows, scale = chunk.visual_rows(), keep.new_ones(len(chunk)).index_copy(0, chunk.visual_rows(), keep)
            chunk = replace(chunk, embeds=chunk.embeds * scale.to(chunk.embeds)[:, None])
            chunk, keep = chunk.keep((scale[rows] > 0.5).nonzero()[:, 0]), None
    adapter = lm.adapter
    front, closing = adapter.rows(lm.prompt.before()), adapter.closing()
    said = [adapter.rows([*each.question, *each.answer]) for each in examples]
    entering = chunk.embeds if chunk.ids is None else adapter.beside(chunk.embeds, chunk.ids)
    hidden = torch.cat([each.to(entering) for each in (front, entering, closing, *said)])
    first, place = adapter.positions.text(len(front), Place())
    middle, place = adapter.place(chunk, place)
    last, place = adapter.positions.text(len(closing), place)
    asked = [adapter.positions.text(len(each), place)[0] for each in said]
    positions = torch.cat([first, middle, last, *asked], dim=-1).to(hidden.device)
    behind = len(closing) + sum(map(len, said))
    group = bound_of(adapter, chunk, 0)
    group = torch.where(chunk.visual, chunk.step(), -1) if group is None else group[0]
    weight = torch.ones(len(hidden), dtype=torch.float32, device=hidden.device)
    if keep is not None:
        wide = keep.to(torch.promote_types(keep.dtype, torch.float32))
        weight = weight.to(wide).index_copy(0, len(front) + chunk.visual_rows(), wide)
    if keep is not None or len(examples) > 1:
        shared = torch.zeros(len(hidden) - sum(map(len, said)), dtype=torch.long)
        branch = torch.cat([shared, *(torch.full((len(each),), n) for n, each in enumerate(said, 1))])
        loop.inner = _Hiding(weight, branch.to(hidden.device), lm.model.config)  # type: ignore[assignment]
    left = loop.run(
        hidden[None],
        positions,
        None,
        deepstack=[F.pad(f, (0, 0, len(front), behind))[None] for f in chunk.deepstack] or None,
        group=F.pad(group, (len(front), behind), value=-1)[None],
    )
    ends = (len(hidden) - sum(map(len, said)) + torch.tensor([0, *map(len, said)]).cumsum(0))[1:].tolist()
    at = [slice(end - len(each.answer) - 1, end - 1) for end, each in zip(ends, examples, strict=True)]
    wanted = loop.decoder.norm(torch.cat([left.hidden[0, each] for each in at]))
    logits = logits_of(lm.model, wanted)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return list(logits.split([len(each.answer) for each in examples]))


def reduced_by(lm: VideoLM, example: Example, reducer: Reducer, parts: dict[str, Any]) -> VisualChunk:
    """What a reducer leaves of an example, as a stream that knows the question would have it in one chunk."""
    reduced, _ = reducer(example.tokens(parts), {})
    return example.chunk.keep(reduced.kept, reduced.weights)


def knowing_of(reducers: Sequence[Reducer], lm: VideoLM) -> tuple[str, ...]:
    """What some reducers ask of the vision tower."""
    return tuple({name for each in reducers for name in asks_for(each, lm.adapter.knows)})


class _Hiding:
    """Columns that rows see as far as their weight says, and questions none of each other's; stands where `Inner` does.

    The weight w of a column multiplies its share of each softmax: log(w + eps) is added to its scores. The derivative
    by w is then exp(score) / sum, also where w is 0, and what a hidden column still weighs is eps.
    """

    def __init__(self, weight: Tensor, branch: Tensor, config: Any) -> None:
        kind = config.get_text_config()._attn_implementation
        if kind not in ("eager", "sdpa"):
            raise ConfigError(
                f"hiding tokens needs attention with masks, not {kind!r}; load the model with attn='sdpa'."
            )
        self.weight = weight
        self._last: tuple[Any, Tensor] | None = None
        self.apart = (branch[:, None] != branch) & (branch > 0)  # columns of a question that is not the row's own

    def begin(self, loop: Any, pictured: bool, passage: Any) -> _Hiding:
        """Itself, as nothing is counted."""
        return self

    def enter(
        self, i: int, layer: Any, kind: LayerKind, rows: Any, rope: Any, mask: Any, cache: Any, lent: Any
    ) -> Tensor:
        """The mask of layer `i` with the columns' weights in it [1, 1, rows, rows]."""
        if self._last is not None and self._last[0] is mask and mask is not None:
            return self._last[1]
        dtype, device, length = rows.hidden.dtype, rows.hidden.device, rows.hidden.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool, device=device).tril() if mask is None else mask
        if seen.dtype == torch.bool:
            seen = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)
        seen = seen.reshape(length, length).masked_fill(self.apart.to(device), torch.finfo(dtype).min)
        eps = 1e-3 if dtype == torch.float16 else 1e-6
        bias = (self.weight.to(device) + eps).log()
        least = torch.finfo(dtype).min / 2  # what no row may see stays so whatever is added
        hidden = torch.where(seen <= least, seen, seen + bias.to(dtype))[None, None]
        self._last = mask, hidden
        return hidden
