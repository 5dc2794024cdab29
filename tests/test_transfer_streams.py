"""A stream over bad links in virtual time: what grows while it is sent, and how far ahead of a gap the sender goes."""

from __future__ import annotations

import random
from collections import deque
from typing import cast

import pytest

from tests.sim import Network
from tests.transfers import MemoryFile, Peer, Transfer
from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.transfer.control_stream import ControlSender
from udpsend.transfer.liveness import IDLE_TIMEOUT
from udpsend.transfer.messages import ConnectionEvent, OfferAccepted, OfferReceived
from udpsend.transfer.receiver import Receiver
from udpsend.transfer.sender import Sender
from udpsend.wire.datagram import Address
from udpsend.wire.frames import DATA_HEADER_SIZE
from udpsend.wire.ranges import RangeSet

AHEAD = 1 << 17
STEP = 60_000  # bytes that are read at once


class _Grows(Peer):
    """As the shell does it: the sender's source has STEP bytes more each 5 ms; the receiver notes the farthest byte."""

    farthest = 0

    def __init__(self, role: Role, address: Address, network: Network, content: bytes) -> None:
        super().__init__(role, address, network, content, max_datagram_size=1472)
        if role is Role.RECEIVER:
            write = self.file.write

            def watched(offset: int, size: int) -> int:
                first = next(self.file.have.gaps(0, self.size + 1))[0]
                self.farthest = max(self.farthest, offset + size - first)
                return write(offset, size)

            self.file.write = watched  # type: ignore[method-assign]

    def offer(self) -> None:
        self.connection.offer(self.file, None, {"stream": "x"})

    def respond(self, event: ConnectionEvent | None) -> None:
        match event:
            case OfferReceived() if self.connection.receiver is not None:
                self.connection.receiver.accept(self.file, None, RangeSet(), ahead=AHEAD)
            case OfferAccepted():
                assert self.connection.progress == (0, None)
                self._grow(0)
            case _:
                super().respond(event)

    def _grow(self, size: int) -> None:
        sender = self.connection.sender
        assert sender is not None
        size = min(size + STEP, self.size)
        sender.grow(size)
        assert sender.floor <= size
        if size < self.size:
            self.network.after(0.005, lambda: self._grow(size))
        else:
            sender.digest_ready(self.file.digest())
        self.drive()


def stream(seed: int, size: int, loss: float = 0.0) -> tuple[Transfer, _Grows]:
    """It, and its receiver."""
    network = Network(seed)
    a, b = network.host("a"), network.host("b")
    there, back = network.cable(a, "10.0.0.1", b, "10.0.0.2", delay=0.02, rate=5e6, loss=loss)
    content = random.Random(seed).randbytes(size)
    receiver = _Grows(Role.RECEIVER, ("10.0.0.1", 4000), network, content)
    sender: Peer = _Grows(Role.SENDER, ("10.0.0.2", 5000), network, content)
    sa = a.bind(4000, lambda _: sender)
    sb = b.bind(5000, lambda _: cast(Peer, receiver))
    sa.endpoint.drive, sb.endpoint.drive = sa.drive, sb.drive
    return Transfer(network, sa.endpoint, sb.endpoint, there, back), receiver


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_a_stream_arrives(seed: int, size: int, loss: float) -> None:
    running, receiver = stream(seed, size, loss)
    running.run(120)
    running.assert_verified()
    assert receiver.farthest <= AHEAD
    assert running.sender.connection.progress == running.receiver.connection.progress == (size, size)


def test_what_is_left_of_a_stream_is_not_promised_to_go_on(seed: int) -> None:
    running, _ = stream(seed, 3_000_000)
    running.network.run(seconds=0.5)
    assert 0 < running.receiver.connection.progress[0] < 3_000_000
    running.there.down = running.back.down = True
    running.run(2 * IDLE_TIMEOUT)
    for error in running.errors():
        assert "Nothing was heard" in str(error)
        assert str(error).endswith("cannot be resumed: begin anew.")


def stream_sender() -> Sender:
    sender = Sender(MemoryFile(bytes(1000)), None, {"stream": "x"}, ControlSender(), deque())
    sender.message_received_untrusted({"type": "accept", "present": []})
    sender.grow(1000)
    return sender


def test_nothing_of_a_stream_can_be_asked_for_again() -> None:
    with pytest.raises(BadPacket):
        stream_sender().message_received_untrusted({"type": "need", "ranges": [[0, 5]]})


def test_less_than_a_record_may_be_ahead() -> None:
    sender = Sender(MemoryFile(bytes(300_000)), None, {"stream": "x"}, ControlSender(), deque())
    sender.message_received_untrusted({"type": "accept", "present": [], "ahead": AHEAD})
    sender.grow(300_000)
    for offset, size in ((0, AHEAD), (AHEAD, AHEAD), (2 * AHEAD, 300_000 - 2 * AHEAD)):
        taken = sender.take(200_000)
        assert taken is not None
        assert (taken[0], len(taken[1])) == (offset, size + DATA_HEADER_SIZE)
        assert sender.take(200_000) is None
        sender.on_acked(offset, offset + size)
    assert sender.floor == 300_000


def test_what_is_on_its_way_makes_room_for_whole_records() -> None:
    sender = Sender(MemoryFile(bytes(300_000)), None, {"stream": "x"}, ControlSender(), deque())
    sender.message_received_untrusted({"type": "accept", "present": [], "ahead": AHEAD})
    sender.grow(300_000)
    assert sender.take(100_000) is not None
    assert sender.take(100_000) is None
    sender.on_acked(0, 100_000)
    taken = sender.take(100_000)
    assert taken is not None
    assert len(taken[1]) == 100_000 + DATA_HEADER_SIZE


@pytest.mark.parametrize("ahead", [0, -1, True, "1000000", 1 << 62, 1000])
def test_ahead_that_makes_no_sense(ahead: object) -> None:
    sender = Sender(MemoryFile(b""), None, {"stream": "x"}, ControlSender(), deque())
    with pytest.raises(BadPacket, match="ahead"):
        sender.message_received_untrusted({"type": "accept", "present": [], "ahead": ahead})  # type: ignore[dict-item]


@pytest.mark.parametrize("size", [None, -1, True, "5", 1 << 62, 4])
def test_a_size_that_makes_no_sense(size: object) -> None:
    receiver = Receiver(ControlSender(), deque())
    receiver.message_received_untrusted({"type": "offer", "manifest": {"stream": "x"}})
    sink = MemoryFile(bytearray(5))
    receiver.accept(sink, None, RangeSet(), ahead=AHEAD)
    sink.write(0, 5)
    with pytest.raises(BadPacket, match="size"):
        receiver.message_received_untrusted({"type": "finished", "digest": "00" * 32, "size": size})  # type: ignore[dict-item]
