"""The KV cache across chunks: storage, metadata and budget. Knows tensors, never a model family."""

from .cache import StreamCache
from .config import Memory
from .evictors import EVICTORS, Evictor, Held
from .layer import KeyValueLayer
from .table import TokenTable

__all__ = ["EVICTORS", "Evictor", "Held", "KeyValueLayer", "Memory", "StreamCache", "TokenTable"]
