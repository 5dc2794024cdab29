"""The rendezvous among people who read everything and write anything: the pair agrees nevertheless."""

from __future__ import annotations

import base64
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
from udpsend.errors import WrongCode
from udpsend.rendezvous.machine import REMEMBERED_MESSAGES
from udpsend.rendezvous.meeting import MAX_CONFIRMATIONS
from udpsend.rendezvous.messages import MAX_MESSAGE_SIZE
from udpsend.rendezvous.run import DISPLACED_AFTER, MAX_RUNS, REPLACED_AFTER, WORK_BURST, WORK_PER_SECOND


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


def hello_of(n: int, again: int = 0) -> bytes:
    """Of a sender that only says hello."""
    hello = {"udpsend": 1, "kind": "hello", "id": f"{n:08x}{again:08x}", "role": "sender", "from": f"{n:032x}"}
    return json.dumps(hello).encode()


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
        room.at(room.now + n * 0.01, lambda n=n: room.publish(hello_of(n)))  # type: ignore[misc]
    room.run(limit=3)
    sender = room.join(Role.SENDER, CODE)
    assert room.run(lambda: both_agreed(sender, receiver), limit=10)


def test_a_newcomer_displaces_only_who_was_silent_the_longest() -> None:
    room = Mailroom(1)
    receiver = room.join(Role.RECEIVER, CODE)
    for n in range(MAX_RUNS):
        room.run(limit=0.1)
        receiver.machine.message_received(hello_of(n), room.now)
    receiver.machine.message_received(hello_of(MAX_RUNS), room.now)
    assert receiver.machine.drops["too many runs"] == 1
    receiver.machine.message_received(hello_of(0, again=1), room.now)
    room.run(limit=DISPLACED_AFTER)
    receiver.machine.message_received(hello_of(MAX_RUNS + 1), room.now)
    before = len(receiver.published)
    room.run(limit=10)
    spoken_to = {int(fields(message)["to"], 16) for message in receiver.published[before:] if b"pake" in message}
    assert spoken_to == {*range(MAX_RUNS), MAX_RUNS + 1} - {1}


def test_who_has_a_confirmation_is_never_displaced() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    assert room.run(lambda: "sealed" in kinds(receiver), limit=1)
    room.parties.remove(sender)
    for n in range(200):
        room.at(room.now + n * 0.1, lambda n=n: room.publish(hello_of(n)))  # type: ignore[misc]
    room.run(limit=20)
    assert len(receiver.machine._meeting) == MAX_RUNS
    room.parties.append(sender)
    assert room.run(lambda: both_agreed(sender, receiver), limit=6)


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
    late = room.join(Role.SENDER, "4821-marble-late")
    room.run(limit=1)
    assert fields(late.published[0])["from"] not in [fields(message).get("to") for message in receiver.published]
    for sender in [*senders, late]:
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


@pytest.mark.parametrize(("victim", "before", "guesses"), [("sender", "pake", [2]), ("receiver", "sealed", [])])
def test_garbage_under_a_peers_name_is_no_agreement(victim: str, before: str, guesses: list[int]) -> None:
    """To a sender a forged confirmation is like a wrong one, one guess for all of them; the true one still opens. To
    a receiver it says nothing."""
    room = Mailroom(1)
    sender, receiver = pair(room)

    def garble(message: bytes) -> None:
        true = fields(message)
        if true["kind"] == before and true["role"] == victim:
            other = "receiver" if victim == "sender" else "sender"
            for n in range(100):
                body = base64.b64encode(room.random.randbytes(272)).decode()
                ends = {"from": true["to"], "to": true["from"]}
                room.publish(forge(message, kind="sealed", number=0, id=f"{n:016x}", role=other, body=body, **ends))

    room.watchers.append(garble)
    assert room.run(lambda: both_agreed(sender, receiver), limit=5)
    assert_agreed(sender, receiver)
    assert sender.guesses + receiver.guesses == guesses
    assert "fail" not in kinds(receiver)


def test_another_pake_message_replaces_none_that_is_repeated() -> None:
    """The receiver hears nothing and says its own again and again: it is there, and keeps its run."""
    room = Mailroom(1)
    sender, receiver = pair(room)
    assert room.run(lambda: "pake" in kinds(receiver), limit=1)
    receiver.deaf = True
    room.run(limit=REPLACED_AFTER + 5)
    elsewhere = Mailroom(2)
    _, stranger = elsewhere.join(Role.SENDER, WRONG), elsewhere.join(Role.RECEIVER, WRONG)
    assert elsewhere.run(lambda: "pake" in kinds(stranger), limit=1)
    ends = {name: fields(receiver.published[-1])[name] for name in ("from", "to")}
    room.publish(forge(stranger.published[-1], **ends))
    room.run(limit=1)
    receiver.deaf = False
    assert room.run(lambda: both_agreed(sender, receiver), limit=6)
    assert_agreed(sender, receiver)
    assert sender.machine.drops["another PAKE message"] == 1


def test_fail_before_there_was_anything_to_open_is_nothing() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    assert room.run(lambda: "pake" in kinds(receiver), limit=1)
    sender.deaf = True
    pake = fields(receiver.published[-1])
    ends = {"from": pake["to"], "to": pake["from"]}
    room.publish(forge(receiver.published[-1], kind="fail", role="sender", id="00" * 8, **ends))
    room.run(limit=20)
    sender.deaf = False
    assert room.run(lambda: both_agreed(sender, receiver), limit=6)


@pytest.mark.parametrize("victim", list(Role))
def test_a_flood_of_pake_messages_costs_little(victim: Role) -> None:
    """To a receiver in the name of somebody with whom it has begun a run, to a sender in the names of strangers."""
    room = Mailroom(1)
    sender = room.join(Role.SENDER, CODE)
    party = sender if victim is Role.SENDER else room.join(Role.RECEIVER, CODE)
    room.run(lambda: "pake" in kinds(party), limit=0.1)
    sender.deaf = victim is Role.RECEIVER
    known = fields(party.published[-1]).get("to")
    words = {
        "kind": "pake",
        "role": victim.other.value,
        "to": fields(party.published[-1])["from"],
        "body": base64.b64encode(bytes([ord("A"), *[255] * 32])).decode(),
        "commitment": base64.b64encode(bytes(32)).decode(),
    }
    for n in range(200):
        forged = forge(party.published[-1], id=f"{n:016x}", **words, **{"from": known or f"{n:032x}"})
        room.at(room.now + n * 0.005, lambda forged=forged: room.publish(forged))  # type: ignore[misc]
    room.run(limit=2)
    drops = party.machine.drops
    assert 0 < drops["bad SPAKE2 message"] <= WORK_BURST + WORK_PER_SECOND
    assert drops["bad SPAKE2 message"] + drops["too much work"] == 200
    sender.deaf = False
    receiver = party if victim is Role.RECEIVER else room.join(Role.RECEIVER, CODE)
    assert room.run(lambda: both_agreed(sender, receiver), limit=6)


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
