"""What the puncher does with relays, and while it waits for somebody who comes late: in virtual time, on no network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from udpsend.config import Role
from udpsend.events import PathKind
from udpsend.punching.candidates import addresses_through_relay, path_kind
from udpsend.punching.outbox import MAX_SENT
from udpsend.punching.path import PathValidated, PunchFailed
from udpsend.punching.puncher import RELAY_DELAY, Puncher
from udpsend.wire.candidate import Candidate, CandidateType
from udpsend.wire.datagram import Address, Arrival
from udpsend.wire.relayed import is_through_relay, through_relay

SECRET = bytes(range(32))
HOME: Address = ("192.0.2.2", 5000)
PEER: Address = ("198.51.100.2", 6000)
RELAY: Address = ("203.0.113.9", 50000)


def puncher(role: Role, timeout: float = 12.0) -> Puncher:
    counter = itertools.count(1 if role is Role.SENDER else 1 << 32)
    return Puncher(SECRET, role, 0.0, lambda size: next(counter).to_bytes(size), False, timeout)


def run_alone(one: Puncher, until: float) -> list[tuple[float, Address]]:
    """What it sends to whom when nobody answers."""
    sent: list[tuple[float, Address]] = []
    now = 0.0
    while now <= until:
        one.timer_expired(now)
        sent += [(now, transmit.address) for transmit in one.datagrams_to_send(now)]
        timer = one.next_timer()
        if timer is None:
            break
        now = max(timer, now + 0.001)
    return sent


def srflx(*addresses: Address) -> list[Candidate]:
    return [Candidate(CandidateType.SERVER_REFLEXIVE, address) for address in addresses]


def relayed(address: Address) -> Candidate:
    return Candidate(CandidateType.RELAYED, address)


def test_the_peers_relay_is_probed_late() -> None:
    one = puncher(Role.SENDER)
    one.add_remote_candidates([*srflx(PEER), relayed(RELAY)], 0.0)
    sent = run_alone(one, 5.0)
    assert min(time for time, address in sent if address == PEER) < 0.1
    assert RELAY_DELAY <= min(time for time, address in sent if address == RELAY) < RELAY_DELAY + 0.1


@pytest.mark.parametrize("relay_known_at", [0.0, 4.0])
def test_our_relay_is_tried_towards_all_that_it_can_lead_to(relay_known_at: float) -> None:
    one = puncher(Role.SENDER)
    hosts = [Candidate(CandidateType.HOST, ("2001:db8::1", 1))]
    one.add_remote_candidates([*srflx(PEER), *hosts, relayed(RELAY)], 0.0)
    run_alone(one, relay_known_at)
    one.add_local_candidates([relayed(HOME)], relay_known_at)
    sent = run_alone(one, 8.0)
    by_way = {address for _, address in sent if is_through_relay(address[0])}
    assert by_way == {through_relay(PEER), through_relay(RELAY)}
    assert min(time for time, address in sent if address in by_way) >= max(RELAY_DELAY, relay_known_at) - 0.001


def test_relayed_is_the_least_of_all_kinds() -> None:
    assert list(PathKind)[-1] is PathKind.RELAYED
    assert path_kind([], through_relay(PEER), False) is PathKind.RELAYED
    assert path_kind([], RELAY, False, {RELAY}) is PathKind.RELAYED
    assert path_kind([], RELAY, False) is PathKind.INTERNET
    assert addresses_through_relay([], [PEER]) == []
    assert addresses_through_relay([relayed(HOME)], [PEER, ("127.0.0.1", 1), ("::1", 1)]) == [through_relay(PEER)]


def exchange(sender: Puncher, receiver: Puncher, seen: dict[Role, Address], start: float) -> None:
    """Hands over what each sends to where the other is, for ten seconds. `seen`: where each comes from."""
    now = start
    ends = {Role.SENDER: sender, Role.RECEIVER: receiver}
    while now < start + 10 and not (sender.path and receiver.path):
        for role, one in ends.items():
            one.timer_expired(now)
            for transmit in one.datagrams_to_send(now):
                if transmit.address == seen[role.other]:
                    arrival = Arrival.of(list(transmit.datagrams()), seen[role])
                    ends[role.other].datagram_received(arrival, now)
        now += 0.01


def test_a_path_through_the_relay_of_one_side() -> None:
    """The sender has the relay: it reaches the receiver by way of it, the receiver writes to the relayed address."""
    sender, receiver = puncher(Role.SENDER), puncher(Role.RECEIVER)
    sender.add_local_candidates([relayed(RELAY)], 0.0)
    sender.add_remote_candidates(srflx(PEER), 0.0)
    receiver.add_remote_candidates([*srflx(HOME), relayed(RELAY)], 0.0)
    # As the receiver sees the sender; as the sender sees the receiver, whose NAT took another port for the relay.
    exchange(sender, receiver, {Role.SENDER: RELAY, Role.RECEIVER: through_relay((PEER[0], 7777))}, 0.0)
    assert sender.path is not None
    assert receiver.path is not None
    assert sender.path.kind is receiver.path.kind is PathKind.RELAYED
    assert sender.path.address == through_relay((PEER[0], 7777))
    assert receiver.path.address == RELAY


def addresses(count: int) -> Sequence[Candidate]:
    return srflx(*(("198.51.100.7", 1000 + n) for n in range(count)))


def test_patience_is_paid_for_with_fewer_probes() -> None:
    """Where people carry texts, the sender waits for minutes: within the bound of all punching, and to the end."""
    one = puncher(Role.SENDER, timeout=600.0)
    one.add_remote_candidates(addresses(16), 0.0)
    sent = run_alone(one, 700.0)
    assert len(sent) < MAX_SENT
    assert sent[-1][0] > 590
    gaps = [after - before for (before, _), (after, _) in itertools.pairwise(sent)]
    assert max(gaps) < 5  # a NAT forgets after 30 s at the earliest
    assert isinstance(one.next_event(), PunchFailed)


def test_who_comes_late_is_met_at_once() -> None:
    sender, receiver = puncher(Role.SENDER, timeout=600.0), puncher(Role.RECEIVER, timeout=600.0)
    sender.add_remote_candidates(srflx(PEER), 0.0)
    run_alone(sender, 120.0)
    receiver.add_remote_candidates(srflx(HOME), 120.0)
    exchange(sender, receiver, {Role.SENDER: HOME, Role.RECEIVER: PEER}, 120.0)
    assert sender.path is not None
    assert isinstance(sender.next_event(), PathValidated)
    assert isinstance(receiver.next_event(), PathValidated)
