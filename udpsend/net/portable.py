"""Trains over any UDP socket: one call for each datagram."""

from __future__ import annotations

import socket

from udpsend.net.carrier import MIN_FULL, Carrier
from udpsend.net.memory import untouched
from udpsend.wire.datagram import HEADER_SIZE, MAX_DATAGRAM_SIZE, MAX_DATAGRAMS, Arrival, Transmit
from udpsend.wire.packets import OPENING_SIZE, ends_record

_Source = tuple[str, int] | tuple[str, int, int, int]


class PortableSocket(Carrier):
    def __init__(self, sock: socket.socket, slot: int = MAX_DATAGRAM_SIZE + 1, slots: int = MAX_DATAGRAMS) -> None:
        """It holds `slots` datagrams of up to `slot` bytes."""
        super().__init__(sock)
        memory = untouched(slot * slots)
        self._slots = [memory[i * slot : (i + 1) * slot] for i in range(slots)]
        self._openings = [each[:HEADER_SIZE] for each in self._slots]
        self._rests: list[memoryview] = []
        self._stride = 0

    # sending

    def send(self, transmit: Transmit) -> None:
        data, segment, address = memoryview(b"".join(transmit.views)), transmit.segment_size, transmit.address
        for at in range(0, len(data), segment):
            if not self._attempt(self.sock.sendto, data[at : at + segment], address):
                return

    # receiving

    def receive(self) -> Arrival | None:
        """As `Carrier.receive`. A train ends with the last fragment of a record, with a datagram that is shorter than
        the others, and before one that is larger, from elsewhere, or of another kind or tag: what a stranger sends
        spoils no train of ours."""
        if self._pending:
            return self._pending.popleft()
        count = size = stride = 0
        opening = b""
        source: _Source = ("", 0)
        for slot in self._slots:
            try:
                came, address = self.sock.recvfrom_into(slot)
            except BlockingIOError:
                break
            except OSError as error:
                self._lost(error)
                return self.receive() if not count else self._train(count, stride, size, source)
            if not count:
                source, stride, opening = address, came, bytes(slot[:OPENING_SIZE])
            elif came > stride or address != source or slot[:OPENING_SIZE] != opening:
                self._pending.append(Arrival.of([bytes(slot[:came])], address[:2]))
                break
            size = came
            count += 1
            if size < stride or size < MIN_FULL or ends_record(slot):
                break
        return self._train(count, stride, size, source) if count else None

    def _train(self, count: int, stride: int, size: int, source: _Source) -> Arrival:
        """The datagrams in the first slots, of which the last has `size` bytes."""
        slot = self._slots[count - 1]
        opening, rest = slot[: min(size, HEADER_SIZE)], slot[HEADER_SIZE : max(size, HEADER_SIZE)]
        if count == 1:
            return Arrival(opening, rest, size, 1, source[:2])
        if stride != self._stride:
            self._stride = stride
            self._rests = [each[HEADER_SIZE:stride] for each in self._slots]
        headers = b"".join([*self._openings[: count - 1], opening])
        payloads = b"".join([*self._rests[: count - 1], rest])
        return Arrival(memoryview(headers), memoryview(payloads), stride, count, source[:2])
