"""One visitor's stream, its chat and what is known of its past. Knows no page, and of other visitors only the line."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pdrop_video as pv

from .camera import BrowserCamera
from .host import Host
from .settings import Settings, checked
from .standing import Standing
from .turn import Turn
from .watching import Opened, Progress, Watcher, remembered

log = logging.getLogger(__name__)

_MOST_STANDING = 5
_LONGEST = 2048


class SessionError(pv.PDropError):
    """There is no such session, or no room for another, or it is busy."""


class Session:
    """One visitor's stream. Made by `Sessions.open`.

    Attributes
    ----------
    name, client : str
        A secret, and the address that opened it.
    title : str
        What is being watched, as the visitor wrote it.
    chat : list of Turn
    standing : list of Standing
    source : str or None
        What was opened, as `Actions.begin` opens it again; None for a camera of the browser, and for pushed frames.
    live : bool
        Whether it has no end.
    preview : str or None
        Name under which browsers find the file being watched, if they can play it.
    camera : BrowserCamera or None
        Where the browser's pictures go, if they are what is watched.
    seen : float
        When it was last asked for, by the host's clock.
    left : float or None
        When the last page that showed it was closed, unless it was asked for since.
    """

    def __init__(self, name: str, host: Host, client: str = "") -> None:
        self.name, self.client, self.title = name, client, ""
        self.preview: str | None = None
        self.source: str | None = None
        self.live = False
        self.seen = host.clock()
        self.left: float | None = None
        self.chat: list[Turn] = []
        self.standing: list[Standing] = []
        self.camera: BrowserCamera | None = None
        self.settings = Settings()
        self._host = host
        self._stream: pv.VideoStream | None = None
        self._watcher: Watcher | None = None
        self._stop_answer = threading.Event()
        self._changed = threading.Condition()
        self._unwatched = Progress()  # of a source that was refused, or of frames that were pushed
        self._after: Callable[[], None] = lambda: None

    # -- watching ---------------------------------------------------------------------------------------------------

    def begin(
        self,
        settings: Settings,
        title: str,
        source: Callable[[], Opened] | None,
        *,
        live: bool = False,
        after: Callable[[], None] = lambda: None,
        again: pv.VideoStream | None = None,
    ) -> None:
        """Start over with another source; without one, frames are to be pushed. Standing questions are kept.

        Parameters
        ----------
        settings : Settings
        title : str
            What the source is called.
        source : callable or None
            Opens it.
        live : bool
            Whether it has no end.
        after : callable
            Called once, when there is no more use for the source.
        again : VideoStream or None
            One that was saved, to go on with.
        """
        if settings.memory > self._host.largest:
            raise SessionError(
                f"memory is {settings.memory:,}; expected {self._host.largest:,} tokens a layer at most on this server."
            )
        stream = again or settings.open(
            self._host.model(settings.model)
        )  # what is wrong with them changes nothing here
        standing = [item.again() for item in self.standing]
        for item in standing:
            stream.lm.bounded("the question", item.question)
            item.begin(stream)
        self.clear()
        self.standing.extend(standing)
        self.settings, self.title, self.live, self._after = settings, title, live, after
        self._stream = stream
        if again is not None:
            status = again.status
            self._unwatched = Progress("done", frames=status.frames, seconds=status.seconds, **remembered(again))
        if source is None:
            return
        self._watcher = Watcher(
            stream,
            source,
            seat=self._host.seat,
            limit=None if live else self._host.longest,
            chunk=settings.chunk,
        )
        self._watcher.start()

    def refuse(self, title: str, why: str) -> None:
        """Start over with nothing but the reason why a source is not watched."""
        self.clear()
        self.title, self._unwatched = title, Progress("failed", message=why)

    def look_out(self, standing: Standing) -> None:
        """Look out for something from now on, or once at once if nothing more is to come."""
        if len(self.standing) >= _MOST_STANDING:
            raise SessionError(f"There are {_MOST_STANDING} standing questions already; remove them first.")
        if self._stream is not None:  # else nothing is watched yet, and `begin` will look at it
            self._stream.lm.bounded("the question", standing.question)
            standing.begin(self._stream)
            if self.progress.frames and not self.progress.running:
                self._stream.look()
        self.standing.append(standing)

    def forget_standing(self, key: str | None = None) -> None:
        """Look out for nothing any more, or not for one thing."""
        for standing in [each for each in self.standing if key in (None, each.key)]:
            standing.cancel()
            self.standing.remove(standing)

    def push(self, chunk: pv.FrameChunk) -> pv.Pushed:
        """Push frames by hand."""
        if self._watcher is not None and self._watcher.progress.running:
            raise SessionError("This session watches a source of its own; open one without a source to push frames.")
        pushed, status = self.stream.push(chunk), self.stream.status
        self._unwatched = Progress(frames=status.frames, seconds=status.seconds, **remembered(self.stream))
        return pushed

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
        return self._unwatched if self._watcher is None else self._watcher.progress

    @property
    def busy(self) -> bool:
        """Whether there is anything to wait for."""
        return self.progress.running or self.answers

    @property
    def answers(self) -> bool:
        """Whether an answer is being written."""
        return any(not turn.done for turn in self.chat)

    def stop_watching(self) -> None:
        """Watch no further; what was watched can be asked about. A camera that is started again begins anew."""
        self.camera = None
        if self._watcher is not None:
            self._watcher.stop()

    # -- asking -----------------------------------------------------------------------------------------------------

    def ask(self, question: str, longest: int = 128) -> Turn:
        """Begin an answer, in a thread of its own; `follow` shows it grow."""
        if isinstance(longest, int) and longest > _LONGEST:
            raise SessionError(f"An answer has at most {_LONGEST} tokens here; {longest} are asked for.")
        self.refuse_question(question)
        stream, watcher = self.stream, self._watcher
        pyramid = self.settings.asking()
        turn = Turn(question.strip())
        self.chat.append(turn)
        self._stop_answer = threading.Event()
        arguments = (turn, stream, watcher, pyramid, longest, self._stop_answer)
        threading.Thread(target=self._answer, args=arguments, name="answer", daemon=True).start()
        return turn

    def refuse_question(self, question: str) -> None:
        """Raise if a question can't be asked, or not now."""
        if not checked("question", question).strip():
            raise SessionError("The question is empty; write one.")
        self.stream.lm.bounded("the question", question)
        if self.answers:
            raise SessionError("One answer at a time: wait for the one that is being written, or stop it.")

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
        self._stream = self._watcher = self.camera = self.preview = self.source = None
        self.live = False
        self.chat, self.standing, self.title, self._unwatched = [], [], "", Progress()
        after, self._after = self._after, lambda: None
        after()
