"""Outbound: what leaves next. By precedence: CLOSE, path checks, small records (acknowledgements, control messages,
pings), path MTU probes, data as far as window and pacing allow."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from udpsend.sealing.keys import DirectionKeys
from udpsend.sealing.seal import TAG_BYTES
from udpsend.transfer.acks import AckTracker
from udpsend.transfer.assembly import Assembly
from udpsend.transfer.closing import Closing
from udpsend.transfer.control_stream import ControlSender
from udpsend.transfer.flight import Flight
from udpsend.transfer.mtu import BASE
from udpsend.transfer.path import PathCheck
from udpsend.transfer.sender import Sender
from udpsend.transfer.sent_records import SentRecord
from udpsend.transfer.train import TrainWriter
from udpsend.wire.datagram import HEADER_SIZE, Address, Transmit
from udpsend.wire.frames import (
    CONTROL_HEADER_SIZE,
    DATA_HEADER_SIZE,
    PING_FRAME,
    pack_ack,
    pack_challenge,
    pack_close,
    pack_control,
    pack_data_header_into,
    pack_response,
)

SMALL_RECORD = BASE - HEADER_SIZE - TAG_BYTES  # bytes of plaintext in a datagram that passes everywhere
MAX_ACK = 600  # bytes of the longest ACK frame
MTU_SEARCH_FROM = 65_536  # bytes still to send: below that a search does not pay


class Outbound:
    """The one place where record numbers are taken and records are sealed."""

    def __init__(
        self,
        keys: DirectionKeys,
        flight: Flight,
        acks: AckTracker,
        assembly: Assembly,
        path_check: PathCheck,
        receive_window: int,
        now: float,
    ) -> None:
        self.flight = flight
        self.control = ControlSender()
        self.closing = Closing()
        self.responses: deque[tuple[bytes, Address]] = deque(maxlen=4)
        self.receive_window = receive_window
        """What the peer is told of the room here; 0 asks it to wait."""
        self._told_window = receive_window
        self.ping = False
        self.last_eliciting = now
        self.wake: float | None = None
        """When to be asked again: where pacing holds the next data record, or there was too much for one turn."""
        self._train = TrainWriter(keys, BASE)
        self._acks = acks
        self._assembly = assembly
        self._path_check = path_check

    def room_again(self, now: float) -> None:
        """There may be. A peer that was asked to wait is waiting to hear of it."""
        if not self._told_window:
            self._acks.ack_now(now)
            self.ping = True  # repeated until it is acknowledged

    def trains(self, now: float, address: Address, sender: Sender | None) -> Iterator[Transmit]:
        """What leaves now, each valid until the next. Raises LocalFileError from the sender's file."""
        self.wake = None
        if self.closing.started:
            if (close := self.closing.take(now)) is not None:
                yield self._small_record(pack_close(close), now, address)
            return
        while (small := self._path_record(now) or self._control_record(now, address)) is not None:
            yield small
        if sender is not None and sender.unfinished:
            yield from self._data_records(now, address, sender)

    def _path_record(self, now: float) -> Transmit | None:
        if self.responses:
            token, address = self.responses.popleft()
            return self._small_record(pack_response(token), now, address)
        challenge = self._path_check.take_challenge(now)
        return self._small_record(pack_challenge(challenge[0]), now, challenge[1]) if challenge else None

    def _control_record(self, now: float, address: Address) -> Transmit | None:
        """Acknowledgements, control messages and pings, as far as there is something to say."""
        due = self._acks.timer()
        speak = self.ping or self.control.pending
        if not speak and (due is None or due > now):
            return None
        frames = b""
        if due is not None or (self.ping and self._acks.largest >= 0):  # the room here may have changed
            frames = pack_ack(self._acks.take_ack(self._assembly.datagrams, self.receive_window, now))
            self._told_window = self.receive_window
        piece = self.control.take(SMALL_RECORD - MAX_ACK - CONTROL_HEADER_SIZE)
        if piece is not None:
            offset, data = piece
            frames += pack_control(offset, data)
            return self._small_record(frames, now, address, eliciting=True, control=(offset, offset + len(data)))
        if self.ping:
            self.ping = False
            return self._small_record(frames + PING_FRAME, now, address, eliciting=True)
        return self._small_record(frames, now, address)

    def _small_record(
        self,
        frames: bytes,
        now: float,
        address: Address,
        *,
        eliciting: bool = False,
        control: tuple[int, int] | None = None,
    ) -> Transmit:
        number = self.flight.take_number()
        transmit = self._train.seal_single(number, frames, address)
        self._sent(SentRecord(number, now, transmit.size, 1, transmit.size, eliciting, control=control))
        return transmit

    def _data_records(self, now: float, address: Address, sender: Sender) -> Iterator[Transmit]:
        """Thousands a second: what stays as it is while nothing arrives is looked at once."""
        flight, train = self.flight, self._train
        train.set_datagram_size(flight.mtu.size)
        searching = sender.pending and sender.total - sender.done > MTU_SEARCH_FROM
        for datagrams in flight.openings(now, train.per_call, train.max_datagrams):
            if searching:
                searching = False
                if (probe := flight.mtu.next_probe(now)) is not None:
                    yield self._mtu_probe(probe, now, address)
                    yield from self._data_records(now, address, sender)  # the window is another
                    return
            piece = sender.take(train.capacity(datagrams) - DATA_HEADER_SIZE)
            if piece is None:
                flight.on_app_limited()
                return
            start, plaintext = piece
            pack_data_header_into(plaintext, start)
            number = flight.take_number()
            transmit, count = train.seal(number, plaintext, address)
            largest = min(transmit.size, transmit.segment_size)
            data = (start, start + len(plaintext) - DATA_HEADER_SIZE)
            self._sent(SentRecord(number, now, transmit.size, count, largest, True, data=data))
            yield transmit
        if sender.pending:
            self.wake = flight.paced_until
        elif flight.paced_until is not None:
            flight.on_app_limited()

    def _mtu_probe(self, size: int, now: float, address: Address) -> Transmit:
        number = self.flight.take_number()
        padded = PING_FRAME + bytes(size - HEADER_SIZE - TAG_BYTES - 1)
        transmit = self._train.seal_single(number, padded, address)
        self._sent(SentRecord(number, now, transmit.size, 1, size, True, mtu_probe=size))
        return transmit

    def _sent(self, record: SentRecord) -> None:
        if record.ack_eliciting:
            self.last_eliciting = record.time
        self.flight.on_sent(record)

    def acknowledged(self, records: list[SentRecord], sender: Sender | None) -> None:
        """The other side has these."""
        run: tuple[int, int] | None = None  # what consecutive records carried, as `SentRecord.data`
        for record in records:
            if record.control is not None:
                self.control.on_acked(*record.control)
            if record.data is None or sender is None:
                continue
            start, stop = record.data
            if run is not None and run[1] == start:
                run = run[0], stop
                continue
            if run is not None:
                sender.on_acked(*run)
            run = record.data
        if run is not None and sender is not None:
            sender.on_acked(*run)

    def requeue(self, lost: list[SentRecord], sender: Sender | None) -> None:
        """What these carried has to be sent again."""
        for record in lost:
            if record.data is not None and sender is not None:
                sender.on_lost(*record.data)
            if record.control is not None:
                self.control.on_lost(*record.control)
