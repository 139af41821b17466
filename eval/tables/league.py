"""The league's rows at equal FLOPs of the whole way: one system and one share each.

Knows methods and what they cost; refuses to know runs and figures. A row is an `eval.tables.entries.Entry`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import floor

import pdrop_video as pv
from pdrop_video.gate import GATES
from pdrop_video.pyramid.allocators import ALLOCATORS
from pdrop_video.pyramid.inside import INSIDES
from pdrop_video.pyramid.scorers import SCORERS
from pdrop_video.reduce import REDUCERS
from pdrop_video.registry import facts_of
from pdrop_video.search.budget import SMALLEST, largest

from ..runner.equal import Way
from .base import ALL, MARGIN, Settings, early_drops, even_drops, one_drop, servable, written
from .entries import Entry, entry_of
from .inside import LEARNPRUNER

SHARES = (0.5, 0.25, 0.15, 0.1)
"""Of the FLOPs of the whole way, from frames to an answer, that the rows of `league_flops` spend."""
FPS = 2.0
"""Frames a second of what is shown; rows of fewer frames take a share of them."""
BEHIND = "surprise"
"""The gate that all stand behind where the vision tower alone costs too much."""
ROOM = 0.8
"""Most that a gate in front of something else may spend of a share: the tower's part of it. Chosen on the dev split."""
UNGATED = 0.75
"""Most of a share that the tower may take before everything stands behind a gate."""
ONCE = 0.2
"""Shares below which the default drops once, before the first layer. Chosen on the dev split."""
DEFAULT, SCORER = "pyramid", "contrast"
"""How the default is called, and what ranks there where no question is known."""
FASTV = "FastV, arXiv 2403.06764"
EVENTPRUNE = "EventPrune, arXiv 2605.19506"
DEPTHS: Mapping[str, tuple[int, ...]] = {"hawk": (0,), "coast": (2, 1)}
"""Scorers whose papers drop once: before which layer, and before which one where the layers up to there cost more."""


@dataclass(frozen=True, slots=True)
class LetOn:
    """What gates let on, measured.

    Attributes
    ----------
    lines : mapping of str to float
        Gates as one writes them, and the share of tower and tokens that each lets on.
    behind : str
        The gate that others stand behind.
    """

    lines: Mapping[str, float]
    behind: str = BEHIND

    def common(self, way: Way, share: float) -> tuple[Settings, float]:
        """What all stand behind at a share, and the share of steps that is encoded: no gate, the gate, or few frames.

        Few frames where no line of the gate is frugal enough.
        """
        tower = way.share(encoded=1.0, keep=0.0) - way.share(encoded=0.0, keep=0.0)
        if tower <= UNGATED * share:
            return {}, 1.0
        fits = {line: on for line, on in self._of(self.behind).items() if MARGIN * on * tower <= ROOM * share}
        if not fits:
            few = floor(1e3 * ROOM * share / tower) / 1e3
            return {"fps": FPS * few}, few
        line = max(fits, key=fits.__getitem__)
        return {"gate": line}, MARGIN * fits[line]

    def alone(self, way: Way, share: float, gate: str) -> Settings | None:
        """The line of a gate that lets most on within a share, all of whose tokens stay; None if none is so frugal."""
        fits = {line: on for line, on in self._of(gate).items() if way.share(encoded=min(1.0, MARGIN * on)) <= share}
        return {"gate": max(fits, key=fits.__getitem__)} if fits else None

    def before(self, way: Way, share: float, gate: str) -> tuple[Settings, float] | None:
        """The line of a gate that leaves room for what stands behind it; None if none does, or none is needed."""
        settings, encoded = LetOn(self.lines, gate).common(way, share)
        return (settings, encoded) if "gate" in settings else None

    def _of(self, gate: str) -> dict[str, float]:
        return {line: on for line, on in self.lines.items() if line.partition(":")[0] == gate}


def shaped(way: Way, share: float, encoded: float) -> pv.Pyramid | None:
    """PyramidDrop's shape; where the layers before its first boundary cost too much a layer earlier, then one drop."""
    makes = (even_drops, early_drops, partial(one_drop, 1), partial(one_drop, 0))
    found = (way.schedule(share, make, encoded=encoded) for make in makes)
    return next((pyramid for pyramid in found if pyramid is not None), None)


def dropping(way: Way, share: float, encoded: float, depths: tuple[int, ...]) -> pv.Pyramid | None:
    """One drop before the first of these layers that a share allows."""
    found = (way.schedule(share, partial(one_drop, at), encoded=encoded) for at in depths)
    return next((pyramid for pyramid in found if pyramid is not None), None)


