"""Every way in which a transfer may end: on both sides, at once where it can be, and with a text that says why."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.transfers import Transfer, transfer
from udpsend.errors import Cancelled, LocalFileError, PeerError, Refused, TransferFailed
from udpsend.rendezvous.messages import check_payload
from udpsend.transfer.closing import close_of
from udpsend.transfer.liveness import IDLE_TIMEOUT, LINGER, LINGER_UNHEARD, Liveness
from udpsend.wire.frames import Close, CloseCode

CLEAN: dict[str, Any] = {"delay": 0.01, "rate": 10e6, "queue": 200e3}
MB = 1_000_000


def started(seed: int, seconds: float = 0.3, **link: Any) -> Transfer:
    running = transfer(seed, 20 * MB, **{**CLEAN, **link})
    running.network.run(seconds=seconds)
    assert running.receiver.file.written > 0
    return running


def test_source_fails(seed: int) -> None:
    running = transfer(seed, 3 * MB, **CLEAN)
    running.sender.file.broken_at = 2 * MB
    running.run(10)
    mine, theirs = running.errors()
    assert isinstance(mine, LocalFileError)
    assert isinstance(theirs, TransferFailed)
    assert "problem with its file or disk: The disk failed." in str(theirs)


def test_sink_fails(seed: int) -> None:
    running = transfer(seed, 3 * MB, **CLEAN)
    running.receiver.file.broken_at = 2 * MB
    running.run(10)
    theirs, mine = running.errors()
    assert isinstance(mine, LocalFileError)
    assert isinstance(theirs, TransferFailed)
    assert "problem with its file or disk: The disk failed." in str(theirs)


def test_declined(seed: int) -> None:
    running = transfer(seed, 1000, **CLEAN)
    running.receiver.decline = True
    running.run(2)
    error, _ = running.errors()
    assert isinstance(error, Refused)
    assert "declined the file: no, thank you" in str(error)


@pytest.mark.parametrize("loss", [0.0, 0.2])
@pytest.mark.parametrize("by_sender", [True, False])
def test_cancelled(by_sender: bool, loss: float) -> None:
    running = started(5, 1.0, loss=loss)
    mine, theirs = (running.sender, running.receiver) if by_sender else (running.receiver, running.sender)
    now = running.network.now
    mine.connection.close(Close(CloseCode.CANCELLED, ""), now, Cancelled("Stopped."))
    mine.drive()
    running.run(1)
    assert mine.closed
    assert isinstance(mine.closed.error, Cancelled)
    assert theirs.closed
    assert isinstance(theirs.closed.error, Refused)
    assert "stopped the transfer" in str(theirs.closed.error)
    assert theirs.closed_at - now < (0.05 if not loss else 0.2), "told at once"
    assert mine.closed_at - now < 0.2


def test_both_cancel_at_once(seed: int) -> None:
    running = started(seed)
    for peer in (running.sender, running.receiver):
        peer.connection.close(Close(CloseCode.CANCELLED, ""), running.network.now, Cancelled("Stopped."))
        peer.drive()
    running.run(1)
    assert [type(error) for error in running.errors()] == [Cancelled, Cancelled]


def test_the_first_failure_is_the_one_reported(seed: int) -> None:
    running = started(seed)
    sender = running.sender
    sender.connection.close(Close(CloseCode.CANCELLED, ""), running.network.now, Cancelled("Stopped."))
    sender.connection.fail(LocalFileError("Gone."), running.network.now)
    sender.drive()
    running.run(1)
    error, told = running.errors()
    assert isinstance(error, Cancelled)
    assert "stopped the transfer" in str(told)


@pytest.mark.parametrize("seconds", [0.005, 0.3])
def test_the_other_side_vanishes(seconds: float, seed: int) -> None:
    running = transfer(seed, 20 * MB, **CLEAN)
    running.network.run(seconds=seconds)
    running.there.down = running.back.down = True
    before = running.network.now
    running.run(2 * IDLE_TIMEOUT)
    for error in running.errors():
        assert isinstance(error, TransferFailed)
        assert "Nothing was heard" in str(error)
    for peer in (running.sender, running.receiver):
        assert peer.closed_at - before <= IDLE_TIMEOUT + 0.1


def test_the_receiver_vanishes_after_everything_arrived(seed: int) -> None:
    """`verified` never comes: the sender must not believe in success."""
    running = transfer(seed, 1000, hash_time=0.5, **CLEAN)
    running.network.run(seconds=0.3)
    assert running.receiver.file.have.total == 1000
    running.there.down = running.back.down = True
    running.run(2 * IDLE_TIMEOUT)
    error, _ = running.errors()
    assert isinstance(error, TransferFailed)


def test_who_was_asked_nothing_is_not_silent() -> None:
    alive = Liveness(10.0)
    assert alive.silence(9.0, 100.0) == 0
    assert alive.silence(11.0, 100.0) == 90


@pytest.mark.parametrize(("is_acked", "seconds"), [(True, LINGER), (False, LINGER_UNHEARD)])
def test_a_receiver_waits_longer_for_the_last_word_where_its_own_was_not_heard(
    is_acked: bool, seconds: float, seed: int
) -> None:
    """And looks for another path only then: the sender has to know that all is well."""
    running = transfer(seed, 1000, **CLEAN)
    running.sender.connection.close = lambda *_: None  # type: ignore[method-assign]
    network, connection = running.network, running.receiver.connection
    assert network.run(lambda: connection._alive.verified, seconds=5)
    if is_acked:
        network.run(seconds=0.2)
    running.there.down = running.back.down = True
    network.run(seconds=4.5)
    assert (connection.silence(network.now) > 0) == (not is_acked)
    assert network.run(lambda: bool(running.receiver.closed), seconds=2 * seconds)
    assert running.receiver.closed is not None
    assert running.receiver.closed.error is None
    assert running.receiver.closed_at - connection._alive.last_heard == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("outage", [1.0, 4.0, 9.0])
def test_outage_when_it_is_verified(outage: float, seed: int) -> None:
    running = transfer(seed, 1000, hash_time=0.5, **CLEAN)
    running.there.outage(0.54, outage)
    running.back.outage(0.54, outage)
    running.run(60)
    running.assert_verified()


def test_waiting_for_the_user_keeps_the_path_alive(seed: int) -> None:
    """The receiver's user thinks for five minutes: both sides speak often enough for a NAT that forgets after 5 s."""
    running = transfer(seed, 1000, **CLEAN)
    peer = running.receiver
    assert peer.connection.receiver is not None
    accept = peer.connection.receiver.accept
    peer.connection.receiver.accept = lambda *_: None  # type: ignore[method-assign]
    spoken: list[float] = [0.0]
    running.there.tap = lambda train: spoken.append(running.network.now)
    running.network.run(seconds=300)
    assert max(b - a for a, b in pairwise(spoken)) < 4
    assert len(spoken) < 200
    accept(peer.file, peer.size, peer.present)
    peer.drive()
    running.run(5)
    running.assert_verified()


