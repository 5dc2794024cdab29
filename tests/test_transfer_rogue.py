"""A peer that has the keys and breaks the protocol: it is told so and left, and costs bounded memory and work."""

from __future__ import annotations

import json
import struct
from collections import deque
from random import Random
from typing import Any

import pytest

from tests.transfers import SECRET, MemoryFile, Rogue
from udpsend.config import Role
from udpsend.errors import PeerError
from udpsend.transfer.connection import Connection
from udpsend.transfer.control_stream import MAX_MESSAGE, MAX_PIECES, WINDOW, ControlSender
from udpsend.transfer.messages import Closed, OfferReceived, PeerVerified
from udpsend.transfer.receiver import Receiver
from udpsend.wire.datagram import Address, Arrival
from udpsend.wire.frames import Ack, pack_ack, pack_control
from udpsend.wire.json import JSON
from udpsend.wire.ranges import RangeSet

STRANGER: Address = ("192.168.1.66", 6666)


def victim(role: Role, size: int = 1000) -> tuple[Connection, Rogue, MemoryFile]:
    connection = Connection(role, SECRET, ("10.0.0.9", 9), 0.0, Random(1).randbytes)
    file = MemoryFile(bytearray(size))
    if role is Role.SENDER:
        connection.offer(file, size, {"name": "x"})
        drain(connection)
    return connection, Rogue(role.other), file


def drain(connection: Connection, now: float = 1.0) -> list[Any]:
    events = []
    for _ in range(100):
        list(connection.datagrams_to_send(now))
        event = connection.next_event()
        if event is None:
            break
        events.append(event)
    return events


def message(value: JSON, offset: int = 0) -> bytes:
    data = json.dumps(value).encode()
    return pack_control(offset, struct.pack("!I", len(data)) + data)


def end_of(connection: Connection) -> Any:
    now = 1.0
    events = drain(connection, now)
    while not any(isinstance(event, Closed) for event in events) and now < 3:
        now += 0.1
        events += drain(connection, now)
    return next((event.error for event in events if isinstance(event, Closed)), None)


def data(offset: int, size: int) -> bytes:
    return b"\4" + struct.pack("!Q", offset) + bytes(size)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (b"\x99", "unknown frame"),
        (b"\2\0\0", "short frame"),
        (pack_ack(Ack(((0, 1 << 40),), 0.0, 0, 0)), "acknowledged what was not sent"),
        (message({"type": "unheard of"}), "unexpected message"),
        (message({"type": "verified"}), "unexpected message"),
        (message({"type": "accept"}), "list of ranges"),
        (message({"type": "accept", "present": [[0, 1001]]}), "range"),
        (message({"type": "accept", "present": [[5, 5]]}), "range"),
        (message({"type": "accept", "present": [[-1, 5]]}), "range"),
        (message({"type": "accept", "present": [["0", 5]]}), "range"),
        (message({"type": "accept", "present": [[False, True]]}), "range"),
        (message({"type": "accept", "present": [[0, 1]] * 5000}), "list of ranges"),
        (message({"type": "accept", "present": [], "left_out": 5}), "left out"),
        (message({"type": "need", "ranges": [[0, 1]]}), "unexpected message"),
        (message([1, 2]), "without a type"),
        (message({"type": 5}), "without a type"),
        (pack_control(0, b"\0\0\0\2{]"), "no JSON"),
        (pack_control(0, b"\0\0\0\2\xff\xff"), "no JSON"),
        (pack_control(0, struct.pack("!I", MAX_MESSAGE + 1)), "too long"),
        (pack_control(0, struct.pack("!I", 60_000) + b"[" * 60_000), "no JSON"),
        (pack_control(WINDOW, b"x"), "beyond its window"),
        (pack_control((1 << 64) - 1, b"x"), "beyond its window"),
    ],
)
def test_what_breaks_the_protocol_at_a_sender(frames: bytes, reason: str) -> None:
    connection, rogue, _ = victim(Role.SENDER)
    rogue.says(connection, frames)
    error = end_of(connection)
    assert isinstance(error, PeerError)
    assert reason in str(error)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (data(0, 1001), "data outside"),
        (data(1000, 1), "data outside"),
        (data((1 << 64) - 1, 1), "data outside"),
        (message({"type": "offer"}, 100), "unexpected message"),
        (message({"type": "finished"}, 100), "digest"),
        (message({"type": "finished", "digest": "00" * 31}, 100), "digest"),
        (message({"type": "finished", "digest": "x" * 64}, 100), "digest"),
        (message({"type": "finished", "digest": "00 " * 32}, 100), "digest"),
        (message({"type": "hashes", "first": True, "hashes": "A" * 43 + "="}, 100), "first"),
        (message({"type": "finished", "digest": 5}, 100), "digest"),
    ],
)
def test_what_breaks_the_protocol_at_a_receiver(frames: bytes, reason: str) -> None:
    connection, rogue, file = victim(Role.RECEIVER)
    offer = message({"type": "offer", "manifest": None, "padding": "x" * 46})
    assert len(offer) - 11 == 100
    rogue.says(connection, offer)
    assert drain(connection) == [OfferReceived(None)]
    assert connection.receiver is not None
    connection.receiver.accept(file, 1000, RangeSet())
    rogue.says(connection, frames)
    error = end_of(connection)
    assert isinstance(error, PeerError)
    assert reason in str(error)
    assert file.written == 0


def test_a_message_before_anything_was_offered() -> None:
    """The two compare their phrases, say."""
    connection = Connection(Role.SENDER, SECRET, ("10.0.0.9", 9), 0.0, Random(1).randbytes)
    Rogue(Role.RECEIVER).says(connection, message({"type": "list"}))
    error = end_of(connection)
    assert isinstance(error, PeerError)
    assert "before the offer" in str(error)


