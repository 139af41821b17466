"""Let another model judge a run's open answers: `python -m eval.judge RUN --judge URL --judge-model M`.

A step of its own, behind the answers: it needs no GPU and no data, can be done again with another judge, and is paid
for by the answer. Knows how a judge is asked; how its replies are read and counted is in `eval.stats`.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from threading import Event
from typing import IO, Annotated, Any

import typer
from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import pdrop_video as pv
from pdrop_video.common.checks import real, shown
from pdrop_video.common.journal import Journal
from pdrop_video.video.decode import counted

from .runner.doors import clear_errors, encodable
from .runner.execute import write
from .runner.progress import LINES
from .stats.open_answers import judging_answers
from .stats.pauc import SPOKEN, judging_spoken
from .stats.record import digest, read_run
from .stats.verdicts import JUDGED, Case, Judging, Verdict, read_verdicts

_out, _err = Console(), Console(stderr=True)

READINGS = 3
"""So often a judge is asked before its reply is given up as unreadable."""
PATIENCE = 60.0
"""Most seconds that are waited between two tries, whatever a server asks for."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """No other address is sent what was meant for this one, the key among it."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Judge:
    """A model behind an OpenAI-compatible address.

    Parameters
    ----------
    address : str
        As "http://localhost:8000/v1".
    model : str
    key : str or None
    no_temperature : bool
        Sends none, for models that refuse it.
    retries : int
        Further tries where the server can't be reached or is busy.
    timeout : float
        Seconds for one reply.
    over : Event
        Once it is set nothing is tried again.
    """

    address: str
    model: str
    key: str | None = None
    no_temperature: bool = False
    retries: int = 5
    timeout: float = 120.0
    over: Event = field(default_factory=Event)

    def __call__(self, case: Case) -> Verdict:
        """Judge one answer; a reply that can't be read is asked for again before it is given up."""
        text = ""
        for _ in range(READINGS):
            text = self._reply(case)
            if (reply := case.read(text)) is not None:
                return Verdict(case.key, case.item, reply.match, reply.score, text)
        return Verdict(case.key, case.item, None, None, text)

    def _reply(self, case: Case) -> str:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "system", "content": case.system}, {"role": "user", "content": case.user}],
        }
        if not self.no_temperature:
            body["temperature"] = case.temperature
        answer = self._post(json.dumps(body).encode())
        try:
            text = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise pv.ConfigError(
                f"{self.address} answered without choices[0].message.content; expected an OpenAI-compatible server."
            ) from error
        return text if isinstance(text, str) else ""

    def _post(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(f"{self.address}/chat/completions", body, headers)
        opener = urllib.request.build_opener(_Stay)
        why = ""
        for attempt in range(self.retries + 1):
            pause = min(2.0**attempt, PATIENCE)
            try:
                with opener.open(request, timeout=self.timeout) as response:
                    return json.loads(response.read())
            except urllib.error.HTTPError as error:
                why = f"status {error.code}{_said(error)}"
                if error.code not in (408, 409, 429) and error.code < 500:
                    raise pv.ConfigError(
                        f"the judge at {self.address} refused the request: {why}. Check --judge, --judge-model "
                        f"({shown(self.model)}) and the key."
                    ) from error
                pause = _asked(error.headers.get("Retry-After"), pause)
            except (OSError, HTTPException) as error:
                why = str(getattr(error, "reason", error)) or type(error).__name__
            except ValueError as error:
                raise pv.ConfigError(
                    f"{self.address} answered with something that is not JSON; expected an OpenAI-compatible server, "
                    "for example http://localhost:8000/v1."
                ) from error
            if attempt < self.retries and self.over.wait(pause):
                break
        raise pv.PDropError(
            f"the judge at {self.address} gave no answer in {counted(self.retries + 1, 'attempt')} ({why}). What it "
            "said so far is kept: the same command goes on from here."
        )


def _said(error: IO[bytes]) -> str:
    """A server's own words about an error, in one line."""
    try:
        said = json.loads(error.read(10_000))["error"]
        said = said["message"] if isinstance(said, dict) else said
        return f", {' '.join(str(said).split())[:300].rstrip('.')}"
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        return ""


def _asked(retry_after: str | None, pause: float) -> float:
    try:
        return min(max(float(retry_after or pause), 0.0), PATIENCE)
    except ValueError:  # a date
        return pause


def verdicts_of(judge: Judge, cases: Sequence[Case], parallel: int) -> Iterator[Verdict]:
    """Verdicts as they come; as many are asked for at once as `parallel` says."""
    pool = ThreadPoolExecutor(parallel)
    try:
        for done in as_completed([pool.submit(judge, case) for case in cases]):
            yield done.result()
    finally:
        judge.over.set()
        pool.shutdown(cancel_futures=True)


def main(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of eval.run, with open answers.")],
    judge: Annotated[str, typer.Option(help="OpenAI-compatible address, for example http://localhost:8000/v1.")],
    judge_model: Annotated[str, typer.Option(help="Name of the judging model there.")],
    key_env: Annotated[
        str, typer.Option(help="Environment variable with the key; none is sent where it is not set.")
    ] = "OPENAI_API_KEY",
    parallel: Annotated[int, typer.Option(min=1, max=256, help="Answers judged at once.")] = 4,
    retries: Annotated[int, typer.Option(min=0, max=100, help="Further tries where the server is busy or away.")] = 5,
    timeout: Annotated[float, typer.Option(help="Seconds for one reply.")] = 120.0,
    no_temperature: Annotated[
        bool, typer.Option("--no-temperature", help="Send no temperature, where a model refuses the official one.")
    ] = False,
) -> None:
    """Let a model judge a run's open answers; killed and started again, it goes on."""
    with clear_errors():
        for name, value in {"RUN": run, "--judge": judge, "--judge-model": judge_model, "--key-env": key_env}.items():
            encodable(name, value)
        real("--timeout", timeout, 0, 86_400, above=True)
        asked = Judge(address_of(judge), judge_model, os.environ.get(key_env), no_temperature, retries, timeout)
        _show(judged(run, asked, parallel))
        _out.print(f"written to {run / JUDGED}", soft_wrap=True, highlight=False, markup=False)


def address_of(url: str) -> str:
    """An address without what stands behind the version; `ConfigError` if it is none."""
    if not url.lower().startswith(("http://", "https://")):
        raise pv.ConfigError(f"--judge is {shown(url)}; expected an address such as http://localhost:8000/v1.")
    return url.rstrip("/").removesuffix("/chat/completions").rstrip("/")


def judged(folder: Path, judge: Judge, parallel: int = 4) -> dict[str, Any]:
    """Judge what is not judged yet, and write the figures to ``judged.json``.

    Verdicts are kept beside the records, one line each, in a file of the judge's own: another model, wording or
    temperature begins another. A reply that could not be read is asked for again.
    """
    judging = judging_of(folder)
    path = folder / f"verdicts-{digest(judge.model, judge.no_temperature, judging.rules)}.jsonl"
    try:
        with FileLock(folder / ".judge.lock", timeout=0):
            known = read_verdicts(path)
            left = [case for case in judging.cases if (v := known.get(case.key)) is None or not v.read]
            if known:
                done = len(judging.cases) - len(left)
                _err.print(f"{done} of {len(judging.cases)} answers were judged earlier", highlight=False)
            every = max(len(left) // LINES, 1)
            with Journal(path) as journal:
                for number, verdict in enumerate(verdicts_of(judge, left, parallel), 1):
                    journal.append(verdict.to_json())
                    if number % every == 0 or number == len(left):
                        _err.print(f"judged {number} of {len(left)}", highlight=False)
            said = {"judge": judge.model, "verdicts": path.name, **judging.figures(read_verdicts(path))}
            write(folder / JUDGED, json.dumps(said, ensure_ascii=False, indent=1) + "\n")
    except Timeout as error:
        raise pv.ConfigError(f"another process is judging {folder}; wait for it.") from error
    return said


def judging_of(folder: Path) -> Judging:
    """What there is to judge in a run's folder, and by which rules."""
    run = read_run(folder)
    spoken = folder / SPOKEN
    return judging_spoken(spoken) if spoken.is_file() else judging_answers(run)


def _show(said: dict[str, Any]) -> None:
    """Print the figures and what a reader must know of them."""
    items = said["items"]
    if "pauc" in said:
        table = Table("PAUC", *(f"omega {omega}" for omega in said["pauc"]), title=escape(said["judge"]))
        table.add_row("all turns", *(f"{value:.1%}" for value in said["pauc"].values()))
        _out.print(table)
        _out.print(
            f"{items['judged']} of {counted(items['open'], 'utterance')} judged, {items['unreadable']} without a "
            f"verdict that could be read; {counted(items['turns'], 'turn')} due in {counted(items['items'], 'item')}. "
            "Silence is worth 25 %.",
            soft_wrap=True,
            highlight=False,
        )
        return
    table = Table("answers", "accuracy", "standard error", "score, 0 to 5", "questions", title=escape(said["judge"]))
    rows = [
        ("all judged (official)", said["accuracy"], said["score"]),
        ("errors as wrong", said["accuracy_errors_wrong"], None),
    ]
    for name, values in said["categories"].items():
        rows += [(f"{name} {value}", mean, mean["score"]) for value, mean in values.items()]
    for name, mean, score in rows:
        if mean is not None:
            error = "unknown" if mean["standard_error"] is None else f"{mean['standard_error']:.1%}"
            points = "" if score is None else f"{score:.2f}"
            table.add_row(escape(name), f"{mean['mean']:.1%}", error, points, str(mean["items"]))
    _out.print(table)
    _out.print(
        f"{items['judged']} of {counted(items['open'], 'item')} judged; {items['unreadable']} without a verdict that "
        f"could be read (left out here; the same command asks again), {counted(items['errors'], 'error')}. "
        "Standard errors are clustered by video. Published figures come from other judges: compare runs of one judge.",
        soft_wrap=True,
        highlight=False,
    )


if __name__ == "__main__":
    typer.run(main)
