"""A hub of data sets on 127.0.0.1, as far as downloads go: what a set is, which files it has, and their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from servers import Replying, listening

SHA = "5503434ddd753f426f4b38109466949a1217c2bb"


@dataclass
class Hub:
    """`asked` has the files whose content was sent, in order; `gated` refuses as for terms that nobody accepted."""

    address: str = ""
    asked: list[str] = field(default_factory=list)
    gated: bool = False


@contextmanager
def hub(repo: str, files: Mapping[str, bytes], licence: str | None = None) -> Iterator[Hub]:
    """Serve one data set."""
    said = Hub()
    tags = {name: hashlib.sha1(data).hexdigest() for name, data in files.items()}

    class Handler(Replying):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            if said.gated:
                self.reply(403, b"", {"X-Error-Code": "GatedRepo"}, body)
            elif path.startswith(f"/api/datasets/{repo}/tree/"):
                rows = [{"type": "file", "path": n, "size": len(d), "oid": tags[n]} for n, d in files.items()]
                self.reply(200, json.dumps(rows).encode(), {"Content-Type": "application/json"}, body)
            elif path == f"/api/datasets/{repo}" or path.startswith(f"/api/datasets/{repo}/revision/"):
                siblings = [{"rfilename": n, "size": len(d), "blobId": tags[n]} for n, d in files.items()]
                card = {} if licence is None else {"license": licence}
                info = {"id": repo, "sha": SHA, "siblings": siblings, "cardData": card, "tags": []}
                self.reply(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, body)
            elif (name := path.removeprefix(f"/datasets/{repo}/resolve/{SHA}/")) in files:
                if body:
                    said.asked.append(name)
                self.reply(200, files[name], {"ETag": f'"{tags[name]}"', "X-Repo-Commit": SHA}, body)
            elif path.removeprefix("/raw/") in files:
                self.reply(200, files[path.removeprefix("/raw/")], {}, body)
            else:
                self.reply(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

    with listening(Handler) as said.address:
        yield said
