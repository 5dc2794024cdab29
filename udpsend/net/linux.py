"""Trains over a Linux UDP socket with segmentation offload: one sendmsg and one recvmsg for up to 64 datagrams.

Sending: UDP_SEGMENT cuts the train in the kernel, or in the network card. That it will is known only after the first
real send: a device without checksum offload answers EIO, a datagram larger than the interface's MTU EINVAL or EMSGSIZE.
Then this train is sent again one datagram at a time, and so are those after it.

Receiving: UDP_GRO hands over what came together as one buffer. The buffer is scattered with the stride that the last
one had, into slots one behind the other, so that headers and payloads come to lie apart without a copy. What begins a
record is held in its slots until the rest has come behind it; what does not belong to it, or has another stride, is
copied out of there, and its stride is the next guess.

Without offload, or when what comes was not joined, the same trains go through `batch.py`, many datagrams a call.
"""

from __future__ import annotations

import errno
import socket
import struct

from udpsend.net import batch, libc
from udpsend.net.carrier import MIN_FULL, SEND_WAIT, Carrier
from udpsend.net.lanes import Lane, open_lanes
from udpsend.net.memory import untouched
from udpsend.net.train_calls import MAX_JOINED, UDP_SEGMENT, ReceiveTrain, SendTrain
from udpsend.net.waiting import wait_writable
from udpsend.wire.datagram import (
    HEADER_SIZE,
    MAX_DATAGRAM_SIZE,
    MAX_DATAGRAMS,
    MAX_SEGMENTS,
    MAX_TRAIN_SIZE,
    Address,
    Arrival,
    Transmit,
    datagrams_per_call,
)
from udpsend.wire.packets import OPENING_SIZE, begins_record, number_untrusted

# linux/udp.h and linux/in.h; the socket module has no names for them (Python 3.11)
UDP_GRO = 104
IP_MTU_DISCOVER = 10
IP_PMTUDISC_PROBE = 3  # set DF and ignore what the kernel believes of the path: the search is ours (RFC 8899)
IPV6_MTU_DISCOVER = 23

OFFLOAD_REFUSED = {errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.EOPNOTSUPP}

MIN_STRIDE = 256  # trains of smaller datagrams are rare and not worth a guess
SINGLES = 64  # datagrams of the expected size in a row that came alone: nothing joins them on this path
MAX_LONE = 32_768  # bytes; what is larger is taken in calls of its own
SLOTS = MAX_DATAGRAMS + MAX_SEGMENTS  # a whole record, and what was joined behind the first part of it
TRICKLE = 24  # datagrams in one call; fewer cost more to wake up for than to take
_SEGMENT = struct.Struct("=H")


