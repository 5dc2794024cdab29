"""The control stream: messages in order out of pieces in any order, what is sent again, and its bounds."""

from __future__ import annotations

import json
import struct
from collections import deque
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transfers import MemoryFile
from udpsend.errors import BadPacket
from udpsend.transfer.control_stream import MAX_MESSAGE, WINDOW, ControlReceiver, ControlSender, Message
from udpsend.transfer.messages import (
    OfferAccepted,
    PeerVerified,
    parse_digest_untrusted,
    parse_left_out_untrusted,
    parse_ranges_untrusted,
)
from udpsend.transfer.receiver import Receiver
from udpsend.transfer.sender import Sender
from udpsend.wire.frames import DATA_HEADER_SIZE
from udpsend.wire.ranges import MAX_BLOCKS, MAX_LEFT_OUT, MAX_TOLD, RangeSet

messages = st.lists(
    st.fixed_dictionaries({"type": st.text(max_size=5), "value": st.none() | st.integers() | st.text(max_size=200)}),
    max_size=6,
)


@given(messages, st.integers(1, 60), st.integers())
def test_pieces_in_any_order(said: list[Message], limit: int, order: int) -> None:
    random = Random(order)
    sender, receiver = ControlSender(), ControlReceiver()
    for message in said:
        sender.queue(message)
    heard: list[Message] = []
    for _ in range(1000):
        pieces = []
        while (piece := sender.take(limit)) is not None:
            pieces.append(piece)
        if not pieces:
            break
        random.shuffle(pieces)
        for offset, content in pieces:
            stop = offset + len(content)
            match random.randrange(4):
                case 0:
                    sender.on_lost(offset, stop)
                case 1:  # arrived, and thought lost
                    heard += receiver.add_untrusted(offset, content)
                    sender.on_lost(offset, stop)
                    if random.random() < 0.5:
                        sender.on_acked(offset, stop)
                case _:
                    heard += receiver.add_untrusted(offset, content)
                    sender.on_acked(offset, stop)
    assert heard == said
    assert sender.all_acked
    assert not sender.pending


def test_what_is_acknowledged_after_all_is_not_sent_again() -> None:
    sender = ControlSender()
    sender.queue({"type": "x"})
    piece = sender.take(100)
    assert piece is not None
    stop = piece[0] + len(piece[1])
    sender.on_lost(piece[0], stop)
    assert sender.pending
    sender.on_acked(piece[0], stop)
    assert sender.take(100) is None
    assert sender.all_acked


def test_golden_message() -> None:
    sender = ControlSender()
    sender.queue({"type": "finished", "digest": "00ff"})
    assert sender.take(1000) == (0, b'\0\0\0\x23{"type":"finished","digest":"00ff"}')


def framed(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'"type"', b"{}", b'{"type": 1}', b"\xff", b"[" * 100_000, b"1e999999", b"NaN"]
)
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(BadPacket):
        ControlReceiver().add_untrusted(0, framed(data))


def test_a_message_that_is_too_long_is_refused_by_its_length() -> None:
    receiver = ControlReceiver()
    with pytest.raises(BadPacket, match="too long"):
        receiver.add_untrusted(0, struct.pack("!I", MAX_MESSAGE + 1))


def test_the_longest_message() -> None:
    text = "x" * (MAX_MESSAGE - len(json.dumps({"type": ""})))
    receiver = ControlReceiver()
    assert receiver.add_untrusted(0, framed(json.dumps({"type": text}).encode())) == [{"type": text}]
    assert len(receiver._buffer) == 0


@pytest.mark.parametrize(("offset", "length"), [(WINDOW, 1), (WINDOW - 1, 2), (1 << 63, 0), (0, WINDOW + 1)])
def test_the_window(offset: int, length: int) -> None:
    receiver = ControlReceiver()
    with pytest.raises(BadPacket, match="window"):
        receiver.add_untrusted(offset, bytes(length))
    assert receiver.add_untrusted(WINDOW - 1, b"x") == []
    assert len(receiver._buffer) <= WINDOW


