"""What the receiver asks for again (`need`): acknowledgements of what was sent before do not count, all others do."""

from __future__ import annotations

from collections import deque

import pytest

from tests.transfers import MemoryFile, transfer
from udpsend.errors import BadPacket
from udpsend.transfer.control_stream import ControlSender
from udpsend.transfer.messages import need_messages
from udpsend.transfer.sender import Sender
from udpsend.transfer.sent_records import SentRecord, SentRecords
from udpsend.wire.frames import DATA_HEADER_SIZE
from udpsend.wire.ranges import MAX_TOLD, RangeSet


class Way:
    """A sender to whom all of `size` bytes is said to be present, and its records, of `record` bytes at most."""

    def __init__(self, size: int, record: int, present: bool = True) -> None:
        self.sent = SentRecords()
        self.sender = Sender(
            MemoryFile(bytes(size)), size, {"name": "x"}, ControlSender(), deque(), outstanding=self.sent
        )
        self.sender.message_received_untrusted({"type": "accept", "present": [[0, size]] if present else []})
        self._record = record
        self.numbers = 0

    def need(self, start: int, stop: int) -> None:
        self.sender.message_received_untrusted({"type": "need", "ranges": [[start, stop]]})

    def send(self) -> tuple[int, int] | None:
        """What the next record carries."""
        taken = self.sender.take(self._record)
        if taken is None:
            return None
        data = taken[0], taken[0] + len(taken[1]) - DATA_HEADER_SIZE
        self.sent.add(SentRecord(self.numbers, 0.0, 100, 1, 100, True, data=data))
        self.numbers += 1
        return data

    def acknowledge(self, number: int) -> None:
        for record in self.sent.take_acknowledged(number, number)[0]:
            if record.data is not None:
                self.sender.on_acked(*record.data)

    def lose(self, number: int) -> None:
        record = next(record for record in self.sent if record.number == number)
        self.sent.declare_lost(record)
        if record.data is not None:
            self.sender.on_lost(*record.data)


@pytest.mark.parametrize(("block", "round_trip"), [(16, 8), (16, 32), (16, 320), (1, 32)])
def test_progress_while_more_is_asked_for(block: int, round_trip: int) -> None:
    """Of 200 blocks, one is asked for whenever the one before it has left: several in a round trip."""
    size = 200 * block
    way = Way(size, 1)
    for at in range(size + round_trip):
        if at < size:
            if at % block == 0:
                way.need(at, at + block)
            assert way.send() == (at, at + 1), "once, and in order"
        if at >= round_trip:
            way.acknowledge(at - round_trip)
            assert way.sender.done == size - min(block * (at // block + 1), size) + at - round_trip + 1
    assert way.numbers == size
    assert not way.sender.unfinished


def test_an_acknowledgement_of_what_was_sent_before_does_not_count() -> None:
    way = Way(100, 50, present=False)
    assert [way.send(), way.send()] == [(0, 50), (50, 100)]
    way.need(50, 100)
    way.acknowledge(1)
    way.acknowledge(0)
    assert way.sender.done == 50
    assert way.send() == (50, 100)
    way.need(0, 50)
    way.acknowledge(2)
    assert way.sender.done == 50, "that it was sent before another part was asked for does not matter"
    assert way.send() == (0, 50)
    way.acknowledge(3)
    assert not way.sender.unfinished


def test_nor_does_that_of_what_was_present_and_came_twice() -> None:
    way = Way(100, 50)
    way.need(0, 50)
    assert way.send() == (0, 50)
    way.need(0, 50)
    way.acknowledge(0)
    assert way.sender.done == 50
    assert way.send() == (0, 50)
    way.acknowledge(1)
    assert not way.sender.unfinished


def test_what_was_sent_before_and_lost_goes_once() -> None:
    way = Way(100, 50, present=False)
    way.send()
    way.need(0, 50)
    assert way.send() == (0, 50)
    way.lose(0)
    assert way.send() == (50, 100)
    assert way.send() is None
    way.lose(1)
    assert way.send() == (0, 50)


def test_of_a_record_that_is_wanted_again_in_part_the_rest_goes_too() -> None:
    way = Way(100, 100, present=False)
    way.send()
    way.need(40, 60)
    way.acknowledge(0)
    assert way.sender.done == 0
    assert way.send() == (0, 100)
    way.acknowledge(1)
    assert not way.sender.unfinished


def test_pieces_that_are_wanted_again_and_not_taken_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver's window is 0: nothing is sent. It cannot need more than every other block."""
    monkeypatch.setattr("udpsend.transfer.sender.MAX_BLOCKS", MAX_TOLD)
    way = Way(1 << 16, 100)
    first, second = need_messages(RangeSet((at, at + 1) for at in range(0, 4 * MAX_TOLD, 2)))
    way.sender.message_received_untrusted(first)
    with pytest.raises(BadPacket, match="more is needed than there are blocks"):
        way.sender.message_received_untrusted(second)


@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_a_file_of_which_all_blocks_differ(loss: float, seed: int) -> None:
    """All of it is present; each 20 ms, half a round trip, the receiver finds another block that differs."""
    block, blocks = 200_000, 50
    size = block * blocks
    running = transfer(seed, size, present=((0, size),), delay=0.02, rate=11e6, queue=400e3, loss=loss)
    sender, receiver = running.sender.connection, running.receiver
    receiver.file.content, receiver.file.have = bytearray(size), RangeSet()

    def ask(start: int) -> None:
        assert receiver.connection.receiver is not None
        receiver.connection.receiver.need(RangeSet([(start, start + block)]))
        receiver.drive()

    assert running.network.run(lambda: sender.progress[0] == size, seconds=5), "accepted"
    for number in range(blocks):
        running.network.after(0.02 * number, lambda start=number * block: ask(start))  # type: ignore[misc]
    running.network.run(seconds=0.02 * blocks)
    assert sender.progress[0] > 0.6 * size
    running.run(10)
    running.assert_verified()
    assert sender.flight.bytes_sent < (1.05 + 4 * loss) * size
