"""`Proactive`: a stream that speaks up by itself: looks out for things after a push, and takes notes as time goes by.

Knows pushing and asking. Refuses to know files, and what becomes of events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from weakref import finalize

from ..common import checks
from ..errors import ConfigError, StreamError
from ..video import FrameChunk
from .answer import Pushed
from .events import Event, Note, Terms, chance, clock, interval, mark_of
from .questions import Asking
from .state import StreamState
from .turns import check_told
from .watch import Lookout, Summary, Watch

_QUESTION = "Describe in one sentence what happened from {begin} to {end}."


class Proactive(Asking):
    """The half of a `VideoStream` that is not asked."""

    _lookout: Lookout

    def _open(self, state: StreamState) -> None:
        super()._open(state)
        self._look_out(Lookout())

    def _look_out(self, lookout: Lookout) -> None:
        self._lookout = lookout
        finalize(self, lookout.end).atexit = False  # who iterates over a watch does not wait for a stream that is gone

    def push(
        self, frames: FrameChunk | Any, seconds: Any = None, *, sound: Any = None, rate: int | None = None
    ) -> Pushed:
        """Watch some more frames, then look."""
        self._look()  # what a stream that was saved between a push and its look still owes
        pushed = super().push(frames, seconds, sound=sound, rate=rate)
        self._look()
        return pushed

    push.__doc__ = Asking.push.__doc__

    # -- looking out ------------------------------------------------------------------------------------------------

    def watch_for(
        self,
        question: str,
        every: float = 2.0,
        *,
        sure: float = 0.7,
        clear: float = 0.4,
        cooldown: float = 0.0,
        options: Sequence[str] = ("yes", "no"),
        call: Callable[[Event], object] | None = None,
    ) -> Watch:
        """Look out for something: ask after a push, every so many seconds of video, and tell when it begins and ends.

        Each look is a question on a fork; the stream stays bit for bit as it is without.

        Parameters
        ----------
        question : str
            Such as "Has somebody fallen?".
        every : float
            Seconds of video from mark to mark; the first mark is the stream's first frame. There is one look after a
            push that passed one or more of them, from now on; `look` looks at once.
        sure, clear : float
            An event begins at a look that finds a likelihood of `sure` or more, and ends at one that finds `clear` or
            less.
        cooldown : float
            Seconds after the end of an event in which no other begins.
        options : sequence of str
            What may be answered; the first is what is looked out for. Likelihoods are those of `likelihood`, divided by
            the sum over all options. A single one stands for itself: the mean probability of its tokens.
        call : callable, optional
            Gets each event, in the thread that pushes, outside of any turn: it may use the stream. What it raises, the
            push raises once all has been looked for; the frames are watched all the same.

        Returns
        -------
        Watch
            Iterate over it, `Watch.poll` it, or give `call`; `Watch.cancel` ends it.

        Raises
        ------
        ConfigError
            If a text is empty, can't be encoded or has no token in this model; if a number is out of its bounds.

        Notes
        -----
        A look that fails (the question finds no room, memory runs out) is counted in `Watch.failed` and looked again at
        the next mark; an event that lasts goes on, and other watches and the push know nothing of it.

        `save` keeps watches with what was not read yet, and a stream that is resumed has them in `watches`, without
        their `call`. A fork has none: open watches of its own.
        """
        if call is not None and not callable(call):
            raise ConfigError(f"call is {checks.shown(call)}; expected something to call with an event, or None.")
        watch = Watch(Terms(question, options, every, sure, clear, cooldown), call)  # type: ignore[arg-type]
        self._options(watch.terms.options)
        with self._access.serial():
            if self._state.span is not None:
                watch.pass_over(mark_of(watch.terms.every, self._state.span))
            self._lookout.add(watch)
        return watch

    @property
    def watches(self) -> tuple[Watch, ...]:
        """What is looked out for, in the order of opening; those that were cancelled are not among them."""
        return self._lookout.watches

    def look(self) -> None:
        """Let all watches look now, whatever the time: at the end of a video, for example.

        Raises
        ------
        StreamError
            If nothing was watched yet.
        """
        if self.status.seconds is None:
            raise StreamError("nothing was watched yet; push at least one frame before looking.")
        self._look(now=True)

    def _look(self, *, now: bool = False) -> None:
        """Let those watches look that are due, then take a note if it is time; events are given on the way."""
        lookout, raised = self._lookout, list[Exception]()
        with lookout.looking:
            for watch in lookout.watches:
                span = self.status.seconds
                if span is not None and (watch.due(span) or (now and not watch.over)):
                    self._see(watch, span)
                try:
                    watch.deliver()
                except Exception as error:
                    raised.append(error)
            summary, span = lookout.summary, self.status.seconds
            if summary is not None and span is not None and summary.due(span):
                self._take_note(summary, span)
        if raised:
            raise raised[0]

    def _see(self, watch: Watch, span: tuple[float, float]) -> None:
        """One look."""
        terms = watch.terms
        try:
            seconds, means = self._weighed(terms.question, self._options(terms.options))
            watch.saw(mark_of(terms.every, (span[0], seconds)), seconds, chance(means))
        except Exception as error:  # whatever it is, the frames are watched
            if not self.closed:
                watch.could_not_see(mark_of(terms.every, span), error)

    # -- notes ------------------------------------------------------------------------------------------------------

    def summarise(
        self, every: float = 60.0, *, question: str = _QUESTION, lines: int = 64, max_new_tokens: int = 48
    ) -> Summary:
        """Take a note every so many seconds of video: ask what happened, list the answer, and tell it to the stream.

        A note is remembered with the stretch of time that it is about, "[1:00-2:00] A man comes in.", in front of the
        frames that follow. Other than what is told, it is not forgotten with them: in each layer that forgets by the
        budget the newest notes, with turns that were kept, stay whole in up to a quarter of what the layer keeps when
        frames come in; older ones go first. So questions find there what frames that were forgotten showed.

        Parameters
        ----------
        every : float
            Seconds of video from mark to mark; the first mark is the stream's first frame, and the first note comes
            after the push that passes the next mark from now on.
        question : str
            What is asked; {begin} and {end} in it stand for the time of the note before, or the first frame, and now.
        lines : int
            Most notes that `notes` lists; the oldest go.
        max_new_tokens : int
            Longest note, in tokens, without its time.

        Returns
        -------
        Summary
            `Summary.cancel` ends it.

        Raises
        ------
        ConfigError
            If a number is out of its bounds or the question is no text; if notes are being taken; if the video has
            sound, which stands in one piece; if a note would be more than an eighth of what some layer may hold.

        Notes
        -----
        Unlike a watch, a note changes the stream. One that fails is counted in `Summary.failed`, and the next is about
        its stretch as well. `save` keeps the notes and goes on taking them; a fork has the notes taken so far and takes
        no more.
        """
        every, question = interval(every), checks.text("question", question)
        lines, longest = checks.whole("lines", lines), checks.whole("max_new_tokens", max_new_tokens)
        prompt, limits = self.lm.prompt, self._ingest.limits.entering
        around = len(self.lm.adapter.closing()) + len(prompt.between(str(Note(0, 359999, "x"))))
        if limits is not None and around + longest > min(limits) // 8:
            raise ConfigError(
                f"a note of {longest:,} tokens, {around:,} for its time and what stands around it, is more than an "
                f"eighth of the {min(limits):,} that the smallest layer may hold, and would be forgotten soon; give "
                "the memory more, or max_new_tokens less."
            )
        with self._access.serial():
            self._refuse_sound()
            if self._lookout.summary is not None:
                raise ConfigError("notes of this stream are being taken; cancel that first (Summary.cancel).")
            span = self._state.span
            mark = 0 if span is None else mark_of(every, span)
            summary = self._lookout.summary = Summary(every, question, lines, longest, mark)
        return summary

    @property
    def notes(self) -> tuple[Note, ...]:
        """The newest notes that `summarise` took, oldest first; the oldest of them may be remembered no more."""
        return self._state.notes

    def _take_note(self, summary: Summary, span: tuple[float, float]) -> None:
        notes = self._state.notes
        begin = notes[-1].end if notes else span[0]
        try:
            asked = summary.question.replace("{begin}", clock(begin)).replace("{end}", clock(span[1]))
            answer = self.ask(asked, summary.max_new_tokens)
            text = " ".join(answer.text.split())
            if text:
                self._note(Note(begin, answer.seconds[1], text), summary.lines)
            summary.error = None
        except Exception as error:  # whatever it is, the frames are watched
            if not self.closed:
                summary.could_not(error)
        summary.mark = mark_of(summary.every, span)

    def _note(self, note: Note, lines: int) -> None:
        """List a note, and let it into the stream in front of the next frame."""
        with self._access.serial():
            self._refuse_sound()
            noted = (*self._state.noted, str(note))
            check_told(self.lm, self._ingest, (*noted, *self._state.told))
            self._state = replace(self._state, noted=noted, notes=(*self._state.notes, note)[-lines:])

    def _refuse_sound(self) -> None:
        if self._state.heard is not None:
            raise ConfigError("notes can't be told in the middle of a video with sound, which stands in one piece.")

    # -- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the watches, then the stream."""
        try:
            for watch in self._lookout.watches:
                watch.cancel()
        finally:
            super().close()

    close.__doc__ = Asking.close.__doc__
