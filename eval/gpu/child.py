"""One process that does some parts, one after another, and writes down each case as soon as it is through.

    python -m eval.gpu.child FOLDER DEVICE full|small NAME=MODULE=LIMIT ...

Begun by `running`. A case that fails is written down with its error and the next one is done; the process ends behind a
part in which one failed, since an accelerator's error may stay with whoever met it.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from .parts import Setting
from .state import BEGUN, DONE, FELL, Folder, in_words

_SHOWN = 1.0
"""Seconds before its limit at which a part shows where it is."""


def _follow() -> None:
    """End with whoever holds the other end of standard input."""
    sys.stdin.buffer.read()
    os._exit(3)


def do_part(name: str, module: str, limit: float, folder: Folder, device: str, small: bool) -> bool:
    """All cases of a part that are not through; returns whether none failed.

    Parameters
    ----------
    name, module
        As `Part` has them.
    limit : float
        Seconds; whoever began this process ends it then.
    folder : Folder
    device : str
    small : bool
    """
    # what is measured is imported before the part's time begins
    cases, begun = importlib.import_module(module).cases, time.monotonic()
    if limit > _SHOWN:
        faulthandler.dump_traceback_later(limit - _SHOWN)
    earlier, how = folder.read(name), in_words(device, small)
    rows: dict[str, Any] = {}
    if earlier.get("how") == how:
        rows = {case: row for case, row in earlier["rows"].items() if "error" not in row}
    known: dict[str, Any] = {"part": name, "how": how, "state": BEGUN, "process": os.getpid(), "rows": rows}
    folder.write(name, known)
    setting = Setting(device, small, begun + limit)
    fallen: list[str] = []
    for case, run in cases(setting):
        known["machine"] = setting.facts
        if case in rows:
            continue
        start = time.monotonic()
        row: dict[str, Any] = {}
        try:
            row["table"] = run()
        except Exception as error:
            traceback.print_exc()
            row["error"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
            fallen.append(case)
        row["seconds"] = round(time.monotonic() - start, 3)
        rows[case] = row
        folder.write(name, known)
        del row
        setting.between()
    known |= {"state": FELL, "why": f"failed: {', '.join(fallen)}"} if fallen else {"state": DONE}
    folder.write(name, known)
    faulthandler.cancel_dump_traceback_later()
    return not fallen


def main(arguments: list[str]) -> int:
    """Do the parts that are named."""
    threading.Thread(target=_follow, daemon=True).start()
    path, device, size, *named = arguments
    for each in named:
        name, module, limit = each.split("=")
        if not do_part(name, module, float(limit), Folder(Path(path)), device, size == "small"):
            return 4
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the thread that reads standard input is not waited for
