"""A hub of data sets on 127.0.0.1, as far as downloads go: what a set is, which files it has, and their content."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

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

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            if said.gated:
                self._send(403, b"", {"X-Error-Code": "GatedRepo"}, body)
            elif path.startswith(f"/api/datasets/{repo}/tree/"):
                rows = [{"type": "file", "path": n, "size": len(d), "oid": tags[n]} for n, d in files.items()]
                self._send(200, json.dumps(rows).encode(), {"Content-Type": "application/json"}, body)
            elif path == f"/api/datasets/{repo}" or path.startswith(f"/api/datasets/{repo}/revision/"):
                siblings = [{"rfilename": n, "size": len(d), "blobId": tags[n]} for n, d in files.items()]
                card = {} if licence is None else {"license": licence}
                info = {"id": repo, "sha": SHA, "siblings": siblings, "cardData": card, "tags": []}
                self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, body)
            elif (name := path.removeprefix(f"/datasets/{repo}/resolve/{SHA}/")) in files:
                if body:
                    said.asked.append(name)
                self._send(200, files[name], {"ETag": f'"{tags[name]}"', "X-Repo-Commit": SHA}, body)
            elif path.removeprefix("/raw/") in files:
                self._send(200, files[path.removeprefix("/raw/")], {}, body)
            else:
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

        def _send(self, status: int, data: bytes, headers: Mapping[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    said.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield said
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
