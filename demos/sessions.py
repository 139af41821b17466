"""Who is here: sessions, seats, the line in front of them, and the end of those that nobody looks at any more.

A session is one visitor's stream, its chat and what is known of its past. Its name is a secret that only its visitor
has. Knows no page.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pdrop_video as pv

from .camera import BrowserCamera
from .settings import Settings
from .standing import Standing
from .watching import Opened, Progress, Watcher

log = logging.getLogger(__name__)

_MOST_STANDING = 5


class SessionError(pv.PDropError):
    """There is no such session, or no room for another, or it is busy."""


@dataclass(slots=True)
class Turn:
    """A question of the chat and what was answered so far.

    Attributes
    ----------
    question, text : str
    done : bool
    error : str
        Why there is no answer, one sentence.
    answer : Answer or None
        The whole of it, once it is done.
    """

    question: str
    text: str = ""
    done: bool = False
    error: str = ""
    answer: pv.Answer | None = None


class Session:
    """One visitor's stream. Made by `Sessions.open`.

    Attributes
    ----------
    name : str
    title : str
        What is being watched, as the visitor wrote it.
    chat : list of Turn
    standing : list of Standing
    preview : str or None
        Path of the file being watched, if browsers can play it.
    camera : BrowserCamera or None
        Where the browser's pictures go, if they are what is watched.
    """

    def __init__(self, name: str, sessions: Sessions) -> None:
        self.name, self.title = name, ""
        self.preview: str | None = None
        self.seen = sessions.clock()
        self.chat: list[Turn] = []
        self.standing: list[Standing] = []
        self.camera: BrowserCamera | None = None
        self.settings = Settings()
        self._sessions = sessions
        self._stream: pv.VideoStream | None = None
        self._watcher: Watcher | None = None
        self._stop_answer = threading.Event()
        self._changed = threading.Condition()

    # -- watching ---------------------------------------------------------------------------------------------------

    def begin(self, settings: Settings, title: str, source: Callable[[], Opened] | None, *, live: bool = False) -> None:
        """Start over with another source; without one, frames are to be pushed. Standing questions are kept."""
        questions = [(item.question, item.wanted) for item in self.standing]
        self.clear()
        self.standing.extend(Standing(*item) for item in questions)
        self.settings, self.title = settings, title
        self._stream = stream = settings.open(self._sessions.model(settings.model))
        if source is None:
            return
        self._watcher = Watcher(
            stream,
            source,
            seat=lambda tell, stopped: self._sessions.wait_for_seat(self.name, tell, stopped),
            standing=self.standing,
            limit=None if live else self._sessions.longest,
        )
        self._watcher.start()

    def look_out(self, standing: Standing) -> None:
        """Ask a question after every chunk from now on, or once at once if nothing more is to come."""
        if len(self.standing) >= _MOST_STANDING:
            raise SessionError(f"There are {_MOST_STANDING} standing questions already; remove them first.")
        if self.progress.frames and not self.progress.running:
            standing.ask(self.stream)
        self.standing.append(standing)

    def push(self, chunk: pv.FrameChunk) -> pv.Pushed:
        """Push frames by hand."""
        if self._watcher is not None and self._watcher.progress.running:
            raise SessionError("This session watches a source of its own; open one without a source to push frames.")
        return self.stream.push(chunk)

    @property
    def stream(self) -> pv.VideoStream:
        """The stream; raises `SessionError` where there is none yet."""
        if self._stream is None:
            raise SessionError("Choose a video first; there is nothing to ask about yet.")
        return self._stream

    @property
    def watcher(self) -> Watcher | None:
        """Who watches, if anything was opened."""
        return self._watcher

    @property
    def progress(self) -> Progress:
        """How far watching is."""
        return Progress() if self._watcher is None else self._watcher.progress

    @property
    def busy(self) -> bool:
        """Whether there is anything to wait for."""
        return self.progress.running or any(not turn.done for turn in self.chat)

    def stop_watching(self) -> None:
        """Watch no further; what was watched can be asked about."""
        if self._watcher is not None:
            self._watcher.stop()

    # -- asking -----------------------------------------------------------------------------------------------------

    def ask(self, question: str, longest: int = 128) -> Turn:
        """Begin an answer, in a thread of its own; `follow` shows it grow."""
        if not question.strip():
            raise SessionError("The question is empty; write one.")
        stream, watcher = self.stream, self._watcher
        if any(not turn.done for turn in self.chat):
            raise SessionError("One answer at a time: wait for the one that is being written, or stop it.")
        pyramid = self.settings.asking()
        turn = Turn(question.strip())
        self.chat.append(turn)
        self._stop_answer = threading.Event()
        arguments = (turn, stream, watcher, pyramid, longest, self._stop_answer)
        threading.Thread(target=self._answer, args=arguments, name="answer", daemon=True).start()
        return turn

    def follow(self, turn: Turn) -> Iterator[Turn]:
        """The turn each time it has grown, until it is done."""
        shown, done = "", False
        while not done:
            with self._changed:
                while not turn.done and turn.text == shown:
                    self._changed.wait()
                shown, done = turn.text, turn.done
            yield turn

    def stop_answer(self) -> None:
        """Leave the answer as it is."""
        self._stop_answer.set()

    def clear_chat(self) -> None:
        """Forget all questions and answers."""
        self.stop_answer()
        self.chat = []

    def last_answer(self) -> pv.Answer | None:
        """The newest whole answer."""
        return next((turn.answer for turn in reversed(self.chat) if turn.answer is not None), None)

    def _answer(
        self,
        turn: Turn,
        stream: pv.VideoStream,
        watcher: Watcher | None,
        pyramid: pv.Pyramid | None,
        longest: int,
        stopped: threading.Event,
    ) -> None:
        try:
            while watcher is not None and not watcher.watched.wait(0.1):
                if stopped.is_set():
                    return
            live = stream.ask(turn.question, longest, stream=True, pyramid=pyramid)
            for piece in live:
                if stopped.is_set():
                    live.close()
                    return
                self._grow(turn, turn.text + piece)
            turn.answer = live.answer
        except pv.PDropError as error:
            why = watcher.progress.message if watcher is not None and not watcher.progress.frames else ""
            turn.error = why or str(error)
        except Exception:
            log.exception("an answer failed")
            turn.error = "Something went wrong on the server while answering; its log says what."
        finally:
            with self._changed:
                turn.done = True
                self._changed.notify_all()

    def _grow(self, turn: Turn, text: str) -> None:
        with self._changed:
            turn.text = text
            self._changed.notify_all()

    # -- the end ----------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget everything at once."""
        self.stop_watching()
        self.stop_answer()
        if self._stream is not None:
            self._stream.close()  # whatever runs on it ends at its next turn
        self._stream = self._watcher = self.camera = self.preview = None
        self.chat, self.standing, self.title = [], [], ""


