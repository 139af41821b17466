"""Jobs in threads of their own, which begin together. Knows threads and the line at a model, nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from threading import Thread
from typing import Any

from pdrop_video.engine import Turnstile


def at_once(jobs: Sequence[Callable[[], Any]], turnstile: Turnstile | None = None) -> None:
    """Run jobs in a thread each; the first error of theirs is raised.

    With a turnstile it is held until each job stands in line there (or is over): where work is short, a thread may
    otherwise be through before the next one has begun.
    """
    errors: list[BaseException] = []

    def run(job: Callable[[], Any]) -> None:
        try:
            job()
        except BaseException as error:  # raised in the thread that began them
            errors.append(error)

    threads = [Thread(target=run, args=(job,)) for job in jobs]
    with turnstile or nullcontext():
        for thread in threads:
            thread.start()
        while turnstile and turnstile.waiting < sum(thread.is_alive() for thread in threads):
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
