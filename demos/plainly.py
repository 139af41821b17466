"""Errors as sentences: what goes wrong on the page or at an endpoint is told in one, and nothing else of it."""

from __future__ import annotations

import functools
import html
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import gradio as gr
from gradio.exceptions import InvalidPathError
from gradio_client.utils import is_file_obj, is_http_url_like, traverse

import pdrop_video as pv

from .intake import Load

log = logging.getLogger(__name__)
Call = TypeVar("Call", bound=Callable[..., Any])
Shown = TypeVar("Shown")

_OURS = "Something went wrong on the server; its log says what."
_VALUES = "What was sent cannot be read; 'Use via API' on the page lists the values that are expected."
_NO_UPLOAD = "That file was not uploaded here; upload it (a program: with gradio_client.handle_file), or name another."


def plainly(action: Call) -> Call:
    """One clear sentence for what went wrong on purpose; for anything else one too, and a traceback in the log."""

    @functools.wraps(action)
    def acting(*values: Any, **named: Any) -> Any:
        try:
            return action(*values, **named)
        except pv.PDropError as error:
            raise _refused(error) from error

    return acting  # type: ignore[return-value]


def plain(steps: Iterator[Shown]) -> Iterator[Shown]:
    """The same for what comes bit by bit."""
    try:
        yield from steps
    except pv.PDropError as error:
        raise _refused(error) from error


def _refused(error: pv.PDropError) -> gr.Error:
    return gr.Error(html.escape(str(error), quote=False), title="That did not work", print_exception=False)


class Page(gr.Blocks):
    """Blocks in which all that goes wrong is a `gr.Error` with a sentence: gradio says nothing of other errors."""

    async def process_api(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Run an action, whatever comes of it."""
        try:
            return await super().process_api(*arguments, **named)
        except gr.Error:
            raise
        except Exception as error:
            log.exception("an action of the page failed")
            raise _error(_OURS) from error
        finally:
            sent = getattr(named.get("request"), "request", None)
            load = None if sent is None else Load.of(sent.scope)
            if load is not None:
                load.let_go()

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *arguments: Any, **named: Any) -> Any:
        """Make an action's arguments of what was sent, which may be anything."""
        try:
            traverse(inputs, _no_download, is_file_obj)
            _keep_within(block_fn.inputs, inputs, *arguments)
            return await super().preprocess_data(block_fn, inputs, *arguments, **named)
        except gr.Error as error:
            error.print_exception = False  # a number out of its bounds, of which gradio would log a traceback
            raise
        except InvalidPathError as error:
            raise _error(_NO_UPLOAD) from error
        except Exception as error:
            log.info("values that cannot be read", exc_info=True)
            raise _error(_VALUES) from error

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        """Put in what a program may leave out at the end of its values, and raise if there are still too few."""
        if len(inputs) < len(block_fn.inputs):
            inputs += _left_out(block_fn.fn, len(inputs))
        if len(inputs) < len(block_fn.inputs):
            wanted = len(block_fn.inputs)
            many = "value" if wanted == 1 else "values"
            raise _error(f"{len(inputs)} of {wanted} {many} came; 'Use via API' on the page lists all of them.")


def _keep_within(parts: Sequence[Any], inputs: list[Any], state: Any = None, *_: Any) -> None:
    """Take what lies outside of a slider's bounds for the nearest bound: they move while one drags it."""
    for place, part in enumerate(parts):
        if isinstance(part, gr.Slider) and isinstance(inputs[place], int | float):
            now = state[part._id] if state is not None and part._id in state else part
            inputs[place] = min(max(inputs[place], now.minimum), now.maximum)


def _left_out(action: Callable[..., Any], given: int) -> list[Any]:
    """What a program left out at the end of its values, where the action says what that means; nothing otherwise."""
    values = [each for each in inspect.signature(action).parameters.values() if "Request" not in str(each.annotation)]
    missing = [each.default for each in values[given:]]
    return [] if inspect.Parameter.empty in missing else missing


def _no_download(file: dict[str, Any]) -> dict[str, Any]:
    """Addresses are for the guard: gradio would fetch them itself, however large they are."""
    if is_http_url_like(file["path"]):
        raise _error(_NO_UPLOAD)
    return file


def _error(sentence: str) -> gr.Error:
    return gr.Error(sentence, print_exception=False)
