"""Frames with their times: from a video file to chunks of upright RGB pictures.

This package reads files and checks frames. It knows no model, no token and no device: torch serves for the tensor type
alone.
"""

from .chunk import FrameChunk
from .reader import VideoReader, open_video
from .source import VideoInfo

__all__ = ["FrameChunk", "VideoInfo", "VideoReader", "open_video"]
