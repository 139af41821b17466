"""Errors in OpenAI's form, each with one clear sentence. What was not meant to go wrong is told in the log alone."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from ..errors import ModelError, PDropError, StreamError
from ..guard import Exhausted

log = logging.getLogger(__name__)
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_OURS = "Something went wrong on the server; its log says what."
_AGAIN = 5
"""Seconds after which it is worth trying again."""


class Refusal(PDropError):
    """A request that is not done.

    Parameters
    ----------
    message : str
        One sentence.
    status : int
    code : str, optional
        For programs.
    param : str, optional
        What in the request it is about.
    retry : float, optional
        Seconds after which it may be tried again.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        retry: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry = status, code, param, retry


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """An error as OpenAI's clients expect it."""

    error: ErrorBody


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": HTTPStatus(status).phrase}
    for status in (400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 500, 503, 504)
}
"""What every address may answer."""


def refusal_of(error: BaseException) -> Refusal:
    """Any error as one that may be told."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Exhausted):
        return Refusal(str(error), 503 if error.shared else 429, "limit_reached", retry=_AGAIN)
    if isinstance(error, StreamError):
        return Refusal(str(error), 409, "conflict")
    if isinstance(error, PDropError) and not isinstance(error, ModelError):
        return Refusal(str(error), 400, "invalid_value")
    if isinstance(error, RequestValidationError | ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        at = f"{where}: " if where else ""
        return Refusal(f"{at}{first['msg']}.", 400, "invalid_request", where[:200] or None)
    if isinstance(error, HTTPException):
        retry = (error.headers or {}).get("retry-after")
        return Refusal(str(error.detail), error.status_code, retry=None if retry is None else float(retry))
    log.error("a request failed", exc_info=error)
    return Refusal(_OURS, 500, "internal_error")


def said(error: BaseException) -> dict[str, Any]:
    """The body of an error's answer."""
    refusal = refusal_of(error)
    kind = _TYPES.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    message = str(refusal)
    param = None if refusal.param is None else refusal.param.encode("utf-8", "backslashreplace").decode()
    return {"error": {"message": message, "type": kind, "param": param, "code": refusal.code}}


def answered(error: BaseException) -> JSONResponse:
    """The answer to a request that failed."""
    refusal = refusal_of(error)
    headers = {} if refusal.retry is None else {"retry-after": f"{max(refusal.retry, 1):.0f}"}
    if refusal.status in (408, 413):  # what of the request was not read is not waited for
        headers["connection"] = "close"
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, HTTPException) and error.headers:
        headers |= {name: value for name, value in error.headers.items() if name.lower() == "allow"}
    return JSONResponse(said(refusal), refusal.status, headers)


def handle_all(app: FastAPI) -> None:
    """Have every error of an app answered so."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return answered(error)

    for kind in (PDropError, RequestValidationError, ValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)
