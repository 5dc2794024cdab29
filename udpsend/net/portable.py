"""Trains over any UDP socket: one call for each datagram."""

from __future__ import annotations

import socket
from itertools import groupby

from udpsend.net.carrier import MIN_FULL, Carrier
from udpsend.net.memory import untouched
from udpsend.wire.datagram import HEADER_SIZE, MAX_DATAGRAM_SIZE, MAX_DATAGRAMS, Arrival, Transmit
from udpsend.wire.packets import INDEX, fragment_untrusted

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
        send = self.sock.sendto
        for at in range(0, len(data), segment):
            datagram = data[at : at + segment]
            try:
                send(datagram, address)
            except OSError:
                if not self._attempt(send, datagram, address):
                    return

    # receiving

    def receive(self) -> Arrival | None:
        """As `Carrier.receive`. A train ends where the record of its first datagram does, with a datagram that is
        shorter than the others, and before one that is larger or from elsewhere."""
        if self._pending:
            return self._pending.popleft()
        receive, slots = self.sock.recvfrom_into, self._slots
        count = size = stride = 0
        source: _Source = ("", 0)
        try:
            stride, source = receive(slots[0])
            count, size = 1, stride
            index, datagrams = fragment_untrusted(slots[0])
            last = datagrams - 1
            for slot in slots[1:] if stride >= MIN_FULL and index != last else ():
                came, address = receive(slot)
                if came > stride or address != source:
                    self._pending.append(Arrival.of([bytes(slot[:came])], address[:2]))
                    break
                size = came
                count += 1
                if came < stride or slot[INDEX] == last:
                    break
        except BlockingIOError:
            pass
        except OSError as error:
            self._lost(error)
            if not count:
                return self.receive()
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
        if headers.count(headers[:INDEX]) < count:
            return self._sort(count, size, source)
        payloads = b"".join([*self._rests[: count - 1], rest])
        return Arrival(memoryview(headers), memoryview(payloads), stride, count, source[:2])

    def _sort(self, count: int, size: int, source: _Source) -> Arrival:
        """The same where they are not all of one record: the end of it is lost, or a stranger's is among them, which
        must not spoil a train of ours."""
        datagrams = [bytes(slot[: self._stride]) for slot in self._slots[: count - 1]]
        datagrams.append(bytes(self._slots[count - 1][:size]))
        runs = [Arrival.of([*run], source[:2]) for _, run in groupby(datagrams, lambda datagram: datagram[:INDEX])]
        self._pending.extendleft(reversed(runs[1:]))
        return runs[0]
