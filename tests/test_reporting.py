"""Events reach the caller in order, from their own thread, and never hold up who emits them."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from udpsend.events import Event, Progress, Verifying
from udpsend.reporting import Reporter


def test_in_order_and_complete_before_the_end() -> None:
    seen: list[Event] = []
    reporter = Reporter(seen.append)
    expected: list[Event] = []
    for i in range(50):
        expected += [Progress(i, 50), Verifying()]
        reporter.emit(Progress(i, 50))
        reporter.emit(Verifying())
    reporter.close()
    assert seen == expected


def test_a_slow_terminal_holds_nobody_and_is_not_drawn_twice() -> None:
    seen: list[Event] = []
    drawing, go_on = threading.Event(), threading.Event()

    def draw(event: Event) -> None:
        drawing.set()
        assert go_on.wait(10)
        seen.append(event)

    reporter = Reporter(draw)
    reporter.emit(Verifying())
    assert drawing.wait(10)
    for i in range(1000):
        reporter.emit(Progress(i, 1000))  # returns although nothing is drawn
    assert not seen
    go_on.set()
    reporter.close()
    assert seen == [Verifying(), Progress(999, 1000)]


def test_what_the_caller_raises_comes_back_to_the_caller() -> None:
    def fail(event: Event) -> None:
        raise ZeroDivisionError

    reporter = Reporter(fail)
    reporter.emit(Verifying())
    reporter.emit(Verifying())
    reporter.close()
    with pytest.raises(ZeroDivisionError):
        reporter.check()
    reporter.check()


def test_without_a_caller_there_is_no_thread() -> None:
    before = threading.active_count()
    reporter = Reporter(None)
    reporter.emit(Verifying())
    reporter.close()
    assert threading.active_count() == before


def test_an_interrupt_ends_the_wait_for_a_caller_that_never_returns() -> None:
    busy, go_on = threading.Event(), threading.Event()
    seen: list[Event] = []

    def hang(event: Event) -> None:
        seen.append(event)
        busy.set()
        assert go_on.wait(30)

    reporter = Reporter(hang)
    reporter.emit(Verifying())
    reporter.emit(Progress(1, 2))
    assert busy.wait(10)

    def interrupt() -> None:
        while not reporter._changed._waiters:  # type: ignore[attr-defined]
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        reporter.close()
    reporter.close(is_interrupted=True)
    go_on.set()
    assert seen == [Verifying()]
