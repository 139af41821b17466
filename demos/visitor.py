"""Who does something on the page, and from where: as gradio's requests tell. Knows nothing of sessions."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from pdrop_video.guard import counted_by


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks for something.

    Attributes
    ----------
    page : str
        The open page, which has another name after a reload; empty for none.
    client : str
        The address that the visitor's sessions are counted by; empty for one that is not counted.
    """

    page: str = ""
    client: str = ""

    @classmethod
    def of(cls, request: gr.Request) -> Visitor:
        """Who sent a request."""
        return cls(str(request.session_hash), counted_by(request.client.host if request.client else ""))
