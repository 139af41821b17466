"""What a vision tower multiplies to encode one step, as sizes. Knows shapes; refuses to know weights and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class Tower:
    """The sizes of a vision tower and of what stands between it and the decoder, for one step of a stream.

    Steps are encoded independently of each other in every family, so that many cost as many times as much.

    Attributes
    ----------
    patches : int
        Patches of the step.
    patch : int
        Numbers in each, of all its channels and merged frames.
    hidden, mlp : int
        Of a block.
    layers : tuple of tuple of int
        For each block the lengths of its segments: a row attends to all rows of its own segment, itself and those
        behind it included.
    after : tuple of (int, tuple of int)
        What comes behind the blocks: so many rows through matrices of these sizes, one behind another, such as
        ``(196, (5120, 5120, 3584))`` for 196 rows through two matrices.
    gated : bool
        Whether a block's MLP has a gate (three matrices) or not (two).
    queries, keys : int, optional
        Numbers in a row's queries, and in its keys (as many in its values); `hidden` where left out.
    """

    patches: int
    patch: int
    hidden: int
    mlp: int
    layers: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, tuple[int, ...]], ...] = ()
    gated: bool = False
    queries: int | None = None
    keys: int | None = None

    def part(self, tokens: int, of: int, windows: tuple[int, ...] = ()) -> Tower:
        """The same for some of a step's tokens, of which each takes equally many patches and rows of what comes behind.

        Parameters
        ----------
        tokens, of : int
            How many are encoded, and how many a whole step has.
        windows : tuple of int, optional
            For towers some of whose blocks don't attend to everything: how many are encoded of each of their windows.
        """
        area, whole = self.patches // of, (tokens * self.patches // of,)
        within = tuple(n * area for n in windows if n)
        layers = tuple(whole if segments == (self.patches,) else within for segments in self.layers)
        after = tuple((rows * tokens // of, sizes) for rows, sizes in self.after)
        return replace(self, patches=whole[0], layers=layers, after=after)

    def halved(self, behind: int) -> Tower:
        """The same where, behind so many blocks, 2 x 2 patches are one row, and 2 x 2 rows of what comes after are one.

        What makes one of four is not counted. Sides are even: an odd one costs a little more.
        """
        layers = tuple(
            segments if number < behind else tuple(length // 4 for length in segments)
            for number, segments in enumerate(self.layers)
        )
        after = tuple((-(-rows // 4), sizes) for rows, sizes in self.after)
        return replace(self, layers=layers, after=after)

    def flops(self, steps: int = 1, told: Iterable[int] = ()) -> int:
        """FLOPs of encoding so many steps: patch embedding, blocks and all that comes behind, a multiply-add as two.

        `told` are blocks whose attention weights are asked for besides (`models/received.py`).


        Matrix products and convolutions, as PyTorch's ``FlopCounterMode`` counts them; norms, activations, RoPE,
        pooling by means and the interpolation of positions or features are not counted there and not here. Attention
        is counted whole within each segment, as a tower that is not causal computes it.
        """
        wide = self.hidden if self.queries is None else self.queries
        narrow = self.hidden if self.keys is None else self.keys
        # multiply-adds of a row: queries and output, keys and values, the MLP
        block = 2 * self.hidden * (wide + narrow) + (3 if self.gated else 2) * self.hidden * self.mlp
        flops = 2 * self.patches * self.patch * self.hidden
        for segments in self.layers:
            flops += 2 * sum(segments) * block + 4 * wide * sum(length**2 for length in segments)
        for rows, sizes in self.after:
            flops += sum(2 * rows * a * b for a, b in pairwise(sizes))
        flops += sum(2 * wide * length**2 for i in told for length in self.layers[i])
        return steps * flops


def picture_tower(vision: Any, patches: int, *after: tuple[int, tuple[int, ...]], marks: int = 0) -> Tower:
    """A tower that looks at every frame by itself and whole, by the names that CLIP and its kin give to their sizes.

    Parameters
    ----------
    vision : PreTrainedConfig
        The tower's.
    patches : int
        Of a frame.
    *after
        See `Tower`.
    marks : int
        Rows beside the patches, such as [CLS].
    """
    size = vision.patch_size
    down, across = (size, size) if isinstance(size, int) else size
    return Tower(
        patches,
        vision.num_channels * down * across,
        vision.hidden_size,
        vision.intermediate_size,
        ((patches + marks,),) * vision.num_hidden_layers,
        after,
    )


def llava_tower(config: Any, *after: tuple[int, tuple[int, ...]], rows: int | None = None) -> Tower | None:
    """The tower of a LLaVA, and the projector of two matrices that `rows` rows pass, all patches if left out.

    None where the tower is neither CLIP's nor SigLIP's, whose formulas these are.
    """
    vision, text, kinds = config.vision_config, config.get_text_config().hidden_size, config.vision_feature_layer
    patches, hidden = (vision.image_size // vision.patch_size) ** 2, vision.hidden_size
    features = hidden * (1 if isinstance(kinds, int) else len(kinds))
    projector = (patches if rows is None else rows, (features, text, text))
    if vision.model_type == "clip_vision_model":
        return picture_tower(vision, patches, *after, projector, marks=1)
    if vision.model_type != "siglip_vision_model":
        return None
    if vision.vision_use_head:  # what it makes of a picture is thrown away, but made: one row asks all
        keys_values = (patches, (hidden, 2 * hidden))
        asks, mlp = (1, (hidden, hidden, patches, hidden, hidden)), (1, (hidden, vision.intermediate_size, hidden))
        after = (*after, keys_values, asks, mlp)
    return picture_tower(vision, patches, *after, projector)