class LinuxSocket(Carrier):
    """Raises OSError where the kernel is older than 5.0."""

    def __init__(self, sock: socket.socket, *, offload: bool = True) -> None:
        super().__init__(sock)
        self._lanes = Lane(sock)
        # What a sender on this host has joined would be cut after the choice of a lane, and not where lanes change.
        self._may_widen = self.offload = offload
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, int(offload))
        self._headers = memoryview(bytearray(SLOTS * HEADER_SIZE))
        self._payloads = untouched(MAX_TRAIN_SIZE + MAX_JOINED)
        self._overflow = untouched(MAX_JOINED)
        calls, fd = libc.load(), sock.fileno()
        self._train_out = SendTrain(fd, calls)
        self._train_in = ReceiveTrain(calls, self._headers, self._payloads, self._overflow)
        self._send_batch = batch.SendBatch(fd, calls)
        self._receive_batch = batch.ReceiveBatch(calls, self._headers, self._payloads)
        self._held = 0
        """Datagrams in the first slots that begin a record of which the rest has not come,"""
        self._source: Address = ("", 0)
        """and from where they came."""
        self._given = bytes(HEADER_SIZE)
        """The last header of what was given last."""
        self._singles = 0
        self._lone_size = 0
        self._guess(MAX_DATAGRAM_SIZE)

    # sending

    def send(self, transmit: Transmit) -> None:
        if transmit.size <= transmit.segment_size:
            self._attempt(self.sock.sendmsg, transmit.views, [], 0, transmit.address)
        elif self.offload:
            self._send_train(transmit)
        else:
            self._send_batched(transmit)

    def _send_train(self, transmit: Transmit) -> None:
        is_ready = self._train_out.is_ready(transmit)
        step = 2 * datagrams_per_call(transmit.segment_size)
        for first in range(0, len(transmit.views), step):
            views = slice(first, first + step)
            try:
                if is_ready:
                    self._train_out.send(views)
                else:
                    self.sock.sendmsg(transmit.views[views], _cut(transmit), 0, transmit.address)
            except BlockingIOError:
                if not self._attempt(self.sock.sendmsg, transmit.views[views], _cut(transmit), 0, transmit.address):
                    return
            except OSError as error:
                if error.errno not in OFFLOAD_REFUSED:
                    self._lost(error)
                elif self._send_batched(transmit):  # else the datagrams are too large, with offload and without
                    self.offload = False
                    self.counters["offload refused"] += 1
                return

    def _send_batched(self, transmit: Transmit) -> bool:
        """Whether the network took all of it."""
        count = -(-transmit.size // transmit.segment_size)
        sent, waited = 0, False
        while sent < count:
            try:
                sent = self._send_batch.send(transmit, sent)
            except BlockingIOError:
                if waited:
                    self.counters["EAGAIN"] += 1
                    return False
                waited = True
                wait_writable(self.sock, SEND_WAIT)
            except OSError as error:
                self._lost(error)
                return False
            else:
                waited = False
        return True

    # receiving

    def widen(self, opening: bytes) -> None:
        if self._may_widen:
            self._may_widen = False
            self._lanes = open_lanes(self.sock, opening)
            for lane in self._lanes.sockets:
                lane.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)

    @property
    def receive_buffer(self) -> int:
        return self._lanes.receive_buffer

    def fileno(self) -> int:
        return self._lanes.fileno()

    def close(self) -> None:
        self._lanes.close()
        super().close()

    def _guess(self, stride: int) -> None:
        """Scatter what comes next as datagrams of this size. Nothing may be held."""
        self._stride = stride
        self._singles = 0
        self._slot_count = min(SLOTS, len(self._payloads) // (stride - HEADER_SIZE))
        self._train_in.expect(stride, self._slot_count)
        self._receive_batch.expect(stride, self._slot_count)

    def receive(self) -> Arrival | None:
        try:
            if self._pending:
                return self._pending.popleft()
            while (fd := self._lanes.next()) is not None:
                is_batched = (self._singles >= SINGLES or not self.offload) and self._lanes.most > 1
                arrival = self._receive_batched(fd) if is_batched else self._receive_train(fd)
                if arrival is not None:
                    return arrival
            return None
        except BlockingIOError:
            return None
        except OSError as error:
            self._lost(error)
            return self.receive()

    def _receive_train(self, fd: int) -> Arrival | None:
        """None where it was held."""
        size, stride, address = self._train_in.receive(fd, self._held)
        stride = min(stride, size)
        is_large = size > MAX_LONE and not self._held
        if stride < size or size > self._stride or is_large:
            self._singles = 0
            if stride != self._stride:
                return self._of_another_stride(size, stride, address)
        elif self._comes_alone(size):
            arrival = self._of_another_stride(size, size, address)
            self._singles = SINGLES
            return arrival
        return self._keep(max(1, -(-size // self._stride)), size, address)

    def _of_another_stride(self, size: int, stride: int, address: Address) -> Arrival:
        arrival = self._sort(size, stride, address)
        self._lanes.took(arrival.headers[-HEADER_SIZE:])
        arrival = self._behind_held(arrival)
        if MIN_STRIDE <= stride <= MAX_DATAGRAM_SIZE:
            self._guess(stride)
        return arrival

    def _keep(self, count: int, size: int, address: Address) -> Arrival | None:
        """So many datagrams of the expected size, of which the last may be shorter, have come into the slots behind
        what is held: hold them, too, or give all of it."""
        held = self._held
        if size >= (count - 1) * self._stride + HEADER_SIZE:
            end = (held + count) * HEADER_SIZE
            self._lanes.took(self._headers[end - HEADER_SIZE : end])
        if held and not self._goes_on(size, address):
            alien = self._in_slots(held, count, size, address)
            return self._behind_held(Arrival.of([*alien.datagrams()], address))
        count, size = held + count, held * self._stride + size
        is_full = size == count * self._stride
        if is_full and begins_record(self._headers, count, MAX_TRAIN_SIZE // self._stride) and not self._has_given():
            self._held, self._source = count, address
            return None
        self._held = 0
        return self._give(self._in_slots(0, count, size, address))

    def _goes_on(self, size: int, address: Address) -> bool:
        """Whether this much from there, behind what is held, may be of the same record."""
        first = self._held * HEADER_SIZE
        is_ours = self._headers[first : first + OPENING_SIZE] == self._headers[:OPENING_SIZE]
        return is_ours and size >= HEADER_SIZE and address == self._source

    def _in_slots(self, first: int, count: int, size: int, address: Address) -> Arrival:
        return Arrival.in_slots(self._headers, self._payloads, self._stride, first, count, size, address)

    def _give(self, arrival: Arrival) -> Arrival:
        self._given = bytes(arrival.headers[-HEADER_SIZE:])
        return arrival

    def _has_given(self) -> bool:
        """Whether what came before was of the record that begins in the first slot: its end overtook it."""
        return number_untrusted(self._given) == number_untrusted(bytes(self._headers[:HEADER_SIZE]))

    def _behind_held(self, arrival: Arrival) -> Arrival:
        """What comes next, if this came after what is held and does not belong to it."""
        held, self._held = self._held, 0
        if not held:
            return arrival
        self._pending.append(arrival)
        return self._in_slots(0, held, held * self._stride, self._source)

    def _comes_alone(self, size: int) -> bool:
        """Whether it is time to take many at once, as datagrams of this size: so many full ones came singly."""
        if not MIN_FULL <= size <= MAX_LONE or size != self._lone_size:
            self._lone_size, self._singles = size, 0
            return False
        self._singles += 1
        return self._singles >= SINGLES and size != self._stride

    def _receive_batched(self, fd: int) -> Arrival | None:
        """None where it was held."""
        most = self._lanes.most
        arrivals = self._receive_batch.receive(fd, self._held, most)
        stride = max(arrival.stride for arrival in arrivals)
        came = sum(arrival.count for arrival in arrivals)
        self.is_trickling = stride == self._stride <= MAX_LONE and came < min(TRICKLE, most)
        if any(arrival.count > 1 and not self._lies_in_slots(arrival) for arrival in arrivals):
            self._singles = 0  # the kernel joins datagrams after all
        first, last = arrivals[0], arrivals[-1]
        if len(arrivals) == 1 and self._lies_in_slots(first):
            return self._keep(first.count, len(first.headers) + len(first.payloads), first.address)
        self._lanes.took(last.headers[-HEADER_SIZE:])
        first = self._behind_held(first)
        self._pending.extend(arrivals[1:])
        if stride != self._stride and MIN_FULL <= stride <= MAX_DATAGRAM_SIZE:
            self._guess(stride)
            self._singles = SINGLES if stride <= MAX_LONE else 0
        return first

    def _lies_in_slots(self, arrival: Arrival) -> bool:
        return arrival.payloads.obj is self._payloads.obj

    def _sort(self, size: int, stride: int, address: Address) -> Arrival:
        """What came behind what is held while another stride had been guessed, copied."""
        guessed = self._stride - HEADER_SIZE
        slots = range(self._held, self._slot_count)[: size // self._stride + 1]
        pieces = [
            view
            for i in slots
            for view in (
                self._headers[i * HEADER_SIZE : (i + 1) * HEADER_SIZE],
                self._payloads[i * guessed : (i + 1) * guessed],
            )
        ]
        data = memoryview(b"".join([*pieces, self._overflow[: max(0, size - len(slots) * self._stride)]]))[:size]
        return Arrival.of([data[i : i + stride] for i in range(0, size, stride)], address)


def _cut(transmit: Transmit) -> list[tuple[int, int, bytes]]:
    return [(socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT.pack(transmit.segment_size))]
