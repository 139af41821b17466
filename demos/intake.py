"""How much anybody may send: of a request, of all that is read or waits, and of files. Counted as it comes in."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from anyio import to_thread
from gradio.route_utils import GradioMultiPartParser, GradioUploadFile
from gradio.routes import file_upload_statuses
from gradio_client.utils import strip_invalid_filename_characters
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from pdrop_video.guard import Allowance, Exhausted, counted_by

from .uploads import AROUND, Arrival, Uploads

_OTHER = 2**28
"""Bytes of a request that is no upload: the pictures of one push, with room to spare."""
_VALUES = 20_000
"""Commas and brackets of a request: a push has a few hundred, and each costs many times its size once it is read."""
_ASIDE = 2048
"""Bytes of whatever stands beside a request's values: gradio keeps names of sessions long after."""
_AT_ONCE = (128, 1024)
"""Most requests under way of one address, and of all: a page has two that stay open, and some that come and go."""
_SILENCE = 60.0
"""Seconds without a byte of a request after which it is given up."""
_UPLOAD, _PROGRESS = "/gradio_api/upload", "/gradio_api/upload_progress"
_LOAD = "pdrop_video.load"
_QUEUED = re.compile("/queue/join|/call/")
"""Where a request is answered before it is worked on."""
_NAMED = "/call/v2/"
"""Where each value has its name, and nothing stands beside them."""
_LONGEST_ID = 64


class Load:
    """Bytes of a request that are held in memory: until it was worked on, or nobody has the request any more."""

    def __init__(self, allowance: Allowance, client: str) -> None:
        self._allowance, self._client, self._taken = allowance, client, 0

    def grow(self, size: int) -> None:
        """Count more; raises `Exhausted` if there is no room for them."""
        self._allowance.take(self._client, size)
        self._taken += size

    def let_go(self) -> None:
        """The request was worked on."""
        taken, self._taken = self._taken, 0
        self._allowance.give_back(self._client, taken)

    def __del__(self) -> None:
        self.let_go()

    @staticmethod
    def of(scope: MutableMapping[str, Any]) -> Load | None:
        """What is counted for a request, if anything is."""
        return scope.get(_LOAD)


