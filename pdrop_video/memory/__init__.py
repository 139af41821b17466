"""The KV cache across chunks: storage, metadata and budget. Knows tensors, never a model family."""

from .cache import StreamCache
from .config import Memory
from .layer import KeyValueLayer
from .table import TokenTable

__all__ = ["KeyValueLayer", "Memory", "StreamCache", "TokenTable"]
