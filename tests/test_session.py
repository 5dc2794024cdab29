"""Whole sessions over the virtual network and a mailbox in memory: meet, punch and transfer, and the ways to fail."""

from __future__ import annotations

from random import Random

import pytest

from tests.mailroom import fields, forge
from tests.sessions import OTHER_CODE, Party, World, lan, nowhere, two_nats
from udpsend.config import Role
from udpsend.errors import Cancelled, NoDirectPath, PeerNeverCame, Refused, WrongCode
from udpsend.events import PathKind
from udpsend.wire.candidate import Candidate, CandidateType


def test_one_host(seed: int) -> None:
    world = World(seed)
    host = world.network.host("one")
    world.network.internet.attach(host, "192.168.1.10")
    for role in Role:
        world.hosts[role] = host
        world.candidates[role] = [
            Candidate(CandidateType.LOOPBACK, ("127.0.0.1", world.port[role])),
            Candidate(CandidateType.HOST, ("192.168.1.10", world.port[role])),
        ]
    sender, receiver = world.start(Role.SENDER, "same"), world.start(Role.RECEIVER, "same")
    world.assert_crossed(sender, receiver, PathKind.THIS_HOST, seconds=2)


def test_lan(seed: int) -> None:
    world = lan(seed)
    world.assert_crossed(*world.both(), PathKind.LOCAL_NETWORK, seconds=2)


def test_two_nats(seed: int) -> None:
    world = two_nats(seed)
    world.assert_crossed(*world.both(), PathKind.INTERNET, seconds=5)


@pytest.mark.parametrize("first", list(Role))
@pytest.mark.parametrize("later", [0.01, 3.0, 300.0])
def test_either_first(first: Role, later: float, seed: int) -> None:
    world = two_nats(seed)
    one = world.start(first)
    world.network.run(seconds=later)
    other = world.start(first.other)
    sender, receiver = (one, other) if first is Role.SENDER else (other, one)
    world.assert_crossed(sender, receiver, PathKind.INTERNET, seconds=15)


def test_a_bad_mailbox(seed: int) -> None:
    world = two_nats(seed, delay=0.2, jitter=1.0, loss=0.3)
    world.bus.duplicate = 0.3
    world.assert_crossed(*world.both(), PathKind.INTERNET)


@pytest.mark.parametrize("later", [0.05, 0.3, 2.0, 6.0])
def test_candidates_that_trickle_in(later: float, seed: int) -> None:
    """STUN answers late: the peer is told, before or after both have met."""
    world = two_nats(seed)
    mapped = {role: world.candidates[role].pop() for role in Role}
    parties = world.both()

    def found(party: Party) -> None:
        party.session.add_candidates([mapped[party.role]], world.network.now)
        party.drive()

    for party in parties:
        world.network.after(later, lambda party=party: found(party))  # type: ignore[misc]
    world.assert_crossed(*parties, PathKind.INTERNET)


# failures


def test_wrong_code(seed: int) -> None:
    world = lan(seed)
    sender, receiver = world.start(Role.SENDER), world.start(Role.RECEIVER, code=OTHER_CODE)
    world.finish(receiver, seconds=30)
    assert receiver.closed is not None
    assert isinstance(receiver.closed.error, WrongCode)
    assert sender.guesses == 1
    assert sender.closed is None, "it goes on waiting"
    again = world.start(Role.RECEIVER)
    world.assert_crossed(sender, again, PathKind.LOCAL_NETWORK)


def test_nobody_comes(seed: int) -> None:
    world = lan(seed)
    sender = world.start(Role.SENDER, timeout=60.0)
    world.finish(sender, seconds=70)
    assert sender.closed is not None
    assert isinstance(sender.closed.error, PeerNeverCame)
    assert sender.closed_at == pytest.approx(60.0)
    assert "60 s" in str(sender.closed.error)


def test_no_direct_path(seed: int) -> None:
    world = nowhere(seed)
    parties = world.both()
    world.finish(*parties, seconds=120)
    for party in parties:
        assert party.closed is not None
        assert isinstance(party.closed.error, NoDirectPath)
    assert abs(parties[0].closed_at - parties[1].closed_at) < 1, "the first tells the other"


@pytest.mark.parametrize("who", list(Role))
def test_cancelled_while_punching(who: Role, seed: int) -> None:
    world = nowhere(seed)
    parties = world.both()
    assert world.network.run(lambda: all(party.phrase for party in parties), seconds=10)
    mine, theirs = parties if who is Role.SENDER else reversed(parties)
    world.network.run(seconds=1)
    before = world.network.now
    mine.end(Cancelled("Stopped."))
    world.finish(mine, theirs, seconds=3)
    assert mine.closed is not None
    assert theirs.closed is not None
    assert isinstance(mine.closed.error, Cancelled)
    assert isinstance(theirs.closed.error, Refused)
    assert theirs.closed_at - before < 0.2


def test_cancelled_while_waiting(seed: int) -> None:
    world = lan(seed)
    sender = world.start(Role.SENDER)
    world.network.run(seconds=5)
    sender.end(Cancelled("Stopped."))
    assert sender.closed is not None
    assert isinstance(sender.closed.error, Cancelled)
    assert sender.next_timer() is None


@pytest.mark.parametrize("who", list(Role))
def test_cancelled_while_it_moves(who: Role, seed: int) -> None:
    world = lan(seed)
    for link in (world.hosts[role].interfaces[f"192.168.1.1{n}"][1] for n, role in enumerate(Role)):
        link.rate = 100e3
    parties = world.both()
    assert world.network.run(lambda: parties[1].file.written > 20_000, seconds=10)
    mine, theirs = parties if who is Role.SENDER else reversed(parties)
    mine.end(Cancelled("Stopped."))
    world.finish(mine, theirs, seconds=3)
    assert theirs.closed is not None
    assert isinstance(theirs.closed.error, Refused)


# adversaries at the mailbox


@pytest.mark.parametrize("attack", ["replay", "swap", "flood", "reflect"])
def test_hostile_broker_client(attack: str, seed: int) -> None:
    """It sees all and says what it likes while the two meet; it cannot hinder them, and learns no address."""
    world = two_nats(seed)
    heard: list[bytes] = []
    random = Random(seed)

    def deliver(message: bytes) -> None:
        def arrive() -> None:
            for party in world.bus.parties:
                party.message_received(message)

        world.network.after(0.01, arrive)

    def swap(message: bytes) -> None:
        other = fields(random.choice(heard))
        for name in fields(message):
            deliver(forge(message, **{name: other.get(name, "")}))
            deliver(forge(message, id=random.randbytes(8).hex(), **({} if name == "id" else {name: None})))

    def watch(message: bytes) -> None:
        heard.append(message)
        if len(heard) > 2000:
            return
        match attack:
            case "replay":
                for old in heard[-20:]:
                    deliver(old)
            case "swap":
                swap(message)
            case "flood":
                for _ in range(30):
                    deliver(random.randbytes(random.randrange(300)))
                    deliver(message[: random.randrange(len(message))])
            case _:
                deliver(message)

    world.bus.watchers.append(watch)
    world.assert_crossed(*world.both(), PathKind.INTERNET, seconds=60)
    said = b"".join(heard)
    for secret in (b"192.168.1.10", b"203.0.113.1", b"198.51.100.1", b"marble", b"otter"):
        assert secret not in said
