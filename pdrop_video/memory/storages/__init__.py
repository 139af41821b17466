"""How keys and values are stored: one small file a method, listed here by name."""

from __future__ import annotations

from ...registry import named
from .base import Codec, Learned, Storage, column_bytes
from .full import AsIs, Full
from .int8 import AbsMax, Int8

STORAGES: dict[str, Storage] = {
    "full": Full(),
    "int8": Int8(),
}


def storage_named(storage: str | Storage) -> Storage:
    """A storage by its name, or itself; `ConfigError` if there is none of that name."""
    return named("storage", STORAGES, storage)


__all__ = ["STORAGES", "AbsMax", "AsIs", "Codec", "Learned", "Storage", "column_bytes", "storage_named"]
