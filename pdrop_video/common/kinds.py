"""What decoder layers do with the rows that came before: attend to all, to the newest, or carry a state.

Knows what transformers' configurations call them. Refuses to know modules and tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError

_NAMES = {
    "full_attention": "full",
    "sliding_attention": "sliding",
    "linear_attention": "state",
    "conv": "state",
    "mamba": "state",
    "moe": "alone",
    "mlp": "alone",
}
_TOGETHER = ("molmo2_text",)
"""Decoders in all of whose layers the visual tokens of one step see each other, which no config says."""
_REFUSED = {
    "chunked_attention": "attend within chunks of positions, and a chunk's border is nowhere once tokens are dropped",
    "indexed_attention": "choose columns by an indexer with keys of its own, which knows nothing of what was dropped",
}


@dataclass(frozen=True, slots=True)
class LayerKind:
    """One decoder layer.

    Attributes
    ----------
    name : str
        "full": attends to every column. "sliding": to those of the last `window` positions. "state": carries a state of
        fixed size (linear attention, Mamba, a convolution). "alone": every row by itself.
    window : int or None
        Of a sliding layer, in positions, its own included.
    source : int or None
        The layer whose keys and values it attends to in place of its own.
    mutual : bool
        Whether the visual tokens of one step see each other, those behind them as well, with the marks around them.
    """

    name: str = "full"
    window: int | None = None
    source: int | None = None
    mutual: bool = False

    @property
    def ranks(self) -> bool:
        """Whether rows can be ranked by it: it asks every column that there is."""
        return self.name == "full"

    @property
    def holds(self) -> bool:
        """Whether it holds columns."""
        return self.name in ("full", "sliding")


def kinds_of(text: Any) -> tuple[LayerKind, ...]:
    """The layers of a decoder, by its configuration.

    Raises
    ------
    ModelError
        If some are of a kind that is not supported.
    """
    count, window = text.num_hidden_layers, getattr(text, "sliding_window", None)
    names = list(getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or [])
    together = text.model_type in _TOGETHER
    if not names:
        if window:
            raise ModelError(
                f"models of type {text.model_type!r} with sliding_window={window} have no layer that attends to more "
                f"than the last {window} positions, so that none can rank what was seen; only decoders with some full "
                "attention are supported."
            )
        return (LayerKind(mutual=together),) * count
    if len(names) < count:
        raise ModelError(f"the config of {text.model_type!r} tells the kinds of {len(names)} of its {count} layers.")
    for name in names[:count]:
        if name not in _NAMES:
            reason = _REFUSED.get(name, "are unknown here")
            raise ModelError(f"models of type {text.model_type!r} have {name} layers, which {reason}: not supported.")
    shared = count - (getattr(text, "num_kv_shared_layers", None) or 0)
    lenders = {name: i for i, name in enumerate(names[:shared])}  # the last of each kind that has its own
    kinds, mutual = [], getattr(text, "use_bidirectional_attention", None) == "vision"
    for i, name in enumerate(names[:count]):
        kind = _NAMES[name]
        source = lenders.get(name) if i >= shared else None
        slides = kind == "sliding"
        kinds.append(LayerKind(kind, window if slides else None, source, together or (slides and mutual)))
    return tuple(kinds)


def rank_at(kinds: Sequence[LayerKind]) -> tuple[int, ...]:
    """Numbers of the layers before which rows can be ranked."""
    return tuple(i for i, kind in enumerate(kinds) if kind.ranks)
