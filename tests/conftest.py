"""One thread for torch, a watchdog for tests of threads, and torchvision where it is installed.

torchvision's compiled operators can't be loaded beside a CPU build of torch. There its plain import, which transformers
tries as well, fails at two operators that nobody calls here; once they are declared it goes through.
"""

import faulthandler
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch

pytest.register_assert_rewrite("visits")

torch.set_num_threads(1)  # the models are tiny, and threads that wait for each other cost more than they save
with suppress(ModuleNotFoundError):
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # half imported
        operators = torch.library.Library("torchvision", "DEF")  # they last as long as this name
        for operator in ("nms", "qnms"):
            operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401


@pytest.fixture(autouse=True)
def ordinary_priority() -> Iterator[None]:
    """SVT-AV1, run by root, leaves the thread that encoded at the highest real-time priority, and all that it starts.

    Threads that wait for each other by spinning, as OpenMP's do, then keep everything else from the processors.
    """
    _be_ordinary()
    yield
    _be_ordinary()


def _be_ordinary() -> None:
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) == os.SCHED_FIFO:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def watchdog() -> Iterator[None]:
    """A test that hangs ends the run, and every thread's stack is shown."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    from demos.screenshots import browsing

    with browsing(request.config.getoption("chromium")) as started:
        yield started


@pytest.fixture(scope="session")
def served() -> Iterator[str]:
    """The page with the built-in model; its address."""
    from demos.screenshots import serving

    with serving("--seats", "32", "--most-each", "32", "--max-megabytes", "2", "--allow-private") as address:
        yield address


@pytest.fixture
def visit(browser: Any, served: str) -> Iterator[Any]:
    """Opens a page, as another visitor each time; all are closed after the test, and take no time from the next."""
    from playwright.sync_api import expect
    from visits import CAMERAS

    from demos.screenshots import PATIENCE

    expect.set_options(timeout=PATIENCE)
    contexts = []

    def visited(address: str = served, **how: Any) -> Any:
        contexts.append(browser.new_context(permissions=["camera", "microphone"], **how))
        contexts[-1].add_init_script(CAMERAS)
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.locator("#progress [data-state]").wait_for()
        return page

    yield visited
    for context in contexts:
        context.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chromium", default="/usr/bin/chromium", help="the browser of the tests marked browser")