class Sessions:
    """All sessions of one server.

    Parameters
    ----------
    models : mapping of str to callable
        Loads the model of a name; each is called once, when the model is first wanted.
    seats : int
        Most sessions that hold a stream; the others wait in a line.
    most : int
        Most sessions, those in the line included.
    idle : float
        Seconds after which a session that nobody looks at is closed.
    longest : float
        Most seconds of a video that is not live.
    clock : callable
        Seconds, for tests.
    """

    def __init__(
        self,
        models: dict[str, Callable[[], pv.VideoLM]],
        *,
        seats: int = 4,
        most: int = 32,
        idle: float = 900.0,
        longest: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models, self.clock = models, clock
        self.seats, self.most, self.idle, self.longest = seats, most, idle, longest
        self._loaded: dict[str, pv.VideoLM] = {}
        self._loading = threading.Lock()
        self._sessions: dict[str, Session] = {}  # in the order in which they came, which is that of the line
        self._changed = threading.Condition(threading.RLock())

    def open(self, name: str = "") -> Session:
        """The session of this name, or a new one.

        Raises
        ------
        SessionError
            If there is no room for another.
        """
        self.sweep()
        with self._changed:
            session = self._sessions.get(name)
            if session is None:
                if len(self._sessions) >= self.most:
                    raise SessionError(f"All {self.most} places of this server are taken; try again in a few minutes.")
                session = Session(secrets.token_urlsafe(18), self)
                self._sessions[session.name] = session
            session.seen = self.clock()
            return session

    def get(self, name: str) -> Session:
        """A session that was opened.

        Raises
        ------
        SessionError
            If it was closed, by its visitor or because nobody looked at it for too long.
        """
        with self._changed:
            session = self._sessions.get(name)
            if session is None:
                raise SessionError("This session was closed, or was never opened; open the video again.")
            session.seen = self.clock()
            return session

    def close(self, name: str) -> bool:
        """End a session and free its memory; False if there is none of this name."""
        with self._changed:
            session = self._sessions.pop(name, None)
            self._changed.notify_all()
        if session is not None:
            session.clear()
        return session is not None

    def sweep(self) -> list[str]:
        """Close the sessions that nobody looked at for too long; returns their names."""
        with self._changed:
            late = [name for name, session in self._sessions.items() if self.clock() - session.seen > self.idle]
        return [name for name in late if self.close(name)]

    def sweep_for_ever(self, every: float = 5.0) -> threading.Thread:
        """Sweep now and then, in a thread that ends with the process."""

        def run() -> None:
            while True:
                time.sleep(every)
                self.sweep()

        thread = threading.Thread(target=run, name="sweeper", daemon=True)
        thread.start()
        return thread

    def place(self, name: str) -> int:
        """The place in the line, from 1; 0 for one who is seated. Who is gone is seated too: nothing to wait for."""
        with self._changed:
            names = list(self._sessions)
            return max(0, names.index(name) - self.seats + 1) if name in names else 0

    def wait_for_seat(self, name: str, tell: Callable[[int], None], stopped: threading.Event) -> None:
        """Wait until a session is seated, or stopped."""
        with self._changed:
            while (place := self.place(name)) and not stopped.is_set():
                tell(place)
                self._changed.wait(0.2)

    def model(self, name: str) -> pv.VideoLM:
        """A model by the name under which the server offers it."""
        name = name or next(iter(self.models))
        if name not in self.models:
            raise pv.ConfigError(f"This server has no model {name!r}; choose one of {', '.join(self.models)}.")
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = self.models[name]()
            return self._loaded[name]

    @property
    def names(self) -> Sequence[str]:
        """Names of all sessions, in the order of the line."""
        with self._changed:
            return list(self._sessions)
