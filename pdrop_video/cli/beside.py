"""`pdrop-video demo` and `pdrop-video eval ...`: the page and the benchmark runner, with the options of their own.

Finds them by name, and only once they are asked for: a wheel holds them inside the package, a checkout beside it. The
library knows neither.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import typer

from ..errors import ConfigError
from .console import clear_errors

PACKAGE = __name__.partition(".")[0]

PAGE = "demos", "app:main"
EVALUATION = {
    "run": ("run:main", "Run a benchmark through the streaming path; killed and started again, it goes on."),
    "compare": ("compare:compare", "Compare runs of one task, item by item, against the first run named."),
    "fetch": ("fetch:main", "Say what a benchmark's data are, how large and under which licence, and download them."),
    "judge": ("judge:main", "Let a model behind an OpenAI-compatible address judge a run's open answers."),
    "view": ("view:main", "Serve a page that shows what one run answered, or two side by side."),
    "export": ("export:main", "Write a finished run's figures in the forms that leaderboards read."),
    "streaming": ("streaming:app", "StreamingEval's protocol: fixed memory, latency scored."),
}
"""The commands of `eval` by name: a module and its function or typer app, and a line about it."""

HANDED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
"""All that stands behind a command's name, ``--help`` included, is for that command's own parser."""


def add(app: typer.Typer) -> None:
    """Add `demo` and `eval` to the command line."""
    app.command(
        "demo",
        help="Serve the page on which people ask a video, in a browser.",
        add_help_option=False,
        context_settings=HANDED_ON,
    )(_handing_on(*PAGE, extra="demo"))
    evaluation = typer.Typer(no_args_is_help=True, help="Run benchmarks and compare the runs.")
    evaluation.callback()(_of_which)
    for name, (where, says) in EVALUATION.items():
        command = _handing_on("eval", where, extra="eval")
        evaluation.command(name, help=says, add_help_option=False, context_settings=HANDED_ON)(command)
    app.add_typer(evaluation, name="eval")


def _of_which() -> None:
    """Of which command; its own --help says more."""


def _handing_on(room: str, where: str, extra: str) -> Callable[[typer.Context], None]:
    """A command that gives what was typed to a module of `room`, loaded only then."""
    module, _, name = where.partition(":")

    def command(context: typer.Context) -> None:
        with clear_errors():
            home = home_of(room)
        try:
            made = getattr(import_module(f"{home}.{module}"), name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in (PACKAGE, home):
                raise
            raise SystemExit(
                f"{context.command_path} needs {error.name}, which is missing: pip install 'pdrop-video[{extra}]'."
            ) from error
        if not isinstance(made, typer.Typer):
            function, made = made, typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
            made.command()(function)
        made(args=context.args, prog_name=context.command_path)

    return command


def home_of(room: str) -> str:
    """The name by which `room`, "demos" or "eval", is imported here.

    Raises
    ------
    ConfigError
        If it is not installed; somebody else's top-level package of that name is not taken for it.
    """
    if find_spec(f"{PACKAGE}.{room}") is not None:
        return f"{PACKAGE}.{room}"
    spec = find_spec(room)
    beside = Path(__file__).resolve().parents[2] / room
    if spec is None or beside not in [Path(place).resolve() for place in spec.submodule_search_locations or ()]:
        raise ConfigError(
            f"this installation of pdrop-video came without its {room}; expected them inside the package. Install "
            "pdrop-video again, or run from a checkout with `pip install -e .`."
        )
    return room
