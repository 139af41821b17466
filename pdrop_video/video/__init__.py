"""Frames with their times: from a video file, a stream or a camera to chunks of upright RGB pictures.

This package reads sources and checks frames. It knows no model, no token and no device: torch serves for the tensor
type alone.
"""

from .address import Connection
from .chunk import FrameChunk
from .motion import Motion
from .opening import frame_times, open_video
from .reader import VideoReader
from .source import VideoInfo

__all__ = ["Connection", "FrameChunk", "Motion", "VideoInfo", "VideoReader", "frame_times", "open_video"]
