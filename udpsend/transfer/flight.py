"""What is on its way to the peer, and what may follow it: recovery, congestion control, pacing, record length and path
MTU meet here, at each record sent and each acknowledgement. Knows nothing of what records contain."""

from __future__ import annotations

from collections.abc import Callable

from udpsend.transfer.congestion.base import AckedSample, CongestionController, LostSample
from udpsend.transfer.congestion.bbr import Bbr
from udpsend.transfer.delivery_rate import DeliveryRate, MaxFilter
from udpsend.transfer.mtu import MtuSearch
from udpsend.transfer.pacing import Pacer, burst_time
from udpsend.transfer.record_length import TRAIN_TIME, RecordLength, train_time
from udpsend.transfer.recovery import Recovery
from udpsend.transfer.rtt import RttEstimator
from udpsend.transfer.sent_records import SentRecord
from udpsend.wire.frames import Ack

PERSISTENT_CONGESTION = 3  # probe timeouts (RFC 9002, 7.6.1)
BANDWIDTH_WINDOW = 2.0  # seconds over which the best delivery rate counts
MIN_RTT_WINDOW = 10.0  # seconds over which the shortest round trip counts: routes change
HOST_BOUND_RATE = 30e6  # bytes per second: what is slower is a link with a queue of its own
HOST_BOUND_GROWTH = 8  # of what arrived without a loss, one part may be in flight
HOST_BOUND_RTT = 0.0004  # loopback, virtual machines, a wire: measured 0.03 to 0.3 ms
# A peer tells half of what its kernel grants, because network cards waste as much. On loopback and between virtual
# machines trains stay whole, and waste 2 %: there the first loss is what shows that it is otherwise.
HOST_BOUND_STRETCH = 1.75
STRETCHED_TO = 1 << 20  # bytes; more makes nothing faster
WAIT_FORGOTTEN = 2.0  # seconds
INITIAL_PEER_WINDOW = 1 << 16  # until the peer has told


