"""Sessions over loopback that do not end as usual: the other side learns of it, and nobody waits for a terminal."""

from __future__ import annotations

import secrets
import threading
from asyncio import CancelledError
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

import udpsend
from udpsend.caller import Caller
from udpsend.config import Config
from udpsend.errors import LocalFileError, Refused, TransferFailed
from udpsend.events import Event, Offered, Verified, Verifying
from udpsend.files.existing import Policy
from udpsend.net.driver import Driver
from udpsend.receiving import Receiving
from udpsend.rendezvous.code import generate_code, parse_code
from udpsend.session import Session
from udpsend.wire.datagram import Transmit

WAIT = 20.0
CONFIG = Config(bind="127.0.0.1", brokers=(), stun_servers=(), timeout=WAIT)


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("UDPSEND_LAN_INTERFACES", "127.0.0.1")
    return generate_code(secrets.token_bytes)


@pytest.fixture
def sent(tmp_path: Path, code: str) -> Iterator[Future[Verified]]:
    """What becomes of sending 7,000 bytes."""
    (tmp_path / "content").write_bytes(b"content" * 1000)
    (tmp_path / "there").mkdir()
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(udpsend.send, tmp_path / "content", code=code, config=CONFIG)


@pytest.mark.parametrize(
    ("function", "raised", "told", "why"),
    [
        ("accept", ZeroDivisionError, TransferFailed, "The other side gave up: it stopped unexpectedly"),
        ("accept", KeyboardInterrupt, Refused, "The other side stopped the transfer"),
        ("accept", CancelledError, TransferFailed, "The other side gave up: it stopped unexpectedly"),
        ("on_event", KeyboardInterrupt, Refused, "The other side stopped the transfer"),
    ],
)
def test_what_the_callers_function_raises_is_told(
    tmp_path: Path,
    code: str,
    sent: Future[Verified],
    function: str,
    raised: type[BaseException],
    told: type[Exception],
    why: str,
) -> None:
    """It was not: the sender looked for the receiver for five minutes; and where `accept` raised what is no Exception,
    both waited for ever for its answer."""

    def fail(about: object) -> bool:
        if isinstance(about, Offered):
            raise raised
        return True

    options: dict[str, Any] = {function: fail}
    with pytest.raises(raised):
        udpsend.receive(code, tmp_path / "there", config=CONFIG, **options)
    with pytest.raises(told, match=why):
        sent.result(WAIT)


def test_why_the_loop_ends_is_told_where_datagrams_are_lost(
    tmp_path: Path, code: str, sent: Future[Verified], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said once, and the sender looked for five minutes for who had ended."""

    class Lossy(Receiving):
        def _say_why(self, error: BaseException) -> None:
            send, spoken = self._endpoint.send, []

            def lose_two(transmit: Transmit) -> None:
                spoken.append(transmit)
                if len(spoken) > 2:
                    send(transmit)

            monkeypatch.setattr(self._endpoint, "send", lose_two)
            super()._say_why(error)

    def show(event: Event) -> None:
        if isinstance(event, Offered):
            raise LocalFileError("cannot be shown")

    caller = Caller(show, confirm=lambda _: True, accept=lambda _: True)
    with pytest.raises(LocalFileError):
        Lossy(parse_code(code), CONFIG, caller, tmp_path / "there", Policy()).run()
    with pytest.raises(TransferFailed, match="cannot be shown"):
        sent.result(WAIT)


def test_a_phrase_that_nobody_confirms_is_told(tmp_path: Path, code: str, sent: Future[Verified]) -> None:
    """It was said to be a stranger between the two, and at the other side that the file was declined."""
    why = "nobody confirmed that both sides show the same phrase.* take another code"
    with pytest.raises(Refused, match=why):
        udpsend.receive(code, tmp_path / "there", confirm=lambda _: False, config=CONFIG)
    with pytest.raises(Refused, match=why):
        sent.result(WAIT)


def test_a_stopped_terminal_does_not_hold_the_end(tmp_path: Path, code: str, sent: Future[Verified]) -> None:
    go_on = threading.Event()

    def show(event: Event) -> None:
        if isinstance(event, Verifying):
            assert go_on.wait(2 * WAIT)

    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(udpsend.receive, code, tmp_path / "there", on_event=show, config=CONFIG)
        try:
            assert sent.result(WAIT).size == 7000
            assert (tmp_path / "there/content").exists()
        finally:
            go_on.set()
        assert received.result(WAIT).size == 7000


def test_what_is_verified_needs_no_thread_more(
    tmp_path: Path, code: str, sent: Future[Verified], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was none to leave the mailboxes in: the file was there, and it was called a bug."""
    start, leave = threading.Thread.start, Receiving.leave

    def start_none(thread: threading.Thread) -> None:
        if threading.current_thread() is threading.main_thread():
            raise RuntimeError("can't start new thread")
        start(thread)

    def leave_without(receiving: Receiving) -> None:
        monkeypatch.setattr(threading.Thread, "start", start_none)
        leave(receiving)

    monkeypatch.setattr(Receiving, "leave", leave_without)
    assert udpsend.receive(code, tmp_path / "there", config=CONFIG).size == 7000
    assert sent.result(WAIT).size == 7000


def test_what_is_verified_is_not_stopped() -> None:
    """The sender would say that the transfer was stopped, of a file that is there."""

    class Watched:
        stopped = False

        def stop(self) -> None:
            self.stopped = True

        def end(self, error: Exception, now: float) -> None:
            raise AssertionError

    watched = Watched()
    receiving = Receiving(parse_code("4821-a-word"), CONFIG, Caller(), Path(), Policy())
    receiving.driver, receiving.session = cast(Driver, watched), cast(Session, watched)
    receiving._verified = Verified("content", 7000, 0.1, "")
    receiving.interrupted()
    assert watched.stopped
