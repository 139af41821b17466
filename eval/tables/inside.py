"""Rows about what happens between the decoder's layers: schedules, scorers, allocators, chunks."""

from __future__ import annotations

from functools import partial

import pdrop_video as pv
from pdrop_video.pyramid.scorers import SCORERS
from pdrop_video.registry import facts_of
from pdrop_video.search.budget import Costs

from ..runner.equal import Way
from .base import ALL, LETS_ON, MARGIN, RATIOS, Rows, Settings, early_drops, even_drops, one_drop, written

SHARES = (0.1, 0.15, 0.25, 0.5, 0.75)
"""Of the FLOPs of all visual tokens, that the rows of `depth` spend."""
STAGE_SHARES = (0.5, 0.25, 0.15)
"""Of the FLOPs of the whole way, that the rows of `stage` spend."""
ONE_DROP = ("contrast", "relevance", "hawk", "coast")
"""Scorers that `stage` also tries at a single drop: the default, PyramidDrop's, and those whose papers drop once."""
LEARNPRUNER = (3 / 8, 1 / 3)
"""How deep LearnPruner's drop is, and what it leaves of what the reducer did."""


def depth(way: Way) -> Rows:
    """PyramidDrop's schedule against one early drop and against controls, at equal FLOPs."""
    costs = Costs(way.decoder, 1024)
    rows: Rows = {"full": {"pyramid": ALL}}
    for share in SHARES:
        schedules = {"pyramid": costs.paper(pv.Pyramid(), 4, share)}
        for layer in (2, 1):  # FastV's is 2
            schedules[f"one drop at {layer}"] = costs.fitted(partial(one_drop, layer), share)
        for name, schedule in schedules.items():
            if schedule is None:  # the layers before the first boundary cost more than that
                continue
            given = written(schedule)
            rows[f"{name} {share:.0%}"] = {"pyramid": given}
            if name == "pyramid":
                for control in ("random", "even", "shuffled"):
                    rows[f"{control} {share:.0%}"] = {"pyramid": {**given, "scorer": control}}
    return rows


def joint(way: Way) -> Rows:
    """Every allocator with scorers that see no question, one that sees the template, and one that sees the question."""
    rows: Rows = {"full": {"pyramid": ALL}}
    for allocator in ("global", "uniform", "joint"):
        for scorer in ("contrast", "novelty", "relevance", "product", "fusion", "last_frame"):
            rows[f"{scorer}, {allocator}"] = {"pyramid": {"ratios": RATIOS, "scorer": scorer, "allocator": allocator}}
        for scorer in ("relevance", "product"):
            given = {"ratios": RATIOS, "scorer": scorer, "allocator": allocator}
            rows[f"{scorer} to the question, {allocator}"] = {"pyramid": given, "question_aware": True}
    return rows


def stage(way: Way) -> Rows:
    """Every scorer at PyramidDrop's shape, and some at one drop, at equal FLOPs of the whole way, tower included.

    Whoever needs a question has it from the start (`question_aware`). Without a gate nothing costs less than the tower,
    so for less than half all stand behind the same one, as in `reduce`. Where the layers before the first boundary cost
    too much, all boundaries stand a layer earlier. Two systems stand beside them: `learnpruner`, a reducer and one
    drop, and `adaspark`, where all tokens stay and some go without an FFN (about as many as its share of norms says).
    What scorers and reducers themselves compute stands in the records beside what the schedule spends.
    """
    rows: Rows = {"full": {"pyramid": ALL}}
    for share in STAGE_SHARES:
        for gate, let_on in LETS_ON[share].items() or (("none", 1 / MARGIN),):
            behind: Settings = {} if gate == "none" else {"gate": gate}
            encoded = MARGIN * let_on
            made = way.schedule(share, even_drops, encoded=encoded)
            made = made or way.schedule(share, early_drops, encoded=encoded)
            single = {at: way.schedule(share, partial(one_drop, at), encoded=encoded) for at in (0, 1, 2)}
            for name, scorer in SCORERS.items():
                facts = facts_of(scorer)
                given = {**behind, **({"question_aware": True} if facts and facts.needs_question else {})}
                if made is not None:
                    rows[f"{name} {share:.0%}"] = {**given, "pyramid": {**written(made), "scorer": name}}
                for at, schedule in single.items() if name in ONE_DROP else ():
                    if schedule is not None:  # the layers before the drop may cost more than that
                        pyramid = {**written(schedule), "scorer": name}
                        rows[f"{name}, one drop at {at} {share:.0%}"] = {**given, "pyramid": pyramid}
            for name, given in _systems(way, share, encoded).items():
                rows[f"{name} {share:.0%}"] = {**behind, **given}
    return rows


def _systems(way: Way, share: float, encoded: float) -> Rows:
    """Methods between layers that are more, or other, than a scorer."""
    rows: Rows = {}
    depth, left = LEARNPRUNER
    drop = one_drop(round(depth * way.decoder.layers), left)
    keep = way.keep(share, encoded=encoded, pyramid=drop)
    if keep is not None and keep < 1:  # else the drop alone spends less
        pyramid = {**written(drop), "scorer": "learnpruner"}
        rows["learnpruner"] = {"pyramid": pyramid, "reducer": f"learnpruner:keep={keep}", "question_aware": True}
    if (active := way.active(share, encoded=encoded)) is not None:
        rows["adaspark"] = {"pyramid": {**ALL, "inside": f"adaspark:p={active},half=ffn"}}
    return rows


def chunks(way: Way) -> Rows:
    """Frames a push."""
    rows: Rows = {"full": {"pyramid": ALL}}
    for frames in (2, 4, 8, 16, 32):
        rows[f"{frames} frames a chunk"] = {"pyramid": {"ratios": RATIOS}, "chunk": frames}
    return rows