def test_the_window_moves_with_what_is_complete() -> None:
    sender, receiver = ControlSender(), ControlReceiver()
    for number in range(200):
        sender.queue({"type": "x" * 10_000, "number": number})
        while (piece := sender.take(5000)) is not None:
            heard = receiver.add_untrusted(*piece)
            sender.on_acked(piece[0], piece[0] + len(piece[1]))
        assert heard == [{"type": "x" * 10_000, "number": number}]
    assert sender.backlog == len(receiver._buffer) == 0
    assert receiver.add_untrusted(0, b"old") == []


# what is said over it


def told(present: RangeSet, size: int) -> RangeSet:
    """What a sender reads of it."""
    control = ControlSender()
    Receiver(control, deque()).accept(MemoryFile(bytearray(size)), size, present)
    piece = control.take(1 << 20)
    assert piece is not None
    (message,) = ControlReceiver().add_untrusted(*piece)
    return parse_ranges_untrusted(message["present"], size)


def test_the_longest_accept_is_a_message() -> None:
    """Of a transfer of 4 EiB, and with as much left out as may be."""
    end = 1 << 62
    present = RangeSet((start, start + 1) for start in range(end - 2 * MAX_TOLD, end, 2))
    known = RangeSet((start, start + 1) for start in range(MAX_BLOCKS - 2 * MAX_TOLD, MAX_BLOCKS, 2))
    left_out = Random(1).randbytes(MAX_LEFT_OUT)
    control, receiver = ControlSender(), ControlReceiver()
    Receiver(control, deque()).accept(MemoryFile(b""), end, present, left_out, known)
    heard: list[Message] = []
    while (piece := control.take(10_000)) is not None:
        heard += receiver.add_untrusted(*piece)
        control.on_acked(piece[0], piece[0] + len(piece[1]))
    (message,) = heard
    assert parse_ranges_untrusted(message["present"], end) == present
    assert parse_ranges_untrusted(message["known"], MAX_BLOCKS) == known
    assert parse_left_out_untrusted(message) == left_out


def test_no_more_leaves_than_the_window_takes() -> None:
    """Of what comes in order nothing is acknowledged, and what comes is not complete."""
    sender, receiver = ControlSender(), ControlReceiver()
    for number in range(9):
        sender.queue({"type": "x" * (MAX_MESSAGE - 100), "number": number})
    heard: list[Message] = []
    while not sender.all_acked:
        pieces = []
        while (piece := sender.take(60_000)) is not None:
            pieces.append(piece)
        assert pieces
        assert not sender.pending
        for offset, data in reversed(pieces):
            heard += receiver.add_untrusted(offset, data)
        for offset, data in pieces[: len(pieces) // 2 + 1]:
            sender.on_acked(offset, offset + len(data))
        for offset, data in pieces[len(pieces) // 2 + 1 :]:
            sender.on_lost(offset, offset + len(data))
    assert [message["number"] for message in heard] == list(range(9))


def test_present_ranges_there_and_back() -> None:
    present = RangeSet([(0, 5), (10, 20)])
    assert told(present, 20) == present


def test_of_too_many_ranges_the_largest_are_told() -> None:
    many = RangeSet((i * 10, i * 10 + 1 + i % 5) for i in range(10_000))
    few = told(many, 100_000)
    assert len(few) == MAX_TOLD
    assert all(stop - start >= 3 for start, stop in few)
    assert all(many.covers(*piece) for piece in few)


def test_all_that_differs_is_asked_for() -> None:
    many = RangeSet((i * 10, i * 10 + 1 + i % 5) for i in range(10_000))
    control, receiver = ControlSender(), ControlReceiver()
    Receiver(control, deque()).need(many)
    heard = RangeSet()
    while (piece := control.take(10_000)) is not None:
        for message in receiver.add_untrusted(*piece):
            for start, stop in parse_ranges_untrusted(message["ranges"], 100_000):
                heard.add(start, stop)
        control.on_acked(piece[0], piece[0] + len(piece[1]))
    assert heard == many


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        "00",
        [1],
        [[1]],
        [[1, 2, 3]],
        [[2, 1]],
        [[1, 1.5]],
        [[True, 21]],
        [[0, 21]],
        [[5, 6], [1, 2]],
        [[1, 5], [4, 6]],
    ],
)
def test_present_ranges_that_cannot_be(value: Any) -> None:
    with pytest.raises(BadPacket):
        parse_ranges_untrusted(value, 20)


