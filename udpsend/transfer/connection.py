"""One transfer over one validated path: composes what the rest of this directory does. Sans-IO.

Inbound, in the order in which it happens:
1. `Assembly` makes whole records of trains; a wrong tag ends here.
2. `Opener` authenticates a record; `AckTracker` drops what was seen before.
3. A record from a new address starts a check of that path.
4. Its frames act: acknowledgements on `Recovery` and the congestion controller, control messages on `Sender` or
   `Receiver`, data on the sink.
Outbound, by precedence: CLOSE, path checks, small records (acknowledgements, control messages, pings), path MTU
probes, data as far as window and pacing allow.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator

from udpsend.config import Role
from udpsend.errors import BadPacket, LocalFileError, TransferFailed, UdpsendError
from udpsend.sealing.keys import derive_keys
from udpsend.sealing.seal import TAG_BYTES, Opener
from udpsend.transfer.acks import AckTracker
from udpsend.transfer.assembly import Assembly, SealedRecord
from udpsend.transfer.closing import Closing, close_of, error_of
from udpsend.transfer.control_stream import ControlReceiver, ControlSender, Json
from udpsend.transfer.flight import Flight
from udpsend.transfer.messages import Closed, ConnectionEvent
from udpsend.transfer.mtu import BASE
from udpsend.transfer.path import PathCheck
from udpsend.transfer.receiver import Receiver, WritesRanges
from udpsend.transfer.sender import ReadsRanges, Sender
from udpsend.transfer.sent_records import SentRecord
from udpsend.transfer.train import TrainWriter
from udpsend.wire.datagram import HEADER_SIZE, MAX_TRAIN_SIZE, Address, Arrival, Transmit
from udpsend.wire.frames import (
    CONTROL_HEADER_SIZE,
    DATA_HEADER_SIZE,
    PING_FRAME,
    Close,
    Frames,
    pack_ack,
    pack_challenge,
    pack_close,
    pack_control,
    pack_data_header_into,
    pack_response,
    parse_frames_untrusted,
)
from udpsend.wire.ranges import RangeSet

IDLE_TIMEOUT = 30.0  # nothing authentic heard for so long: the path is dead
KEEPALIVE = 10.0  # NAT mappings live 30 s and more (measured; RFC 4787, REQ-5 asks for 120)
DEFAULT_RECEIVE_BUFFER = 212_992  # bytes; net.core.rmem_max of a stock Linux
LINGER = 5.0  # a receiver that has said "verified" waits so long to be told that it was heard

SMALL_RECORD = BASE - HEADER_SIZE - TAG_BYTES  # bytes of plaintext in a datagram that passes everywhere
MAX_ACK = 600  # bytes of the longest ACK frame
MTU_SEARCH_FROM = 65_536  # bytes still to send: below that a search does not pay
MAX_TRAINS_PER_CALL = 32  # then it is time to look what has arrived


class Connection:
    """After construction the sender calls `offer`; the receiver answers OfferReceived with `accept` or `close`."""

    def __init__(
        self,
        role: Role,
        secret: bytes,
        address: Address,
        now: float,
        random_bytes: Callable[[int], bytes],
        *,
        round_trip: float | None = None,
        max_datagram_size: int = MAX_TRAIN_SIZE,
        receive_buffer: int = DEFAULT_RECEIVE_BUFFER,
    ) -> None:
        keys = derive_keys(secret, role, "traffic")
        self.address = address
        self.drops: Counter[str] = Counter()
        self.flight = Flight(round_trip, max_datagram_size)
        self._acks = AckTracker()
        self._assembly = Assembly(keys.receive.tag, self._acks.is_known, self.drops)
        self._opener = Opener(keys.receive)
        self._opened = memoryview(bytearray(MAX_TRAIN_SIZE))
        self._train = TrainWriter(keys.send, BASE)
        self._control_out = ControlSender()
        self._control_in = ControlReceiver()
        self._events: deque[ConnectionEvent] = deque()
        self._path_check = PathCheck(random_bytes)
        self._responses: deque[tuple[bytes, Address]] = deque(maxlen=4)
        self._receive_buffer = receive_buffer
        self._closing = Closing()
        self._failure: UdpsendError | None = None
        self._closed = False
        self._ping = False
        self._verified = False
        self._wake: float | None = None  # when pacing lets the next data record leave
        self._last_heard = now
        self._last_eliciting = now
        self.sender: Sender | None = None
        self.receiver = Receiver(self._control_out, self._events) if role is Role.RECEIVER else None

    # what the owner does

    def offer(self, source: ReadsRanges, size: int, manifest: Json) -> None:
        """Sender: offer `size` bytes of `source`; the manifest says what they are."""
        self.sender = Sender(source, size, manifest, self._control_out, self._events)

    def accept(self, sink: WritesRanges, size: int, present: RangeSet) -> None:
        """Receiver: take them, except for those that are `present` in the sink."""
        assert self.receiver is not None  # noqa: S101
        self.receiver.accept(sink, size, present)

    def digest_ready(self, digest: bytes) -> None:
        """Sender: the BLAKE3 of everything that was read."""
        if self.sender is not None:
            self.sender.digest_ready(digest)

    def verified(self, now: float) -> None:
        """Receiver: the sink's hash is the sender's, and the file is in place."""
        assert self.receiver is not None  # noqa: S101
        self._verified = True
        self._last_heard = now
        self.receiver.verified()

    def close(self, close: Close, now: float, failure: UdpsendError | None = None) -> None:
        """Tell the other side that it is over, and why; `failure` is what this side's Closed event carries."""
        self._failure = failure
        self._closing.start(close, now)

    def fail(self, error: UdpsendError, now: float) -> None:
        self.close(close_of(error), now, error)

    @property
    def progress(self) -> tuple[int, int]:
        """(bytes at the receiver, bytes in all)."""
        side = self.sender or self.receiver
        return (side.done, side.total) if side is not None else (0, 0)

    @property
    def all_sent(self) -> bool:
        """Sender: every byte has left at least once; what is lost may leave again."""
        return self.sender is not None and not self.sender.pending

    def counters(self) -> dict[str, float]:
        flight = self.flight
        return {
            "records sent": flight.next_number,
            "records lost": flight.records_lost,
            "datagrams sent": flight.datagrams_sent,
            "bytes sent": flight.bytes_sent,
            "datagrams received": self._assembly.datagrams,
            "datagram size": flight.mtu.size,
            "round trip": flight.rtt.smoothed,
            "loss": flight.record_length.loss,
            **{f"dropped, {reason}": count for reason, count in self.drops.items()},
        }

    # the five verbs

    def datagram_received(self, arrival: Arrival, now: float) -> None:
        if self._closed:
            return
        try:
            records = self._assembly.add_untrusted(arrival)
        except BadPacket as error:
            self.drops[str(error)] += arrival.count
            return
        for record in records:
            try:
                self._record_received_untrusted(record, arrival.address, now)
            except BadPacket as error:
                self.drops[str(error)] += 1
            except UdpsendError as error:  # the sink's
                self.fail(error, now)

    def datagrams_to_send(self, now: float) -> Iterator[Transmit]:
        for _ in range(MAX_TRAINS_PER_CALL):
            transmit = self._next_train(now)
            if transmit is None:
                return
            yield transmit
        self._wake = now

    def next_timer(self) -> float | None:
        if self._closed:
            return None
        if self._closing.started:
            return self._closing.timer()
        times = [
            self._last_heard + (LINGER if self._verified else IDLE_TIMEOUT),
            self._last_eliciting + KEEPALIVE,
            self._acks.timer(),
            self._path_check.timer(),
            self.flight.timer(),
            self._wake,
        ]
        return min(time for time in times if time is not None)

    def timer_expired(self, now: float) -> None:
        if self._closed or self._closing.started:
            return
        if self._verified and now >= self._last_heard + LINGER:
            self._end(None)
        elif now >= self._last_heard + IDLE_TIMEOUT:
            self._end(
                TransferFailed(
                    f"Nothing was heard from the other side for {IDLE_TIMEOUT:.0f} s: its network or this one is gone, "
                    "or it was switched off. What has arrived is kept: run the same commands again."
                )
            )
        if now >= self._last_eliciting + KEEPALIVE:
            self._ping = True
        timer = self.flight.timer()
        if timer is not None and now >= timer:
            self._requeue(self.flight.detect_lost(now))
            if self.flight.on_timer(now):
                self._probe()

    def next_event(self) -> ConnectionEvent | None:
        if self._closing.over and not self._closed:
            self._end(self._failure)
        return self._events.popleft() if self._events else None

    # inbound

    def _record_received_untrusted(self, record: SealedRecord, address: Address, now: float) -> None:
        if self._acks.is_known(record.number):
            raise BadPacket("replay")
        length = len(record.ciphertext) - TAG_BYTES
        if length <= 0:
            raise BadPacket("short record")
        opened = self._opened[:length]
        self._opener.open_into_untrusted(record.number, record.header, record.ciphertext, opened)
        self._last_heard = now
        frames = parse_frames_untrusted(opened)
        if address != self.address and record.number > self._acks.largest:
            self._path_check.start(address, now)
        self._acks.record_received(record.number, frames.ack_eliciting, now)
        if frames.data is not None and self.receiver is not None:
            self.receiver.data_received_untrusted(frames.data_offset, frames.data)
        else:
            self._act_untrusted(frames, address, now)

    def _act_untrusted(self, frames: Frames, address: Address, now: float) -> None:
        if frames.close is not None:
            self._peer_closed(frames.close)
            return
        if frames.ack is not None:
            acked, lost = self.flight.on_ack_untrusted(frames.ack, now)
            for sent in acked:
                if sent.data is not None and self.sender is not None:
                    self.sender.on_acked(*sent.data)
                if sent.control is not None:
                    self._control_out.on_acked(*sent.control)
            self._requeue(lost)
        if frames.challenge is not None:
            self._responses.append((frames.challenge, address))
        if frames.response is not None:
            proved = self._path_check.response_received(frames.response)
            if proved is not None:
                self._path_changed(proved)
        side = self.sender or self.receiver
        for offset, data in frames.control:
            for message in self._control_in.add_untrusted(offset, data):
                if side is not None:
                    side.message_received_untrusted(message)

    def _path_changed(self, address: Address) -> None:
        moved = address[0] != self.address[0]  # a new port alone is a NAT that rebound: the path is the same
        self.address = address
        if moved:
            self.flight.restart()

    def _peer_closed(self, close: Close) -> None:
        error = error_of(close)
        if error is None and not self._verified:
            error = TransferFailed("The other side ended the transfer before the content was verified.")
        self._end(error)

    def _end(self, error: UdpsendError | None) -> None:
        if not self._closed:
            self._closed = True
            self._events.append(Closed(error))

    def _requeue(self, lost: list[SentRecord]) -> None:
        for record in lost:
            if record.data is not None and self.sender is not None:
                self.sender.on_lost(*record.data)
            if record.control is not None:
                self._control_out.on_lost(*record.control)

    def _probe(self) -> None:
        """A probe timeout: a small record that passes everywhere, and the oldest content again (RFC 9002, 6.2.4)."""
        self._ping = True
        oldest = self.flight.oldest_outstanding()
        if oldest is not None:
            self._requeue([oldest])

    # outbound

    def _next_train(self, now: float) -> Transmit | None:
        self._wake = None
        if self._closed:
            return None
        if self._closing.started:
            close = self._closing.take(now)
            return self._small_record(pack_close(close), now) if close is not None else None
        return self._path_record(now) or self._control_record(now) or self._data_record(now)

    def _path_record(self, now: float) -> Transmit | None:
        if self._responses:
            token, address = self._responses.popleft()
            return self._small_record(pack_response(token), now, address)
        challenge = self._path_check.take_challenge(now)
        return self._small_record(pack_challenge(challenge[0]), now, challenge[1]) if challenge else None

    def _control_record(self, now: float) -> Transmit | None:
        """Acknowledgements, control messages and pings, as far as there is something to say."""
        due = self._acks.timer()
        speak = self._ping or self._control_out.pending
        if not speak and (due is None or due > now):
            return None
        frames = b""
        if due is not None:
            frames = pack_ack(self._acks.take_ack(self._assembly.datagrams, self._receive_buffer, now))
        piece = self._control_out.take(SMALL_RECORD - MAX_ACK - CONTROL_HEADER_SIZE)
        if piece is not None:
            offset, data = piece
            frames += pack_control(offset, data)
            return self._small_record(frames, now, eliciting=True, control=(offset, offset + len(data)))
        if self._ping:
            self._ping = False
            return self._small_record(frames + PING_FRAME, now, eliciting=True)
        return self._small_record(frames, now)

    def _small_record(
        self,
        frames: bytes,
        now: float,
        address: Address | None = None,
        *,
        eliciting: bool = False,
        control: tuple[int, int] | None = None,
    ) -> Transmit:
        number = self.flight.take_number()
        self._train.plaintext[: len(frames)] = frames
        transmit = self._train.seal_single(number, len(frames), address or self.address)
        self._sent(SentRecord(number, now, transmit.size, 1, transmit.size, eliciting, control=control))
        return transmit

    def _data_record(self, now: float) -> Transmit | None:
        sender = self.sender
        if sender is None or not sender.unfinished:
            return None
        when = self.flight.data_time(now)
        if when is None:
            return None
        if not sender.pending:
            self.flight.on_app_limited()
            return None
        if when > now:
            self._wake = when
            return None
        probe = self.flight.mtu.next_probe(now) if sender.total - sender.done > MTU_SEARCH_FROM else None
        if probe is not None:
            return self._mtu_probe(probe, now)
        train = self._train
        train.set_datagram_size(self.flight.mtu.size)
        limit = train.capacity(self.flight.record_datagrams(train.max_datagrams)) - DATA_HEADER_SIZE
        piece = sender.take(limit)
        assert piece is not None  # noqa: S101 - it is pending
        start, stop = piece
        length = DATA_HEADER_SIZE + stop - start
        pack_data_header_into(train.plaintext, start)
        try:
            sender.read_into(start, train.plaintext[DATA_HEADER_SIZE:length])
        except LocalFileError as error:
            self.fail(error, now)
            return self._next_train(now)
        number = self.flight.take_number()
        transmit = train.seal(number, length, self.address)
        datagrams = train.datagrams_for(length)
        largest = min(transmit.size, transmit.segment_size)
        self._sent(SentRecord(number, now, transmit.size, datagrams, largest, True, data=piece))
        return transmit

    def _mtu_probe(self, size: int, now: float) -> Transmit:
        number = self.flight.take_number()
        self._train.plaintext[:2] = PING_FRAME + b"\0"
        transmit = self._train.seal_single(number, size - HEADER_SIZE - TAG_BYTES, self.address)
        self._sent(SentRecord(number, now, transmit.size, 1, size, True, mtu_probe=size))
        return transmit

    def _sent(self, record: SentRecord) -> None:
        if record.ack_eliciting:
            self._last_eliciting = record.time
        self.flight.on_sent(record)
