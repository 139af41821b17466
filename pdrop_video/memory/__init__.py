"""The KV cache across chunks: storage, metadata and budget. Knows tensors, never a model family."""

from .archive import Archive, Block
from .cache import StreamCache
from .config import UNBOUNDED, Memory
from .evictors import EVICTORS, Evictor, Held
from .layer import KeyValueLayer
from .limits import Limits
from .modes import lasting
from .pieces import Piece
from .storages import STORAGES, Storage
from .table import TokenTable
from .window import Ahead, Range, Shift, Window

__all__ = [
    "EVICTORS",
    "STORAGES",
    "UNBOUNDED",
    "Ahead",
    "Archive",
    "Block",
    "Evictor",
    "Held",
    "KeyValueLayer",
    "Limits",
    "Memory",
    "Piece",
    "Range",
    "Shift",
    "Storage",
    "StreamCache",
    "TokenTable",
    "Window",
    "lasting",
]
