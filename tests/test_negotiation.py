"""What two negotiations make of words and probes that come in another order than they left."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from udpsend.config import Role
from udpsend.punching.behaviour import MappingBehaviour, NatBehaviour
from udpsend.punching.negotiation import MAX_EARLY, Negotiation
from udpsend.punching.pairs import MIN_INTERVAL
from udpsend.punching.path import PathValidated
from udpsend.wire.candidate import Candidate, CandidateType
from udpsend.wire.datagram import Address, Arrival, Transmit
from udpsend.wire.json import JSON

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


def run(side: Negotiation, start: float, end: float) -> list[tuple[float, Transmit]]:
    """What it sends by itself, and when."""
    sent = [(start, transmit) for transmit in side.datagrams_to_send(start)]
    while (timer := side.next_timer()) is not None and timer < end:
        side.timer_expired(timer)
        sent += [(timer, transmit) for transmit in side.datagrams_to_send(timer)]
    return sent


def test_each_punching_has_keys_of_its_own() -> None:
    sides = {role: negotiation(role) for role in Role}
    hellos = {role: side.hello() for role, side in sides.items()}
    seen = []

    def tag(role: Role, now: float) -> bytes:
        _, transmit = run(sides[role], now, now + 0.1)[0]
        return next(transmit.datagrams())[1:8]

    for role, side in sides.items():
        side.agreed(SECRET, hellos[role.other], 500, 0.0)
        seen.append(tag(role, 0.0))
    sides[Role.SENDER].punch_again(1.0)
    for role, side in sides.items():
        side.add_candidates([Candidate(CandidateType.HOST, ADDRESSES[role])], 1.0)
        for word in side.words_to_send():
            sides[role.other].word_received(word, 500, 1.0)
    assert [side.generation for side in sides.values()] == [1, 1]
    seen += [tag(role, 1.0) for role in Role]
    assert len(set(seen)) == 4


def test_a_word_of_an_earlier_punching_is_ignored() -> None:
    side = negotiation(Role.RECEIVER)
    side.agreed(SECRET, {}, 500, 0.0)
    side.punch_again(1.0)
    side.word_received({"candidates": [["host", "10.0.0.77", 1]]}, 500, 1.0)
    assert run(side, 1.0, 2.0) == []
    side.word_received({"punch": 1, "candidates": [["host", "10.0.0.77", 1]]}, 500, 2.0)
    assert run(side, 2.0, 2.1)


def test_what_was_opened_is_told_once_and_of_ipv4_alone() -> None:
    side = negotiation(Role.RECEIVER)
    told: list[JSON] = [["srflx", "203.0.113.9", 7], ["host", "2001:db8::1", 7], ["host", "10.0.0.1", 4000]]
    side.agreed(SECRET, {"candidates": told[:2]}, 500, 0.0)
    side.set_behaviour(NatBehaviour(MappingBehaviour.INDEPENDENT, ("198.51.100.2", 5000)), 0.0)
    side.word_received({"candidates": told}, 500, 0.1)
    side.word_received({"candidates": told}, 500, 0.2)
    opened = [word["opened"] for word in side.words_to_send() if "opened" in word]
    assert opened == [[["203.0.113.9", 7]], [["203.0.113.9", 7], ["10.0.0.1", 4000]]]


def test_full_ttl_waits_until_the_peer_has_opened_towards_all_that_was_told() -> None:
    side = negotiation(Role.RECEIVER)
    side.add_candidates([Candidate(CandidateType.SERVER_REFLEXIVE, ("198.51.100.2", 5000))], 0.0)
    side.agreed(SECRET, {"candidates": [["srflx", "203.0.113.9", 7]]}, 500, 0.0)
    side.set_behaviour(NatBehaviour(MappingBehaviour.INDEPENDENT, ("198.51.100.2", 5000)), 0.0)
    assert [transmit.ttl for _, transmit in run(side, 0.0, 0.1)] == [2]
    side.word_received({"opened": [["198.51.100.2", 5000]]}, 500, 0.1)
    assert run(side, 0.1, 0.2) == []
    side.word_received({"opened": [["10.0.0.2", 5000]]}, 500, 0.2)
    time, transmit = run(side, 0.2, 0.3)[0]
    assert (time, transmit.ttl) == (0.2, 0)


def test_addresses_of_a_network_that_was_left_are_not_told() -> None:
    side = negotiation(Role.RECEIVER)
    side.set_behaviour(NatBehaviour(MappingBehaviour.NONE, ADDRESSES[Role.RECEIVER]), 0.0)
    elsewhere = Candidate(CandidateType.HOST, ("10.1.0.3", 5000))
    assert side.add_candidates([elsewhere], 1.0, are_all=True)
    assert side.hello()["candidates"] == [elsewhere.to_json()]
    assert "nat" not in side.hello()
    side.agreed(SECRET, negotiation(Role.SENDER).hello(), 500, 2.0)
    later = Candidate(CandidateType.HOST, ("10.1.0.4", 5000))
    assert side.add_candidates([elsewhere, later], 3.0, are_all=True)
    assert [word["candidates"] for word in side.words_to_send()] == [[later.to_json()]], "the peer has the first"


@pytest.mark.parametrize(
    ("own", "peer", "why"),
    [
        (["2001:db8::1"], ["10.0.0.2"], "this side has IPv6 only, the other IPv4 only."),
        (["10.0.0.1"], ["::1", "2001:db8::2"], "this side has IPv4 only, the other IPv6 only."),
        (["127.0.0.1"], ["10.0.0.2"], "this side has no address but those that lead to itself."),
        (["10.0.0.1"], [], "the other side has no address but those that lead to itself."),
        (["10.0.0.1"], ["10.0.0.2", "2001:db8::2"], "None of its 2 addresses answered"),
        (["10.0.0.1", "2001:db8::1"], ["2001:db8::2"], "only IPv6 leads from one to the other"),
    ],
)
def test_where_nothing_can_be_tried_no_nat_is_blamed(own: list[str], peer: list[str], why: str) -> None:
    """Of a host without IPv4 no STUN server hears anything over IPv4: that is no network that lets no UDP through."""
    sides = [
        Negotiation(role, Random(0).randbytes, _candidates(addresses), role.value, Counter())
        for role, addresses in ((Role.SENDER, own), (Role.RECEIVER, peer))
    ]
    if why.startswith("this side has IPv6"):
        sides[0].set_behaviour(NatBehaviour(MappingBehaviour.SILENT), 0.0)
    sides[0].agreed(SECRET, sides[1].hello(), 500, 0.0)
    lines = sides[0].why_no_path().splitlines()
    assert why in "\n".join(lines[1:])
    assert len(lines) == 3


def _candidates(hosts: list[str]) -> list[Candidate]:
    return [
        Candidate(CandidateType.LOOPBACK if host in ("::1", "127.0.0.1") else CandidateType.HOST, (host, 4000))
        for host in hosts
    ]
