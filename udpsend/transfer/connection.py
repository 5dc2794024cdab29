"""One transfer over one validated path: composes what the rest of this directory does. Sans-IO.

Inbound, in the order in which it happens:
1. `Assembly` makes whole records of trains; a wrong tag ends here.
2. `AckTracker` drops what was seen before; `Opener` authenticates a record.
3. A record from a new address starts a check of that path.
4. Its frames act: acknowledgements on `Recovery` and the congestion controller, control messages on `Sender` or
   `Receiver`, data on the sink.
Outbound: `outbound.py`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator

from udpsend.config import Config, Role
from udpsend.errors import BadPacket, LocalFileError, UdpsendError
from udpsend.sealing.keys import derive_keys
from udpsend.sealing.seal import TAG_BYTES, Opener
from udpsend.transfer.acks import AckTracker
from udpsend.transfer.assembly import Assembly, SealedRecord
from udpsend.transfer.closing import broken, close_of, error_of, silent
from udpsend.transfer.congestion.choice import choose
from udpsend.transfer.control_stream import ControlReceiver, Message
from udpsend.transfer.flight import Flight
from udpsend.transfer.liveness import IDLE_TIMEOUT, Liveness
from udpsend.transfer.messages import Closed, ConnectionEvent
from udpsend.transfer.outbound import Outbound
from udpsend.transfer.path import PathCheck
from udpsend.transfer.receiver import Receiver
from udpsend.transfer.sender import ReadsRanges, Select, Sender
from udpsend.wire.datagram import MAX_DATAGRAM_SIZE, MAX_TRAIN_SIZE, Address, Arrival, Transmit
from udpsend.wire.frames import Close, Frames, parse_frames_untrusted
from udpsend.wire.json import JSON

DEFAULT_RECEIVE_BUFFER = 212_992  # bytes; net.core.rmem_max of a stock Linux
MAX_TRAINS_PER_CALL = 32  # then it is time to look what has arrived


class Connection:
    """After construction the sender calls `offer`; OfferReceived is answered by `receiver.accept` or `close`."""

    def __init__(
        self,
        role: Role,
        secret: bytes,
        address: Address,
        now: float,
        random_bytes: Callable[[int], bytes],
        *,
        round_trip: float | None = None,
        max_datagram_size: int = MAX_DATAGRAM_SIZE,
        receive_buffer: int = DEFAULT_RECEIVE_BUFFER,
        config: Config = Config(),  # noqa: B008 - frozen
    ) -> None:
        """`config` says how the sender finds its rate."""
        keys = derive_keys(secret, role, "traffic")
        self.address = address
        self.drops: Counter[str] = Counter()
        self.flight = Flight(round_trip, max_datagram_size, choose(config, random_bytes), config.limit)
        self._acks = AckTracker()
        self._assembly = Assembly(keys.receive.tag, self._acks.is_known, self.drops)
        self._opener = Opener(keys.receive)
        self._opened = memoryview(bytearray(MAX_TRAIN_SIZE))
        self._control_in = ControlReceiver()
        self._events: deque[ConnectionEvent] = deque()
        self._path_check = PathCheck(random_bytes)
        self._out = Outbound(keys.send, self.flight, self._acks, self._assembly, self._path_check, receive_buffer, now)
        self.receive_buffer, self.opening = receive_buffer, self._assembly.opening  # the owner may change the first
        self._failure: UdpsendError | None = None
        self._closed = False
        self._alive = Liveness(now)
        self.sender: Sender | None = None
        self.receiver: Receiver | None = None
        if role is Role.RECEIVER:
            self.receiver = Receiver(self._out.control, self._events, config.limit, config.background)

    # what the owner does

    def offer(
        self, source: ReadsRanges, size: int | None, manifest: JSON, packed: bytes = b"", select: Select | None = None
    ) -> Sender:
        """Sender: offer `size` bytes of `source`; the manifest says what they are (as `Sender`)."""
        sent = self.flight.recovery.sent
        self.sender = Sender(source, size, manifest, self._out.control, self._events, packed, select, sent)
        return self.sender

    def room_again(self, now: float) -> None:
        """Receiver: the sink has room again, has something to do, or has failed."""
        try:
            if self.receiver is not None:
                self.receiver.room()
        except UdpsendError as error:
            self.fail(error, now)
        self._out.room_again(now)

    def verified(self, now: float, digest: bytes) -> None:
        """Receiver: the sink's hash is the sender's, and the file is in place. `digest` is that of all blocks."""
        assert self.receiver is not None  # noqa: S101
        self._alive.verified = True
        self._alive.last_heard = now
        self.receiver.verified(digest)

    def close(self, close: Close, now: float, failure: UdpsendError | None = None) -> None:
        """Tell the other side that it is over, and why; `failure` is what this side's Closed event carries. Once only:
        what goes wrong afterwards is of no interest."""
        if not self._out.closing.started:
            self._failure = failure
            self._out.closing.start(close, now)

    def silence(self, now: float) -> float:
        """Seconds since the other side was heard, if it was asked something since then and is needed; else 0."""
        is_over = self._closed or self._out.closing.started or (self._alive.verified and self._out.control.all_acked)
        return 0.0 if is_over else self._alive.silence(self._out.last_eliciting, now)

    def move(self, address: Address, max_datagram_size: int, now: float) -> None:
        """The old path is dead, and this one was proved: go on there."""
        self._alive.last_heard, self.flight.max_datagram_size = now, max_datagram_size
        self._path_changed(address)
        self._out.ping = True

    def fail(self, error: UdpsendError, now: float) -> None:
        self.close(close_of(error), now, error)

    @property
    def progress(self) -> tuple[int, int | None]:
        """(bytes at the receiver, bytes in all, if that is known)."""
        side = self.sender or self.receiver
        return (side.done, side.known_total) if side is not None else (0, 0)

    def counters(self) -> dict[str, float]:
        received = {"datagrams received": self._assembly.datagrams}
        return self.flight.counters() | received | {f"dropped, {why}": n for why, n in self.drops.items()}

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
            if self._closed:
                return
            try:
                self._record_received_untrusted(record, arrival.address, now)
            except BadPacket as error:
                self.drops[str(error)] += 1
            except UdpsendError as error:  # the sink's, or the peer's fault
                self.fail(error, now)

    def datagrams_to_send(self, now: float) -> Iterator[Transmit]:
        if self._closed and not self._out.closing.started:  # else CLOSE may have to be answered
            return
        if self.receiver is not None:
            self._out.receive_window = 0 if self.receiver.is_full else self.receive_buffer
        trains = self._out.trains(now, self.address, self.sender)
        for _ in range(MAX_TRAINS_PER_CALL):
            try:
                transmit = next(trains, None)
            except LocalFileError as error:
                self.fail(error, now)
                trains = self._out.trains(now, self.address, self.sender)
                continue
            if transmit is None:
                return
            yield transmit
        self._out.wake = now

    def next_timer(self) -> float | None:
        if self._closed:
            return None
        if self._out.closing.started:
            return self._alive.last_heard if self._out.closing.over else self._out.closing.timer()  # over: at once
        times = [
            self._alive.over_at(self._out.control.all_acked),
            self._out.last_eliciting + self._alive.keepalive,
            self._acks.timer(),
            self._path_check.timer(),
            self.flight.timer(),
            self._out.wake,
        ]
        return min(time for time in times if time is not None)

    def timer_expired(self, now: float) -> None:
        if self._closed or self._out.closing.started:
            return
        if now >= self._alive.over_at(self._out.control.all_acked):
            self._end(None if self._alive.verified else silent(IDLE_TIMEOUT, self.in_order))
        if now >= self._out.last_eliciting + self._alive.keepalive:
            self._out.ping = True
        if (timer := self.flight.timer()) is not None and now >= timer:
            self._out.requeue(self.flight.detect_lost(now), self.sender)
            if self.flight.on_timer(now):
                self._probe()

    def next_event(self) -> ConnectionEvent | None:
        if self._out.closing.over and not self._closed:
            self._end(self._failure)
        return self._events.popleft() if self._events else None

    @property
    def in_order(self) -> bool:
        """Whether nothing of it can be put in its place later: a stream, or what goes to one."""
        side = self.sender or self.receiver
        return side is not None and side.in_order

    # inbound

    def _record_received_untrusted(self, record: SealedRecord, address: Address, now: float) -> None:
        if self._acks.is_known(record.number):
            raise BadPacket("replay")
        length = len(record.ciphertext) - TAG_BYTES
        if length <= 0:
            raise BadPacket("short record")
        room = self.receiver.room() if self.receiver is not None else None
        opened = (self._opened if room is None else room)[:length]
        self._opener.open_into_untrusted(record.number, record.header, record.ciphertext, opened)
        self._alive.last_heard = now
        try:
            frames = parse_frames_untrusted(opened)
            if frames.data is not None and self.receiver is not None:
                self.receiver.check_untrusted(frames.data_offset, len(frames.data))
                if room is None:  # the disk is behind: the sender is being told, and sends it again
                    self.drops["no room"] += 1
                    return
            self._authentic_received_untrusted(record.number, frames, address, now)
        except BadPacket as error:  # under the peer's seal: no stranger's doing, and no chance that it mends itself
            raise broken(error) from error

    def _authentic_received_untrusted(self, number: int, frames: Frames, address: Address, now: float) -> None:
        if address != self.address and number > self._acks.largest:
            self._path_check.start(address, now)
        self._acks.record_received(number, frames.ack_eliciting, now)
        if frames.data is not None and self.receiver is not None:
            self.receiver.data_received(frames.data_offset, len(frames.data))
        else:
            self._act_untrusted(number, frames, address, now)

    def _act_untrusted(self, number: int, frames: Frames, address: Address, now: float) -> None:
        if frames.close is not None:
            self._peer_closed(frames.close, now)
            return
        if frames.ack is not None:
            acked, lost = self.flight.on_ack_untrusted(frames.ack, number, now)
            self._out.acknowledged(acked, self.sender)
            self._out.requeue(lost, self.sender)
        if frames.challenge is not None:
            self._out.responses.append((frames.challenge, address))
        if frames.response is not None and (proved := self._path_check.response_received(frames.response)):
            self._path_changed(proved)
        for offset, data in frames.control:
            for message in self._control_in.add_untrusted(offset, data):
                self._message_received_untrusted(message)

    def _message_received_untrusted(self, message: Message) -> None:
        if self.receiver is not None:
            self.receiver.message_received_untrusted(message)
        elif self.sender is not None:
            self.sender.message_received_untrusted(message)
            self.flight.limit_to(self.sender.limit)
            if self.sender.background:
                self.flight.yield_to_others()
        else:
            raise BadPacket("a message before the offer")

    def _path_changed(self, address: Address) -> None:
        if address[0] != self.address[0]:  # a new port alone is a NAT that rebound: the path is the same
            self.flight.restart()
        self.address = address
        self._alive.path_lost()

    def _peer_closed(self, close: Close, now: float) -> None:
        if self._out.closing.started:  # both at once: each side has its own reason
            self._end(self._failure)
            return
        self._out.closing.answer(now)
        self._end(error_of(close, self._alive.verified))

    def _end(self, error: UdpsendError | None) -> None:
        if not self._closed:
            self._closed = True
            self._events.append(Closed(error))

    def _probe(self) -> None:
        """A probe timeout: a small record that passes everywhere, and the oldest content again (RFC 9002, 6.2.4), but
        not to a peer that asks to wait."""
        self._out.ping = True
        if self.flight.window and (oldest := self.flight.oldest_outstanding()) is not None:
            self._out.requeue([oldest], self.sender)
