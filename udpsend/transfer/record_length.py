"""How many datagrams the next record takes: long where the path is fast and clean, one where it is slow or lossy.

A record is lost with any of its datagrams, so with datagram loss p a record of n is lost with about n * p: n is kept
below LOSS_BUDGET / p. And a record is sent in one go, so it holds no more than about a millisecond of the pacing rate.
"""

from __future__ import annotations

TRAIN_TIME = 0.001
LOSS_BUDGET = 0.03
MEASURED_OVER = 64  # datagrams at least
SINGLES_AFTER_DAMAGE = 1000  # records


class RecordLength:
    def __init__(self) -> None:
        self.loss = 0.0
        self._sent = 0
        self._received = 0
        self._lost_records = 0
        self._singles = 0

    def on_ack(self, sent: int, received: int) -> None:
        """The peer counted `received` datagrams when `sent` had been sent up to the newest record that it had."""
        if sent - self._sent < MEASURED_OVER:
            return
        missing = (sent - self._sent) - (received - self._received)
        loss = min(1.0, max(0.0, missing / (sent - self._sent)))
        if self._lost_records > 2 and missing <= 0:
            # Every datagram arrived and still records were lost: somebody forges or damages fragments. With one
            # datagram per record a forgery costs only itself.
            self._singles = SINGLES_AFTER_DAMAGE
        weight = 0.5 if loss > self.loss else 0.25
        self.loss += weight * (loss - self.loss)
        if self.loss < 1e-5:
            self.loss = 0.0
        self._sent, self._received, self._lost_records = sent, received, 0

    def on_record_lost(self) -> None:
        self._lost_records += 1

    def datagrams(self, pacing_rate: float, datagram_size: int, maximum: int) -> int:
        if self._singles:
            self._singles -= 1
            return 1
        limit = maximum
        if self.loss:
            limit = min(limit, int(LOSS_BUDGET / self.loss))
        limit = min(limit, int(pacing_rate * TRAIN_TIME / datagram_size))
        return max(1, limit)
