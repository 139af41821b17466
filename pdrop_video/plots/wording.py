"""What a picture shows, in words: for captions, and for those who can't see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .album import Overlay
from .painting import STRIPED, Fate, Key, legend

MEMORY = "How much of each moment each stage still remembers. The dashed line is what it kept at first, on average."
CACHE = "How large the memory is after each part of the video. It never passes the dashed line."
EVIDENCE = "Which moments each stage looked at for an answer."


def kept(overlay: Overlay) -> str:
    """What a stage still has of a moment."""
    count, means = overlay.kept, overlay.count(Fate.MEAN)
    if overlay.count(Fate.WAITS):
        return "not read yet: it waits for more pictures"
    said = f"{count} of {overlay.entered} pieces kept" if count else "no piece kept"
    if means:
        most = int(overlay.members[overlay.fates == Fate.MEAN].max())
        who = "each " if means == count > 1 else "" if means == count else f"{means} of them "
        said += f", {who}a mean of {most if means == 1 or most == 2 else f'up to {most}'}"
    begun = None if overlay.span is None else overlay.span[0]
    if begun is not None and begun < overlay.seconds:  # left out, or the second of two frames
        said += f", as seen at {begun:.1f} s"
    return said


def entered(overlay: Overlay) -> str:
    """What gate and reducer did with the moment; empty if nothing. It is the same in every stage."""
    said = []
    if overlay.skipped:
        stands = "" if overlay.source is None else f"; the one at {overlay.source:.1f} s stands for it"
        said.append(f"The gate left this picture out{stands}.")
    of = "Of that one" if overlay.skipped else "Of it"
    gone = (
        (Fate.NOT_WORTH, "the gate left {} out"),
        (Fate.LEFT_OUT, "the reducer left {} out"),
        (Fate.MERGED, "the reducer merged {} into others"),
    )
    parts = [words.format(_pieces(overlay.count(fate))) for fate, words in gone if overlay.count(fate)]
    if parts:
        said.append(f"{of} {' and '.join(parts)}.")
    return " ".join(said)


def keys(overlays: Sequence[Overlay]) -> list[Key]:
    """What colours and edges of some pictures mean."""
    fates, members = (
        np.concatenate([of.ravel() for of in each])
        for each in zip(*((overlay.fates, overlay.members) for overlay in overlays), strict=True)
    )
    striped = [Key(STRIPED[0], True, STRIPED[1])] if any(overlay.skipped for overlay in overlays) else []
    return [*legend(fates, members), *striped]


def _pieces(count: int) -> str:
    return f"{count} piece{'s' * (count != 1)}"
