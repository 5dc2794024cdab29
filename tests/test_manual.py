"""The rendezvous by two texts: the exchange itself, what people do to texts, and whole transfers without any meeting
place."""

from __future__ import annotations

import base64
import itertools
import json
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

import udpsend
from tests.servers import LOOPBACK, PATIENCE
from udpsend import events
from udpsend.config import Config, Role
from udpsend.errors import BadPacket, PeerError, PeerNeverCame, UdpsendError, UsageError, WrongCode
from udpsend.events import WrongGuess
from udpsend.rendezvous.code import parse_code
from udpsend.rendezvous.handshake import PHRASE_WORDS_TOLD
from udpsend.rendezvous.manual import MAX_TEXT_SIZE, ManualRendezvous, read_text_untrusted, write_text
from udpsend.rendezvous.outcome import Agreed, Failed
from udpsend.wire.json import JSON

CODE = "4821-marble-otter"


def random_bytes(first: int) -> Callable[[int], bytes]:
    counter = itertools.count(first)
    return lambda size: next(counter).to_bytes(4).rjust(size, b"\x5a")


def hello(name: str, candidates: int = 2) -> dict[str, JSON]:
    return {"candidates": [["host", f"10.0.0.{n + 1}", 5000] for n in range(candidates)], "host": name, "nat": ["x"]}


def side(role: Role, code: str = CODE, candidates: int = 2) -> ManualRendezvous:
    seed = 1 if role is Role.SENDER else 1_000_000
    return ManualRendezvous(role, parse_code(code), 0.0, random_bytes(seed), hello(role.value, candidates))


def meet(sender: ManualRendezvous, receiver: ManualRendezvous) -> list[str]:
    texts = [sender.take_text()]
    receiver.text_received(texts[0])
    texts.append(receiver.take_text())
    sender.text_received(texts[1])
    return texts


def test_two_texts_make_one_secret() -> None:
    sender, receiver = side(Role.SENDER), side(Role.RECEIVER)
    assert (sender.text_number, sender.due, receiver.text_number, receiver.due) == (1, None, None, 1)
    texts = meet(sender, receiver)
    ours, theirs = sender.next_event(), receiver.next_event()
    assert isinstance(ours, Agreed)
    assert isinstance(theirs, Agreed)
    assert ours.secret == theirs.secret
    assert ours.phrase == theirs.phrase
    assert ours.hello["host"] == "receiver"
    assert theirs.hello["candidates"] == [["host", "10.0.0.1", 5000], ["host", "10.0.0.2", 5000]]
    assert len(ours.phrase.split()) == PHRASE_WORDS_TOLD
    assert (sender.due, receiver.due, sender.text_number, receiver.text_number) == (None,) * 4
    assert [len(text) for text in texts] == [274, 423]


def decoded(text: str) -> bytes:
    encoded = text.rpartition(".")[2]
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))


def test_nothing_readable_is_in_the_answer() -> None:
    answer = decoded(meet(side(Role.SENDER), side(Role.RECEIVER))[1])
    assert b"10.0.0" not in answer
    assert b"candidates" not in answer


def test_what_is_in_clear_are_addresses_and_a_key() -> None:
    """And not the host token, which is made of the code: it would be something to guess the code against."""
    sender = side(Role.SENDER)
    sender.set_hello({"candidates": [["loopback", "127.0.0.1", 5000], ["host", "10.0.0.1", 5000]], "host": "t0ken"})
    told = json.loads(decoded(sender.take_text())[16 + 33 : -4])
    assert told.keys() == {"versions", "key", "hello"}
    assert told["hello"] == {"candidates": [["host", "10.0.0.1", 5000]]}


def test_addresses_that_somebody_changed_are_no_agreement() -> None:
    sender, receiver = side(Role.SENDER), side(Role.RECEIVER)
    body = decoded(sender.take_text())[:-4].replace(b"10.0.0.1", b"10.6.6.6")
    receiver.text_received(write_text(1, body))
    sender.text_received(receiver.take_text())
    assert sender.next_event() == WrongGuess(2)


def test_a_text_of_another_version() -> None:
    sender, receiver = side(Role.SENDER), side(Role.RECEIVER)
    body = decoded(sender.take_text())[:-4].replace(b'"versions":[1]', b'"versions":[2]')
    receiver.text_received(write_text(1, body))
    receiver.take_text()
    failed = receiver.next_event()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, PeerError)


def test_texts_fit_into_a_line_of_a_terminal_and_carry_the_best_candidates() -> None:
    sender, receiver = side(Role.SENDER), side(Role.RECEIVER)
    many: list[JSON] = [["host", f"2001:db8:1234:5678:9abc:def0:1234:{n:x}", 65000] for n in range(15)]
    receiver.set_hello({"candidates": [*many, ["srflx", "203.0.113.5", 5000]], "host": "x" * 32})
    texts = meet(sender, receiver)
    assert all(len(text) < MAX_TEXT_SIZE / 2 for text in texts)
    agreed = sender.next_event()
    assert isinstance(agreed, Agreed)
    candidates = agreed.hello["candidates"]
    assert isinstance(candidates, list)
    assert candidates[0] == ["srflx", "203.0.113.5", 5000]
    assert len(candidates) == 8


