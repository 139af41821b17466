"""The files of a checkpoint, in a folder or on the hub, beside what transformers reads itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from ..errors import ModelError


def read_json(source: str, file: str, hub: dict[str, Any]) -> dict[str, Any]:
    """What a JSON file of a checkpoint says; nothing if there is no such file.

    Raises
    ------
    ModelError
        If it is not JSON.
    """
    path = _found(source, file, hub)
    try:
        return {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} of {source!r} is not valid JSON: {error}. Fetch it again.") from error


def weights_bytes(source: str, hub: dict[str, Any]) -> int:
    """Size of a checkpoint's safetensors files; 0 where there are none under their usual names."""
    if os.path.isdir(source):
        return sum(file.stat().st_size for file in Path(source).glob("*.safetensors"))
    if several := read_json(source, "model.safetensors.index.json", hub):
        return several.get("metadata", {}).get("total_size", 0)
    path = _found(source, "model.safetensors", hub)
    return 0 if path is None else os.path.getsize(path)


def _found(source: str, file: str, hub: dict[str, Any]) -> str | None:
    return cached_file(
        source,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
        **hub,
    )