class Intake:
    """ASGI middleware that reads no request further than to its limit, and stores uploads itself.

    Parameters
    ----------
    app : callable
        What it stands in front of.
    upload : int
        Most bytes of a file to upload.
    other : int
        Most bytes of any other request, and of all those of one address that wait at a time; all addresses together
        have twice as many.
    store : Uploads or None
        Where uploads go; None leaves them to the app, as any other request.
    """

    def __init__(self, app: Any, upload: int, other: int = _OTHER, store: Uploads | None = None) -> None:
        self._app, self._upload, self._other, self._store = app, upload + AROUND, other, store
        self._waiting = Allowance("bytes of requests", other, 2 * other)
        self._requests = Allowance("requests", *_AT_ONCE)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = counted_by(scope["client"][0] if scope.get("client") else "")
        try:
            self._requests.take(client)
        except Exhausted as error:
            await _refusal(error)(scope, receive, send)
            return
        try:
            path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))
            if self._store is not None and path == _UPLOAD and scope["method"] == "POST":
                await self._stored(scope, receive, send, self._store, client)
            elif path == _PROGRESS:
                await self._progress(scope, receive, send)
            else:
                await self._read(scope, receive, send, client)
        finally:
            self._requests.give_back(client)

    # -- what is no upload ------------------------------------------------------------------------------------------

    async def _read(self, scope: MutableMapping[str, Any], receive: Any, send: Any, client: str) -> None:
        load = scope[_LOAD] = Load(self._waiting, client)
        body, values = bytearray(), 0
        try:
            async for data in _received(Headers(scope=scope), receive, self._other):
                load.grow(len(data))
                values += sum(data.count(mark) for mark in (b",", b"[", b"{"))
                if values > _VALUES:
                    raise HTTPException(413, f"A request may have {_VALUES:,} values here; send less at a time.")
                body += data
            if body and _NAMED not in scope["path"]:
                await to_thread.run_sync(_check_aside, body)
        except ConnectionError:
            return
        except (HTTPException, Exhausted) as error:
            await _refusal(error)(scope, receive, send)
            return
        messages = [{"type": "http.request", "body": bytes(body), "more_body": False}]
        del body
        failed = False

        async def again() -> Any:
            return messages.pop() if messages else await receive()

        async def answered(message: Any) -> None:
            nonlocal failed
            failed = failed or message.get("status", 200) >= 400
            await send(message)

        await self._app(scope, again, answered)
        if failed or not _QUEUED.search(scope["path"]):
            load.let_go()

    async def _progress(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Let gradio tell how far an upload is; it would remember everything that it was ever asked about."""
        (name,) = parse_qs(scope["query_string"].decode("latin-1")).get("upload_id", [""])[:1]
        if len(name) > _LONGEST_ID:
            await PlainTextResponse("There is no such upload.", 404)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            file_upload_statuses.stop_tracking(name)
            file_upload_statuses._signals.pop(name, None)

    # -- uploads ----------------------------------------------------------------------------------------------------

    async def _stored(
        self, scope: MutableMapping[str, Any], receive: Any, send: Any, store: Uploads, client: str
    ) -> None:
        try:
            arrival = store.begin(client)
        except Exhausted as error:
            await _refusal(error)(scope, receive, send)
            return
        answer: Response
        try:
            path = await self._arrive(scope, receive, store, arrival)
            answer = JSONResponse([str(path)])
        except ConnectionError:  # what is there of it is swept away soon, and counted until then
            arrival.broken = asyncio.get_running_loop().time()
            return
        except (MultiPartException, HTTPException, Exhausted) as error:
            await to_thread.run_sync(store.drop, arrival)
            large = isinstance(error, MultiPartException) and "maximum allowed size" in error.message
            answer = _refusal(HTTPException(413, _too_large(store.largest)) if large else error)
        except BaseException:
            store.drop(arrival)
            raise
        await answer(scope, receive, send)

    async def _arrive(self, scope: MutableMapping[str, Any], receive: Any, store: Uploads, arrival: Arrival) -> Path:
        """Write a file as it comes in, and nothing else."""
        headers = Headers(scope=scope)
        if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise HTTPException(400, "An upload is multipart/form-data; expected one file called 'files'.")
        (name,) = parse_qs(scope["query_string"].decode("latin-1")).get("upload_id", [""])[:1]
        tracked = bool(name) and len(name) <= _LONGEST_ID

        async def counted() -> AsyncGenerator[bytes, None]:
            async for data in _received(headers, receive, self._upload, _too_large(store.largest)):
                store.grow(arrival, len(data))
                yield data

        if tracked:
            file_upload_statuses.track(name)
        try:
            parser = GradioMultiPartParser(
                headers,
                counted(),
                max_files=1,
                max_fields=0,
                upload_dir=arrival.folder,
                upload_id=name if tracked else None,
                upload_progress=file_upload_statuses if tracked else None,
                max_file_size=store.largest,
            )
            form = await parser.parse()
        except (LookupError, ValueError) as error:  # what is said of a boundary or a charset
            raise HTTPException(400, "The upload cannot be read; expected multipart/form-data.") from error
        finally:
            if tracked:
                file_upload_statuses.set_done(name)
                asyncio.get_running_loop().call_later(_SILENCE, file_upload_statuses.stop_tracking, name)
        file = form.get("files")
        if not isinstance(file, GradioUploadFile):
            raise HTTPException(400, "There is no file called 'files' in the upload; send one.")
        await file.close()
        called = strip_invalid_filename_characters(Path(file.filename or "").name).lstrip(".") or "video"
        return await to_thread.run_sync(store.keep, arrival, Path(str(file.file.name)), file.sha.hexdigest(), called)


async def _received(headers: Headers, receive: Any, most: int, said: str = "") -> AsyncGenerator[bytes, None]:
    """The parts of a request's body, of which there may be so many bytes, and what is said if there are more."""
    too_much = HTTPException(413, said or f"A request may have {most:,} bytes here; send less at a time.")
    promised = headers.get("content-length", "0")
    if not promised.isdecimal() or int(promised[:20]) > most:
        raise too_much
    taken, more = 0, True
    while more:
        try:
            message = await asyncio.wait_for(receive(), _SILENCE)
        except asyncio.TimeoutError as error:
            raise HTTPException(408, f"Nothing came for {_SILENCE:g} seconds; send the request again.") from error
        if message["type"] == "http.disconnect":
            raise ConnectionAbortedError
        data, more = message.get("body", b""), message.get("more_body", False)
        taken += len(data)
        if taken > most:
            raise too_much
        if data:
            yield data


def _check_aside(body: bytearray) -> None:
    """Refuse a request in which anything but the values themselves is large."""
    try:
        said = json.loads(body)
    except RecursionError as error:
        raise HTTPException(400, "The request is nested too deeply; 'Use via API' lists what is expected.") from error
    except ValueError:
        return  # the app says so
    goes = ("data", "event_data")  # with the request itself; a webcam's picture stands in both
    aside = {name: value for name, value in said.items() if name not in goes} if isinstance(said, dict) else {}
    if len(json.dumps(aside)) > _ASIDE:
        raise HTTPException(413, "The names in the request are too long; 'Use via API' lists what is expected.")


def _refusal(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return PlainTextResponse(error.detail, error.status_code, {"connection": "close"})
    if isinstance(error, Exhausted):
        return PlainTextResponse(str(error), 503 if error.shared else 429, {"connection": "close", "retry-after": "60"})
    assert isinstance(error, MultiPartException)
    return PlainTextResponse(error.message, 400, {"connection": "close"})


def _too_large(most: int) -> str:
    return f"The file is larger than {most / 2**20:g} MB, the largest that this page takes; cut it, or make it smaller."
