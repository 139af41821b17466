"""What a stream costs: chunk after chunk over what it remembers, the question and its answer.

Knows numbers of tokens, never the tokens: which of them stay changes nothing, how many does. What a piece of a stream
runs is counted to the last product; only what evictors and an archive multiply (`hermes`, `stream_mem`, recalled steps)
is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..pyramid import LayerLoop, Schedule
from ..pyramid.scorers import Scorer, scorer_named
from .decoder import DecoderShape, decode_flops, entry_flops, layer_flops, logits_flops, ranking_flops
from .looking import Looked, scored_flops


@dataclass(frozen=True, slots=True)
class StreamShape:
    """What the cost of a stream depends on, besides its numbers of tokens.

    Attributes
    ----------
    decoder : DecoderShape
    schedule : Schedule
        Resolved for this depth.
    scorer : str or Scorer
        What ranks.
    ranks_at : tuple of int, optional
        Layers before which tokens are ranked: those of the schedule by default. An evictor that goes by scores has them
        ranked also where nothing is dropped (`LayerLoop.ranks_at`).
    probe : int
        Rows behind each piece that rank it, and whose keys and values are thrown away.
    asks : bool
        Whether the probe runs through all layers, because an evictor looks at its queries; else it leaves at the last
        boundary.
    limits : tuple of int, optional
        Most columns of each layer; None for no limit.
    causal : bool
        See `layer_flops`.
    closing : int
        The first rows of the probe, which close the video and ask nothing.
    reading : tuple of int
        FLOPs by which each layer makes a key and a value of one column that it holds, where a storage computes them
        (`reading_flops`); all columns are counted, though the newest are there already. Nothing where left out.
    """

    decoder: DecoderShape
    schedule: Schedule
    scorer: str | Scorer = "contrast"
    ranks_at: tuple[int, ...] | None = None
    probe: int = 0
    asks: bool = False
    limits: tuple[int, ...] | None = None
    causal: bool = True
    closing: int = 0
    reading: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        decoder: DecoderShape,
        loop: LayerLoop,
        probe: int = 0,
        *,
        asks: bool = False,
        limits: tuple[int, ...] | None = None,
        causal: bool = True,
        closing: int = 0,
        reading: tuple[int, ...] = (),
    ) -> StreamShape:
        """Of a stream's own layer loop; see above."""
        return cls(decoder, loop.schedule, loop.scorer, loop.ranks_at, probe, asks, limits, causal, closing, reading)

    def read_flops(self, held: Sequence[int], times: int = 1) -> int:
        """FLOPs of reading all that each layer holds, so many times."""
        return times * sum(self._reads(layer, columns) for layer, columns in enumerate(held))

    def _reads(self, layer: int, columns: int) -> int:
        """Of reading so many columns of one layer once."""
        return columns * self.reading[layer] if self.reading else 0

    def kept(self, visual: int, glue: int = 0) -> list[int]:
        """Columns that each layer holds more after a piece, before a window closes; none of a layer with a state."""
        return self._columns(self._staying(visual, glue))

    def held(self, past: Sequence[int], visual: int, glue: int = 0) -> list[int]:
        """Columns that each layer has left of `past` when it has made room for a piece with its probe."""
        return self.room(past, self._columns(self._incoming(visual, glue)))

    def room(self, past: Sequence[int], incoming: Sequence[int]) -> list[int]:
        """Columns that each layer has left of `past` when it has made room for so many more."""
        limits = self.limits or [most + new for most, new in zip(past, incoming, strict=True)]
        return [min(n, most - new) for n, most, new in zip(past, limits, incoming, strict=True)]

    def after(self, left: Sequence[int], visual: int, glue: int = 0) -> list[int]:
        """Columns that each layer holds after a piece, of which it had so many left in front of it; see `held`."""
        return self._slid([a + b for a, b in zip(left, self.kept(visual, glue), strict=True)])

    def with_text(self, left: Sequence[int], rows: int) -> list[int]:
        """The same after so many rows of text that stay."""
        return self._slid([a + b for a, b in zip(left, self._columns([rows] * len(left)), strict=True)])

    def piece_flops(self, past: Sequence[int], visual: int, glue: int = 0) -> int:
        """FLOPs of one run through the layers: visual tokens, the text between them, the probe, and their ranking.

        Parameters
        ----------
        past : sequence of int
            Columns that each layer holds, room made already; see `held`.
        visual, glue : int
            Tokens of each kind.
        """
        decoder, scorer, seen = self.decoder, scorer_named(self.scorer), self._seen(past)
        staying, incoming = self._staying(visual, glue), self._incoming(visual, glue)
        total = entry_flops(decoder, visual + glue + self.probe) + self.read_flops(past)
        for i, (stay, all_rows, held) in enumerate(zip(staying, incoming, seen, strict=True)):
            # a state can't forget a row: the probe passes it behind the others, by itself
            runs = [(all_rows, held)]
            if decoder.kind(i).name == "state":
                runs = [(stay, held), (all_rows - stay, held + stay)]
            total += sum(layer_flops(decoder, i, rows, before, self.causal) for rows, before in runs if rows)
        per_layer = self.schedule.per_layer(visual)
        probes = self.probe - self.closing if getattr(scorer, "asks", "last") == "all" else 1
        for layer in self._boundaries()[: 1 if scorer.once else None]:
            rows = per_layer[max(layer - 1, 0)] + glue + self.probe
            total += ranking_flops(decoder, layer, rows, past[layer], probes, scorer, per_layer[layer])
            total += self._reads(layer, past[layer])
        if self.asks:
            total += sum(2 * self.probe * decoder.attention(i).asking for i in decoder.rank_at)
        return total

    def text_flops(self, past: Sequence[int], rows: int) -> int:
        """FLOPs of rows of text over what each layer holds: the prompt, what was told, a turn that is kept."""
        if not rows:
            return 0
        each = enumerate(self._seen(past))
        total = entry_flops(self.decoder, rows) + self.read_flops(past)
        return total + sum(layer_flops(self.decoder, i, rows, held, self.causal) for i, held in each)

    def asking_flops(
        self,
        past: Sequence[int],
        rows: int,
        tokens: int = 1,
        ranked: Mapping[int, int] | None = None,
        scorer: str | Scorer = "relevance",
        hiding: Mapping[int, int] | None = None,
        asks: int = 0,
        looked: Looked | None = None,
    ) -> int:
        """FLOPs of a question's prefill and of an answer decoded greedily.

        Parameters
        ----------
        past : sequence of int
            Columns that the question attends to in each layer.
        rows : int
            Its own tokens, the template's and what closes the video included.
        tokens : int
            Of the answer, its end token included if it came to that. The first needs the question's prefill alone.
        ranked : mapping of int to int, optional
            Layers in which the question's last row ranks what is remembered, and how many columns they held then: the
            first of each stage that can, which tells what an answer rests on and, asked with a pyramid, what is left
            out. By default of the stream's own stages.
        scorer : str or Scorer
            What ranks where a question's pyramid hides something.
        hiding : mapping of int to int, optional
            Layers in which it does so, where it is not the last row's attention, and how many columns they held; those
            that follow another one are left out. None by default.
        asks : int
            How many of the rows ask then.
        looked : Looked, optional
            What the answer's tokens saw and scored, where they look again; see `answer_flops`.
        """
        ranked = {layer: past[layer] for layer in self.first_of(self.schedule)} if ranked is None else ranked
        total = self.text_flops(past, rows) + logits_flops(self.decoder)
        total += sum(ranking_flops(self.decoder, layer, rows, held) for layer, held in ranked.items())
        more = list((hiding or {}).items())[: 1 if scorer_named(scorer).once else None]
        total += sum(ranking_flops(self.decoder, i, rows, held, asks, scorer, remembered=True) for i, held in more)
        total += sum(self._reads(layer, held) for layer, held in ranked.items())
        return total + self.answer_flops(past, rows, max(tokens - 1, 0), looked)

    def answer_flops(self, past: Sequence[int], rows: int, tokens: int, looked: Looked | None = None) -> int:
        """FLOPs of so many tokens of an answer that go through the layers one by one, behind a question of `rows`.

        Each token sees the question and the answer so far, and of the memory all of `past`; or what is `looked` at,
        whose sums over tokens stand in place of ``tokens * past`` in the layers of which it tells. One more column
        costs a token ``2 * heads * (key + value)``, and what the storage computes to read it. What was scored comes on
        top: `scored_flops`, and the reading of the columns that were.
        """
        total = self.read_flops(past, tokens)
        total += decode_flops(self.decoder, tuple(n + rows for n in past), tokens, self.causal)
        if looked is None:
            return total
        for layer, columns in looked.columns.items():
            more = columns - tokens * past[layer]
            each = layer_flops(self.decoder, layer, 1, 1) - layer_flops(self.decoder, layer, 1, 0)
            total += more * each + self._reads(layer, more)
        total += sum(self._reads(layer, of.read) for layer, of in looked.scored.items())
        return total + scored_flops(self.decoder, looked)

    def first_of(self, schedule: Schedule) -> tuple[int, ...]:
        """The first layer of each stage that can rank, of stages that have one."""
        can = self.decoder.rank_at
        firsts = (next((i for i in span if i in can), None) for span in schedule.spans)
        return tuple(i for i in firsts if i is not None)

    def _boundaries(self) -> tuple[int, ...]:
        return self.schedule.layers if self.ranks_at is None else self.ranks_at

    def _staying(self, visual: int, glue: int) -> list[int]:
        """Rows of each layer that leave something in it."""
        return [n + glue for n in self.schedule.per_layer(visual)]

    def _incoming(self, visual: int, glue: int) -> list[int]:
        """Rows that each layer runs."""
        last = self.schedule.num_layers if self.asks else max(self._boundaries(), default=0)
        return [n + (self.probe if i < last else 0) for i, n in enumerate(self._staying(visual, glue))]

    def _columns(self, rows: Sequence[int]) -> list[int]:
        """What each layer holds of so many rows."""
        return [n if self.decoder.kind(i).holds else 0 for i, n in enumerate(rows)]

    def _slid(self, held: Sequence[int]) -> list[int]:
        """What is left of it when windows have closed."""
        windows = (self.decoder.kind(i).window for i in range(len(held)))
        return [n if window is None else min(n, window) for n, window in zip(held, windows, strict=True)]

    def _seen(self, past: Sequence[int]) -> list[int]:
        """The same as `past`, but of layers with a state rows that others hold: whether there were any."""
        return [n if self.decoder.kind(i).holds else max(past) for i, n in enumerate(past)]