def test_data_before_anything_was_accepted() -> None:
    connection, rogue, _ = victim(Role.RECEIVER)
    rogue.says(connection, data(0, 10))
    assert isinstance(end_of(connection), PeerError)


def test_a_flood_of_control_messages_takes_bounded_memory() -> None:
    """All but the first byte: the window bounds what is kept."""
    connection, rogue, _ = victim(Role.RECEIVER)
    pieces = [pack_control(at, bytes(400)) for at in range(400, WINDOW - 400, 400)]
    for start in range(0, len(pieces), 100):
        rogue.says(connection, b"".join(pieces[start : start + 100]))
    assert len(connection._control_in._buffer) <= WINDOW
    assert drain(connection) == []


def test_a_control_stream_in_pieces_of_a_byte_takes_bounded_work() -> None:
    """From its end to its beginning, with gaps: each would move all those that came before it."""
    connection, rogue, _ = victim(Role.RECEIVER)
    pieces = [pack_control(at, b"x") for at in range(WINDOW - 2, WINDOW - 20_000, -2)]
    for start in range(0, len(pieces), 1000):
        rogue.says(connection, b"".join(pieces[start : start + 1000]))
    error = end_of(connection)
    assert isinstance(error, PeerError)
    assert "too many pieces" in str(error)
    assert len(connection._control_in._have) <= MAX_PIECES + 10, "one of each record that comes until it is closed"


def test_a_manifest_in_pieces_of_a_byte_takes_bounded_memory() -> None:
    receiver = Receiver(ControlSender(), deque())
    receiver.ask_list(1 << 20)

    def every_other_byte() -> None:
        for at in range(0, 1 << 20, 2):
            receiver.data_received(at, 1)

    with pytest.raises(PeerError, match="too many pieces"):
        every_other_byte()


def test_a_flood_of_challenges_is_answered_by_few() -> None:
    connection, rogue, _ = victim(Role.RECEIVER)
    for _ in range(1000):
        rogue.says(connection, b"\5" + bytes(8), STRANGER)
    to_stranger = [t for t in connection.datagrams_to_send(1.0) if t.address == STRANGER]
    assert len(to_stranger) <= 5


def test_only_the_token_of_its_challenge_makes_an_address_the_path() -> None:
    connection, rogue, _ = victim(Role.RECEIVER)
    rogue.says(connection, b"\1", STRANGER)
    assert STRANGER in [train.address for train in connection.datagrams_to_send(1.0)]
    token = connection._path_check._token
    rogue.says(connection, b"\6" + bytes(8), STRANGER)
    assert connection.address == ("10.0.0.9", 9)
    rogue.says(connection, b"\6" + token, STRANGER)
    assert connection.address == STRANGER


def test_an_address_that_answers_no_challenge_is_asked_five_times() -> None:
    connection, rogue, _ = victim(Role.RECEIVER)
    rogue.says(connection, b"\1", STRANGER)
    asked, now = 0, 1.0
    while now < 10:
        asked += sum(train.address == STRANGER for train in connection.datagrams_to_send(now))
        now += 0.1
    assert asked == 5


@pytest.mark.parametrize(("address", "is_another_path"), [(("10.0.0.9", 10), False), (("10.0.0.10", 9), True)])
def test_what_is_known_of_a_path_is_forgotten_with_the_host_not_with_the_port(
    address: Address, is_another_path: bool
) -> None:
    connection, rogue, _ = victim(Role.SENDER)
    connection.flight.mtu.size = 1400
    rogue.says(connection, b"\1", address)
    list(connection.datagrams_to_send(1.0))
    rogue.says(connection, b"\6" + connection._path_check._token, address)
    assert connection.address == address
    assert (connection.flight.mtu.size < 1400) == is_another_path


def test_records_with_gaps_take_bounded_memory() -> None:
    connection, rogue, _ = victim(Role.RECEIVER)
    for _ in range(5000):
        rogue.number += 1
        rogue.says(connection, b"\1")
    assert len(connection._acks._received) <= 513
    assert connection._acks._floor > 0


def test_a_window_of_nothing_does_not_stop_the_clock() -> None:
    """An acknowledgement that leaves no room: the sender asks again, with pauses."""
    connection, rogue, _ = victim(Role.SENDER, 100_000)
    rogue.says(connection, pack_ack(Ack(((0, 0),), 0.0, 1, 0)) + message({"type": "accept", "present": []}))
    now, sent = 1.0, 0
    while now < 20:
        sent += len(list(connection.datagrams_to_send(now)))
        timer = connection.next_timer()
        assert timer is not None
        now = max(now, timer)
        connection.timer_expired(now)
    assert sent < 200


def test_nothing_comes_after_the_end() -> None:
    connection, rogue, _ = victim(Role.RECEIVER)
    offer = message({"type": "offer"})
    close = b"\7\3\0\0" + bytes(len(offer) - 4)
    together = Arrival.of([rogue.datagram(close), rogue.datagram(offer)], ("10.0.0.9", 9))
    connection.datagram_received(together, 1.0)
    events = drain(connection)
    assert [type(event) for event in events] == [Closed]


def test_verified_is_said_once() -> None:
    connection, rogue, _ = victim(Role.SENDER)
    accept = message({"type": "accept", "present": []})
    rogue.says(connection, accept)
    assert connection.sender is not None
    connection.sender.digest_ready(bytes(32))
    verified = message({"type": "verified", "digest": "00" * 32}, len(accept) - 11)
    again = message({"type": "verified", "digest": "00" * 32}, len(accept) + len(verified) - 22)
    rogue.says(connection, verified + again)
    said = [event for event in drain(connection) if isinstance(event, PeerVerified)]
    assert len(said) == 1
