"""How many datagrams the next paced record takes: long where the path is fast and clean, one where it is slow or lossy.

A record is lost with any of its datagrams, so with datagram loss p a record of n is lost with about n * p: n is kept
below LOSS_BUDGET / p. And a record is sent in one go, so it holds no more than about a millisecond of the pacing rate,
on short paths a quarter of the round trip: what is sent in one go waits in one queue.
"""

from __future__ import annotations

TRAIN_TIME = 0.001  # seconds
MIN_TRAIN_TIME = 0.00025  # below that calls cost more than queues: 21 datagrams at 1 Gbit/s
LOSS_BUDGET = 0.03
MEASURED_OVER = 64  # datagrams at least
FIRST_OVER = 16  # the first time: a queue of three never passes a record of five, which has to show soon
SINGLES_AFTER_DAMAGE = 1000  # records


def train_time(round_trip: float) -> float:
    """Seconds of the pacing rate that leave in one go; the round trip without queues."""
    return min(TRAIN_TIME, max(MIN_TRAIN_TIME, round_trip / 4))


class RecordLength:
    def __init__(self) -> None:
        self.loss = 0.0
        self._sent = 0
        self._missing = 0
        self._lost_records = 0
        self._singles = 0

    def on_ack(self, sent: int, received: int) -> None:
        """The peer counted `received` datagrams when `sent` had been sent up to the newest record that it had."""
        # The peer may have counted more than the newest record's: what is missing in all is the most that ever was.
        span = sent - self._sent
        if span < (MEASURED_OVER if self._sent else FIRST_OVER):
            return
        missing = max(0, sent - received - self._missing)
        loss = min(1.0, missing / span)
        if self._lost_records > 2 and missing <= 0:
            # Every datagram arrived and still records were lost: somebody forges or damages fragments. With one
            # datagram per record a forgery costs only itself.
            self._singles = SINGLES_AFTER_DAMAGE
        weight = 0.5 if loss > self.loss else 0.25
        self.loss += weight * (loss - self.loss)
        if self.loss < 1e-5:
            self.loss = 0.0
        self._sent, self._missing, self._lost_records = sent, self._missing + missing, 0

    def on_record_lost(self) -> None:
        self._lost_records += 1

    def datagrams(self, train_size: float, datagram_size: int, maximum: int) -> int:
        """`train_size` bytes may leave in one go."""
        if self._singles:
            self._singles -= 1
            return 1
        limit = maximum
        if self.loss:
            limit = min(limit, int(LOSS_BUDGET / self.loss))
        limit = min(limit, int(train_size / datagram_size))
        return max(1, limit)
