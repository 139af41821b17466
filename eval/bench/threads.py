"""Jobs in threads of their own. Knows nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any


def at_once(jobs: Sequence[Callable[[], Any]]) -> None:
    """Run jobs in a thread each; the first error of theirs is raised."""
    errors: list[BaseException] = []

    def run(job: Callable[[], Any]) -> None:
        try:
            job()
        except BaseException as error:  # raised in the thread that began them
            errors.append(error)

    threads = [Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
