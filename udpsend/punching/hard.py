"""Symmetric NATs: ways to a peer whose port towards us nobody knows.

Hard against easy: a peer behind a symmetric NAT, and one behind any other.

The hard side sends from FAN_SOCKETS sockets to the easy side's address: that many of its 64,512 ports are open for what
comes from there. The easy side sends to one port after the other. A probe that meets an open port arrives, is answered,
and the two have a pair like any other. After n probes none has met one with (1 - 256/64512)^n: half are through after
174, 98 % after 980, all but one of 200,000 after 3,072 (the arithmetic of birthdays).

What reaches an easy side whose router ties early packets to itself spoils not only that port: all that it sends to new
ports from then on leaves from another port. So the rounds have the small TTL of openers. Where it is not sure how many
routers translate on the hard side, the second round crosses one more; the last, when almost all searches are over, has
full TTL. So has what the hard side's main socket sends, which is what gets through to a NAT that is open; it goes to
the easy side's main socket. Routers that tie packets to themselves keep ports, and behind one that keeps them the
search has a socket of its own (`behaviour.search_apart`), for which the fan opens.

Where the ports were seen to go up in order, the next ones come first: the hard side's main socket has a port among
them, which is opened with a small TTL, too. Then come those of its further sockets, which follow.

Hard against hard works only where both take ports in order. Each side's n-th new destination gets the n-th port after
the last one seen, but for those that were taken since by others: a on one side, b on the other, unknown. The sender's
n-th probe goes from its port n + a to the receiver's port n, the receiver's m-th from its port m + b to the sender's
port 2 m. With m = a + b and n = m + b the two cross, whatever a and b are: each has opened what the other comes from.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from udpsend.config import Role
from udpsend.punching.behaviour import NatBehaviour
from udpsend.wire.datagram import Address

FAN_SOCKETS = 256
FAN_PACE = 0.002  # seconds between two packets
FAN_INTERVAL = 3.5  # before the mapping of a NAT that forgets after 5 s is gone; 99 % of all searches are over by then
SEARCH_PACE = 0.0025  # seconds between two packets
MAX_SEARCH = 3072  # ports
NEXT = 64  # of them, where ports go up in order, for the hard side's main socket
PREDICTED = 1024  # and then for its further ones
FIRST_PORT, PORTS = 1024, 64_512

# Seconds of plain punching first: address-restricted and more open NATs on the easy side need no more.
PATIENCE_PREDICTED = 0.3
PATIENCE_RANDOM = 1.0
HOLD_SEQUENTIAL = 1.2  # the hard side's main socket, which the prediction finds by then
CROSSINGS = 128  # ports that others may have taken since, on both sides together, and a few more
CROSSING_ROUNDS = 4  # what came too early to be let in comes again
MAX_LATE = 0.02  # seconds that are made up for: eight probes of a search
HEAD_START = 0.25  # of the further sockets before the search for those whose ports are in order

Target = tuple[Address, int, int]
"""Destination, local socket, TTL."""


def _paced(due: float, pace: float, now: float) -> float:
    """When the next is due. A busy machine calls late and gets several at once; a search would take twice as long."""
    return max(due, now - MAX_LATE) + pace


class Method(ABC):
    """Something that sends requests beyond those to the candidates."""

    sockets_wanted = 0
    """To be opened when `due` has come."""
    hold = 0.0
    """Seconds from the start for which the candidates are not to be sent more than openers."""

    def __init__(self, due: float) -> None:
        self.due = due
        """When to call `take` next; infinite when all is sent, or nothing can be yet."""
        self.begun = False
        """It has been asked what to send."""

    @abstractmethod
    def take(self, now: float) -> Target | None:
        """What to send next."""

    def sockets_opened(self, sockets: list[int], now: float) -> None:  # noqa: B027 - most want none
        """Those that were wanted."""


class PortSearch(Method):
    """The easy side."""

    def __init__(self, peer: NatBehaviour, outside: Address, main: int, apart: int, start: float, seed: bytes) -> None:
        """From the socket `main` to the one like it, from `apart` to the fan."""
        super().__init__(start + (PATIENCE_PREDICTED if peer.sequential else PATIENCE_RANDOM))
        self._host, self._port = outside
        self._apart = apart
        self._sent = 0
        self._second_part = start + PATIENCE_RANDOM + HEAD_START
        upwards = [*range(self._port + 1, 65_536)] if peer.sequential else []
        self._predicted = [(port, main) for port in upwards[:NEXT]] + [(port, apart) for port in upwards[:PREDICTED]]
        # A walk of all ports in an order that differs from run to run: odd steps are prime to 64,512 = 2^10 * 63 if
        # they are not multiples of 3 or 7.
        first, step = int.from_bytes(seed[:4]), int.from_bytes(seed[4:8]) | 1
        while math.gcd(step, PORTS) > 1:
            step += 2
        self._first, self._step = first, step

    def take(self, now: float) -> Target:
        number, self._sent = self._sent, self._sent + 1
        following = _paced(self.due, SEARCH_PACE, now)
        if self._sent == MAX_SEARCH:
            self.due = math.inf
        elif self._sent == NEXT and self._predicted:
            self.due = max(following, self._second_part)
        else:
            self.due = following
        if number < len(self._predicted):
            port, local = self._predicted[number]
            return (self._host, port), local, 0
        return (self._host, FIRST_PORT + (self._first + number * self._step) % PORTS), self._apart, 0


class Fan(Method):
    """The hard side."""

    def __init__(self, outside: Address, start: float, hold: float, ttls: Sequence[int]) -> None:
        """`ttls`: one for each round."""
        super().__init__(start + PATIENCE_RANDOM)
        self.sockets_wanted = FAN_SOCKETS
        self.hold = hold
        self._target = outside
        self._ttls = ttls
        self._sockets: list[int] = []
        self._sent = 0
        self._round_start = 0.0

    def take(self, now: float) -> Target | None:
        if not self._sockets:
            self.due = math.inf
            return None
        number, index = divmod(self._sent, len(self._sockets))
        if index == 0:
            self._round_start = now
        self._sent += 1
        if index + 1 < len(self._sockets):
            self.due = _paced(self.due, FAN_PACE, now)
        elif number + 1 < len(self._ttls):
            self.due = self._round_start + FAN_INTERVAL
        else:
            self.due = math.inf
        return self._target, self._sockets[index], self._ttls[number]

    def sockets_opened(self, sockets: list[int], now: float) -> None:
        self.sockets_wanted = 0
        self._sockets = sockets
        self.due = now


class Crossing(Method):
    """Either side, where both are hard and sequential. `step`: 1 on one side, 2 on the other."""

    def __init__(self, outside: Address, main: int, start: float, step: int) -> None:
        super().__init__(start + PATIENCE_PREDICTED)
        host, port = outside
        ports = range(port + step, min(65_536, port + step * CROSSINGS + 1), step)
        self._targets = [((host, port), main, 0) for port in ports] * CROSSING_ROUNDS

    def take(self, now: float) -> Target | None:
        self.due = _paced(self.due, FAN_PACE, now) if len(self._targets) > 1 else math.inf
        return self._targets.pop(0) if self._targets else None


def _ttls(own: NatBehaviour) -> tuple[int, int, int]:
    opener = own.routers.count + 1
    return opener, opener if own.routers.are_all else opener + 1, 0


def choose_method(
    role: Role, own: NatBehaviour, peer: NatBehaviour, main: int, start: float, random_bytes: Callable[[int], bytes]
) -> Method | None:
    """What this side does beyond plain punching; None if nothing more would help."""
    if peer.outside is None or not (own.is_hard or peer.is_hard):
        return None
    if own.is_hard and peer.is_hard:
        if not (own.sequential and peer.sequential):
            return None
        return Crossing(peer.outside, main, start, 1 if role is Role.SENDER else 2)
    if own.is_hard:
        return Fan(peer.outside, start, HOLD_SEQUENTIAL if own.sequential else 0.0, _ttls(own))
    return PortSearch(peer, peer.outside, main, own.local or main, start, random_bytes(8))