def league_flops(
    way: Way,
    lets_on: LetOn,
    through: Mapping[str, Way] | None = None,
    aims: Mapping[str, float] | None = None,
) -> list[Entry]:
    """Every system that spends FLOPs, at each of `SHARES` of the whole way's, vision tower and question included.

    Whoever needs a question has it from the start (`question_aware`). Where the tower alone costs too much, all but
    the gates themselves and fewer frames stand behind the same gate. A scorer has PyramidDrop's shape unless its
    paper says another one (`DEPTHS`); where that shape doesn't fit, its stages come a layer earlier. Below `ONCE` the
    default drops once before the first layer. A reducer has no pyramid behind it. Those within the tower (`IN_TOWER`)
    leave as many tokens as they were trained to, of as many frames as there is room for, where the way `through` their
    part is given. What a system can't spend so little with is left out.

    The formulas don't know what a question's rows cost behind every chunk, nor what a threshold lets through:
    `aims` has, by a row's name, the share that it is planned for so that it spends its own (`eval.league.aims`).
    """
    rows = [Entry("all tokens", "nothing", 1.0, {"pyramid": ALL}, "whole")]
    for share in SHARES:
        made = {share: _rows(way, lets_on, through or {}, share, share)}
        for name, row in made[share].items():
            aim = (aims or {}).get(name, share)
            if aim not in made:
                made[aim] = _rows(way, lets_on, through or {}, share, aim)
            rows.append(made[aim].get(name, row))
    return rows


def _rows(way: Way, lets_on: LetOn, through: Mapping[str, Way], share: float, aim: float) -> dict[str, Entry]:
    """The rows of a share by their names, all planned as if it were `aim`; what stands in front goes by the share."""
    says = "frames at equal distances"
    rows = [Entry("fewer frames", "frames", share, _frames(way, aim), "control", says=says)]
    for gate, method in GATES.items():
        line = lets_on.alone(way, aim, gate)
        if line is not None:
            rows.append(entry_of(gate, "gate", share, {"pyramid": ALL, **line}, facts_of(method)))
    behind, encoded = lets_on.common(way, share)
    for row in (*_stages(way, aim, encoded), *_reducers(way, aim, encoded), *_systems(way, aim, encoded)):
        rows.append(replace(row, settings={**behind, **row.settings}))
    rows += _eventprune(way, aim, lets_on)
    rows += [_in_tower(name, there, aim) for name, there in through.items()]
    named = [replace(row, at=share) for row in rows]
    return {row.name: row for row in named}


def _stages(way: Way, share: float, encoded: float) -> Iterator[Entry]:
    """What ranks between layers, how that is divided among frames, and what layers leave out."""
    pyramid, first = shaped(way, share, encoded), dropping(way, share, encoded, (0,))
    usual = first if share < ONCE and first is not None else pyramid
    facts = facts_of(SCORERS[SCORER.partition(":")[0]])
    if pyramid is not None and usual is not None:
        made = written(usual)
        yield entry_of(DEFAULT, "stage", share, {"pyramid": {**made, "scorer": SCORER}}, facts, "default")
        own = {"pyramid": {**written(pyramid), "scorer": "relevance", "allocator": "global"}}
        yield entry_of("pyramiddrop", "stage", share, own, facts_of(SCORERS["relevance"]))
        for name, allocator in ALLOCATORS.items():
            if name != pv.Pyramid().allocator:
                given = {"pyramid": {**made, "scorer": SCORER, "allocator": name}}
                yield entry_of(f"{SCORER}, {name}", "allocator", share, given, facts_of(allocator), "control")
        if usual != pyramid:
            says = "what the default's scorer ranks highest, in PyramidDrop's stages"
            given = {"pyramid": {**written(pyramid), "scorer": SCORER}}
            yield Entry(f"{SCORER} in stages", "stage", share, given, paper="ours", says=says)
        elif first is not None and usual != first:
            says = "what the default's scorer ranks highest, in one drop before the first layer"
            given = {"pyramid": {**written(first), "scorer": SCORER}}
            yield Entry(f"{SCORER} at 0", "stage", share, given, paper="ours", says=says)
    for name, scorer in SCORERS.items():
        if name in (SCORER, "relevance"):
            continue
        shape = dropping(way, share, encoded, DEPTHS[name]) if name in DEPTHS else pyramid
        if shape is not None:
            yield entry_of(name, "stage", share, {"pyramid": {**written(shape), "scorer": name}}, facts_of(scorer))
    early = dropping(way, share, encoded, (2, 1))
    if early is not None:
        says = "tokens that the question's last token attends to most, in one early drop"
        ranked = {**written(early), "scorer": "relevance", "allocator": "global"}
        asked: Settings = {"pyramid": ranked, "question_aware": True}
        yield Entry("fastv", "stage", share, asked, paper=FASTV, says=says)
    active = way.active(share, encoded=encoded)
    if active is not None:
        inside = {"pyramid": {**ALL, "inside": f"adaspark:p={active},half=ffn"}}
        yield entry_of("adaspark", "inside", share, inside, facts_of(INSIDES["adaspark"]))


