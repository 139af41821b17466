"""Rows about what stands in front of the language model: gates and reducers."""

from __future__ import annotations

from functools import partial

from pdrop_video.gate import GATES
from pdrop_video.reduce import REDUCERS
from pdrop_video.registry import facts_of

from ..runner.equal import Way
from .base import ALL, LETS_ON, MARGIN, Rows, even_drops, one_drop, servable, written


def front(way: Way) -> Rows:
    """What stands in front of the language model: a gate, a reducer at several shares, and both, against neither."""
    rows: Rows = {"full": {"pyramid": ALL}, "static": {"pyramid": ALL, "gate": "static"}}
    for keep in (0.75, 0.5, 0.25):
        for name, given in (("evs", {}), ("static, evs", {"gate": "static"})):
            rows[f"{name} {keep:.0%}"] = {"pyramid": ALL, **given, "reducer": f"evs:keep={keep}"}
    return rows


def reduce(way: Way) -> Rows:
    """Gates and reducers against pyramids, fewer frames and controls, at equal FLOPs of the whole way, tower included.

    Without a gate nothing costs less than the tower, so for less than half all stand behind the same one, beside fewer
    frames. What a gate lets on depends on the video; the records say what was spent.
    """
    rows: Rows = {"full": {"pyramid": ALL}}
    for gate in (*GATES, "codec:sticky=false", "static:parts=true", "surprise:parts=0.25"):
        rows[f"{gate}, all that it lets on"] = {"pyramid": ALL, "gate": gate}
    for share, gates in LETS_ON.items():
        rows[f"fewer frames {share:.0%}"] = {"pyramid": ALL, "fps": 2 * share}
        if not gates:
            rows |= {f"{name} {share:.0%}": given for name, given in _at_equal_cost(way, share, 1.0).items()}
        for gate, encoded in gates.items():
            for name, given in _at_equal_cost(way, share, MARGIN * encoded).items():
                rows[f"{name}, {gate} {share:.0%}"] = {**given, "gate": gate}
    return rows


def _at_equal_cost(way: Way, share: float, encoded: float) -> Rows:
    """Schedules and reducers that spend a share of all FLOPs where such a share of the steps is encoded."""
    rows: Rows = {}
    schedules = {
        "pyramid": way.schedule(share, even_drops, encoded=encoded),
        **{f"one drop at {at}": way.schedule(share, partial(one_drop, at), encoded=encoded) for at in (2, 1)},
    }
    for name, pyramid in schedules.items():
        if pyramid is not None:
            rows[name] = {"pyramid": written(pyramid)}
    both = way.schedule(share, even_drops, encoded=encoded, keep=0.7)
    if both is not None:
        for name in ("event_saliency", "lrcp"):
            rows[f"{name} and pyramid"] = {"pyramid": written(both), "reducer": f"{name}:keep=0.7"}
    keep = way.keep(share, encoded=encoded)
    if keep is None:
        return rows
    for name, method in REDUCERS.items():
        if not servable(method):
            continue
        says = ("keep",) if hasattr(method, "keep") else ("least", "most")  # how much it leaves
        line = ",".join(f"{parameter}={keep}" for parameter in says if hasattr(method, parameter))
        facts = facts_of(method)
        asks = {"question_aware": True} if facts is not None and facts.needs_question else {}
        rows[name] = {"pyramid": ALL, "reducer": f"{name}:{line}" if line else name, **asks}
    return rows
