"""The one family of errors: everything the library raises on purpose is a `PDropError`.

Each message says what was got, what was expected and what to do about it. This module knows nothing of videos, models
or tensors. Errors about a value are also a `ValueError`, so that code written against plain Python catches them too.
"""

__all__ = ["ConfigError", "FrameError", "ModelError", "PDropError", "StreamError", "VideoError"]


class PDropError(Exception):
    """Base of every error that the library raises on purpose."""

    def __str__(self) -> str:
        """The message, as it can be printed anywhere: what is no text in a file's name is shown by its code."""
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class ConfigError(PDropError, ValueError):
    """A setting is out of range: a ratio, a layer, a budget, a sampling rate."""


class ModelError(PDropError):
    """A model cannot be used: unknown name or family, or a folder without safetensors weights."""


class VideoError(PDropError):
    """A source cannot be read: missing, empty, not a video, audio only, without a single frame, or already closed."""


class FrameError(PDropError, ValueError):
    """Frames handed over by the caller have a wrong dtype, shape or number, or times that do not go forward."""


class StreamError(PDropError):
    """A stream was asked before it saw a frame, or used after it was closed."""
