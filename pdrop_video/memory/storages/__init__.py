"""How keys and values are stored: one small file a method, listed here by name."""

from __future__ import annotations

from ...registry import named
from .base import (
    SIDES,
    Codec,
    Learned,
    Storage,
    asks_in,
    bare_in,
    column_bytes,
    learned_bytes,
    reading_flops,
    recent_in,
)
from .full import AsIs, Full
from .per_token import AbsMax, PerToken
from .quantised import Int4, Int8
from .rotatek import RotateK

STORAGES: dict[str, Storage] = {
    "full": Full(),
    "int8": Int8(),
    "int4": Int4(),
    "int8_per_token": PerToken(),
    "rotatek": RotateK(),
}


def storage_named(storage: str | Storage) -> Storage:
    """A storage by its name, or itself; `ConfigError` if there is none of that name."""
    return named("storage", STORAGES, storage)


__all__ = [
    "SIDES",
    "STORAGES",
    "AbsMax",
    "AsIs",
    "Codec",
    "Learned",
    "Storage",
    "asks_in",
    "bare_in",
    "column_bytes",
    "learned_bytes",
    "reading_flops",
    "recent_in",
    "storage_named",
]
