"""The rendezvous beside other people: other codes, other pairs with the same nameplate, other versions."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from tests.mailroom import (
    CODE,
    WRONG,
    Mailroom,
    assert_agreed,
    both_agreed,
    fields,
    forge,
    kinds,
    pair,
)
from udpsend.config import Role
from udpsend.errors import PeerError, WrongCode
from udpsend.rendezvous import handshake
from udpsend.rendezvous.patience import GRACE


def test_a_wrong_code_is_told_to_both() -> None:
    room = Mailroom(1)
    sender = room.join(Role.SENDER, CODE)
    receiver = room.join(Role.RECEIVER, WRONG)
    assert room.run(lambda: receiver.error, limit=30)
    assert isinstance(receiver.error, WrongCode)
    assert sender.guesses == [2]
    assert sender.error is None
    room.parties.remove(receiver)
    right = room.join(Role.RECEIVER, CODE)
    assert room.run(lambda: both_agreed(sender, right), limit=1)
    assert_agreed(sender, right)


def test_a_receiver_with_another_code_gives_up_after_its_grace() -> None:
    room = Mailroom(1)
    room.join(Role.SENDER, CODE)
    receiver = room.join(Role.RECEIVER, WRONG)
    room.run(lambda: receiver.error, limit=30)
    assert room.now - 1000 == pytest.approx(GRACE + 5 * room.delay)


def test_a_receiver_goes_on_after_a_failure_while_another_sender_speaks() -> None:
    """One that says hello and nothing else yet, as behind a broker that is slow; another has gone long ago."""
    room = Mailroom(1)
    receiver = room.join(Role.RECEIVER, CODE)
    gone = Mailroom(2).join(Role.SENDER, CODE)
    receiver.machine.message_received(gone.machine.messages_to_send(room.now)[0], room.now)
    room.run(limit=20)
    sender = room.join(Role.SENDER, CODE)
    sender.deaf = True
    room.join(Role.SENDER, WRONG)
    room.run(limit=20)
    assert "sealed" in kinds(receiver)
    assert receiver.error is None
    sender.deaf = False
    assert room.run(lambda: both_agreed(sender, receiver), limit=6)


def test_four_wrong_guesses() -> None:
    room = Mailroom(1)
    sender = room.join(Role.SENDER, CODE)
    for word in ("acid", "acorn", "acre"):
        guesser = room.join(Role.RECEIVER, f"4821-marble-{word}")
        assert room.run(lambda guesser=guesser: guesser.error, limit=30)  # type: ignore[misc]
        room.parties.remove(guesser)
    assert sender.guesses == [2, 1, 0]
    assert isinstance(sender.error, WrongCode)
    assert "new code" in str(sender.error)
    said = len(sender.published)
    fourth = room.join(Role.RECEIVER, CODE)
    room.run(limit=60)
    assert fourth.agreed is None
    assert len(sender.published) == said
    assert sender.machine.next_timer() is None


def test_three_guesses_at_once_are_three() -> None:
    room = Mailroom(1)
    sender = room.join(Role.SENDER, CODE)
    for word in ("acid", "acorn", "acre", "acts", "afar"):
        room.join(Role.RECEIVER, f"4821-marble-{word}")
    room.run(limit=60)
    assert sender.guesses == [2, 1, 0]
    assert isinstance(sender.error, WrongCode)


def test_a_repeated_confirmation_is_one_guess(seed: int) -> None:
    room = Mailroom(seed, duplication=0.9, jitter=0.2)
    sender = room.join(Role.SENDER, CODE)
    receiver = room.join(Role.RECEIVER, WRONG)
    room.watchers.append(lambda m: room.publish(forge(m, id="00" * 8)) if fields(m)["id"] != "00" * 8 else None)
    room.run(limit=60)
    assert sender.guesses == [2]
    assert isinstance(receiver.error, WrongCode)


def test_two_pairs_with_one_nameplate_at_once(seed: int) -> None:
    random = Random(seed)
    for _ in range(10):
        room = Mailroom(random.getrandbits(32), jitter=0.2)
        roles = [(Role.SENDER, CODE), (Role.RECEIVER, CODE), (Role.SENDER, WRONG), (Role.RECEIVER, WRONG)]
        random.shuffle(roles)
        parties = {role: room.join(*role) for role in roles}
        assert room.run(lambda parties=parties: both_agreed(*parties.values()), limit=10)  # type: ignore[misc]
        for code in (CODE, WRONG):
            assert_agreed(parties[Role.SENDER, code], parties[Role.RECEIVER, code])


@pytest.mark.parametrize("later", [0.12, 1.0, 100.0])
def test_one_pair_before_the_other(later: float) -> None:
    room = Mailroom(1)
    one = pair(room)
    room.run(limit=later)
    other = room.join(Role.SENDER, WRONG), room.join(Role.RECEIVER, WRONG)
    assert room.run(lambda: both_agreed(*one, *other), limit=10)
    assert_agreed(*one)
    assert_agreed(*other)


def test_a_pair_meets_where_a_sender_with_the_same_nameplate_waits() -> None:
    room = Mailroom(1)
    waiting = room.join(Role.SENDER, WRONG)
    room.run(limit=100)
    one = pair(room)
    assert room.run(lambda: both_agreed(*one), limit=2)
    assert_agreed(*one)
    assert waiting.guesses == [2]
    later = room.join(Role.RECEIVER, WRONG)
    assert room.run(lambda: both_agreed(waiting, later), limit=1)


def test_a_second_receiver_is_left_alone() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    late = room.join(Role.RECEIVER, CODE)
    room.run(limit=60)
    agreed = [party for party in (receiver, late) if party.agreed]
    assert len(agreed) == 1
    assert_agreed(sender, agreed[0])


def test_two_of_the_same_role_do_nothing_to_one_another() -> None:
    room = Mailroom(1)
    parties = [room.join(Role.SENDER, CODE) for _ in range(3)]
    room.run(limit=60)
    assert not any(party.over for party in parties)


def test_another_rendezvous_version_is_told_after_a_while() -> None:
    room = Mailroom(1)
    sender = room.join(Role.SENDER, CODE)
    hello = sender.machine.messages_to_send(room.now)[0]
    for n in range(5):
        newer = forge(hello, udpsend=2, role="receiver", id=f"{n:016x}", **{"from": "ab" * 16})
        room.at(room.now + 2 * n, lambda newer=newer: room.publish(newer))  # type: ignore[misc]
    assert room.run(lambda: sender.error, limit=10)
    assert isinstance(sender.error, PeerError)
    assert "another version" in str(sender.error)
    assert "rendezvous 2 instead of 1" in str(sender.error)
    assert kinds(sender).count("hello") > 1  # the other side can say so, too


def test_a_stray_hello_of_another_version_changes_nothing() -> None:
    room = Mailroom(1)
    sender = room.join(Role.SENDER, CODE)
    hello = sender.machine.messages_to_send(room.now)[0]
    sender.machine.message_received(forge(hello, udpsend=2, role="receiver", **{"from": "ab" * 16}), room.now)
    room.run(limit=60)
    assert sender.error is None
    receiver = room.join(Role.RECEIVER, CODE)
    assert room.run(lambda: both_agreed(sender, receiver), limit=2)


def test_another_version_beside_the_right_peer_changes_nothing() -> None:
    room = Mailroom(1, loss=0.5)
    sender, receiver = pair(room)
    hello = sender.machine.messages_to_send(room.now)[0]
    for n in range(50):
        newer = forge(hello, udpsend=2, role="receiver", id=f"{n:016x}", **{"from": "ab" * 16})
        room.at(room.now + 1 + n, lambda newer=newer: room.publish(newer))  # type: ignore[misc]
    assert room.run(lambda: both_agreed(sender, receiver), limit=100)


@pytest.mark.parametrize("newer", list(Role))
def test_no_common_version_under_seal_is_told_to_both(newer: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Mailroom(1)
    parties = {role: room.join(role, CODE) for role in Role}
    seal = handshake.Handshake.seal

    def seal_newer(self: handshake.Handshake, hello: dict[str, Any]) -> bytes:
        versions = (2, 3) if self.role is newer else (1,)
        monkeypatch.setattr(handshake, "SUPPORTED_VERSIONS", versions)
        try:
            return seal(self, hello)
        finally:
            monkeypatch.setattr(handshake, "SUPPORTED_VERSIONS", (1,))

    def has_common_version(self: handshake.PeerHello) -> bool:
        return False  # of either side: {1} and {2, 3}

    monkeypatch.setattr(handshake.Handshake, "seal", seal_newer)
    monkeypatch.setattr(handshake.PeerHello, "has_common_version", has_common_version)
    assert room.run(lambda: all(party.error for party in parties.values()), limit=1)
    for party in parties.values():
        assert isinstance(party.error, PeerError)
        assert "another version" in str(party.error)
        assert party.agreed is None
    assert "[2, 3] instead of [1]" in str(parties[newer.other].error)


@pytest.mark.parametrize("payload", [{}, {"versions": [1]}, {"versions": [1], "key": "", "hello": {}}, {"key": 1}])
def test_a_peer_that_knows_the_code_and_speaks_garbage(
    payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Mailroom(1)
    sender = room.join(Role.SENDER, CODE)
    room.join(Role.RECEIVER, CODE)
    monkeypatch.setattr(handshake, "pack_payload", lambda _: json.dumps(payload).encode())
    assert room.run(lambda: sender.error, limit=1)
    assert isinstance(sender.error, PeerError)
    assert "broke the protocol" in str(sender.error)
