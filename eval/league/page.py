"""The league as a page: tables of what `eval.league.standings` found, and what is always true of them.

Knows words and figures. Refuses to compute: every number here is given.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..tables.league import ONCE
from .standings import FOCUS, LEAST, OF, Table

WHAT = {
    "flops": "equal FLOPs",
    "bytes": "equal bytes",
    "decode": "looking again while answering",
}
OVER = 1.1
"""Times what the default spent, beyond which a cell is marked."""
HEAD = """# The league

Every system that this library serves, on one stream, with one model: at equal FLOPs of the whole way, from frames
to an answer and the vision tower included, and at equal bytes of memory. This page is written by `python -m
eval.league write` from the tables beside [their verdict]({results}/verdict.json), without a model; no
figure in it was typed.
"""
READ = """## How to read it

- **A cell** is the share of questions answered right, ± its standard error, clustered by video. Behind it stand
  wins : losses against the default at the same budget: questions that the system alone, and that the default alone,
  had right.
- **▲ and ▼** mark systems that beat the default, or lose to it: McNemar's exact test after Holm's correction for
  all systems of that budget, and the interval of the paired difference by videos, agree at 5 %. Without a mark no
  difference was shown, which is not the same as none.
- **spent** is what was really spent, in per cent of the FLOPs of all tokens on the same questions, budget by
  budget. Rows were planned on videos of the dev split so that they spend there what the default does. What a gate lets
  on, and with it the cost of all behind it, depends on the videos; a system without that gate is planned for the share
  itself; and a few frames more or less can't be divided. **†** marks what spent over {over:.0f} % more than the default
  did: as a rule it can't be had for less, as its question has to pass behind every chunk.
- **own** is what the method itself computes, in per cent of the FLOPs of all tokens: gate, reducer, the question's
  rows behind every chunk, and ranking. What an evictor multiplies is not counted.
- **breaks** names the kind of question, or the age of the answer ("10 s to 1 min ago"), that loses most against all
  tokens at {focus}, of those with {least} questions or more. It follows a rule: the largest difference of shares.
- Systems that need a question have it from the start. Controls are no systems: who does not beat them is not worth
  its cost.
"""
BEHIND = """Where the vision tower alone costs too much of a share, everything but the gates themselves and fewer frames
stands behind the same front: {gates}. Where nothing stands in front, a system has to leave out everything by itself, so
that a smaller share may show more right answers. A scorer has PyramidDrop's shape (each boundary keeps the same
share of what reached it), unless its paper drops once; a reducer has no pyramid behind it. Where that shape doesn't
fit into a share its boundaries come a layer earlier. Below {once:.0f} % the default drops once before the first layer:
on the dev split that was right in .720 of 300 questions at 15 %, and in stages .623 (45 : 16, McNemar p .0003; at 25 %
.870 and .843, 15 : 7, p .13; at 50 % .910 and .893, 18 : 13, p .47). On 300 test questions of another seed (821), on
which nothing was chosen, it has .730 at 15 %, stages .607 (53 : 16), the best of 42 systems .757 (16 : 8), and none
beats it. A dash: the system can't spend so little, or was not run.
"""
STORED = """Evictors store keys and values in full; storages stand under the evictor `pyramid`. The default is what
`pv.Memory(bytes=...)` takes: that evictor, and `int8_per_token`.
"""
LEFT = """A question's pyramid leaves half of the memory behind its first boundary, then a quarter and an eighth; or a
quarter, a sixteenth and a fiftieth. What it hides can be looked at again while the answer is written.
"""
SAID = {"bytes": STORED, "decode": LEFT}
LIMITS = """## What it can't say

- One model of a few million parameters, on synthetic videos: what a method gains on a large model is not shown by
  this, nor what it loses. Most papers tune layers, thresholds and weights for models of seven billion parameters;
  here they have their published values, or ours where none were published ([one by one](formulas.md)).
- "In part ours" stands where a paper's rule was not published or does not fit a stream; the docstring of the method
  says which.
