"""The server: OpenAI's chat completions about videos, live sessions, metrics. Knows HTTP; refuses to know models.

Needs the extra "serve".
"""

from .app import create_app
from .settings import Limits, Settings

__all__ = ["Limits", "Settings", "create_app"]