def test_a_sender_that_lies_about_the_digest(seed: int) -> None:
    running = transfer(seed, 10_000, **CLEAN)
    running.sender.file.digest = lambda: bytes(32)  # type: ignore[method-assign]
    running.run(5)
    theirs, mine = running.errors()
    assert isinstance(mine, TransferFailed)
    assert "damaged" in str(theirs)


def test_done_before_verified_is_no_success(seed: int) -> None:
    running = started(seed)
    running.sender.connection.close(Close(CloseCode.DONE, ""), running.network.now)
    running.sender.drive()
    running.run(1)
    assert isinstance(running.errors()[1], TransferFailed)
    assert not isinstance(running.errors()[1], PeerError)


def test_after_the_last_word_the_owner_is_woken_at_once(seed: int) -> None:
    running = started(seed)
    connection = running.sender.connection
    now = running.network.now
    connection.fail(TransferFailed("enough"), now)
    words = 0
    while (timer := connection.next_timer()) is not None:
        now = max(now, timer)
        connection.timer_expired(now)
        while connection.next_event() is not None:
            pass
        words += len(list(connection.datagrams_to_send(now)))
    assert words == 3
    assert now - running.network.now < 0.2
    assert connection.next_timer() is None


def test_who_ends_need_not_repeat_it_where_it_is_heard(seed: int) -> None:
    running = started(seed, 0.1, delay=0.002, rate=100e6)
    now = running.network.now
    running.sender.connection.close(Close(CloseCode.CANCELLED, ""), now, Cancelled("Stopped."))
    running.sender.drive()
    running.run(1)
    assert running.sender.closed_at - now < 0.02, "a round trip; without an answer it takes two intervals of 0.02 s"
    mine, theirs = running.errors()
    assert isinstance(mine, Cancelled)
    assert isinstance(theirs, Refused)


def test_the_last_word_fits_into_a_message_of_the_mailboxes() -> None:
    """Paths may be as long as 4 KiB, and four times that as escapes."""
    close = close_of(LocalFileError("Cannot write '" + "\U0001f4a9" * 4000 + "'."))
    check_payload({"bye": close.reason, "code": int(close.code), "no_path": False})
