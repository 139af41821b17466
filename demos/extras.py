"""Actions besides those of watching and asking: what follows from them, and what is done with what is there.

Knows the page's actions, and not how the page is laid out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pdrop_video as pv
from pdrop_video.common import checks

from .actions import Actions
from .around import around
from .comparing import compare
from .export import as_json, markdown, stem
from .gallery import BUILT_IN, gallery
from .plainly import plain, plainly
from .remembered import seen
from .saving import reopened, store
from .session import Session, SessionError
from .settings import Settings, checked
from .sources import opener
from .visitor import Visitor


class Extras:
    """More of the page's actions.

    Parameters
    ----------
    actions : Actions
    """

    def __init__(self, actions: Actions) -> None:
        self._actions, self._sessions = actions, actions.sessions
        self.clips = gallery()

    def around(self, name: str) -> list[Any]:
        """What follows from the progress, see `around.around`."""
        session = self._session(name)
        built_in = session is not None and (session.settings.model or next(iter(self._sessions.models))) == BUILT_IN
        return around(session, self.clips, built_in)

    @plainly
    def again(self, name: str, *values: Any, visitor: Visitor) -> list[Any]:
        """The same source is to be watched with other settings: panel, chat and preview."""
        session = self._sessions.get(name)
        if session.source is None:
            raise SessionError("Only a file, a video on the web or a network stream can be watched again.")
        session = self._actions.begin(name, session.source, Settings(*values), live=session.live, visitor=visitor)
        return [*self._actions.panel(session), [], session.preview]

    def seen(self, name: str, seconds: object) -> str:
        """What is kept of a moment, for the player to show: see `remembered.seen`."""
        session = self._session(name)
        try:
            return "" if session is None else seen(session, checks.real("the moment", seconds, 0))
        except pv.PDropError:  # it was cleared meanwhile, or is no moment at all
            return ""

    def compare(self, name: str, question: str) -> Iterator[str]:
        """One question, two recipes: how far it is, then both answers. See `comparing.compare`."""
        yield from plain(compare(*self._compared(name, question)))

    @plainly
    def _compared(self, name: str, question: str) -> tuple[Session, str, Callable[[Settings], Any]]:
        if not name:
            raise SessionError("Choose a video first; then compare.")
        session = self._sessions.get(name)

        def opened(settings: Settings) -> Any:
            source = self._actions.guard.source(session.source or "")
            return opener(source, settings, self._sessions.model(settings.model).adapter.fps)

        return session, checked("question", question), opened

    @plainly
    def export(self, name: str, kind: str) -> str:
        """A conversation as a file: its name and its text, as JSON for the page's script."""
        session = self._session(name)
        if session is None or not session.chat:
            raise SessionError("There is no conversation yet; ask something first.")
        text = markdown(session) if kind == "md" else as_json(session)
        return json.dumps({"name": f"{stem(session.title)}.{kind}", "text": text})

    @plainly
    def save(self, name: str, visitor: Visitor) -> str:
        """The stream as a file: where it is and what it is called, as JSON for the page's script."""
        session = self._sessions.get(name) if name else None
        if session is None or not session.progress.frames:
            raise SessionError("Nothing was watched yet; choose a video first.")
        path = store(session.stream, self._actions.uploads, visitor.client, stem(session.title))
        return json.dumps({"name": path.name, "path": str(path)})

    @plainly
    def reopen(self, name: str, path: str, model: str, visitor: Visitor) -> list[Any]:
        """A stream that was saved is to be asked again: panel, chat and no preview."""
        release = self._actions.uploads.hold(Path(path))
        try:
            stream = reopened(Path(path), self._sessions.model(model), self._sessions.largest)
        finally:
            release()
        self._actions.cameras.note(visitor.page)
        with self._actions.beginning(name, visitor) as session:
            session.begin(Settings(model=model), Path(path).stem, None, again=stream)
        return [*self._actions.panel(session), [], None]

    def _session(self, name: str) -> Session | None:
        try:
            return self._sessions.get(name)
        except SessionError:
            return None