@pytest.mark.parametrize("value", [None, 5, "", "00" * 33, "zz" * 32, ["00"]])
def test_digests_that_cannot_be(value: Any) -> None:
    with pytest.raises(BadPacket):
        parse_digest_untrusted({"type": "finished", "digest": value})
    assert parse_digest_untrusted({"type": "finished", "digest": "0f" * 32}) == b"\x0f" * 32


# the sender's side of the dialogue


Ranges = tuple[tuple[int, int], ...]


def accepted(size: int = 100, present: Ranges = (), known: Ranges = ()) -> tuple[Sender, deque[Any]]:
    events: deque[Any] = deque()
    sender = Sender(MemoryFile(bytes(size)), size, {"name": "x"}, ControlSender(), events)
    assert not sender.unfinished
    assert not sender.pending
    told: dict[str, Any] = {"present": [list(piece) for piece in present], "known": [list(piece) for piece in known]}
    sender.message_received_untrusted({"type": "accept", **told})
    return sender, events


def take_all(sender: Sender, limit: int) -> list[tuple[int, int]]:
    pieces = []
    while sender.pending:
        taken = sender.take(limit)
        assert taken is not None
        start, plaintext = taken
        pieces.append((start, start + len(plaintext) - DATA_HEADER_SIZE))
    return pieces


def test_takes_what_is_missing() -> None:
    sender, events = accepted(100, ((10, 50), (90, 100)))
    assert take_all(sender, 30) == [(0, 10), (50, 80), (80, 90)]
    (event,) = events
    assert isinstance(event, OfferAccepted)
    assert event.already == sender.done == 50


def test_what_was_lost_goes_again_unless_it_arrived() -> None:
    sender, _ = accepted()
    take_all(sender, 50)
    sender.on_acked(0, 20)
    sender.on_lost(0, 50)
    assert take_all(sender, 100) == [(20, 50)]
    sender.on_lost(50, 100)
    sender.on_acked(20, 50)
    sender.on_acked(50, 100)  # it had only been late
    assert not sender.pending, "or the owner would wait for ever for it to leave"
    assert not sender.unfinished


def test_verified_overtakes_the_last_acknowledgements() -> None:
    sender, events = accepted()
    take_all(sender, 50)
    sender.digest_ready(bytes(32))
    sender.message_received_untrusted({"type": "verified", "digest": "00" * 32})
    assert events[-1] == PeerVerified(bytes(32))
    assert sender.done == 100
    assert not sender.unfinished


def test_what_was_verified_is_what_was_sent() -> None:
    sender, events = accepted()
    sender.digest_ready(bytes(32))
    with pytest.raises(BadPacket, match="something else"):
        sender.message_received_untrusted({"type": "verified", "digest": "11" * 32})
    with pytest.raises(BadPacket, match="digest"):
        sender.message_received_untrusted({"type": "verified"})
    sender.message_received_untrusted({"type": "verified", "digest": "00" * 32})
    assert events[-1] == PeerVerified(bytes(32))


def test_of_all_that_was_verified_only_the_receiver_knows_the_digest() -> None:
    """Where it had compared a block before."""
    sender, events = accepted(known=((0, 1),))
    sender.digest_ready(bytes(32))
    sender.message_received_untrusted({"type": "verified", "digest": "11" * 32})
    assert events[-1] == PeerVerified(b"\x11" * 32)


@pytest.mark.parametrize("said", ["verified", "accept", "offer", "finished", ""])
def test_out_of_turn(said: str) -> None:
    sender, _ = accepted()
    with pytest.raises(BadPacket, match="unexpected"):
        sender.message_received_untrusted({"type": said, "present": []})
