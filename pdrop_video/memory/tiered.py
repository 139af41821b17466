"""One decoder layer's keys and values in two tiers: the newest as the model makes them, those before in fewer bytes.

Knows tensors and the interface of a transformers cache layer. Refuses to know what the tokens are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .columns import Columns
from .form import Form, Turned
from .layer import KeyValueLayer
from .room import Arrangement, Parts, Tiers
from .sliding import LatentLayer
from .storages import SIDES, STORAGES, Storage, bare_in


class TieredLayer(KeyValueLayer):
    """Columns that settled come first, then the others, which `columns` holds in the model's type.

    What settles is stored once, by the form that the first of it gave, and never again: not when it is evicted or
    positions move, not when it is archived, saved or brought back. Its keys are rotated as they are read, to where they
    stand; so they are held once, whatever moves.

    Parameters
    ----------
    limit : int, optional
        Most columns that will ever be held, in either tier.
    twice : int, optional
        The same once positions have moved and the keys of those that have not settled are held twice.
    storage : Storage
        How settled columns are stored.
    turn : callable
        Rotates this layer's keys.

    Attributes
    ----------
    far : Columns
        What settled.
    form : Form or None
        How; None until something did.
    place : Tensor [settled, axes] or None
        By how much settled keys are rotated as they are read. Layers that hold the same columns share the tensor, as a
        rule a part of their table.
    asked : Tensor [heads, rows, head_dim] or None
        What the newest probe asked, for forms that learn from it.
    """

    def __init__(
        self,
        limit: int | None = None,
        twice: int | None = None,
        storage: Storage = STORAGES["full"],
        turn: Turned | None = None,
    ) -> None:
        super().__init__(limit, twice)
        self.tier, self.turn = storage, turn
        self.far = Columns(limit)
        self.form: Form | None = None
        self.place: Tensor | None = None
        self.asked: Tensor | None = None
        self._chosen: tuple[Tensor, Columns] | None = None
        self._placed: Tensor | None = None
        self._before: tuple[Form | None, Tensor | None] | None = None

    # -- what attention meets ---------------------------------------------------------------------------------------

    @property
    def keys(self) -> Tensor:  # type: ignore[override]
        """Keys that are seen [batch, kv_heads, seen, head_dim]."""
        near, (far, place) = super().keys, self._far()
        if far.room is None or self.form is None:
            return near
        return torch.cat([self.form.read_keys(far.held(far.room.keys), place), near], dim=2)

    @property
    def values(self) -> Tensor:  # type: ignore[override]
        """Values that are seen [batch, kv_heads, seen, head_dim]."""
        near, (far, _) = super().values, self._far()
        if far.room is None or self.form is None:
            return near
        return torch.cat([self.form.read_values(far.held(far.room.values)), near], dim=2)

    @property
    def entered(self) -> Tensor | None:
        """None: what settled is not held twice; see `came`."""
        return None

    def get_seq_length(self) -> int:
        """Columns seen."""
        return self._far()[0].length + super().get_seq_length()

    @property
    def length(self) -> int:
        """Columns held, hidden ones included."""
        return self.far.length + self.columns.length

    @property
    def settled(self) -> int:
        """How many columns settled: the first ones."""
        return self.far.length

    @property
    def nbytes(self) -> int:
        """Bytes of the columns held, as they are stored, and of what their form has learned."""
        parts = () if self.far.room is None else self.far.held(self.far.room.parts)
        return super().nbytes + sum(part.nbytes for part in (*parts, *self._learned()))

    def _learned(self) -> Parts:
        return () if self.form is None else (*self.form.learned[0], *self.form.learned[1])

    def _far(self) -> tuple[Columns, Tensor | None]:
        """Settled columns that are seen, and by how much to rotate their keys."""
        chosen, columns = (None, self.far) if self._chosen is None else self._chosen
        if self.place is None or chosen is None:
            return columns, self.place
        if self._placed is None:
            self._placed = self.place[chosen]
        return columns, self._placed

    # -- hiding -----------------------------------------------------------------------------------------------------

    def show(self, columns: Tensor | None, since: int | None = None) -> None:
        """Let attention see only some of the columns held, and all from `since` on; for a fork."""
        settled = self.far.length
        assert since is None or since >= settled
        columns = None if columns is None else columns.to(self.device)
        self._chosen = self._placed = None
        if columns is not None and settled:
            chosen, columns = columns[columns < settled], columns[columns >= settled] - settled
            self._chosen = chosen, self.far.select(chosen)
        super().show(columns, None if since is None else since - settled)

    # -- changing what is held --------------------------------------------------------------------------------------

    def settle(self, columns: Tensor, entered: Tensor) -> Tensor:
        """Store some columns in fewer bytes, and hold them behind those that settled before.

        Returns for every place the column that stands there now [held].

        `columns` [settling] ascend and have not settled; `entered` [settling, axes] are the positions of their keys.
        """
        settled, length = self.far.length, self.length
        columns, entered = columns.to(self.device), entered.to(self.device)
        keys, values = self._came(columns - settled)
        self.far.append(*self._formed(keys, values, entered).write(keys, values, entered))
        stays = torch.ones(length - settled, dtype=torch.bool, device=columns.device)
        stays[columns - settled] = False
        move = Arrangement.of(stays.nonzero()[:, 0], length - settled)
        self.columns.keep(move)
        first = torch.arange(settled, device=columns.device)
        return torch.cat([first, columns, move.order + settled])

    def came(self, move: Tiers, entered: Tensor) -> tuple[Parts, Form]:
        """What goes by `move`, as it settled or would: parts [kv_heads, gone, width] of keys, then those of values."""
        keys, values = self._came(move.near.gone)
        here = entered[len(move.far.gone) :].to(self.device)
        form = self._formed(keys, values, here)
        new = [part[0] for of in form.write(keys, values, here) for part in of]
        room = self.far.room
        if room is None:
            return tuple(new), form
        old = (part[0][:, move.far.gone] for part in (*room.keys, *room.values))
        return tuple(torch.cat(each, dim=1) for each in zip(old, new, strict=True)), form

    def arranged(self, stay: Tensor) -> Tiers:
        """How the columns `stay` [kept] (ascending) close ranks, for `keep`."""
        return Tiers.of(stay.to(self.device), self.far.length, self.length)

    def keep(self, move: Tiers) -> None:
        """Hold only some columns, in the arrangement's order; nothing may be hidden."""
        move = move.to(self.device)
        if len(move.near.gone):
            super().keep(move.near)
        if len(move.far.gone):
            self.far.keep(move.far)

    def truncate(self, length: int) -> None:
        """Forget the newest columns down to `length`, none of which settled."""
        super().truncate(length - self.far.length)

    def overwrite(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put other keys, rotated to where the columns stand, and values [kv_heads, slots, head_dim] into them."""
        settled = self.far.length
        far, near = slots < settled, slots >= settled
        super().overwrite(slots[near] - settled, keys[:, near], values[:, near])
        if not settled:
            return
        assert self.form is not None
        assert self.place is not None or not self.form.bare
        into = slots[far]  # their keys come with these positions from now on; a form that is not bare needs none
        entered = into[:, None] if self.place is None else self.place[into]
        self.far.overwrite(into, *self.form.write(keys[None, :, far], values[None, :, far], entered))
        self._chosen = self._placed = None

    def stand(self, entered: Tensor, now: Tensor) -> None:
        """Note where the columns stood as they came [held, axes], and where those that settled do now."""
        if not bare_in(self.tier):
            now = now - entered[: len(now)]
        here = now.to(self.device) if self.is_initialized else now
        self.place = here if bare_in(self.tier) or bool(now.any()) else None
        self._placed = None

    def rotate(self, turn: Callable[[Tensor, Tensor], Tensor], by: Tensor) -> None:
        """Rotate the keys that have not settled; where the others stand, `place` says."""
        if self.columns.length:
            super().rotate(turn, by[self.far.length :])

    def _came(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Keys as they came and values of some columns that have not settled [batch, kv_heads, columns, head_dim]."""
        room = self.columns.room
        assert room is not None
        (keys,), (values,) = room.keys if room.entered is None else room.entered, room.values
        return keys[:, :, columns], values[:, :, columns]

    def _formed(self, keys: Tensor, values: Tensor, entered: Tensor) -> Form:
        """The layer's form; learned from these if there is none yet."""
        if self.form is None:
            assert self.turn is not None
            self.form = Form.learning(self.tier, self.turn, keys, values, entered, self.asked)
        return self.form

    # -- sharing ----------------------------------------------------------------------------------------------------

    def fork(self) -> TieredLayer:
        """A layer that holds and hides the same columns and shares their storage."""
        twin: Any = super().fork()
        twin.far, twin.form, twin.place = self.far.fork(), self.form, self.place
        if self._chosen is not None:
            twin._chosen = self._chosen[0], self._chosen[1].fork()
        return twin

    def _blank(self) -> TieredLayer:
        return type(self)(storage=self.tier, turn=self.turn)

    def release(self, origin: KeyValueLayer) -> None:
        """Give the room behind `origin`'s columns back; call it on a fork of `origin` that is done."""
        super().release(origin)
        assert isinstance(origin, TieredLayer)
        self.far.release(origin.far)

    def trim(self) -> None:
        """Give back the storage that is there for a question which is over; nothing may be hidden."""
        super().trim()
        self.far.trim()

    def begin(self) -> None:
        """From here on remember how to go back; nothing may be hidden."""
        super().begin()
        self._before = self.form, self.place
        self.far.begin()

    def commit(self) -> None:
        """Stay with what happened since `begin`."""
        super().commit()
        self.far.commit()
        self._before = None

    def rollback(self) -> None:
        """Go back to how it was at `begin`, bit for bit; may be called again if it was interrupted."""
        super().rollback()
        self.far.rollback()
        if self._before is not None:
            self.form, self.place = self._before
            self._before = None

    # -- in a file --------------------------------------------------------------------------------------------------

    def stored(self) -> dict[str, Parts]:
        """All that is held, as it is stored, by name: what `restore` takes."""
        far = self.far.room
        parts = {} if far is None else {"far_keys": self.far.held(far.keys), "far_values": self.far.held(far.values)}
        learned = ((), ()) if self.form is None else self.form.learned
        named = zip(("far_learned_keys", "far_learned_values"), learned, strict=True)
        return super().stored() | parts | {name: of for name, of in named if of}

    def restore(self, stored: dict[str, Parts], shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Hold what another layer held; see `KeyValueLayer.restore`."""
        batch, kv_heads, held, *widths = shape
        far = [stored.get(name, ()) for name in ("far_keys", "far_values")]
        settled = far[0][0].shape[2] if far[0] else 0
        super().restore(stored, (batch, kv_heads, held - settled, *widths), dtype)
        if not far[0] and "far_learned_keys" not in stored:
            return
        learned = stored.get("far_learned_keys", ()), stored.get("far_learned_values", ())
        blank = [torch.zeros(batch, kv_heads, 1, width, dtype=self.dtype, device=self.device) for width in widths]
        for of, like, given, parts in zip(SIDES, blank, learned, far, strict=True):
            codec = self.tier(of)
            _expect("what a storage has learned", given, codec.learn(like))
            if settled:
                _expect("what settled", parts, codec.encode(like.expand(-1, -1, settled, -1), given))
        assert self.turn is not None
        self.form = Form.knowing(self.tier, self.turn, blank[0], learned)
        if settled:
            self.far.append(far[0], far[1])


def _expect(name: str, given: Parts, wanted: Parts) -> None:
    """Refuse tensors of other types or shapes."""
    there, like = ([(part.dtype, tuple(part.shape)) for part in parts] for parts in (given, wanted))
    if there != like:
        raise ValueError(f"{name} is {there} and not {like}")


class TieredLatentLayer(LatentLayer, TieredLayer):
    """Latents and shared keys in two tiers: the keys by the channel, the latents by the token."""
