"""The rendezvous in virtual time: over bad mailboxes, beside other pairs, and among people who mean harm."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.mailroom import Mailroom, Party, fields, forge, read_code
from udpsend.config import Role
from udpsend.errors import PeerError, WrongCode
from udpsend.rendezvous import handshake
from udpsend.rendezvous.machine import REMEMBERED_MESSAGES, Rendezvous
from udpsend.rendezvous.meeting import MAX_CONFIRMATIONS
from udpsend.rendezvous.messages import MAX_MESSAGE_SIZE, MAX_PAYLOAD_SIZE
from udpsend.rendezvous.patience import GRACE
from udpsend.rendezvous.run import MAX_RUNS

CODE = "4821-marble-otter"
WRONG = "4821-marble-acorn"
VECTORS = Path(__file__).parent / "vectors" / "rendezvous_messages.json"


def pair(room: Mailroom, sender_hello: dict[str, Any] | None = None) -> tuple[Party, Party]:
    return room.join(Role.SENDER, CODE, sender_hello), room.join(Role.RECEIVER, CODE)


def both_agreed(*parties: Party) -> bool:
    return all(party.agreed for party in parties)


def assert_agreed(one: Party, other: Party) -> None:
    assert one.agreed is not None
    assert other.agreed is not None
    assert one.error is None
    assert other.error is None
    assert one.agreed.secret == other.agreed.secret
    assert one.agreed.phrase == other.agreed.phrase


def kinds(party: Party) -> list[str]:
    return [fields(message)["kind"] for message in party.published]


# Friends


def test_two_people_with_a_word_get_one_secret() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room, {"candidates": [["host", "192.0.2.1", 9]], "host": "s"})
    assert room.run(lambda: both_agreed(sender, receiver), limit=1)
    assert_agreed(sender, receiver)
    assert sender.agreed is not None
    assert receiver.agreed is not None
    assert sender.agreed.hello == {"host": "receiver"}
    assert receiver.agreed.hello == {"candidates": [["host", "192.0.2.1", 9]], "host": "s"}
    assert room.now - 1000 == pytest.approx(5 * room.delay)  # hello, pake, pake, sealed, sealed
    assert kinds(sender) == ["hello", "pake", "sealed"]
    assert kinds(receiver) == ["hello", "pake", "sealed"]


@pytest.mark.parametrize("first", list(Role))
@pytest.mark.parametrize("later", [0.3, 2.0, 300.0])
def test_either_may_come_first(first: Role, later: float) -> None:
    room = Mailroom(1)
    one = room.join(first, CODE)
    room.run(limit=later)
    other = room.join(first.other, CODE)
    assert room.run(lambda: both_agreed(one, other), limit=1)
    assert_agreed(one, other)


def test_after_agreement_they_are_silent() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    room.run(limit=300)
    assert_agreed(sender, receiver)
    assert len(sender.published) == len(receiver.published) == 3
    assert sender.machine.next_timer() is receiver.machine.next_timer() is None


@pytest.mark.parametrize("loss", [0.2, 0.5, 0.7])
def test_lost_messages_are_said_again(seed: int, loss: float) -> None:
    random = Random(seed)
    for _ in range(10):
        room = Mailroom(random.getrandbits(32), loss=loss, jitter=0.5, duplication=0.2)
        sender, receiver = pair(room)
        assert room.run(lambda pair=(sender, receiver): both_agreed(*pair), limit=3600)  # type: ignore[misc]
        assert_agreed(sender, receiver)


def test_doubled_and_reordered_messages_change_nothing(seed: int) -> None:
    random = Random(seed)
    for _ in range(10):
        room = Mailroom(random.getrandbits(32), jitter=3.0, duplication=0.9)
        sender, receiver = pair(room)
        assert room.run(lambda pair=(sender, receiver): both_agreed(*pair), limit=300)  # type: ignore[misc]
        room.run(limit=60)
        assert_agreed(sender, receiver)
        assert sender.guesses == []


def test_everything_said_is_heard_twice_through_two_mailboxes_without_more_being_said() -> None:
    room = Mailroom(1, duplication=1.0)
    sender, receiver = pair(room)
    room.run(limit=60)
    assert_agreed(sender, receiver)
    assert len(sender.published) == len(receiver.published) == 3
    assert sender.machine.drops["copy"] >= 3


def test_a_mailbox_that_was_away_costs_nothing_once_it_is_back() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    room.down = True
    room.run(limit=61.7)
    room.down = False
    sender.machine.mailbox_up(room.now)
    receiver.machine.mailbox_up(room.now)
    assert room.run(lambda: both_agreed(sender, receiver), limit=0.5)


def test_a_mailbox_that_comes_back_during_the_handshake(seed: int) -> None:
    for away_at in (0.01, 0.06, 0.11, 0.16, 0.21):
        room = Mailroom(seed)
        sender, receiver = pair(room)
        room.run(limit=away_at)
        room.down = True
        room.run(limit=40)
        room.down = False
        sender.machine.mailbox_up(room.now)
        receiver.machine.mailbox_up(room.now)
        assert room.run(lambda pair=(sender, receiver): both_agreed(*pair), limit=0.5)  # type: ignore[misc]
        assert_agreed(sender, receiver)


def test_a_side_that_starts_again_is_met_again() -> None:
    room = Mailroom(1)
    old, receiver = pair(room)
    room.run(limit=0.08)  # the receiver has a run with it
    old.deaf = True
    room.parties.remove(old)
    room.run(limit=20)
    sender = room.join(Role.SENDER, CODE)
    assert room.run(lambda: both_agreed(sender, receiver), limit=1)
    assert_agreed(sender, receiver)


def test_the_hello_can_be_replaced_until_it_is_sealed() -> None:
    room = Mailroom(1)
    sender = room.join(Role.SENDER, CODE)
    room.run(limit=10)
    sender.machine.set_hello({"candidates": ["late"]})
    receiver = room.join(Role.RECEIVER, CODE)
    room.run(lambda: both_agreed(sender, receiver))
    assert receiver.agreed is not None
    assert receiver.agreed.hello == {"candidates": ["late"]}


def test_a_hello_too_large_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="4096"):
        Rendezvous(Role.SENDER, read_code(CODE), 0.0, Random(1).randbytes, {"x": "y" * MAX_PAYLOAD_SIZE})


def test_the_largest_hello_fits_into_a_message() -> None:
    room = Mailroom(1)
    overhead = len('{"x":""}')
    sender, receiver = pair(room, {"x": "y" * (MAX_PAYLOAD_SIZE - overhead)})
    assert room.run(lambda: both_agreed(sender, receiver), limit=1)
    assert max(map(len, sender.published)) < MAX_MESSAGE_SIZE


# After agreement


@pytest.mark.parametrize("loss", [0.0, 0.5])
def test_sealed_messages_come_once_each(seed: int, loss: float) -> None:
    room = Mailroom(seed, loss=loss, jitter=0.3, duplication=0.3)
    sender, receiver = pair(room)
    assert room.run(lambda: both_agreed(sender, receiver), limit=600)
    for number in range(40):
        sender.machine.send_sealed({"n": number})
        receiver.machine.send_sealed({"m": number})
    room.run(limit=600)
    assert sorted(payload["n"] for payload in receiver.sealed) == list(range(40))
    assert sorted(payload["m"] for payload in sender.sealed) == list(range(40))
    assert sender.machine.next_timer() is receiver.machine.next_timer() is None


def test_a_sealed_message_is_said_once_where_nothing_is_lost() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    room.run(limit=10)
    before = len(sender.published), len(receiver.published)
    sender.machine.send_sealed({"bye": True})
    assert room.run(lambda: receiver.sealed, limit=0.1)
    room.run(limit=60)
    assert (len(sender.published), len(receiver.published)) == (before[0] + 1, before[1] + 1)
    assert kinds(receiver)[-1] == "ack"


def test_a_sealed_message_waits_for_a_mailbox() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    room.run(limit=10)
    room.down = True
    sender.machine.send_sealed({"n": 1})
    room.run(limit=58.3)
    room.down = False
    sender.machine.mailbox_up(room.now)
    assert room.run(lambda: receiver.sealed, limit=0.2)


def test_nobody_answers_forever() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    room.run(limit=10)
    receiver.deaf = True
    sender.machine.send_sealed({"n": 1})
    room.run(limit=1000)
    assert sender.machine.next_timer() is None


def test_there_is_nothing_to_seal_with_before_agreement() -> None:
    sender = Mailroom(1).join(Role.SENDER, CODE)
    with pytest.raises(RuntimeError):
        sender.machine.send_sealed({})


def test_sealed_messages_cannot_be_replayed_moved_or_reflected() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    room.run(limit=10)
    sender.machine.send_sealed({"n": 1})
    sender.machine.send_sealed({"n": 2})
    room.run(limit=10)
    one, two = sender.published[-2:]
    sender_id, receiver_id = fields(one)["from"], fields(one)["to"]
    forged = [
        one,
        forge(one, id="00" * 8),
        forge(one, id="01" * 8, number=2),
        forge(two, id="02" * 8, number=3),
        forge(one, id="03" * 8, number=0),
        forge(one, id="04" * 8, kind="ack", body=fields(one)["body"][:20] + "AA=="),
    ]
    reflected = forge(one, id="05" * 8, role="receiver", **{"from": receiver_id, "to": sender_id})
    for message in forged:
        receiver.machine.message_received(message, room.now)
    sender.machine.message_received(reflected, room.now)
    room.run(limit=60)
    assert [payload["n"] for payload in receiver.sealed] == [1, 2]
    assert sender.sealed == []
    assert receiver.machine.drops["does not open"] == 3
    assert sender.machine.drops["does not open"] == 1


def test_a_forged_acknowledgement_stops_no_repetition() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    room.run(limit=10)
    receiver.deaf = True
    sender.machine.send_sealed({"n": 1})
    room.run(limit=0.5)
    message = sender.published[-1]
    ack = {"kind": "ack", "role": "receiver", "from": fields(message)["to"], "to": fields(message)["from"]}
    sender.machine.message_received(forge(message, body=base64.b64encode(bytes(16)).decode(), **ack), room.now)
    receiver.deaf = False
    assert room.run(lambda: receiver.sealed, limit=10)


# Other codes, other pairs


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


# Other versions


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


# People who mean harm: they read everything and write anything, and the pair agrees nevertheless


def test_replays_change_nothing(seed: int) -> None:
    """Everything that was ever said is said again, as it was and under new ids."""
    for duplicate in (False, True):
        room = Mailroom(seed, jitter=0.05)
        sender, receiver = pair(room)
        said: list[bytes] = []

        def replay(message: bytes, room: Mailroom = room, said: list[bytes] = said, dup: bool = duplicate) -> None:
            if fields(message).get("forged"):
                return
            said.append(message)
            for old in said[-20:]:
                again = forge(old, forged=1, id=room.random.randbytes(8).hex() if dup else fields(old)["id"])
                room.publish(again)

        room.watchers.append(replay)
        assert room.run(lambda pair=(sender, receiver): both_agreed(*pair), limit=30)  # type: ignore[misc]
        assert_agreed(sender, receiver)
        assert sender.guesses == []


def test_a_replayed_handshake_meets_nobody() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    room.run(limit=10)
    recording = sender.published + receiver.published
    for role in Role:
        later = Mailroom(2)
        victim = later.join(role, CODE)
        for n, message in enumerate(recording):
            later.at(later.now + 0.1 * n, lambda message=message, room=later: room.publish(message))  # type: ignore[misc]
        later.run(limit=30)
        assert not victim.over
        right = later.join(role.other, CODE)
        assert later.run(lambda pair=(victim, right): both_agreed(*pair), limit=6)  # type: ignore[misc]


def test_swapped_parts_of_messages_change_nothing(seed: int) -> None:
    """Each message again with the body, sender or receiver of another, always after the true one."""
    room = Mailroom(seed)
    sender, receiver = pair(room)
    said: list[dict[str, Any]] = []

    def swap(message: bytes) -> None:
        true = fields(message)
        if true.get("forged"):
            return
        said.append(true)
        for other in said[-10:]:
            for name in ("body", "from", "to", "number", "role", "commitment", "kind"):
                if name in true and name in other and true[name] != other[name]:
                    forged = forge(message, forged=1, id=room.random.randbytes(8).hex(), **{name: other[name]})
                    room.at(room.now + 0.001, lambda forged=forged: room.publish(forged))  # type: ignore[misc]

    room.watchers.append(swap)
    assert room.run(lambda: both_agreed(sender, receiver), limit=60)
    assert_agreed(sender, receiver)


def test_a_flood_of_everything_is_survived(seed: int) -> None:
    room = Mailroom(seed)
    sender, receiver = pair(room)
    random = Random(seed)

    def junk(n: int) -> bytes:
        instance = random.randbytes(16).hex()
        party = random.choice([sender, receiver])
        to = fields(party.published[0])["from"] if party.published else "00" * 16
        role = random.choice(["sender", "receiver"])
        base = {"udpsend": 1, "id": f"{n:016x}", "role": role, "from": instance, "to": to}
        body = base64.b64encode(random.randbytes(33)).decode()
        commitment = base64.b64encode(random.randbytes(32)).decode()
        kind = random.choice(["hello", "pake", "sealed", "fail", "ack", "junk"])
        return json.dumps({**base, "kind": kind, "body": body, "commitment": commitment, "number": 0}).encode()

    for n in range(2000):
        room.at(room.now + n * 0.001, lambda n=n: room.publish(junk(n)))  # type: ignore[misc]
    assert room.run(lambda: both_agreed(sender, receiver), limit=60)
    assert_agreed(sender, receiver)
    room.run(limit=60)
    for party in (sender, receiver):
        assert len(party.published) < 200
        assert len(party.machine._meeting) <= MAX_RUNS
        assert len(party.machine._seen) <= REMEMBERED_MESSAGES


def test_a_flood_of_hellos_provokes_few(seed: int) -> None:
    room = Mailroom(seed)
    sender = room.join(Role.SENDER, CODE)
    for n in range(5000):
        hello = {"udpsend": 1, "kind": "hello", "id": f"{n:016x}", "role": "receiver", "from": f"{n:032x}"}
        room.at(room.now + n * 0.002, lambda hello=hello: room.publish(json.dumps(hello).encode()))  # type: ignore[misc]
    room.run(limit=10)
    assert len(sender.published) <= 10 / 0.25 + 2


def test_senders_that_do_not_answer_give_way_to_one_that_does() -> None:
    """Instances that only say hello take all runs of a receiver; they are displaced."""
    room = Mailroom(1)
    receiver = room.join(Role.RECEIVER, CODE)
    for n in range(200):
        hello = {"udpsend": 1, "kind": "hello", "id": f"{n:016x}", "role": "sender", "from": f"{n:032x}"}
        room.at(room.now + n * 0.01, lambda hello=hello: room.publish(json.dumps(hello).encode()))  # type: ignore[misc]
    room.run(limit=3)
    sender = room.join(Role.SENDER, CODE)
    assert room.run(lambda: both_agreed(sender, receiver), limit=10)


def test_a_receiver_confirms_to_few_senders() -> None:
    """Each confirmation lets the sender it is for test one guess."""
    room = Mailroom(1)
    receiver = room.join(Role.RECEIVER, CODE)
    senders = [room.join(Role.SENDER, f"4821-marble-{n}") for n in range(12)]
    for sender in senders:  # they never say that it failed
        sender.machine._meeting._confirmation_failed = lambda *_: None  # type: ignore[method-assign]
    room.run(lambda: receiver.error, limit=200)
    sealed = [fields(message)["to"] for message in receiver.published if fields(message)["kind"] == "sealed"]
    assert len(set(sealed)) == MAX_CONFIRMATIONS
    for sender in senders:
        room.parties.remove(sender)
    assert room.run(lambda: receiver.error, limit=30)
    assert isinstance(receiver.error, WrongCode)
    assert "6 senders" in str(receiver.error)


def test_fail_from_anybody_changes_nothing() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    ids = {"id": "00" * 8}

    def fail(message: bytes) -> None:
        true = fields(message)
        if true["kind"] in ("pake", "sealed"):
            for origin, to, role in ((true["to"], true["from"], 0), (true["from"], true["to"], 1)):
                roles = ["sender", "receiver"] if true["role"] == "receiver" else ["receiver", "sender"]
                ids["id"] = room.random.randbytes(8).hex()
                room.publish(forge(message, kind="fail", role=roles[role], **ids, **{"from": origin, "to": to}))

    room.watchers.append(fail)
    assert room.run(lambda: both_agreed(sender, receiver), limit=5)
    assert_agreed(sender, receiver)


def test_garbage_under_a_peers_name_costs_one_guess_and_no_agreement() -> None:
    """A forged confirmation cannot be told from a wrong one; the true one still opens."""
    room = Mailroom(1)
    sender, receiver = pair(room)

    def garble(message: bytes) -> None:
        true = fields(message)
        if true["kind"] == "pake" and true["role"] == "sender":
            for n in range(100):
                body = base64.b64encode(room.random.randbytes(272)).decode()
                ends = {"from": true["to"], "to": true["from"]}
                room.publish(
                    forge(message, kind="sealed", number=0, id=f"{n:016x}", role="receiver", body=body, **ends)
                )

    room.watchers.append(garble)
    assert room.run(lambda: both_agreed(sender, receiver), limit=5)
    assert_agreed(sender, receiver)
    assert sender.guesses == [2]


def test_reflections_change_nothing() -> None:
    """Everything comes back to who said it, as if the other role had said it: under its own instance, the other's, and
    a third one."""
    room = Mailroom(1)
    sender, receiver = pair(room)

    def reflect(message: bytes) -> None:
        true = fields(message)
        if true.get("forged"):
            return
        role = "sender" if true["role"] == "receiver" else "receiver"
        side = b"A" if role == "sender" else b"B"
        changes: dict[str, Any] = {"forged": 1, "role": role, "to": true["from"]}
        if true["kind"] == "pake":
            changes["body"] = base64.b64encode(side + base64.b64decode(true["body"])[1:]).decode()
            changes["commitment"] = base64.b64encode(bytes(32)).decode()
        for origin in (true["from"], true.get("to", "ef" * 16), "cd" * 16):
            room.publish(forge(message, id=room.random.randbytes(8).hex(), **{**changes, "from": origin}))

    room.watchers.append(reflect)
    assert room.run(lambda: both_agreed(sender, receiver), limit=10)
    assert_agreed(sender, receiver)
    assert sender.machine.drops["own"] > 0


def test_a_side_that_meets_only_its_reflection_meets_nobody() -> None:
    for role in Role:
        room = Mailroom(1)
        party = room.join(role, CODE)

        def mirror(message: bytes, room: Mailroom = room, role: Role = role) -> None:
            true = fields(message)
            if not true.get("forged"):
                side = b"A" if role is Role.RECEIVER else b"B"
                changes: dict[str, Any] = {"forged": 1, "role": role.other.value, "to": true["from"]}
                if true["kind"] == "pake":
                    changes["body"] = base64.b64encode(side + base64.b64decode(true["body"])[1:]).decode()
                    changes["commitment"] = base64.b64encode(bytes(32)).decode()
                room.publish(forge(message, **{**changes, "from": "cd" * 16}))

        room.watchers.append(mirror)
        room.run(limit=60)
        assert not party.over
        assert role is Role.SENDER or party.machine.drops["reflected SPAKE2 message"] > 0


@pytest.mark.parametrize("size", [MAX_MESSAGE_SIZE + 1, 1 << 20])
def test_oversize_messages_are_not_looked_at(size: int) -> None:
    sender = Mailroom(1).join(Role.SENDER, CODE)
    hello = sender.machine.messages_to_send(1000.0)[0]
    sender.machine.message_received(forge(hello, role="receiver", more="x" * size), 1000.0)
    assert sender.machine.drops == {"oversize message": 1}


def test_whoever_stands_between_with_the_code_is_shown_by_the_phrase() -> None:
    """It can run both handshakes, and cannot make the phrases the same."""
    left, right = Mailroom(1), Mailroom(2)
    sender, false_receiver = left.join(Role.SENDER, CODE), left.join(Role.RECEIVER, CODE)
    false_sender, receiver = right.join(Role.SENDER, CODE), right.join(Role.RECEIVER, CODE)
    assert left.run(lambda: both_agreed(sender, false_receiver))
    assert right.run(lambda: both_agreed(false_sender, receiver))
    assert sender.agreed is not None
    assert receiver.agreed is not None
    assert sender.agreed.phrase != receiver.agreed.phrase


# Golden bytes


def golden_conversation() -> list[dict[str, str]]:
    """One of each message, with fixed random bytes and times."""
    room = Mailroom(4821)
    said: list[dict[str, str]] = []
    room.watchers.append(lambda message: said.append({"name": "", "bytes": message.decode()}))
    sender = room.join(Role.SENDER, CODE, {"host": "s", "candidates": []})
    wrong = room.join(Role.RECEIVER, WRONG)
    room.run(lambda: wrong.error)
    room.parties.remove(wrong)
    receiver = room.join(Role.RECEIVER, CODE, {"host": "r", "candidates": []})
    room.run(lambda: both_agreed(sender, receiver))
    sender.machine.send_sealed({"bye": "done"})
    room.run(limit=5)
    first: dict[str, dict[str, str]] = {}
    for message in said:
        content = fields(message["bytes"].encode())
        message["name"] = f"{content['kind']} {content['role']} {content.get('number', '')}".strip()
        first.setdefault(message["name"], message)
    assert sender.agreed is not None
    agreed = {"name": "agreed", "secret": sender.agreed.secret.hex(), "phrase": sender.agreed.phrase}
    return [*first.values(), agreed]


def test_every_message_is_golden() -> None:
    """After a change that is meant: python -m tests.test_rendezvous_machine"""
    conversation = golden_conversation()
    assert conversation == json.loads(VECTORS.read_text())
    assert [message["name"] for message in conversation] == [
        "hello sender",
        "hello receiver",
        "pake receiver",
        "pake sender",
        "sealed receiver 0",
        "fail sender",
        "sealed sender 0",
        "sealed sender 1",
        "ack receiver 1",
        "agreed",
    ]


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(golden_conversation(), indent=1) + "\n")