- Equal FLOPs are not equal seconds. What gates and reducers take in time is in
  [figures](measured.md#gates-and-reducers).
- Systems that choose a schedule offline (VisPCO, QUOTA's layer budgets, EvoComp's labels) are in
  [search](search.md), not here.
- Many systems stand against one default: the correction is for that, and a difference of two or three answers shows
  nothing.
"""
AGAIN = """## Run it again

On a part, with a set of your own seed, in minutes:

    python -m eval.synthetic.make --out PART --split test --seed SEED --moving --short 12 --medium 0 --long 0
    python -m eval.league run --data PART --runs runs/part --share 0.15 --only hawk --only fastv --only lrcp
    python -m eval.league write --results runs/part/results --page runs/part/league.md

All of it, on the set of this page:
{made}
    python -m eval.league run --data DIR{steps} --runs runs/league --workers 2
    python -m eval.league write

A league that was stopped goes on with the same command. Each row is a run of `eval.run` with the `settings` of its
line in the table, and gives the same answers to the digit. With `--model NAME` it runs on a model of your own;
`python -m eval.league gates --data DEV` first measures what gates let on, on videos like yours, and `python -m
eval.league aims --data DEV --runs runs/aims` what each row has to be planned for.
"""


def page(
    stand: Mapping[str, pd.DataFrame],
    said: Mapping[str, Sequence[str]],
    about: Mapping[str, Any],
    tables: Mapping[str, Table],
    results: Path,
    to: Path,
) -> str:
    """The page's Markdown.

    Parameters
    ----------
    stand : mapping of str to DataFrame
        `standings` of each table that there is.
    said : mapping of str to list of str
        The verdict's sentences.
    about : mapping
        What `run` noted of model and sets.
    tables : mapping of str to Table
    results, to : Path
        Where the tables are, and where the page goes, for its links.
    """
    link = os.path.relpath(results, to.parent).replace(os.sep, "/")
    parts = [HEAD.format(results=link), _about(about, tables), "## Who beats the default\n"]
    for name in stand:
        parts.append("".join(f"- {line}\n" for line in said[name]))
    parts.append(f"![Accuracy against what was spent]({link}/league.png)\n")
    focus = OF["flops"].format(f"{FOCUS['flops']:.0%}") + ", or with " + OF["bytes"].format(FOCUS["bytes"])
    parts.append(READ.format(focus=focus, least=LEAST, over=100 * (OVER - 1)))
    for name, found in stand.items():
        parts.append(f"## {WHAT[name][0].upper()}{WHAT[name][1:]}\n")
        if name == "flops":
            parts.append(BEHIND.format(gates=_gates(tables[name]), once=100 * ONCE))
        if name in SAID:
            parts.append(SAID[name])
        parts += _tables(name, found)
    steps = " --steps-data STEPS" if "decode" in stand else ""
    parts += ["## The systems\n", _systems(stand.values()), LIMITS, AGAIN.format(made=_made(about), steps=steps)]
    return "\n".join(parts)


def _about(about: Mapping[str, Any], tables: Mapping[str, Table]) -> str:
    """Model and sets, in sentences."""
    sets = [
        f"{len(table.items):,} questions about {table.items.video.nunique()} videos at {WHAT[name]}"
        for name, table in tables.items()
    ]
    whole = [f"{100 * _share(table):.1f} %" for table in tables.values()]
    said = f"With {about.get('model', 'a model')}: {'; '.join(sets)}. All tokens answer {', '.join(whole)} of them. "
    rate = f"{about['fps']:g} frames a second in chunks of {about['chunk']}" if "fps" in about else ""
    commit = f", version {about['version']}" if "version" in about else ""
    return f"{said}{rate}{commit}.\n" if rate else f"{said.rstrip()}\n"


def _share(table: Table) -> float:
    marks = table.marks[table.whole]
    return float(marks[~pd.isna(marks)].mean()) if (~pd.isna(marks)).any() else math.nan


def _made(about: Mapping[str, Any]) -> str:
    commands = dict.fromkeys(each.get("made", "") for each in about.get("sets", {}).values())
    return "".join(f"\n    {command}" for command in commands if command)


def _gates(table: Table) -> str:
    """Which gate stands in front of which share, from the settings of the default's rows."""
    default = table.rows[table.rows.kind == "default"]
    said = []
    for row in default.itertuples():
        settings = json.loads(row.settings)
        front = f"`{settings['gate']}`" if "gate" in settings else "fewer frames" if "fps" in settings else "nothing"
        said.append(f"{front} at {row.budget}")
    return ", ".join(said)


def _tables(name: str, found: pd.DataFrame) -> list[str]:
    """The table of systems without training, of trained ones, and of controls."""
    default = found[found.kind == "default"]
    groups = {
        "Without training": found[(found.kind == "system") & ~found.trained],
        "Trained": found[(found.kind == "system") & found.trained],
        "Controls": found[found.kind == "control"],
    }
    parts = []
    for title, group in groups.items():
        if len(group):
            parts.append(f"### {title}\n")
            most = OVER * default.set_index("budget").spent if name == "flops" else pd.Series(dtype=float)
            parts.append(_table(name, pd.concat([default, group]) if title != "Controls" else group, most))
    return parts


def _table(name: str, group: pd.DataFrame, most: pd.Series[float]) -> str:
    budgets = list(dict.fromkeys(group.sort_values("at", ascending=name != "flops").budget))
    if name == "decode":
        budgets = list(dict.fromkeys(group.budget))
    last = ["spent, %", "own, %"] if name == "flops" else ["KiB"] if name == "bytes" else ["spent, %"]
    head = ["system", "slot", *(OF[name].format(each) for each in budgets), *last, "breaks"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for (system, slot), rows in _in_order(name, group):
        by = {row.budget: row for row in rows.itertuples()}
        is_default = rows.kind.iloc[0] == "default"
        shown = (
            f"**`{system}`: the default**" if is_default else f"`{system}`" if rows.slot.iloc[0] != "frames" else system
        )
        over = {each for each in by if each in most and by[each].spent > most[each]}
        cells = [shown, slot, *(_cell(by.get(each)) + (" †" if each in over else "") for each in budgets)]
        spent = [_percent(by[each].spent) if each in by else "–" for each in budgets]
        own = [by[each].own for each in budgets if each in by]
        if name == "flops":
            cells += [", ".join(spent), _percent(max(own), 2)]
        elif name == "bytes":
            cells.append(", ".join(f"{by[each].kib:.0f}" if each in by else "–" for each in budgets))
        else:
            cells.append(", ".join(spent))
        cells.append(_focus(name, rows).breaks)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _in_order(name: str, group: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """Systems by their accuracy at the budget that is in focus, those without it behind, by their best."""
    found = [(key, rows) for key, rows in group.groupby(["system", "slot"], sort=False)]

    def place(each: tuple[Any, pd.DataFrame]) -> tuple[bool, float, str]:
        at = each[1][each[1]["at"] == FOCUS[name]]
        return at.empty, -float((each[1] if at.empty else at).accuracy.max()), str(each[0][0])

    return sorted(found, key=place)


def _focus(name: str, rows: pd.DataFrame) -> Any:
    """The row that is in focus; of a system that has none there, the most frugal one."""
    at = rows[rows["at"] == FOCUS[name]]
    return (at if len(at) else rows.sort_values("at")).iloc[0]


def _cell(row: Any) -> str:
    if row is None or pd.isna(row.accuracy):
        return "–"
    error = "" if pd.isna(row.error) else f" ± {row.error:.3f}".replace("0.", ".")
    mark = {1: " ▲", -1: " ▼"}.get(row.beats, "")
    against = "" if pd.isna(row.wins) else f" ({int(row.wins)} : {int(row.losses)})"
    return f"{row.accuracy:.3f}".removeprefix("0") + error + against + mark


def _percent(value: float, digits: int = 1) -> str:
    return "–" if pd.isna(value) else f"{100 * value:.{digits}f}"


def _systems(stand: Any) -> str:
    """What each system keeps, and where it comes from; every one once."""
    lines = ["| system | slot | what stays | paper |", "|---|---|---|---|"]
    rows = pd.concat(list(stand))
    rows = rows[rows.kind != "whole"].drop_duplicates(["system", "slot"]).fillna("")
    for row in rows.itertuples():
        paper = re.sub(r"arXiv (\d{4}\.\d{5})", r"[\g<0>](https://arxiv.org/abs/\1)", row.paper)
        lines.append(f"| `{row.system}` | {row.slot} | {row.says} | {paper} |")
    return "\n".join(lines) + "\n"
