"""The rendezvous of two friends in virtual time, over bad mailboxes; and golden bytes of each message."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from pathlib import Path
from random import Random

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
    read_code,
)
from udpsend.config import Role
from udpsend.rendezvous.machine import Rendezvous
from udpsend.rendezvous.messages import MAX_MESSAGE_SIZE, MAX_NUMBER, MAX_PAYLOAD_SIZE
from udpsend.rendezvous.run import DORMANT_AFTER

VECTORS = Path(__file__).parent / "vectors" / "rendezvous_messages.json"


def test_two_people_with_a_word_get_one_secret() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room, {"candidates": [["host", "192.0.2.1", 9]], "host": "s"})
    assert room.run(lambda: both_agreed(sender, receiver), limit=1)
    assert_agreed(sender, receiver)
    assert sender.agreed is not None
    assert receiver.agreed is not None
    assert sender.agreed.hello == {"host": "receiver"}
    assert "secret" not in repr(sender.agreed)
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


@pytest.mark.parametrize("later", [0.01, 0.1, 0.24])
def test_who_missed_the_first_hello_does_not_wait_for_the_next(later: float) -> None:
    """The receiver came up after the sender had said hello, as when both are started together."""
    room = Mailroom(1, delay=0.005)
    sender = room.join(Role.SENDER, CODE)
    room.run(limit=later)
    receiver = room.join(Role.RECEIVER, CODE)
    assert room.run(lambda: both_agreed(sender, receiver), limit=0.1)


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


def test_a_receiver_says_its_first_word_again_and_then_sleeps() -> None:
    """To a sender that said hello and is not heard again."""
    room = Mailroom(1)
    receiver = room.join(Role.RECEIVER, CODE)
    said: list[float] = []
    room.watchers.append(lambda message: said.append(room.now) if fields(message)["kind"] == "pake" else None)
    gone = Mailroom(2).join(Role.SENDER, CODE)
    receiver.machine.message_received(gone.machine.messages_to_send(room.now)[0], room.now)
    room.run(limit=300)
    assert said[1] - said[0] == pytest.approx(1)
    assert max(later - earlier for earlier, later in pairwise(said)) == pytest.approx(5)
    assert said[-1] - said[0] == pytest.approx(DORMANT_AFTER, abs=5)


def test_a_confirmation_is_said_again_until_it_is_answered() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    assert room.run(lambda: "pake" in kinds(sender), limit=1)
    room.parties.remove(sender)
    room.run(limit=DORMANT_AFTER)
    before = kinds(receiver).count("sealed")
    room.run(limit=DORMANT_AFTER)
    assert kinds(receiver).count("sealed") > before > 1


def test_the_hello_can_be_replaced_until_it_is_sealed() -> None:
    room = Mailroom(1)
    sender = room.join(Role.SENDER, CODE)
    room.run(limit=10)
    sender.machine.set_hello({"candidates": ["late"]})
    receiver = room.join(Role.RECEIVER, CODE)
    room.run(lambda: both_agreed(sender, receiver))
    assert receiver.agreed is not None
    assert receiver.agreed.hello == {"candidates": ["late"]}


def test_a_hello_that_is_replaced_after_it_was_sealed_is_told_after_agreement() -> None:
    room = Mailroom(1)
    sender, receiver = pair(room)
    room.run(lambda: "sealed" in kinds(receiver))
    receiver.machine.set_hello({"candidates": ["late"]})
    assert room.run(lambda: sender.sealed, limit=1)
    assert sender.agreed is not None
    assert sender.agreed.hello == {"host": "receiver"}
    assert sender.sealed == [{"candidates": ["late"]}]


def test_a_hello_too_large_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="4096"):
        Rendezvous(Role.SENDER, read_code(CODE), 0.0, Random(1).randbytes, {"x": "y" * MAX_PAYLOAD_SIZE})


def test_the_largest_hello_fits_into_a_message() -> None:
    room = Mailroom(1)
    overhead = len('{"x":""}')
    sender, receiver = pair(room, {"x": "y" * (MAX_PAYLOAD_SIZE - overhead)})
    assert room.run(lambda: both_agreed(sender, receiver), limit=1)
    assert max(map(len, sender.published)) < MAX_MESSAGE_SIZE


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


def test_numbers_run_out_for_all_but_the_last_word() -> None:
    """A peer may have us say much. That is no reason to fail, and the last word still has its number."""
    room = Mailroom(1)
    sender, receiver = pair(room)
    room.run(limit=10)
    for number in range(MAX_NUMBER + 10):
        sender.machine.send_sealed({"n": number})
        if number % 16 == 0:
            room.run(limit=2)
    sender.machine.send_sealed({"n": "bye"}, is_last=True)
    sender.machine.send_sealed({"n": "bye again"}, is_last=True)
    room.run(limit=60)
    assert [payload["n"] for payload in receiver.sealed] == [*range(MAX_NUMBER - 1), "bye"]
    assert sender.machine.drops["no number left"] == 12


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