class Flight:
    def __init__(
        self,
        round_trip: float | None,
        max_datagram_size: int,
        congestion: Callable[[int], CongestionController] = Bbr,
        limit: float | None = None,
    ) -> None:
        """`limit`: bytes per second, headers included."""
        self.max_datagram_size = max_datagram_size
        self._make_congestion = congestion
        self.rtt = RttEstimator(round_trip)
        self.recovery = Recovery(self.rtt)
        self.mtu = MtuSearch(max_datagram_size)
        self.congestion = congestion(self.mtu.size)
        self.record_length = RecordLength()
        self.next_number = 0
        self.datagrams_sent = 0
        self.bytes_sent = 0
        self.records_lost = 0
        self.probes_allowed = 0  # records that a probe timeout lets pass window and pacing
        self._pacer = Pacer()
        self._ceiling = limit or float("inf")
        self._delivery = DeliveryRate()
        self._bandwidth = MaxFilter(BANDWIDTH_WINDOW)
        self._negative_min_rtt = MaxFilter(MIN_RTT_WINDOW)
        self._train_time = TRAIN_TIME
        self._limit = INITIAL_PEER_WINDOW
        self._is_host_bound = False
        self._is_unpaced = False
        self._has_lost = False
        self._stretch = HOST_BOUND_STRETCH
        self._narrowed = 0.0
        self._asked_to_wait = -WAIT_FORGOTTEN
        self._window_limited = False
        self._missing = 0  # datagrams that had not arrived when what was sent after them had
        self._missing_counted = 0

    # what may leave

    def limit_to(self, rate: float) -> None:
        """No more bytes per second than this either."""
        if rate < self._ceiling:
            self._ceiling, self._is_unpaced = rate, False

    @property
    def window(self) -> float:
        """Bytes that may be in flight: what the congestion controller and `_limit_by_peer` allow."""
        window = self.congestion.window
        if self._is_host_bound:  # opened as far as it proves harmless
            window = max(window, self._delivery.delivered // HOST_BOUND_GROWTH)
        return min(window, self._limit)

    def _limit_by_peer(self, peer_window: int) -> int:
        """Nothing when the peer asks to wait. Else what the path holds at its best rate, and as much again or what may
        wait at the receiver, if that is more. On short paths a fast sender fills the receiver's socket buffer before
        it can know, and loses a window at once; on long ones the path holds more than the socket, and the queue is
        in the network."""
        if not peer_window:
            return 0
        if self._is_host_bound:
            return max(peer_window, min(int(self._stretch * peer_window), STRETCHED_TO))
        held = int(self._bandwidth.value * -self._negative_min_rtt.value)
        return held + max(held, peer_window)

    def data_time(self, now: float) -> float | None:
        """When a data record may leave: `now`, a later time (pacing), or None (the window is full)."""
        if self.probes_allowed:
            return now
        if self.recovery.sent.bytes_in_flight >= self.window:
            if self._limit:
                self._window_limited = True
            else:
                self.on_app_limited()  # the peer's disk does not keep up, which says nothing of the path
            return None
        return now if self._is_unpaced else self._pacer.next_send_time(now) or now

    def record_datagrams(self, maximum: int) -> int:
        """How many datagrams the next data record takes, at most `maximum`."""
        if self._is_unpaced:
            return maximum
        size = self.mtu.size
        rate = min(self.congestion.pacing_rate or self.congestion.window / self.rtt.smoothed, self._ceiling)
        room = max(self.window - self.recovery.sent.bytes_in_flight, size) // size
        return min(int(room), self.record_length.datagrams(rate * self._train_time, size, maximum))

    def take_number(self) -> int:
        number = self.next_number
        self.next_number += 1
        return number

    def on_app_limited(self) -> None:
        """There is nothing to send although something might be sent."""
        self._delivery.on_app_limited(self.recovery.sent.bytes_in_flight)

    # what left

    def on_sent(self, record: SentRecord) -> None:
        """A record left in `record.datagrams` datagrams of `record.size` bytes in all."""
        self.datagrams_sent += record.datagrams
        self.bytes_sent += record.size
        record.datagrams_total = self.datagrams_sent
        if not record.ack_eliciting:
            return
        now, sent = record.time, self.recovery.sent
        self._delivery.on_sent(record, sent.bytes_in_flight, now)
        self.recovery.on_sent(record)
        if record.mtu_probe:
            self.mtu.on_probe_sent(record.mtu_probe)
        if record.data is not None:
            self.probes_allowed = max(0, self.probes_allowed - 1)
        self.congestion.on_sent(record.size, sent.bytes_in_flight, record.number, now)
        if not self._is_unpaced:
            rate = self._ceiling if self._is_host_bound else min(self.congestion.pacing_rate, self._ceiling)
            self._pacer.set_rate(rate, now)
            # A probe may be fifty times as large as what is paced, and is one packet all the same.
            self._pacer.on_sent(self.mtu.size if record.mtu_probe else record.size)

    # what became of it

    def on_ack_untrusted(self, ack: Ack, now: float) -> tuple[list[SentRecord], list[SentRecord]]:
        """(acknowledged, lost) records. Raises BadPacket."""
        sent = self.recovery.sent
        in_use = sent.bytes_in_flight
        outcome = self.recovery.on_ack_untrusted(ack, self.next_number, now)
        for late in outcome.spurious:
            self._delivery.on_spurious(late.size)
            self.congestion.on_spurious_loss(late.time, now)
        acked = outcome.acked
        if acked:
            self.probes_allowed = 0
            rate = self._delivery.on_acked(acked, now)
            if rate is not None:
                self._bandwidth.update(now, rate.rate)
            if outcome.rtt_sample is not None:
                self._negative_min_rtt.update(now, -outcome.rtt_sample)
                min_rtt = -self._negative_min_rtt.value
                self._train_time = train_time(min_rtt)
                self._pacer.burst_time = burst_time(min_rtt)
            newest = max(acked, key=lambda record: record.number)
            self._missing = max(self._missing, newest.datagrams_total - ack.datagrams)
            self.record_length.on_ack(newest.datagrams_total, ack.datagrams)
            for record in acked:
                self._mtu_acked(record)
            lost = self.detect_lost(now)
            self.congestion.on_acked(
                AckedSample(
                    now=now,
                    acked_bytes=sum(record.size for record in acked),
                    newest_acked=newest.number,
                    newest_sent_time=newest.time,
                    largest_sent=sent.largest_sent,
                    bytes_in_flight=sent.bytes_in_flight,
                    rtt=self.rtt,
                    rtt_sample=outcome.rtt_sample,
                    rate=rate,
                    app_limited=self._delivery.app_limited and in_use < self.window // 2,
                    delivered=self._delivery.delivered,
                    lost=self._delivery.lost,
                    window_limited=self._window_limited,
                )
            )
            self._window_limited = False
            if self.congestion.holds_back:
                self._delivery.on_app_limited(sent.bytes_in_flight)
        else:
            lost = self.detect_lost(now)
        if not ack.window:
            self._asked_to_wait = now
        # No queue is worth a model where the round trip is that of two processes being woken, and nothing was lost: the
        # receiver's socket buffer is the only one there is.
        is_short = -self._negative_min_rtt.value < HOST_BOUND_RTT
        is_fast = self._bandwidth.value > HOST_BOUND_RATE
        self._is_host_bound = is_short and is_fast and not self._has_lost
        self._is_unpaced = self._is_host_bound and self._ceiling == float("inf")
        self._limit = self._limit_by_peer(ack.window)
        return acked, lost

    def _mtu_acked(self, record: SentRecord) -> None:
        if not record.mtu_probe:
            self.mtu.on_acked(record.number, record.largest_datagram)
        elif self.mtu.on_probe_acked(record.mtu_probe):
            self.congestion.set_datagram_size(self.mtu.size)

    def detect_lost(self, now: float) -> list[SentRecord]:
        """The records that are lost as of now; the controller has been told."""
        lost = self.recovery.detect_lost(now)
        counted = []
        for record in lost:
            if record.mtu_probe:  # says something of its size, not of congestion (RFC 8899, 3)
                self.mtu.on_probe_lost(record.mtu_probe)
                continue
            counted.append(record)
            self.records_lost += 1
            self.record_length.on_record_lost()
            # What a peer without room dropped says nothing of the path.
            is_path = now - self._asked_to_wait > WAIT_FORGOTTEN
            if is_path:
                self._lost_on_path(record, now)
            if is_path and self.mtu.on_lost(record.number, record.largest_datagram):
                self.congestion.set_datagram_size(self.mtu.size)
        if counted:
            missing = self._missing_bytes(counted)
            before = self._delivery.lost
            self._delivery.on_lost(missing)
            span = counted[-1].time - counted[0].time
            self.congestion.on_lost(
                LostSample(
                    now=now,
                    lost_bytes=missing,
                    newest_sent_time=counted[-1].time,
                    newest_lost=counted[-1].number,
                    bytes_in_flight=self.recovery.sent.bytes_in_flight,
                    persistent=span > PERSISTENT_CONGESTION * self.rtt.probe_timeout,
                    records=counted,
                    lost_before=before,
                )
            )
        return lost

    def _lost_on_path(self, record: SentRecord, now: float) -> None:
        if self._is_host_bound and self._stretch > 1:
            self._stretch, self._narrowed = 1.0, now
        elif record.time >= self._narrowed:
            self._has_lost = True

    def _missing_bytes(self, records: list[SentRecord]) -> int:
        """A record is lost with one of its datagrams: what the path lost of these, by what the peer has counted."""
        datagrams = sum(record.datagrams for record in records)
        missing = min(datagrams, max(len(records), self._missing - self._missing_counted))
        self._missing_counted += missing
        return sum(record.size for record in records) * missing // datagrams

    def timer(self) -> float | None:
        """When to call `on_timer`: loss by time, or the probe timeout."""
        return self.recovery.timer()

    def on_timer(self, now: float) -> bool:
        """True if probes are to be sent now."""
        if not self.recovery.on_timer(now):
            return False
        self.probes_allowed = 1
        return True

    def oldest_outstanding(self) -> SentRecord | None:
        """What a probe repeats."""
        return next(iter(self.recovery.sent), None)

    def counters(self) -> dict[str, float]:
        return {
            "records sent": self.next_number,
            "records lost": self.records_lost,
            "datagrams sent": self.datagrams_sent,
            "bytes sent": self.bytes_sent,
            "datagram size": self.mtu.size,
            "round trip": self.rtt.smoothed,
            "loss": self.record_length.loss,
        }

    def restart(self) -> None:
        """The path is another one: nothing that was learned of the old one holds (RFC 9000, 9.4)."""
        self.rtt.reset(None)
        self.mtu = MtuSearch(self.max_datagram_size)
        self.congestion = self._make_congestion(self.mtu.size)
        self.record_length = RecordLength()
        self._is_host_bound = self._is_unpaced = False
        self._stretch = HOST_BOUND_STRETCH
        self._negative_min_rtt = MaxFilter(MIN_RTT_WINDOW)
