"""A file of tensors and a JSON header that is read back as it was written, or refused.

A safetensors file with a checksum over all of it. Knows that format. Refuses to know what the tensors are.
"""

from __future__ import annotations

import json
import os
import stat
import zlib
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..common.atomic import replacing
from ..errors import StreamError
from ..memory import lasting

_HEADER, _CHECK, _CHECKED = "pdrop_video", "crc32", "checked"
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.bool: "BOOL",
}


def write(path: str | os.PathLike[str], tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Replace a file, in one step.

    Parameters
    ----------
    path : str or path
    tensors : dict of Tensor
        Contiguous, on the host.
    header : dict
        JSON-ready.

    Raises
    ------
    OSError
        If the file can't be written.
    """
    said = json.dumps(header | {_CHECKED: True})
    metadata = {_HEADER: said, _CHECK: _checksum(said, tensors)}
    places: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    # the widest types first, so that every tensor begins at a multiple of its type's size
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        shape, kind = list(tensors[name].shape), _TYPES[tensors[name].dtype]
        places[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    table = json.dumps(places).encode()
    table += b" " * (-len(table) % 8)
    with replacing(path) as part, open(part, "wb") as file:
        file.write(len(table).to_bytes(8, "little") + table)
        for name in names:
            file.write(_data(tensors[name]))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file.

    Files without a checksum, as the version before wrote them, are read all the same.

    Raises
    ------
    StreamError
        If the file is missing, is no such file, or is not as it was written.
    """
    name = repr(os.fspath(path))
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise StreamError(f"{name} is no regular file; expected one that VideoStream.save wrote.")
        with safe_open(os.fspath(path), framework="pt") as file, lasting():
            metadata = file.metadata() or {}
            if _HEADER not in metadata:
                raise StreamError(f"{name} is not a saved stream; expected a file that VideoStream.save wrote.")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise StreamError(f"no saved stream can be read from {name}: {error}") from error
    said = metadata[_HEADER]
    try:
        header = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise StreamError(f"the header of {name} is not JSON ({error}). Take a copy, or an older save.") from error
    if not isinstance(header, dict):
        raise StreamError(f"the header of {name} is no JSON object. Take a copy, or an older save.")
    check, checked = metadata.get(_CHECK), header.pop(_CHECKED, False)
    if (checked or check is not None) and check != _checksum(said, tensors):
        raise StreamError(f"{name} is not as it was written: its checksum differs. Take a copy, or an older save.")
    return header, tensors


def _data(tensor: Tensor) -> Any:
    """A tensor's bytes, without a copy of them."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _checksum(header: str, tensors: dict[str, Tensor]) -> str:
    """Of the header, and of names, types, shapes and values of all tensors; in hexadecimal."""
    value = zlib.crc32(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(_data(tensor), value)
    return f"{value:08x}"
