"""The lock itself: the order of asking, giving way, chores from finalisers, Ctrl-C; all by counting, nothing timed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lanes import engine_of

import pdrop_video as pv
from pdrop_video.engine import Turnstile

pytestmark = pytest.mark.usefixtures("watchdog")


def until(true: Callable[[], object]) -> None:
    """Wait for another thread to come somewhere; a test that waits in vain is ended by the watchdog."""
    while not true():
        time.sleep(0.001)


def queue_up(turnstile: Turnstile, names: str, work: Callable[[str], None]) -> list[threading.Thread]:
    """Threads that stand in line in the order of `names`; call it while holding the turnstile."""
    threads = []
    for name in names:
        waiting = len(turnstile._line)

        def run(name: str = name) -> None:
            with turnstile:
                work(name)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        until(lambda waiting=waiting: len(turnstile._line) > waiting)
    return threads


@pytest.fixture(params=["alone", "engine"])
def turnstile(request: pytest.FixtureRequest) -> Turnstile:
    """An engine is one, for those who compute nothing."""
    return Turnstile() if request.param == "alone" else engine_of(layers=1, lanes=3)[0]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a shell: a process started in the background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_threads_pass_in_the_order_of_asking(turnstile: Turnstile) -> None:
    passed: list[str] = []
    with turnstile:
        threads = queue_up(turnstile, "abcdefgh", passed.append)
        assert not passed
    [thread.join() for thread in threads]
    assert "".join(passed) == "abcdefgh" and not turnstile._busy


def test_giving_way_is_a_round_of_all_who_wait(turnstile: Turnstile) -> None:
    """Each of them once, and then the turn is mine again; who comes back stands behind me."""
    log: list[str] = []

    def thrice(name: str) -> None:
        for _ in range(3):
            log.append(name)
            turnstile.give_way()

    with turnstile:
        threads = queue_up(turnstile, "abc", thrice)
        for _ in range(3):
            log.append("-")
            turnstile.give_way()
    [thread.join() for thread in threads]
    assert "".join(log) == "-abc" * 3


def test_nobody_waits_for_himself(turnstile: Turnstile) -> None:
    with turnstile, pytest.raises(pv.StreamError, match="from within its own work"), turnstile:
        raise AssertionError
    with turnstile:
        assert turnstile._busy
    assert not turnstile._busy


def test_an_error_within_a_turn_passes_it_on(turnstile: Turnstile) -> None:
    with pytest.raises(ZeroDivisionError), turnstile:
        threads = queue_up(turnstile, "a", lambda name: None)
        1 / 0  # noqa: B018
    [thread.join() for thread in threads]
    assert not turnstile._busy


def test_chores_are_done_within_a_turn_and_never_waited_for(turnstile: Turnstile) -> None:
    done: list[tuple[str, bool]] = []

    def chore(name: str) -> Callable[[], None]:
        return lambda: done.append((name, turnstile._owner == threading.get_ident()))

    turnstile.later(chore("at once"))
    assert done == [("at once", True)] and not turnstile._busy
    with turnstile:
        turnstile.later(chore("mine"))
        other = threading.Thread(target=turnstile.later, args=(chore("another's"),))
        other.start(), other.join()
        turnstile._mutex.acquire()  # a finaliser that runs in the middle of this class, in this very thread
        turnstile.later(chore("inmost"))
        turnstile._mutex.release()
        assert len(done) == 1
        threads = queue_up(turnstile, "a", lambda name: done.append((name, True)))
    [thread.join() for thread in threads]
    assert done[1:] == [("mine", True), ("another's", True), ("inmost", True), ("a", True)]
    turnstile._mutex.acquire()
    turnstile.later(chore("while nobody's turn"))
    turnstile._mutex.release()
    with turnstile:
        assert len(done) == 5
    assert done[5:] == [("while nobody's turn", True)]


def test_a_chore_may_bring_another(turnstile: Turnstile) -> None:
    done: list[int] = []

    def chore(left: int) -> None:
        done.append(left)
        if left:
            turnstile.later(lambda: chore(left - 1))

    turnstile.later(lambda: chore(3))
    assert done == [3, 2, 1, 0] and not turnstile._busy


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("behind", ["", "b"])
def test_ctrl_c_while_waiting_leaves_the_line(turnstile: Turnstile, behind: str) -> None:
    passed: list[str] = []
    release, held, main = threading.Event(), threading.Event(), threading.get_ident()

    def hold() -> None:
        with turnstile:
            held.set()
            release.wait()

    def interrupt() -> None:
        until(lambda: len(turnstile._line) == 1)
        threads.extend(queue_up(turnstile, behind, passed.append))
        signal.pthread_kill(main, signal.SIGINT)

    holder, interrupter = threading.Thread(target=hold), threading.Thread(target=interrupt)
    threads = [holder, interrupter]
    holder.start(), held.wait(), interrupter.start()
    with pytest.raises(KeyboardInterrupt), turnstile:
        raise AssertionError
    assert len(turnstile._line) == len(behind)
    release.set()
    [thread.join() for thread in threads]
    assert "".join(passed) == behind and not turnstile._busy


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_giving_way_comes_once_the_turn_is_back(turnstile: Turnstile) -> None:
    """So that what it undoes is undone within a turn."""
    main = threading.get_ident()

    def interrupt(name: str) -> None:
        until(lambda: len(turnstile._line) == 1)
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.05)  # time for it to go wrong

    with turnstile:
        threads = queue_up(turnstile, "a", interrupt)
        with pytest.raises(KeyboardInterrupt):
            turnstile.give_way()
        assert turnstile._owner == main and turnstile._busy
    [thread.join() for thread in threads]
    assert not turnstile._busy


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_ctrl_c_on_the_way_into_the_line(turnstile: Turnstile, after: bool, waits: bool) -> None:
    """Right before and right after a thread has joined the line, or taken a lock that was free, unknown to itself."""
    queue, struck = turnstile._queue, []

    def interrupted(gate: Any) -> bool:
        if not struck and threading.get_ident() == main:
            struck.append(True)
            if after:
                queue(gate)
            raise KeyboardInterrupt
        return queue(gate)

    main, threads = threading.get_ident(), []
    turnstile._queue = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), turnstile:
        raise AssertionError
    assert not turnstile._busy and not turnstile._line
    with turnstile:
        threads = queue_up(turnstile, "ab" if waits else "a", lambda name: None)
        struck.clear()
        with pytest.raises(KeyboardInterrupt):
            turnstile.give_way()
        assert turnstile._owner == main and turnstile._busy and not turnstile._line
    [thread.join() for thread in threads]
    assert not turnstile._busy


def test_no_two_at_once_and_nobody_left_behind(turnstile: Turnstile) -> None:
    """Many threads, with giving way, errors and chores; each turn finds the counter as it left it."""
    inside, chores, rounds = [0], [0], 300

    def chore() -> None:
        chores[0] += 1

    def run(number: int) -> None:
        for i in range(rounds):
            try:
                with turnstile:
                    for _ in range(2):
                        inside[0] += 1
                        assert inside[0] == 1
                        inside[0] -= 1
                        if (i + number) % 3 == 0:
                            turnstile.give_way()
                    if i % 7 == 0:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
            turnstile.later(chore)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert chores[0] == 6 * rounds and not turnstile._busy and not turnstile._line and inside[0] == 0


@pytest.mark.parametrize("busy", [False, True])
def test_a_forked_process_does_not_wait_for_a_thread_that_it_has_not(busy: bool) -> None:
    """Where a thread held the model, nobody ends its turn: refused. Where nobody did, it is as free as before."""
    turnstile, held, done = Turnstile(), threading.Event(), threading.Event()

    def hold() -> None:
        with turnstile:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold if busy else held.set)
    thread.start()
    held.wait()
    if not busy:
        thread.join()
    child = os.fork()
    if child == 0:
        try:
            with turnstile:
                os._exit(0)
        except pv.StreamError:
            os._exit(1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == int(busy)
    with turnstile:  # here nothing has changed
        pass
