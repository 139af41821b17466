"""Decoder layers that hold no columns: a state of fixed size that has seen every row once, or nothing.

Knows transformers' interface of a layer with a state. Refuses to know what the state consists of.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import cache_utils

from .modes import lasting
from .room import Parts

_LinearAttentionLayer: Any = getattr(cache_utils, "LinearAttentionLayer", object)  # of newer transformers
_States = dict[int, Tensor | None]


class StateLayer(_LinearAttentionLayer):
    """The state of a layer of linear attention, Mamba or a convolution; empty for a layer without any.

    Nothing of it can be evicted, and it has no positions. A fork has a state of its own, since layers write into it.
    """

    positions = None
    moved = False
    length = settled = 0

    def __init__(self) -> None:
        if _LinearAttentionLayer is not object:
            super().__init__()
        self._begun: StateLayer | None = None

    # -- what the model's layer meets -------------------------------------------------------------------------------

    @lasting()
    def update_conv_state(
        self, conv_states: Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **kwargs: Any
    ) -> Tensor:
        """Take in ``[batch, channels, new]``; returns them behind the columns that the convolution still sees."""
        before: Tensor | None = self.conv_states[state_idx]
        size = conv_kernel_size or (conv_states.shape[-1] if before is None else before.shape[-1])
        whole = conv_states if before is None else torch.cat([before, conv_states], dim=-1)
        whole = F.pad(whole, (max(size - whole.shape[-1], 0), 0))
        self._note(conv=(state_idx, whole[..., -size:].clone()))
        return whole

    @lasting()
    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **kwargs: Any) -> Tensor:
        """Take in what a layer has come to; returns it."""
        self._note(recurrent=(state_idx, recurrent_states.clone()))
        return recurrent_states

    def get_seq_length(self) -> int:
        """No columns."""
        return 0

    def _note(self, conv: tuple[int, Tensor] | None = None, recurrent: tuple[int, Tensor] | None = None) -> None:
        if conv is not None:
            i, state = conv
            self.conv_states[i], self.conv_kernel_size[i] = state, state.shape[-1]
            self.is_conv_states_initialized[i] = self.has_previous_state[i] = True
        if recurrent is not None:
            i, state = recurrent
            self.recurrent_states[i], self.is_recurrent_states_initialized[i] = state, True
        self.dtype, self.device = state.dtype, state.device

    # -- what is held -----------------------------------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return sum(state.nbytes for parts in self.stored().values() for state in parts)

    def truncate(self, length: int) -> None:
        """No columns to forget."""
        assert length == 0

    # -- sharing ----------------------------------------------------------------------------------------------------

    @lasting()
    def fork(self) -> StateLayer:
        """A layer with the same state."""
        twin = StateLayer()
        for name, parts in self.stored().items():
            for i, state in enumerate(parts):
                twin._note(**{name: (i, state.clone())})
        return twin

    def take(self, other: StateLayer) -> None:
        """Have the state of another layer, which gives it up."""
        for name, value in vars(other).items():
            if name != "_begun":
                setattr(self, name, value)

    def release(self, origin: StateLayer) -> None:
        """Nothing is shared."""

    def trim(self) -> None:
        """Nothing is reserved."""

    def begin(self) -> None:
        """From here on remember how to go back."""
        self._begun = self.fork()

    def commit(self) -> None:
        """Stay with what happened since `begin`."""
        self._begun = None

    def rollback(self) -> None:
        """Go back to how it was at `begin`, bit for bit; may be called again if it was interrupted."""
        if self._begun is not None:
            self.take(self._begun.fork())
            self._begun = None

    # -- in a file --------------------------------------------------------------------------------------------------

    def stored(self) -> dict[str, Parts]:
        """The state by name: what `restore` takes."""
        named = {} if _LinearAttentionLayer is object else dict(conv=self.conv_states, recurrent=self.recurrent_states)
        states = {name: tuple(s for s in parts.values() if s is not None) for name, parts in named.items()}
        return {name: parts for name, parts in states.items() if parts}

    def restore(self, stored: dict[str, Parts], like: StateLayer) -> None:
        """Have the state that another layer had.

        Raises
        ------
        ValueError
            If it is of another kind than that of `like`, a layer which has seen something.
        """
        given, wanted = (
            {name: [(s.dtype, tuple(s.shape)) for s in parts] for name, parts in of.items()}
            for of in (stored, like.stored())
        )
        if given != wanted:
            raise ValueError(f"the states of a layer are {given} and not {wanted}")
        for name, parts in stored.items():
            for i, state in enumerate(parts):
                self._note(**{name: (i, state)})
