"""What happens when something on the page is used: values of the form in, updates of the page out.

Knows sessions and views. Refuses to know how the page is laid out: `page.py` binds these to its parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

import pdrop_video as pv
from pdrop_video.guard import Guard

from . import views
from .camera import BrowserCamera, LetGo
from .moments import moments
from .plainly import plainly
from .session import Session, SessionError
from .sessions import Sessions
from .settings import Settings, checked
from .shown import KINDS, Shown
from .sources import check, opener
from .standing import Standing
from .turn import Turn
from .uploads import Uploads
from .visitor import Visitor
from .watching import Progress

_NOBODY = Visitor()
_WEBCAM = "your webcam"


class Actions:
    """The page's actions.

    Parameters
    ----------
    sessions : Sessions
    guard : Guard
    uploads : Uploads
    """

    def __init__(self, sessions: Sessions, guard: Guard, uploads: Uploads) -> None:
        self.sessions, self.guard, self.uploads = sessions, guard, uploads
        self.shown = Shown(uploads)
        self._cleared: deque[str] = deque(maxlen=256)
        self.cameras = LetGo(sessions.clock)

    # -- opening ----------------------------------------------------------------------------------------------------

    def opened(self, name: str, visitor: Visitor) -> Session:
        """The session of this name, or a new one, which the visitor's page shows from now on."""
        session = self.sessions.open(name, visitor.client)
        if visitor.page:
            self.sessions.show(visitor.page, session.name)
        return session

    @contextmanager
    def beginning(self, name: str, visitor: Visitor) -> Iterator[Session]:
        """A session to begin with, as `opened`; a new one that comes to nothing is closed again."""
        session = self.opened(name, visitor)
        try:
            yield session
        except BaseException:
            if session.name != name:
                self.sessions.close(session.name)
            raise

    def begin(
        self, name: str, text: str, settings: Settings, *, live: bool = False, visitor: Visitor = _NOBODY
    ) -> Session:
        """Let a session watch a path or an address, and no camera of its page any more."""
        self.cameras.note(visitor.page)
        source = self.guard.source(text, live=live)
        path = None if source.live or "://" in source.target else Path(source.target)
        rate = self.sessions.model(settings.model).adapter.fps
        opened = opener(source, settings, rate)
        if path is None:
            with self.beginning(name, visitor) as session:
                session.begin(settings, source.name, opened, live=source.live)
            session.source = text
            return session
        over, preview = ExitStack(), None
        over.callback(self.uploads.hold(path))
        try:
            if path.suffix.lower() in KINDS:
                preview, hide = self.shown.show(path)
                over.callback(hide)
            check(path, self.sessions.longest, settings.chunk)
            with self.beginning(name, visitor) as session:
                session.begin(settings, path.name, opened, after=over.close)
        except BaseException:
            over.close()
            raise
        session.preview, session.source = preview, text
        return session

    @plainly
    def file(self, name: str, path: str | None, *values: Any, visitor: Visitor = _NOBODY) -> list[Any]:
        """A file was dropped, or a recording is finished: panel, chat and preview."""
        if path is None:
            raise SessionError("No video came; drop a file, or record one.")
        try:
            session = self.begin(name, path, Settings(*values), visitor=visitor)
        except pv.PDropError as error:
            self.uploads.hold(Path(path))()
            return [*self.refused(name, Path(path).name, error, visitor), [], None]
        if session.preview is None:
            gr.Info(f"Browsers can't play {Path(path).suffix} files; the model watches it all the same.")
        return [*self.panel(session), [], gr.skip() if session.preview else None]

    @plainly
    def address(self, name: str, text: str, *values: Any, visitor: Visitor = _NOBODY) -> list[Any]:
        """A path or an address was written: panel, chat and a preview."""
        session = self.begin(name, text, Settings(*values), visitor=visitor)
        return [*self.panel(session), [], session.preview]

    @plainly
    def stream(self, name: str, text: str, *values: Any, visitor: Visitor = _NOBODY) -> list[Any]:
        """A live source was written: panel, chat and no preview."""
        return [*self.panel(self.begin(name, text, Settings(*values), live=True, visitor=visitor)), [], None]

    @plainly
    def picture(
        self, name: str, picture: NDArray[np.uint8] | None, *values: Any, visitor: Visitor = _NOBODY
    ) -> list[Any]:
        """A picture came from the browser's camera: panel, chat and no preview. The first one opens a session."""
        same = [*self.same(), gr.skip(), gr.skip()]
        if picture is None or self.cameras.just_now(visitor.page):
            return same
        name = self.sessions.shown(visitor.page) or name  # the next picture may come before the page knows its name
        try:
            session = self.opened(name, visitor)
            name = session.name
            if session.camera is not None and session.camera.put(picture):
                return same
            settings = Settings(*values)
            camera = BrowserCamera(settings.chunk, self.sessions.model(settings.model).adapter.frames_per_step)
            session.begin(settings, _WEBCAM, lambda: camera, live=True)
        except pv.PDropError as error:
            return [*self.refused(name, _WEBCAM, error, visitor), [], None]
        session.camera = camera
        camera.put(picture)
        return [*self.panel(session), [], None]

    def refused(self, name: str, title: str, error: pv.PDropError, visitor: Visitor) -> list[Any]:
        """Why a source is not watched: panel. In the page itself: a camera's every picture would have its notice."""
        try:
            session = self.opened(name, visitor)
        except SessionError as full:
            return self._nothing_but(full)
        session.refuse(title, str(error))
        return self.panel(session)

    def leave(self, visitor: Visitor) -> None:
        """A page was closed."""
        self.sessions.leave(visitor.page)

    # -- looking ----------------------------------------------------------------------------------------------------

    def panel(self, session: Session | None) -> list[Any]:
        """A session's name, its progress, its standing questions, and whether to look again soon."""
        if session is None:
            return ["", views.progress(Progress()), views.standing([]), gr.Timer(active=False)]
        now = session.progress
        shown = views.progress(now, session.title)
        return [session.name, shown, views.standing(session.standing), gr.Timer(active=now.running)]

    @staticmethod
    def same() -> list[Any]:
        """A panel left as it is."""
        return [gr.skip()] * 4

    def tick(self, name: str, visitor: Visitor = _NOBODY) -> list[Any]:
        """Look again: panel. What a page says late of a session that it had before is set right."""
        name = self.sessions.shown(visitor.page) or name
        try:
            return self.panel(self.sessions.get(name))
        except SessionError as error:
            if name in self._cleared or not name:
                return self.panel(None)
            return self._nothing_but(error)

    def pulse(self, name: str) -> list[Any]:
        """Look whether the session is still there, which is no use of it: panel, where it is not."""
        try:
            if name and name not in self._cleared:
                self.sessions.check(name)
        except SessionError as error:
            return self._nothing_but(error)
        return self.same()

    @staticmethod
    def _nothing_but(error: SessionError) -> list[Any]:
        return ["", views.progress(Progress("failed", message=str(error))), views.standing([]), gr.Timer(active=False)]

    def restore(self, name: str, visitor: Visitor = _NOBODY) -> Iterator[list[Any]]:
        """A page was loaded: panel, chat and preview of the session that it had, also while an answer is written."""
        try:
            session = self.sessions.get(name)
        except SessionError as error:
            faster = bool(self.sessions.shown(visitor.page))  # somebody who has dropped a file already
            yield [*(self._nothing_but(error) if name and not faster else self.same()), *[gr.skip()] * 3]
            return
        self.sessions.show(visitor.page, name)
        yield [*self.panel(session), views.chat(session.chat), session.preview, gr.Button(interactive=session.answers)]
        for turn in session.chat[-1:]:
            for _ in () if turn.done else session.follow(turn):
                stop = gr.Button(interactive=session.answers)
                yield [*self.same(), views.chat(session.chat), gr.skip(), stop]

    @plainly
    def draw(self, name: str, seconds: float) -> list[Any]:
        """The pictures: slider, frames, and the three charts."""
        try:
            session: Session | None = self.sessions.get(name)
        except SessionError:
            session = None
        try:
            return self._pictures(session, seconds)
        except (pv.StreamError, SessionError):  # it was cleared meanwhile
            return self._pictures(None, seconds)

    @staticmethod
    def _pictures(session: Session | None, seconds: float) -> list[Any]:
        watcher = None if session is None else session.watcher
        times = () if watcher is None else watcher.album.seconds
        return [moments(times, seconds), views.overlays(session, seconds), *views.charts(session)]

    # -- asking -----------------------------------------------------------------------------------------------------

    def ask(self, name: str, question: str) -> Iterator[list[Any]]:
        """A question: chat, the emptied box and what stops the answer, again and again while it grows."""
        session, turn = self._asked(name, question)
        yield [views.chat(session.chat), "", gr.Button(interactive=True)]
        for _ in session.follow(turn):
            yield [views.chat(session.chat), gr.skip(), gr.Button(interactive=session.answers)]

    @plainly
    def askable(self, name: str, question: str) -> None:
        """Say at once, and not when its turn has come, why a question can't be asked now; it stays in its box."""
        self._askable(name).refuse_question(question)

    def _askable(self, name: str) -> Session:
        if not name:
            raise SessionError("Choose a video first; then ask about it.")
        return self.sessions.get(name)

    @plainly
    def _asked(self, name: str, question: str) -> tuple[Session, Turn]:
        session = self._askable(name)
        return session, session.ask(question)

    @plainly
    def look_out(self, name: str, question: str, wanted: str, visitor: Visitor = _NOBODY) -> list[Any]:
        """Another standing question: panel, and the emptied boxes."""
        asked = Standing(checked("question", question), checked("answer", wanted))
        session = self.opened(name, visitor)
        session.look_out(asked)
        return [*self.panel(session), "", ""]

    # -- stopping ---------------------------------------------------------------------------------------------------

    def stop_answer(self, name: str) -> None:
        """Leave the answer as it is."""
        self._quietly(name, Session.stop_answer)

    def stop_watching(self, name: str, visitor: Visitor = _NOBODY) -> None:
        """Watch no further."""
        self.cameras.note(visitor.page)
        self._quietly(name, Session.stop_watching)

    def forget_standing(self, name: str, key: str | None = None) -> list[Any]:
        """Ask no standing question any more, or not one of them: panel."""
        self._quietly(name, lambda session: session.forget_standing(key))
        return self.tick(name) if name else self.panel(None)

    def clear_chat(self, name: str) -> None:
        """Forget the questions and answers, not the video."""
        self._quietly(name, Session.clear_chat)

    def clear(self, name: str, visitor: Visitor = _NOBODY) -> list[Any]:
        """Forget everything: panel, chat, preview, and the pictures."""
        self.cameras.note(visitor.page)
        self._cleared.append(name)
        self.sessions.close(name)
        return [*self.panel(None), [], None, *self._pictures(None, 0.0)]

    def _quietly(self, name: str, what: Callable[[Session], None]) -> None:
        try:
            what(self.sessions.get(name))
        except SessionError:
            return
