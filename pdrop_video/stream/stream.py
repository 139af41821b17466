"""`VideoStream`: push frames, ask at any time. The only place that knows all the steps.

Video frames go through the family's adapter into visual tokens, through the layer loop in stages, into a cache that is
kept within its budget; a question forks that cache, is answered, and leaves no trace.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

from .. import plots
from ..errors import StreamError
from ..memory import lasting
from . import session
from .proactive import Proactive
from .sifted import Sifted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class VideoStream(Proactive):
    """A video being watched. Opened by `VideoLM.stream`.

    Parameters
    ----------
    lm : VideoLM
        The model.
    loop : LayerLoop
        Its layers and the schedule.
    memory : Memory
        The budget.
    standing_question : str, optional
        Ranks visual tokens in place of the answer-turn template.
    system : str, optional
        A system prompt.
    restore : callable, optional
        Makes a saved state; by default a stream begins with the prompt.

    Raises
    ------
    ConfigError
        If positions are "compact", or the budget can't hold the prompt.
    """

    lm: Any  # a VideoLM, which this module can't name: it is what opens streams

    @property
    def sifted(self) -> Sifted:
        """What gate and reducer made of the frames of the last push, place by place; nothing in a stream just resumed.

        What the layers remember of it, `held` says.
        """
        sifting, waiting = self._state.sifting, self._state.waiting
        return Sifted(sifting.skipped, () if waiting is None else waiting.seconds, sifting.steps)

    @property
    def uses_motion(self) -> bool:
        """Whether the gate looks at what a codec says of motion: open videos for it with ``motion=True``."""
        return bool(getattr(self._ingest.front.gate, "uses_motion", False))

    def plot_memory(self) -> Figure:
        """Draw how much of each stretch of time is still remembered, stage by stage.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        StreamError
            If nothing was watched yet.
        PDropError
            If matplotlib, the extra "plots", is not installed.
        """
        return plots.memory(self)

    def fork(self) -> VideoStream:
        """A second stream with the same past, free to go its own way; memory is shared until it must not be.

        It has the notes taken so far, and no watches and no taking of notes of its own.
        """
        with self._access.whole(), lasting():
            twin = object.__new__(type(self))
            twin.__dict__.update(self.__dict__)
            twin._open(self._state.fork())
        return twin

    def __copy__(self) -> VideoStream:
        return self.fork()

    def __deepcopy__(self, memo: dict[int, object]) -> VideoStream:
        return self.fork()  # what it shares with the other is never written on by either

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise StreamError(
            "a stream can't be pickled: it works only with its loaded model. Write it to a file with save, and go on "
            "from there with VideoLM.resume, also in another process; in this one, fork it."
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that the stream remembers to one file, from which `VideoLM.resume` goes on bit for bit.

        The file appears in one step: a crash at any moment leaves the old file or the new one, whole.

        Parameters
        ----------
        path : str or path
            A file; replaced if it exists.
        """
        session.save(self, path)
