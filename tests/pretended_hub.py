"""A hub on this machine, for the real client of the hub: metadata, and content that comes only once it may."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers import Replying, listening

NAME = "somebody/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """One model, made of a folder's files, and what was asked of it.

    Attributes
    ----------
    card : dict
        What the model's card says.
    fetched : list of str
        Files whose content was asked for, in order.
    may_send : threading.Event
        Until it is set, no file's content comes.
    gated : bool
        Whether it is only for those who have leave, which nobody has.
    """

    def __init__(self, folder: Path, card: dict[str, Any]) -> None:
        self.folder, self.card = folder, card
        self.fetched: list[str] = []
        self.may_send = threading.Event()
        self.gated = False
        self.address = ""

    def files(self) -> list[str]:
        """Paths as the hub writes them."""
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    def listed(self, path: str) -> dict[str, Any]:
        """A file in the model's metadata; weights lie in a store of large files."""
        content = (self.folder / path).read_bytes()
        entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
        if path.endswith(".safetensors"):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
        return entry

    def etag(self, path: str) -> str:
        """By which the cache knows a file's content."""
        entry = self.listed(path)
        return entry["lfs"]["sha256"] if "lfs" in entry else entry["blobId"]

    def environment(self, cache: Path) -> dict[str, str]:
        """What leads the hub's client here, with a cache of its own."""
        return {"HF_ENDPOINT": self.address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": ""}


@contextmanager
def hub(folder: Path, **card: Any) -> Iterator[Hub]:
    """Serve the files of `folder` as the model `NAME`."""
    served = Hub(folder, card)

    class Handler(Replying):
        def do_HEAD(self) -> None:
            self.answer(content=False)

        def do_GET(self) -> None:
            self.answer(content=True)

        def answer(self, content: bool) -> None:
            path = self.path.partition("?")[0].strip("/")
            if path in (f"api/models/{NAME}", f"api/models/{NAME}/revision/main"):
                siblings = [served.listed(file) for file in served.files()]
                told = {"id": NAME, "sha": COMMIT, "siblings": siblings, "cardData": served.card, "tags": []}
                told["gated"] = "manual" if served.gated else False
                self.reply(200, json.dumps(told).encode(), {"content-type": "application/json"})
                return
            for begin in (f"{NAME}/resolve/main/", f"{NAME}/resolve/{COMMIT}/"):
                file = path.removeprefix(begin)
                if path.startswith(begin) and file in served.files():
                    self.file(file, content)
                    return
            if path == f"api/models/{NAME}/auth-check":
                self.reply(403, b"", {"x-error-code": "GatedRepo"})
                return
            code = "EntryNotFound" if f"{NAME}/" in path else "RepoNotFound"
            self.reply(404, b"", {"x-error-code": code, "x-repo-commit": COMMIT})

        def file(self, file: str, content: bool) -> None:
            if content:
                served.may_send.wait(60)
                served.fetched.append(file)
            body = (served.folder / file).read_bytes()
            self.reply(200, body, {"etag": f'"{served.etag(file)}"', "x-repo-commit": COMMIT}, content)

    with listening(Handler) as served.address:
        try:
            yield served
        finally:
            served.may_send.set()
