"""Where what is received lies: slots one behind the other, the openings of datagrams apart from the rest of them, so
that a record lies together without a copy.

What begins a record is held in the first slots until the rest has come behind it. What does not belong to it, or has
another stride than was expected, is copied out of there.
"""

from __future__ import annotations

from udpsend.net.memory import untouched
from udpsend.net.train_calls import MAX_JOINED
from udpsend.wire.datagram import HEADER_SIZE, MAX_DATAGRAMS, MAX_SEGMENTS, MAX_TRAIN_SIZE, Address, Arrival
from udpsend.wire.packets import OPENING_SIZE, begins_record, number_untrusted

MAX_SLOTS = MAX_DATAGRAMS + MAX_SEGMENTS  # a whole record, and what was joined behind the first part of it


class Slots:
    def __init__(self) -> None:
        self.headers = memoryview(bytearray(MAX_SLOTS * HEADER_SIZE))
        self.payloads = untouched(MAX_TRAIN_SIZE + MAX_JOINED)
        self.overflow = untouched(MAX_JOINED)
        """What no slot was left for."""
        self.stride = self.count = 0
        self.held = 0
        """Datagrams in the first slots that begin a record of which the rest has not come,"""
        self._source: Address = ("", 0)
        """and from where they came."""
        self._given = bytes(HEADER_SIZE)
        """The last header of what was given last."""

    def expect(self, stride: int) -> None:
        """What comes next has datagrams of this size, HEADER_SIZE or more. Nothing may be held."""
        self.stride = stride
        self.count = min(MAX_SLOTS, len(self.payloads) // (stride - HEADER_SIZE))

    def header(self, number: int) -> memoryview:
        """The one in slot `number` behind what is held, from 0."""
        end = (self.held + number + 1) * HEADER_SIZE
        return self.headers[end - HEADER_SIZE : end]

    def has(self, arrival: Arrival) -> bool:
        """Whether it lies here."""
        return arrival.payloads.obj is self.payloads.obj

    def keep(self, count: int, size: int, address: Address) -> list[Arrival]:
        """So many datagrams of the expected size, `size` bytes in all since the last may be shorter, have come into the
        slots behind what is held: what is complete by that. Nothing where they are held, too."""
        held = self.held
        if held and not self._goes_on(size, address):
            alien = self._train(held, count, size, address)
            return self.release(Arrival.of([*alien.datagrams()], address))
        count, size = held + count, held * self.stride + size
        is_full = size == count * self.stride
        if is_full and begins_record(self.headers, count, MAX_TRAIN_SIZE // self.stride) and not self._has_given():
            self.held, self._source = count, address
            return []
        self.held = 0
        whole = self._train(0, count, size, address)
        self._given = bytes(whole.headers[-HEADER_SIZE:])
        return [whole]

    def release(self, arrival: Arrival) -> list[Arrival]:
        """What is held, and then this, which came after it and does not belong to it."""
        held, self.held = self.held, 0
        return [self._train(0, held, held * self.stride, self._source), arrival] if held else [arrival]

    def copied(self, size: int, stride: int, address: Address) -> Arrival:
        """What came behind what is held while another stride was expected than it has."""
        payload = self.stride - HEADER_SIZE
        slots = range(self.held, self.count)[: size // self.stride + 1]
        pieces = [
            view
            for i in slots
            for view in (
                self.headers[i * HEADER_SIZE : (i + 1) * HEADER_SIZE],
                self.payloads[i * payload : (i + 1) * payload],
            )
        ]
        data = memoryview(b"".join([*pieces, self.overflow[: max(0, size - len(slots) * self.stride)]]))[:size]
        return Arrival.of([data[i : i + stride] for i in range(0, size, stride)], address)

    def _goes_on(self, size: int, address: Address) -> bool:
        """Whether this much from there, behind what is held, may be of the same record."""
        is_ours = self.header(0)[:OPENING_SIZE] == self.headers[:OPENING_SIZE]
        return is_ours and size >= HEADER_SIZE and address == self._source

    def _has_given(self) -> bool:
        """Whether what came before was of the record that begins in the first slot: its end overtook it."""
        return number_untrusted(self._given) == number_untrusted(bytes(self.headers[:HEADER_SIZE]))

    def _train(self, first: int, count: int, size: int, address: Address) -> Arrival:
        return Arrival.in_slots(self.headers, self.payloads, self.stride, first, count, size, address)