@dataclass(frozen=True, slots=True)
class Watched:
    """What watching came to.

    Attributes
    ----------
    flops : int
        Of the decoder.
    held : tuple of int
        Columns that each layer holds in the end.
    """

    flops: int
    held: tuple[int, ...]


def stream_flops(
    shape: StreamShape, pieces: Iterable[tuple[int, int]], *, prefix: int = 0, held: Sequence[int] | None = None
) -> Watched:
    """FLOPs of a stream's pushes, piece after piece, within its budget; ask over what is held with `asking_flops`.

    Parameters
    ----------
    shape : StreamShape
    pieces : iterable of (int, int)
        Visual tokens and glue of each, as they run: one a push, unless the budget cuts a push up. They may differ, as
        they do behind a gate or a reducer.
    prefix : int
        Tokens of the prompt in front of the video.
    held : sequence of int, optional
        Columns that each layer holds at the beginning; nothing by default.

    Raises
    ------
    ModelError
        If the decoder's layers are not counted; see `layer_flops`.

    Examples
    --------
    >>> from pdrop_video import Pyramid
    >>> decoder = DecoderShape(layers=4, hidden=64, heads=4, kv_heads=2, head_dim=16, mlp=160, vocabulary=96)
    >>> shape = StreamShape(decoder, Pyramid(ratios=(0.5,)).resolve(4), limits=(100,) * 4)
    >>> stream_flops(shape, [(64, 0), (64, 0)])
    Watched(flops=37404672, held=(100, 100, 64, 64))
    """
    now = list(held or [0] * shape.schedule.num_layers)
    total = shape.text_flops(now, prefix)
    now = shape.with_text(now, prefix)
    for visual, glue in pieces:
        now = shape.held(now, visual, glue)
        total += shape.piece_flops(now, visual, glue)
        now = shape.after(now, visual, glue)
    return Watched(total, tuple(now))