def test_a_hello_that_changed_is_the_one_that_is_told() -> None:
    sender, receiver = side(Role.SENDER), side(Role.RECEIVER)
    receiver.text_received(sender.take_text())
    receiver.set_hello({"candidates": [], "host": "later"})
    sender.text_received(receiver.take_text())
    agreed = sender.next_event()
    assert isinstance(agreed, Agreed)
    assert agreed.hello["host"] == "later"


def test_another_code_is_a_wrong_guess_and_a_few_are_the_end() -> None:
    sender = side(Role.SENDER)
    opening = sender.take_text()
    for remaining in (2, 1, 0):
        guesser = side(Role.RECEIVER, f"4821-wrong-guess{remaining}")
        guesser.text_received(opening)
        sender.text_received(guesser.take_text())
        assert sender.next_event() == WrongGuess(remaining)
        assert (sender.due == 2) is (remaining > 0)
    failed = sender.next_event()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, WrongCode)
    assert sender.text_number is None


def test_after_a_wrong_guess_the_right_code_is_taken() -> None:
    sender, guesser, receiver = side(Role.SENDER), side(Role.RECEIVER, "4821-wrong-guess"), side(Role.RECEIVER)
    opening = sender.take_text()
    for one in (guesser, receiver):
        one.text_received(opening)
        sender.text_received(one.take_text())
    assert sender.next_event() == WrongGuess(2)
    ours, theirs = sender.next_event(), receiver.next_event()
    assert isinstance(ours, Agreed)
    assert isinstance(theirs, Agreed)
    assert ours.secret == theirs.secret


def test_an_answer_to_another_run_is_a_wrong_guess() -> None:
    sender = side(Role.SENDER)
    sender.take_text()
    other = ManualRendezvous(Role.SENDER, parse_code(CODE), 0.0, random_bytes(77), hello("other"))
    sender.text_received(meet(other, side(Role.RECEIVER))[1])
    assert sender.next_event() == WrongGuess(2)


def test_the_own_text_given_back() -> None:
    sender = side(Role.SENDER)
    own = sender.take_text()
    with pytest.raises(BadPacket, match="this is text 1, and text 2 is due"):
        sender.text_received(own)
    assert sender.due == 2


def damage(text: str) -> dict[str, str]:
    return {
        "cut": text[:-1],
        "cut at the front": text[3:],
        "doubled": text + text,
        "one letter": text[:40] + ("A" if text[40] != "A" else "B") + text[41:],
        "lower case": text.lower(),
        "nothing": "",
        "something else": "hello",
        "not ASCII": text[:40] + "é" + text[41:],
        "padding": text + "====",
        "huge": text + "A" * 5000,
        "only the prefix": text.split(".")[0] + ".1.",
    }


@pytest.mark.parametrize("how", damage("x" * 99))
def test_what_copying_breaks_is_told_and_may_be_given_again(how: str) -> None:
    sender, receiver = side(Role.SENDER), side(Role.RECEIVER)
    text = sender.take_text()
    with pytest.raises(BadPacket):
        receiver.text_received(damage(text)[how])
    assert receiver.due == 1
    receiver.text_received(text)
    assert receiver.text_number == 2


def test_a_letter_that_changed_anywhere_is_noticed() -> None:
    """Before it becomes another address, or a wrong guess."""
    for number, text in enumerate(meet(side(Role.SENDER), side(Role.RECEIVER)), 1):
        for place in range(len(text) - 1):  # not all bits of the last one count
            changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
            with pytest.raises(BadPacket):
                read_text_untrusted(number, changed)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (("9", "\N{EM DASH}"), "something of it is missing or has changed"),
        (("9", "9" * MAX_TEXT_SIZE), "it is too long"),
    ],
)
def test_a_text_that_begins_as_it_should_is_not_said_to_begin_otherwise(how: tuple[str, str], why: str) -> None:
    text = write_text(1, bytes(range(256)))
    with pytest.raises(BadPacket, match=why):
        read_text_untrusted(1, text.replace(*how))


@pytest.mark.parametrize(("number", "size"), [(1, 16 + 33), (2, 33 + 16)])
def test_a_text_that_is_too_short_is_none(number: int, size: int) -> None:
    assert len(read_text_untrusted(number, write_text(number, bytes(size)))) == size
    with pytest.raises(BadPacket):
        read_text_untrusted(number, write_text(number, bytes(size - 1)))


