"""Which model and which sets a folder of runs is of, so that no record is taken for another one's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pdrop_video as pv

from ..stats.record import digest, writable
from ..tasks import task_named
from .sharing import Shared

IDENTITY = "league.json"


def looked_at(config: Any) -> tuple[pv.VideoLM, str]:
    """The model of a run, and a name of its weights."""
    lm = Shared().model(config)
    found = hashlib.sha256()
    for name, tensor in sorted(lm.model.state_dict().items()):
        few = tensor.detach().flatten()[:4096].float().cpu().contiguous()
        found.update(f"{name} {tuple(tensor.shape)}".encode() + few.numpy().tobytes())
    return lm, found.hexdigest()[:16]


def set_of(common: Mapping[str, Any]) -> str:
    """A name of a set's items, all of them."""
    items = task_named(common["task"], common["data"]).items()
    return digest([[item.id, item.video, item.question, item.options, item.answer] for item in items])


def same(runs: Path, now: Mapping[str, str]) -> None:
    """Refuse a folder that holds runs of another model or another set.

    Raises
    ------
    ConfigError
        If it does: records would be taken for those of this one.
    """
    path = runs / IDENTITY
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, value in now.items():
        if before.get(name, value) != value:
            what = "another model" if name == "model" else f"another set for {name}"
            raise pv.ConfigError(f"{runs} holds runs of {what}; choose another --runs.")
    writable(runs)
    path.write_text(json.dumps({**before, **now}) + "\n", encoding="utf-8")
