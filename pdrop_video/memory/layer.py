"""One decoder layer's keys and values, as transformers' attention meets them: stored somehow, and some of them hidden.

Knows tensors and the interface of a transformers cache layer. Refuses to know what the tokens are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from .columns import Columns
from .form import Form
from .room import Arrangement, Parts, Tiers
from .storages import STORAGES, AsIs, Learned, Storage


class KeyValueLayer(DynamicLayer):
    """Keys and values of one layer: its `Columns`, how they are stored, and which of them attention sees.

    What attention gets is what the storage gives back, of the newest columns, too: whoever comes later sees the same.

    ``get_seq_length()`` is the number of columns *seen*: those held, but for what is hidden. ``get_mask_sizes(q)``
    follows from it as ``(seen + q, 0)``: queries stand right behind, so transformers' masks can't leak the future
    whatever was evicted or hidden. Positions are given to the model explicitly and never derived from this length.

    Parameters
    ----------
    limit : int, optional
        Most columns that will ever be held, questions apart.
    twice : int, optional
        The same once positions have moved and keys are held twice.
    storage : Storage
        How keys and values are stored.

    Attributes
    ----------
    columns : Columns
        All that is held, as it is stored.
    learned : (tuple of Tensor, tuple of Tensor)
        What the storage has learned of keys and of values.
    shown : Tensor [shown] or None
        Which columns attention sees beside the newest ones; None for all. See `show`.
    """

    def __init__(self, limit: int | None = None, twice: int | None = None, storage: Storage = STORAGES["full"]) -> None:
        # without transformers' own, which would set keys and values: here they are read from the storage
        self.is_initialized = False
        self.columns, self.storage = Columns(limit, twice), storage
        self._keys, self._values = storage("keys"), storage("values")
        self.learned: tuple[Learned, Learned] = (), ()
        self.shown: Tensor | None = None
        self._since = 0
        self._gathered: Columns | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Note dtype and device, and what the storage learns from the first columns."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.learned = self._keys.learn(key_states), self._values.learn(value_states)
        self.is_initialized = True

    # -- what attention meets ---------------------------------------------------------------------------------------

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append ``[batch, kv_heads, new, head_dim]``; returns all keys and values that are seen."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = self._encoded(key_states, value_states)
        self.columns.append(*new)
        if self._gathered is not None:
            self._gathered.append(*new)
        return self.keys, self.values

    def next_column(self) -> tuple[Tensor, Tensor, int] | None:
        """Where one more column goes, for whoever writes it there by himself; then call `took_column`.

        Returns
        -------
        (Tensor, Tensor, int) or None
            The storage of the keys and of the values that attention sees [batch, kv_heads, capacity, head_dim], and
            behind how many columns; None where columns are not stored as they come.
        """
        if not self.is_initialized or type(self) is not KeyValueLayer or type(self._keys) is not AsIs:
            return None
        self.columns.ready(1)
        seen = self._seen()
        room = seen.ready(1)
        if room.blank is not room.values:
            room.clear()
        (keys,), (values,) = room.keys, room.values
        if keys.shape[2] != values.shape[2]:  # keys have moved, to a storage of their own
            keys, values = keys[:, :, : room.capacity], values[:, :, : room.capacity]
        return keys, values, seen.length

    def took_column(self) -> None:
        """Hold the column that was written where `next_column` said."""
        seen, end = self._seen(), self.columns.length
        room = seen.room
        assert room is not None
        keys, values = (part[0][:, :, seen.length : seen.length + 1] for part in (room.keys, room.values))
        seen.took(1)
        if seen is not self.columns:
            self.columns.append((keys,), (values,))
        elif room.entered is not None:
            room.entered[0][:, :, end : end + 1] = keys

    @property
    def keys(self) -> Tensor:  # type: ignore[override]
        """Keys that are seen [batch, kv_heads, seen, head_dim]."""
        seen = self._seen()
        assert seen.room is not None
        return self._keys.decode(seen.held(seen.room.keys), self.learned[0], self.dtype)

    @property
    def values(self) -> Tensor:  # type: ignore[override]
        """Values that are seen [batch, kv_heads, seen, head_dim]."""
        seen = self._seen()
        assert seen.room is not None
        return self._values.decode(seen.held(seen.room.values), self.learned[1], self.dtype)

    @property
    def moved(self) -> bool:
        """Whether keys were rotated to other positions than they came with; they are then held twice."""
        return self.columns.room is not None and self.columns.room.entered is not None

    @property
    def entered(self) -> Tensor | None:
        """All keys held, as they came [batch, kv_heads, held, head_dim]; None while they were not moved."""
        room = self.columns.room
        if room is None or room.entered is None:
            return None
        return self._keys.decode(self.columns.held(room.entered), self.learned[0], self.dtype)

    def get_seq_length(self) -> int:
        """Columns seen."""
        held = self.columns.length
        return held if self.shown is None else len(self.shown) + held - self._since

    @property
    def length(self) -> int:
        """Columns held, hidden ones included."""
        return self.columns.length

    @property
    def settled(self) -> int:
        """Columns that are stored in another way than the newest, and come first."""
        return 0

    @property
    def nbytes(self) -> int:
        """Bytes of the columns held, as they are stored."""
        room = self.columns.room
        parts = () if room is None else self.columns.held(room.parts)
        return sum(part.numel() * part.element_size() for part in parts)

    # -- hiding -----------------------------------------------------------------------------------------------------

    def show(self, columns: Tensor | None, since: int | None = None) -> None:
        """Let attention see only some of the columns held, and all from `since` on; for a fork.

        Nothing is forgotten: what is hidden is seen again when it is shown, for example for the next token. What is
        seen is gathered once, and what comes is appended to it.

        Parameters
        ----------
        columns : Tensor [shown], int64, or None
            Columns before `since`; None shows everything.
        since : int, optional
            By default what is held now: what is appended later is seen.
        """
        self._since = self.columns.length if since is None else since
        self.shown, self._gathered = None if columns is None else columns.to(self.device), None

    def whole(self) -> KeyValueLayer:
        """The same columns with nothing hidden, for a look; what comes later is appended to this layer."""
        twin = self.fork()
        twin.show(None)
        return twin

    def seeing(self) -> Tensor | None:
        """The numbers of the columns that are seen [seen], in their order; None where all that are held are."""
        if self.shown is None:
            return None
        return torch.cat([self.shown, torch.arange(self._since, self.columns.length, device=self.shown.device)])

    def _seen(self) -> Columns:
        if (seeing := self.seeing() if self._gathered is None else None) is not None:
            self._gathered = self.columns.select(seeing)
        return self.columns if self._gathered is None else self._gathered

    # -- changing what is held --------------------------------------------------------------------------------------

    def truncate(self, length: int) -> None:
        """Forget the newest columns down to `length`, of which none was there when others were hidden."""
        assert self.shown is None or length >= self._since
        if self._gathered is not None:
            self._gathered.truncate(self._gathered.length - (self.columns.length - length))
        self.columns.truncate(length)

    def arranged(self, stay: Tensor) -> Arrangement | Tiers:
        """How the columns `stay` [kept] (ascending) close ranks, for `keep`."""
        return Arrangement.of(stay.to(self.device), self.columns.length)

    def came(self, move: Any, entered: Tensor) -> tuple[Parts, Form | None]:
        """Keys as they came, and values, of what goes by `move` [kv_heads, gone, head_dim]; and how they are stored."""
        keys = self.entered if self.moved else self.keys
        assert keys is not None
        return (keys[0][:, move.gone], self.values[0][:, move.gone]), None

    def keep(self, move: Any) -> None:
        """Hold only some columns, in the arrangement's order; nothing may be hidden."""
        assert self.shown is None
        self.columns.keep(move.to(self.device))  # layers on several devices may share it

    def overwrite(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put other keys and values [kv_heads, slots, head_dim] into held columns."""
        self.columns.overwrite(slots, *self._encoded(keys[None], values[None]))
        self._gathered = None

    def rotate(self, turn: Callable[[Tensor, Tensor], Tensor], by: Tensor) -> None:
        """Replace the keys by ``turn(entered, by)``, one rotation of the keys as they came [kv_heads, held, head_dim].

        Parameters
        ----------
        turn : callable
            Rotates keys.
        by : Tensor [held, axes]
            By how many positions.
        """
        room = self.columns.room
        assert room is not None
        came = self.columns.held(room.keys if room.entered is None else room.entered)
        turned = turn(self._keys.decode(came, self.learned[0], self.dtype)[0], by)
        self.columns.replace_keys(self._keys.encode(turned[None], self.learned[0]))
        self._gathered = None

    # -- sharing ----------------------------------------------------------------------------------------------------

    def fork(self) -> KeyValueLayer:
        """A layer that holds and hides the same columns and shares their storage."""
        twin = self._blank()
        twin.columns = self.columns.fork()
        if self.is_initialized:
            twin.dtype, twin.device, twin.is_initialized = self.dtype, self.device, True
            twin.learned = self.learned
            twin.shown, twin._since = self.shown, self._since
            twin._gathered = None if self._gathered is None else self._gathered.fork()
        return twin

    def _blank(self) -> KeyValueLayer:
        """A layer of the same kind that holds nothing."""
        return type(self)(storage=self.storage)

    def release(self, origin: KeyValueLayer) -> None:
        """Give the room behind `origin`'s columns back; call it on a fork of `origin` that is done."""
        self.columns.release(origin.columns)
        if self._gathered is not None and origin._gathered is not None:
            self._gathered.release(origin._gathered)

    def trim(self) -> None:
        """Give back the storage that is there for a question which is over; nothing may be hidden."""
        self.columns.trim()

    def begin(self) -> None:
        """From here on remember how to go back; nothing may be hidden."""
        assert self.shown is None
        self.columns.begin()

    def commit(self) -> None:
        """Stay with what happened since `begin`."""
        self.columns.commit()

    def rollback(self) -> None:
        """Go back to how it was at `begin`, bit for bit; may be called again if it was interrupted."""
        self.columns.rollback()

    # -- in a file --------------------------------------------------------------------------------------------------

    def stored(self) -> dict[str, Parts]:
        """All that is held, as it is stored, by name: what `restore` takes."""
        room = self.columns.room
        if room is None:
            return {}
        parts = {"keys": room.keys, "values": room.values} | ({} if room.entered is None else {"entered": room.entered})
        learned = dict(zip(("learned_keys", "learned_values"), self.learned, strict=True))
        return {name: self.columns.held(of) for name, of in parts.items()} | {n: of for n, of in learned.items() if of}

    def restore(self, stored: dict[str, Parts], shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Hold what another layer held.

        Parameters
        ----------
        stored : dict
            As `stored` gave it.
        shape : (batch, kv_heads, columns, key width, value width)
            Of keys and values before they were stored.
        dtype : torch.dtype
            The type that they had.

        Raises
        ------
        ValueError
            If no layer with this storage gives such tensors.
        """
        keys, (batch, kv_heads, held, *widths) = stored["keys"], shape
        if keys[0].is_floating_point():  # of a model whose keys are not of its own type
            dtype = keys[0].dtype
        self.dtype, self.device, self.is_initialized = dtype, keys[0].device, True
        self.learned = stored.get("learned_keys", ()), stored.get("learned_values", ())
        nothing = [torch.zeros(batch, kv_heads, 0, width, dtype=dtype, device=self.device) for width in widths]
        for name, like in zip(("keys", "values", "entered"), (*self._encoded(*nothing),) * 2, strict=False):
            wanted = [(part.dtype, (batch, kv_heads, held, part.shape[-1])) for part in like]
            given = [(part.dtype, tuple(part.shape)) for part in stored.get(name, ())]
            if given != wanted and (given or name != "entered"):
                raise ValueError(f"{name} are {given} and not {wanted}")
        self.columns.append(stored.get("entered", keys), stored["values"])
        if "entered" in stored:
            self.columns.replace_keys(keys)
            self.columns.trim()

    def _encoded(self, keys: Tensor, values: Tensor) -> tuple[Parts, Parts]:
        return self._keys.encode(keys, self.learned[0]), self._values.encode(values, self.learned[1])
