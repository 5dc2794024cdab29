"""What two negotiations make of words and probes that come in another order than they left."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from udpsend.config import Role
from udpsend.punching.negotiation import MAX_EARLY, Negotiation
from udpsend.punching.pairs import MIN_INTERVAL
from udpsend.punching.path import PathValidated
from udpsend.wire.candidate import Candidate, CandidateType
from udpsend.wire.datagram import Address, Arrival

SECRET = bytes(range(32))
ADDRESSES: dict[Role, Address] = {Role.SENDER: ("10.0.0.1", 4000), Role.RECEIVER: ("10.0.0.2", 5000)}


def negotiation(role: Role) -> Negotiation:
    own = [Candidate(CandidateType.HOST, ADDRESSES[role])]
    return Negotiation(role, Random(role.value).randbytes, own, role.value, Counter())


def carry(sides: dict[Role, Negotiation], role: Role, now: float) -> int:
    """What `role` has to send, to the other side, at once. Returns how many datagrams that were."""
    transmits = sides[role].datagrams_to_send(now)
    for transmit in transmits:
        sides[role.other].datagram_received(Arrival.of([*transmit.datagrams()], ADDRESSES[role]), now)
    return len(transmits)


@pytest.mark.parametrize("first", list(Role))
def test_probes_that_overtake_the_last_word_are_answered(first: Role) -> None:
    sides = {role: negotiation(role) for role in Role}
    hellos = {role: side.hello() for role, side in sides.items()}
    sides[first].agreed(SECRET, hellos[first.other], 500, 0.0)
    assert carry(sides, first, 0.0) == 1
    sides[first.other].agreed(SECRET, hellos[first], 500, 0.002)
    now = 0.002
    while now < MIN_INTERVAL:  # before `first` may send another request
        while carry(sides, first, now) + carry(sides, first.other, now):
            pass
        now += 0.001
    for side in sides.values():
        assert isinstance(side.next_event(), PathValidated)


def test_what_strangers_send_before_that_is_bounded() -> None:
    side = negotiation(Role.RECEIVER)
    for number in range(100):
        long, short = bytes([225]) * 60_000, bytes([225]) * 80
        side.datagram_received(Arrival.of([short if number % 2 else long], ("10.0.0.3", 1 + number)), 0.0)
    side.agreed(SECRET, negotiation(Role.SENDER).hello(), 500, 0.1)
    assert side.counters()["probes, fragment index"] == MAX_EARLY
