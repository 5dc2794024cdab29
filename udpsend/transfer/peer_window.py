"""How much may be in flight as far as the receiver is concerned, and whether that is the only limit.

A peer tells how many bytes may wait in its socket, 0 to have the sender wait. On short paths a fast sender fills that
socket before it can know, and loses a window at once; on long ones the path holds more than that, and the queue is in
the network. Between two processes of one host, or of hosts next to each other, there is no queue but that socket
(`is_host_bound`).
"""

from __future__ import annotations

from math import inf

HOST_BOUND_RATE = 30e6  # bytes per second: what is slower is a link with a queue of its own
HOST_BOUND_RTT = 0.0004  # loopback, virtual machines, a wire: measured 0.03 to 0.3 ms
# A peer tells half of what its kernel grants, because network cards waste as much. On loopback and between virtual
# machines trains stay whole, and waste 2 %: there the first loss is what shows that it is otherwise.
STRETCH = 1.75
STRETCHED_TO = 1 << 20  # bytes; more makes nothing faster
WAIT_FORGOTTEN = 2.0  # seconds
INITIAL = 1 << 16  # bytes, until the peer has told


class PeerWindow:
    def __init__(self) -> None:
        self.limit = INITIAL
        """Bytes that may be in flight; 0: the peer asks to wait."""
        self.is_host_bound = False
        self._told = INITIAL
        self._told_by = -1
        self._has_lost = False
        self._stretch = STRETCH
        self._narrowed = 0.0
        self._asked_to_wait = -WAIT_FORGOTTEN

    def on_ack(self, number: int, told: int, bandwidth: float, min_rtt: float, *, yields: bool) -> None:
        """`told` is the peer's window, by its record `number`; bytes per second and seconds are the best of late,
        infinite if nothing is known. Who `yields` to others minds the path in any case."""
        if number > self._told_by:
            self._told_by, self._told = number, told
        else:  # it comes late
            told = self._told
        is_near = min_rtt < HOST_BOUND_RTT and bandwidth > HOST_BOUND_RATE
        self.is_host_bound = is_near and not self._has_lost and not yields
        if not told:
            self.limit = 0
        elif self.is_host_bound:
            self.limit = max(told, min(int(self._stretch * told), STRETCHED_TO))
        else:
            held = int(bandwidth * min_rtt) if min_rtt < inf else 0
            self.limit = held + max(held, told)

    def on_wait_asked(self, now: float) -> None:
        """The same acknowledgement may show what was dropped: to be told before that is judged."""
        self._asked_to_wait = now

    def asked_to_wait(self, now: float) -> bool:
        """Of late: what a peer without room dropped says nothing of the path."""
        return now - self._asked_to_wait <= WAIT_FORGOTTEN

    def on_lost(self, sent_time: float, now: float) -> None:
        """The path lost a record."""
        if self.is_host_bound and self._stretch > 1:
            self._stretch, self._narrowed = 1.0, now
        elif sent_time >= self._narrowed:
            self._has_lost = True

    def restart(self) -> None:
        """The path is another one: only what the peer told holds."""
        self.is_host_bound = self._has_lost = False
        self._stretch = STRETCH