def _reducers(way: Way, share: float, encoded: float) -> Iterator[Entry]:
    """What chooses or merges tokens in front of the language model, as many as the share allows."""
    keep = way.keep(share, encoded=encoded)
    if keep is None:
        return
    for name, method in REDUCERS.items():
        if servable(method) and name not in IN_TOWER:
            says = ("keep",) if hasattr(method, "keep") else ("least", "most")  # how much it leaves
            line = ",".join(f"{parameter}={keep}" for parameter in says if hasattr(method, parameter))
            given = {"pyramid": ALL, "reducer": f"{name}:{line}" if line else name}
            yield entry_of(name, "reducer", share, given, facts_of(method), parts=tuple(getattr(method, "parts", ())))
    for system, reducer, part, asks in TRAINED_REDUCERS:
        asked: Settings = {"question_aware": True} if asks else {}
        given = {"pyramid": ALL, "reducer": f"{reducer},keep={keep}", **asked}
        yield entry_of(system, "reducer", share, given, facts_of(REDUCERS[reducer.partition(":")[0]]), parts=(part,))


IN_TOWER: Mapping[str, str] = {"standby": "standby:full=false", "uhd": "uhd"}
"""Reducers whose part reaches into the tower, and as one writes them: what the tower costs is another."""
TRAINED_REDUCERS = (
    ("learnpruner, trained", "learnpruner:score=trained", "learnpruner", False),
    ("dualcomp, trained", "dualcomp:router=lambda", "dualcomp", True),
    ("videorouter, trained", "relevance_pooling:relevance=trained,policy=trained", "videorouter", True),
)
"""Listed reducers with a trained part in place of what is ours: system, line without `keep`, part, whether it asks."""


def _in_tower(name: str, through: Way, share: float) -> Entry:
    """What leaves the tower through a part, of as many frames as the share allows."""
    given: Settings = {**_frames(through, share), "reducer": IN_TOWER[name]}
    return entry_of(name, "reducer", share, given, facts_of(REDUCERS[name]), parts=(name,))


def _frames(way: Way, share: float) -> Settings:
    """All tokens of as many frames as a share allows."""
    few = largest(lambda encoded: way.share(encoded=encoded), share, SMALLEST) or SMALLEST
    return {"pyramid": ALL} if few == 1 else {"pyramid": ALL, "fps": floor(1e4 * FPS * few) / 1e4}


def _systems(way: Way, share: float, encoded: float) -> Iterator[Entry]:
    """Papers that stand in two places at once."""
    depth, left = LEARNPRUNER
    drop = one_drop(round(depth * way.decoder.layers), left)
    keep = way.keep(share, encoded=encoded, pyramid=drop)
    if keep is None or keep >= 1:  # the drop alone costs more, or less
        return
    facts = facts_of(REDUCERS["learnpruner"])
    halves: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("learnpruner", "", ()),
        ("learnpruner, trained", ",score=trained", ("learnpruner",)),
    )
    for system, line, parts in halves:
        given: Settings = {
            "pyramid": {**written(drop), "scorer": "text_mean"},
            "reducer": f"learnpruner:keep={keep}{line}",
            "question_aware": True,
        }
        yield entry_of(system, "reducer + stage", share, given, facts, parts=parts)


def _eventprune(way: Way, share: float, lets_on: LetOn) -> list[Entry]:
    """EventPrune whole: its own gate, and its own ranks between layers."""
    found = lets_on.before(way, share, "event")
    pyramid = None if found is None else shaped(way, share, found[1])
    if found is None or pyramid is None:
        return []
    ranked = {**written(pyramid), "scorer": "event_fusion"}
    given: Settings = {**found[0], "pyramid": ranked, "question_aware": True}
    says = "frames where an event camera would have fired, and of them tokens with events that the question is about"
    return [Entry("eventprune", "gate + stage", share, given, paper=f"{EVENTPRUNE}; in part ours", says=says)]