def test_line_breaks_and_spaces_do_not_matter() -> None:
    text = side(Role.SENDER).take_text()
    broken = " \r\n".join(text[i : i + 20] for i in range(0, len(text), 20))
    side(Role.RECEIVER).text_received(f"\n {broken}\t")


def test_a_folded_text_may_come_line_by_line() -> None:
    """As a terminal gives what was pasted; after a slip of the mouse, and after a copy that was cut off."""
    text, receiver = side(Role.SENDER).take_text(), side(Role.RECEIVER)
    lines = [text[i : i + 76] for i in range(0, len(text), 76)]
    for line in ("a slip of the mouse", *lines[:2], "", *lines[:-1]):
        with pytest.raises(BadPacket):
            receiver.text_received(line)
    receiver.text_received(lines[-1])
    assert receiver.text_number == 2


@given(st.integers(1, 2), st.text(max_size=60), st.binary(max_size=120))
def test_reading_raises_nothing_but_bad_packet(number: int, text: str, body: bytes) -> None:
    for hostile in (text, f"udpsend1.{number}.{text}", write_text(number, body)):
        try:
            read_text_untrusted(number, hostile)
        except BadPacket:
            continue


@settings(max_examples=20)
@given(st.binary(min_size=49, max_size=90), st.binary(min_size=60, max_size=60))
def test_well_formed_nonsense_never_agrees(opening: bytes, answer: bytes) -> None:
    sender, receiver = side(Role.SENDER), side(Role.RECEIVER)
    sender.take_text()
    for one, text in ((receiver, write_text(1, opening)), (sender, write_text(2, answer))):
        try:
            one.text_received(text)
        except BadPacket:
            continue
    assert not isinstance(sender.next_event(), Agreed)
    assert not isinstance(receiver.next_event(), Agreed)


# Whole transfers, whose people are queues.


class Person:
    """Carries what one side shows to the other; `typed` is what is given to this side."""

    def __init__(self) -> None:
        self.typed: queue.Queue[str | None] = queue.Queue()
        self.events: list[events.Event] = []
        self.other: Person | None = None

    def on_event(self, event: events.Event) -> None:
        self.events.append(event)
        if isinstance(event, events.TextToCarry) and self.other is not None:
            self.other.typed.put(event.text)

    def read_text(self, number: int) -> str | None:
        return self.typed.get(timeout=PATIENCE)


CONFIG = Config(brokers=(), stun_servers=(), lan=False, bind=LOOPBACK, timeout=PATIENCE)


def run_both(
    source: Path, target: Path, people: tuple[Person, Person], codes: tuple[str, str], timeout: float = PATIENCE
) -> list[object]:
    """`timeout` is the receiver's."""
    config = structs.replace(CONFIG, timeout=timeout)
    ends: list[object] = [None, None]

    def run(index: int, work: Callable[[], object]) -> None:
        try:
            ends[index] = work()
        except UdpsendError as error:
            ends[index] = error

    alice, bob = people
    works: list[Callable[[], object]] = [
        lambda: udpsend.send(source, code=codes[0], config=CONFIG, on_event=alice.on_event, read_text=alice.read_text),
        lambda: udpsend.receive(codes[1], target, config=config, on_event=bob.on_event, read_text=bob.read_text),
    ]
    threads = [threading.Thread(target=run, args=(index, work), daemon=True) for index, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * PATIENCE)
    return ends


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(300_000))
    return path


def test_a_transfer_without_any_meeting_place(tmp_path: Path, source: Path) -> None:
    alice, bob = Person(), Person()
    alice.other, bob.other = bob, alice
    bob.typed.put("a slip of the mouse")
    target = tmp_path / "received"
    target.mkdir()
    ends = run_both(source, target, (alice, bob), (CODE, CODE))
    assert all(isinstance(end, events.Verified) for end in ends), ends
    assert (target / source.name).read_bytes() == source.read_bytes()
    shown = [event.number for event in alice.events if isinstance(event, events.TextToCarry)]
    assert shown == [1]
    assert [event.number for event in bob.events if isinstance(event, events.TextRejected)] == [1]
    assert not any(isinstance(event, events.MeetingPlace) for event in alice.events + bob.events)


def test_another_code_at_the_other_side(tmp_path: Path, source: Path) -> None:
    alice, bob = Person(), Person()
    alice.other, bob.other = bob, alice

    def give_up(event: events.Event) -> None:
        alice.on_event_before(event)  # type: ignore[attr-defined]
        if isinstance(event, events.WrongGuess):
            alice.typed.put(None)

    alice.on_event_before = alice.on_event  # type: ignore[attr-defined]
    alice.on_event = give_up  # type: ignore[method-assign]
    ends = run_both(source, tmp_path, (alice, bob), (CODE, "4821-other-words"), timeout=2)
    assert [type(end) for end in ends] == [UsageError, PeerNeverCame]
    assert events.WrongGuess(2) in alice.events
