"""One direction of a wire: queue and rate, then the medium (loss, bursts, duplication), then the way (delay, jitter).

A train passes in this order:
1. outage and MTU drop it or parts of it;
2. the queue takes the datagrams that fit behind the backlog, the rest are dropped from the tail;
3. the rate gives each piece its instant of departure;
4. loss and bursts remove datagrams, which have used their share of the rate;
5. delay, jitter, reordering and duplication give instants of arrival; what shares one instant arrives as one train.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.sim.train import Train
from udpsend.wire.datagram import ip_overhead

if TYPE_CHECKING:
    from tests.sim.network import Network


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Losses in bursts: two states, left with these probabilities at each datagram. The mean burst is 1 / leave."""

    enter: float
    leave: float
    loss_bad: float = 1.0
    loss_good: float = 0.0

    @property
    def mean_loss(self) -> float:
        bad = self.enter / (self.enter + self.leave)
        return bad * self.loss_bad + (1 - bad) * self.loss_good


class Link:
    """See the package's docstring for parameters and counters."""

    def __init__(
        self,
        network: Network,
        name: str,
        deliver: Callable[[Train], None],
        *,
        delay: float = 0.0,
        rate: float | None = None,
        queue: float = math.inf,
        loss: float = 0.0,
        bursts: GilbertElliott | None = None,
        duplicate: float = 0.0,
        jitter: float = 0.0,
        ordered: bool = True,
        reorder: float = 0.0,
        reorder_delay: float = 0.002,
        mtu: int = 65_535,
        merge_within: float = 0.001,
    ) -> None:
        self.network = network
        self.name = name
        self.deliver = deliver
        self.delay = delay
        self._rate = rate
        self.queue = queue
        self._random = Random(f"{network.seed}/link/{name}")
        self._datagrams_to_loss = math.inf
        self.loss = loss
        self.bursts = bursts
        self._in_burst = False
        self.duplicate = duplicate
        self.jitter = jitter
        self.ordered = ordered
        self.reorder = reorder
        self.reorder_delay = reorder_delay
        self.mtu = mtu
        self.merge_within = merge_within
        self.down = False
        self.tap: Callable[[Train], None] | None = None
        """Sees each train that is offered, before anything happens to it."""

        self._busy_until = 0.0  # when the last byte that was queued will have left
        self._last_arrival = 0.0

        self.offered = 0
        self.delivered = 0
        self.bytes_delivered = 0
        self.dropped: Counter[str] = Counter()
        self.duplicated = 0
        self.reordered = 0
        self.max_queue = 0
        self.max_queueing_delay = 0.0
        self._queueing_delay_sum = 0.0
        self._queued = 0

    @property
    def rate(self) -> float | None:
        return self._rate

    @rate.setter
    def rate(self, rate: float | None) -> None:
        """What waits goes on at the new rate (trains that were given their instants already keep them)."""
        backlog = self.backlog
        self._rate = rate
        self._busy_until = self.network.now + (backlog / rate if rate else 0.0)

    @property
    def loss(self) -> float:
        return self._loss

    @loss.setter
    def loss(self, loss: float) -> None:
        self._loss = loss
        self._datagrams_to_loss = self._draw_datagrams_to_loss()

    @property
    def backlog(self) -> float:
        """Bytes that have not left yet."""
        return max(0.0, self._busy_until - self.network.now) * self._rate if self._rate else 0.0

    @property
    def mean_queueing_delay(self) -> float:
        return self._queueing_delay_sum / self._queued if self._queued else 0.0

    def outage(self, start: float, duration: float) -> None:
        """All that is offered from `start` (virtual time) on for `duration` seconds is dropped."""
        self.network.at(start, lambda: setattr(self, "down", True))
        self.network.at(start + duration, lambda: setattr(self, "down", False))

    def send(self, train: Train) -> None:
        self.offered += len(train.datagrams)
        if self.tap is not None:
            self.tap(train)
        if self.down:
            self.dropped["outage"] += len(train.datagrams)
            return
        limit = self.mtu - ip_overhead(train.destination[0])
        if max(map(len, train.datagrams)) > limit:
            train = self._drop_all_but([d for d in train.datagrams if len(d) <= limit], train, "mtu")
        if self._rate is None:
            self._pass_medium(self.network.now, train)
            return
        for departure, piece in self._departures(self._fitting(train), self._rate):
            self._pass_medium(departure, piece)

    def _fitting(self, train: Train) -> Train:
        """What the queue has room for. An idle link takes at least one datagram, whatever the size of its queue."""
        backlog = self.backlog
        room = self.queue - backlog
        if train.size > room:
            taken = 0
            for count, datagram in enumerate(train.datagrams):
                if taken + len(datagram) > room and (count or backlog):
                    train = self._drop_all_but(train.datagrams[:count], train, "queue")
                    break
                taken += len(datagram)
        self.max_queue = max(self.max_queue, round(backlog) + train.size)
        return train

    def _departures(self, train: Train, rate: float) -> Iterator[tuple[float, Train]]:
        """Pieces that take no longer than `merge_within` to send, with the instants when their last bytes leave."""
        now = self.network.now
        busy = max(self._busy_until, now)
        rest = train.datagrams
        if train.size <= self.merge_within * rate or len(rest) < 2:
            length = len(rest)
        else:
            length = max(1, int(self.merge_within * rate / len(rest[0])))
        for start in range(0, len(rest), length or 1):
            piece = train if length == len(rest) else train.with_datagrams(rest[start : start + length])
            waited = busy - now
            self._queued += len(piece.datagrams)
            self._queueing_delay_sum += waited * len(piece.datagrams)
            self.max_queueing_delay = max(self.max_queueing_delay, waited)
            busy += piece.size / rate
            self._busy_until = busy
            yield busy, piece

    def _pass_medium(self, departure: float, train: Train) -> None:
        if self._datagrams_to_loss < len(train.datagrams):
            train = self._drop_all_but(self._survivors_of_loss(train.datagrams), train, "loss")
        elif self._loss:
            self._datagrams_to_loss -= len(train.datagrams)
        if self.bursts is not None:
            train = self._drop_all_but(self._survivors_of_bursts(train.datagrams, self.bursts), train, "burst")
        if not train.datagrams:
            return
        if self.jitter or self.duplicate or self.reorder:
            self._scatter(departure, train)
            return
        arrival = departure + self.delay
        if arrival < self._last_arrival:
            arrival = self._last_arrival
        self._last_arrival = arrival
        self.network.call_with(arrival, self._arrive, train)

    def _scatter(self, departure: float, train: Train) -> None:
        """An instant of arrival for each datagram; what shares one instant stays together."""
        random = self._random.random
        arrivals: list[tuple[float, bytes]] = []
        for datagram in train.datagrams:
            arrival = departure + self.delay + (random() * self.jitter if self.jitter else 0.0)
            if self.ordered:
                arrival = max(arrival, self._last_arrival)
                self._last_arrival = arrival
            if self.reorder and random() < self.reorder:
                self.reordered += 1
                arrival += self.reorder_delay
            arrivals.append((arrival, datagram))
            if self.duplicate and random() < self.duplicate:
                self.duplicated += 1
                arrivals.append((arrival, datagram))
        arrivals.sort(key=lambda entry: entry[0])
        together: list[bytes] = []
        for index, (arrival, datagram) in enumerate(arrivals):
            together.append(datagram)
            if index + 1 == len(arrivals) or arrivals[index + 1][0] != arrival:
                self.network.call_with(arrival, self._arrive, train.with_datagrams(together))
                together = []

    def _arrive(self, train: Train) -> None:
        self.delivered += len(train.datagrams)
        self.bytes_delivered += train.size
        self.deliver(train)

    def _drop_all_but(self, kept: Sequence[bytes], train: Train, cause: str) -> Train:
        if len(kept) == len(train.datagrams):
            return train
        self.dropped[cause] += len(train.datagrams) - len(kept)
        return train.with_datagrams(kept)

    def _draw_datagrams_to_loss(self) -> float:
        """How many datagrams pass before the next is lost: one draw for each loss instead of one for each datagram."""
        if self._loss <= 0:
            return math.inf
        if self._loss >= 1:
            return 0
        return math.floor(math.log(1 - self._random.random()) / math.log(1 - self._loss))

    def _survivors_of_loss(self, datagrams: Sequence[bytes]) -> list[bytes]:
        kept: list[bytes] = []
        position = 0
        while self._datagrams_to_loss < len(datagrams) - position:
            lost = position + int(self._datagrams_to_loss)
            kept += datagrams[position:lost]
            position = lost + 1
            self._datagrams_to_loss = self._draw_datagrams_to_loss()
        self._datagrams_to_loss -= len(datagrams) - position
        kept += datagrams[position:]
        return kept

    def _survivors_of_bursts(self, datagrams: Sequence[bytes], bursts: GilbertElliott) -> list[bytes]:
        random = self._random.random
        kept: list[bytes] = []
        for datagram in datagrams:
            if random() < (bursts.leave if self._in_burst else bursts.enter):
                self._in_burst = not self._in_burst
            if random() >= (bursts.loss_bad if self._in_burst else bursts.loss_good):
                kept.append(datagram)
        return kept
