"""What a method inside layers leaves out, and what choosing it costs, from counts of what a stream really ran.

How much is left out depends on the video: all else in `costs` counts layers whole. Knows sizes and counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..pyramid.inside.spent import Spent
from .decoder import DecoderShape
from .mixers import Attention


@dataclass(frozen=True, slots=True)
class InsideFlops:
    """FLOPs, a multiply-add as two.

    Attributes
    ----------
    ffn : int
        Of FFNs that rows did not get.
    attention : float
        Of products with columns that rows did not attend to. A mask leaves them out of the result and not out of the
        time: they are saved with kernels that go by blocks.
    choosing : int
        That come on top: queries and keys of the rows once more, and queries over mean keys.
    """

    ffn: int
    attention: float
    choosing: int

    @property
    def saved(self) -> float:
        """What is left out, less what choosing it costs."""
        return self.ffn + self.attention - self.choosing


def inside_flops(shape: DecoderShape, spent: Spent) -> InsideFlops:
    """FLOPs of what was counted in a block of ``stream.loop.inner.counting()``.

    Raises
    ------
    ModelError
        If the decoder's layers are not counted.
    """
    ffn, choosing, attention = 0, 0, 0.0
    for layer, of in spent.layers.items():
        mixer = shape.mixer(layer)
        ffn += 2 * (of.rows - int(of.active)) * (shape.behind[layer] if shape.behind else 3 * shape.hidden * shape.mlp)
        if of.chose:
            assert isinstance(mixer, Attention)
            attention += 2 * (float(of.seen) - float(of.attended)) * mixer.heads * (mixer.key + mixer.value)
            making = of.chose * (mixer.asking + mixer.keying) + of.past * mixer.unfolding
            choosing += 2 * (making + of.choices * mixer.heads * mixer.key)
    return InsideFlops(ffn, attention, choosing)
