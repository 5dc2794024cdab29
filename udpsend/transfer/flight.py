"""What is on its way to the peer, and what may follow it: recovery, congestion control, pacing, record length and path
MTU meet here, at each record sent and each acknowledgement. Knows nothing of what records contain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf

from udpsend.transfer.congestion.base import AckedSample, CongestionController, LostSample
from udpsend.transfer.congestion.bbr import Bbr
from udpsend.transfer.congestion.ledbat import Ledbat
from udpsend.transfer.delivery_rate import DeliveryRate, MaxFilter, RateSample
from udpsend.transfer.mtu import MtuSearch
from udpsend.transfer.pacing import Pacer, burst_time
from udpsend.transfer.peer_window import PeerWindow
from udpsend.transfer.record_length import TRAIN_TIME, RecordLength, train_time
from udpsend.transfer.recovery import AckOutcome, Recovery
from udpsend.transfer.rtt import RttEstimator
from udpsend.transfer.sent_records import SentRecord
from udpsend.wire.frames import Ack

PERSISTENT_CONGESTION = 3  # probe timeouts (RFC 9002, 7.6.1)
BANDWIDTH_WINDOW = 2.0  # seconds over which the best delivery rate counts
MIN_RTT_WINDOW = 10.0  # seconds over which the shortest round trip counts: routes change
RECORDS_IN_WINDOW = 4  # at least, of those that take several calls: they are acknowledged while others are on their way
HOST_BOUND_GROWTH = 8  # of what arrived without a loss, one part may be in flight


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
        self._probes_allowed = 0  # records that a probe timeout lets pass window and pacing
        self.paced_until: float | None = None
        """When pacing lets the next data record leave, if that is what it waits for."""
        self._pacer = Pacer()
        self._ceiling = limit or inf
        self._delivery = DeliveryRate()
        self._bandwidth = MaxFilter(BANDWIDTH_WINDOW)
        self._negative_min_rtt = MaxFilter(MIN_RTT_WINDOW, -inf)
        self._train_time = TRAIN_TIME
        self._peer = PeerWindow()
        self._window_limited = False
        self._missing = 0  # datagrams that had not arrived when what was sent after them had
        self._missing_counted = 0

    # what may leave

    def limit_to(self, rate: float) -> None:
        """No more bytes per second than this either."""
        self._ceiling = min(self._ceiling, rate)

    def yield_to_others(self) -> None:
        """Everybody else on the path comes first, from now on."""
        if not self.congestion.yields:
            self._make_congestion = Ledbat
            self.congestion = Ledbat(self.mtu.size)

    @property
    def window(self) -> float:
        """Bytes that may be in flight: what the congestion controller and the peer allow."""
        window = self.congestion.window + self.mtu.excess
        if self._peer.is_host_bound:  # opened as far as it proves harmless
            window = max(window, self._delivery.delivered // HOST_BOUND_GROWTH)
        return min(window, self._peer.limit)

    @property
    def _is_unpaced(self) -> bool:
        return self._peer.is_host_bound and self._ceiling == inf

    def openings(self, now: float, per_call: int, maximum: int) -> Iterator[int]:
        """For each data record that may leave now, of how many datagrams: at most the `per_call` that leave in one
        call; where nothing is paced a multiple of that, up to `maximum`. It ends where the window is full, or at what
        pacing lets leave later, at `paced_until`. Nothing may arrive meanwhile; the window is that of the beginning,
        also where the first record after a pause widens it."""
        window, sent, is_unpaced = self.window, self.recovery.sent, self._is_unpaced
        calls = int(window / (RECORDS_IN_WINDOW * per_call * self.mtu.size))
        unpaced = min(max(calls, 1) * per_call, maximum)
        # Full where a long record would overrun it by more than one call.
        full = window - (unpaced - per_call) * self.mtu.size if is_unpaced else window
        self.paced_until = None
        while True:
            if not self._probes_allowed:
                if sent.bytes_in_flight >= full:
                    self._on_full()
                    return
                if not is_unpaced and (when := self._pacer.next_send_time(now)) is not None:
                    self.paced_until = when
                    return
            elif self.recovery.probe_count > 1:  # nobody answers: one datagram finds out as well as a train does
                yield 1
                continue
            yield unpaced if is_unpaced else self._record_datagrams(window - sent.bytes_in_flight, per_call)

    def _on_full(self) -> None:
        if self._peer.limit:
            self._window_limited = True
        else:
            self.on_app_limited()  # the peer's disk does not keep up, which says nothing of the path

    def _record_datagrams(self, room: float, maximum: int) -> int:
        size = self.mtu.size
        rate = min(self.congestion.pacing_rate or self.congestion.window / self.rtt.smoothed, self._ceiling)
        most = self.record_length.datagrams(rate * self._train_time, size, maximum)
        return min(max(int(room / size), 1), most)

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
        if self._probes_allowed and record.data is not None:
            self._probes_allowed -= 1
        is_host_bound = self._peer.is_host_bound
        if not is_host_bound:
            self.congestion.on_sent(record.size, sent.bytes_in_flight, now)
        if not self._is_unpaced:
            rate = self._ceiling if is_host_bound else min(self.congestion.pacing_rate, self._ceiling)
            self._pacer.set_rate(rate, now)
            self._pacer.on_sent(self.mtu.size if record.mtu_probe else record.size)

    # what became of it

    def on_ack_untrusted(self, ack: Ack, number: int, now: float) -> tuple[list[SentRecord], list[SentRecord]]:
        """(acknowledged, lost) records. `number` is that of the record that says so. Raises BadPacket."""
        sent = self.recovery.sent
        in_use = sent.bytes_in_flight
        outcome = self.recovery.on_ack_untrusted(ack, self.next_number, now)
        for late in outcome.spurious:
            self._delivery.on_spurious(late.size)
            self.congestion.on_spurious_loss(late.time)
        if not ack.window:
            self._peer.on_wait_asked(now)
        newest = outcome.newest
        if newest is None:
            lost = self.detect_lost(now)
        else:
            acked_bytes = in_use - sent.bytes_in_flight
            self._probes_allowed = 0
            rate = self._delivery.on_acked(newest, acked_bytes, now)
            if rate is not None:
                self._bandwidth.update(now, rate.rate)
            if outcome.rtt_sample is not None:
                self._negative_min_rtt.update(now, -outcome.rtt_sample)
            self._missing = max(self._missing, newest.datagrams_total - ack.datagrams)
            self.record_length.on_ack(newest.datagrams_total, ack.datagrams)
            self._mtu_acked(outcome.acked)
            lost = self.detect_lost(now)
            if not self._peer.is_host_bound:  # else there is no queue that a model would be worth
                self._model_path(outcome, newest, acked_bytes, rate, in_use, now)
            self._window_limited = False
        min_rtt, yields = -self._negative_min_rtt.value, self.congestion.yields
        self._peer.on_ack(number, ack.window, self._bandwidth.value, min_rtt, yields=yields)
        return outcome.acked, lost

    def _model_path(
        self, outcome: AckOutcome, newest: SentRecord, acked: int, rate: RateSample | None, in_use: int, now: float
    ) -> None:
        sent, delivery = self.recovery.sent, self._delivery
        if outcome.rtt_sample is not None:
            min_rtt = -self._negative_min_rtt.value
            self._train_time = train_time(min_rtt)
            self._pacer.burst_time = burst_time(min_rtt)
        self.congestion.on_acked(
            AckedSample(
                now=now,
                acked_bytes=acked,
                newest_acked=newest.number,
                newest_sent_time=newest.time,
                largest_sent=sent.largest_sent,
                bytes_in_flight=sent.bytes_in_flight,
                rtt=self.rtt,
                rtt_sample=outcome.rtt_sample,
                rate=rate,
                app_limited=delivery.app_limited and in_use < self.window // 2,
                delivered=delivery.delivered,
                lost=delivery.lost,
                window_limited=self._window_limited,
            )
        )
        if self.congestion.holds_back:
            delivery.on_app_limited(sent.bytes_in_flight)

    def _mtu_acked(self, acked: list[SentRecord]) -> None:
        for record in acked:
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
            if not self._peer.asked_to_wait(now):
                self.record_length.on_record_lost()
                self._peer.on_lost(record.time, now)
                if self.mtu.on_lost(record.number, record.largest_datagram):
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
                    bytes_in_flight=self.recovery.sent.bytes_in_flight,
                    persistent=span > PERSISTENT_CONGESTION * self.rtt.probe_timeout,
                    records=counted,
                    lost_before=before,
                )
            )
        return lost

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
        self._probes_allowed = 1
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
        self._peer.restart()
        self._bandwidth = MaxFilter(BANDWIDTH_WINDOW)
        self._negative_min_rtt = MaxFilter(MIN_RTT_WINDOW, -inf)
