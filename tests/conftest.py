"""One thread for torch, and a watchdog for tests of threads."""

import faulthandler
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)  # the models are tiny, and threads that wait for each other cost more than they save


@pytest.fixture
def watchdog() -> Iterator[None]:
    """A test that hangs ends the run, and every thread's stack is shown."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
