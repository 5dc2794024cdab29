"""Whatever comes over a mailbox: parsers raise BadPacket or return what they promise, the machine raises nothing."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mailroom import Mailroom, read_code
from udpsend.config import Role
from udpsend.errors import BadPacket, UsageError
from udpsend.rendezvous.channel import Channel
from udpsend.rendezvous.code import parse_code
from udpsend.rendezvous.handshake import Handshake
from udpsend.rendezvous.machine import Rendezvous
from udpsend.rendezvous.messages import (
    COMMITMENT_SIZE,
    ID_SIZE,
    INSTANCE_SIZE,
    MAX_MESSAGE_SIZE,
    MAX_NUMBER,
    PAKE_SIZE,
    TAG_SIZE,
    Kind,
    Message,
    parse_hello_untrusted,
    parse_message_untrusted,
    parse_object_untrusted,
)

CODE = "4821-marble-otter"
SENDER, RECEIVER = b"S" * 16, b"R" * 16

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=8), v, max_size=4))
encoded = st.binary(max_size=80).map(lambda data: base64.b64encode(data).decode())


def mostly(*likely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(*likely, *likely, *likely, values)


almost_messages = st.fixed_dictionaries(
    {},
    optional={
        "udpsend": mostly(st.just(1), st.integers(0, 3)),
        "kind": mostly(st.sampled_from([kind.value for kind in Kind])),
        "id": mostly(st.binary(min_size=ID_SIZE, max_size=ID_SIZE).map(bytes.hex)),
        "role": mostly(st.sampled_from([role.value for role in Role])),
        "from": mostly(st.sampled_from([SENDER.hex(), RECEIVER.hex()])),
        "to": mostly(st.sampled_from([SENDER.hex(), RECEIVER.hex()])),
        "number": mostly(st.integers(-1, MAX_NUMBER + 1)),
        "body": mostly(encoded),
        "commitment": mostly(encoded),
    },
).map(lambda fields: json.dumps(fields).encode())

true_messages = st.builds(
    Message,
    kind=st.sampled_from(Kind),
    id=st.binary(min_size=ID_SIZE, max_size=ID_SIZE),
    role=st.sampled_from(Role),
    origin=st.binary(min_size=INSTANCE_SIZE, max_size=INSTANCE_SIZE),
    to=st.binary(min_size=INSTANCE_SIZE, max_size=INSTANCE_SIZE),
    body=st.binary(min_size=TAG_SIZE, max_size=5000),
    number=st.integers(0, MAX_NUMBER),
    commitment=st.binary(min_size=COMMITMENT_SIZE, max_size=COMMITMENT_SIZE),
)


def parse_or_refuse(data: bytes) -> Message | None:
    try:
        return parse_message_untrusted(data)
    except BadPacket:
        return None


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode) | values.map(lambda v: json.dumps(v).encode()))
@settings(max_examples=1000)
def test_any_bytes(data: bytes) -> None:
    parse_or_refuse(data)
    with suppress(BadPacket):
        assert isinstance(parse_object_untrusted(data), dict)


@given(almost_messages)
@settings(max_examples=800)
def test_almost_messages(data: bytes) -> None:
    message = parse_or_refuse(data)
    if message is None:
        return
    assert len(message.id) == ID_SIZE
    assert len(message.origin) == INSTANCE_SIZE
    assert 0 <= message.number <= MAX_NUMBER
    if message.kind is not Kind.HELLO:
        assert message.version == 1
        assert len(message.to) == INSTANCE_SIZE
    if message.kind is Kind.PAKE:
        assert len(message.body) == PAKE_SIZE
        assert len(message.commitment) == (COMMITMENT_SIZE if message.role is Role.SENDER else 0)
    if message.kind in (Kind.SEALED, Kind.ACK):
        assert len(message.body) >= TAG_SIZE
    assert parse_message_untrusted(message.pack()) == message


@given(true_messages, st.integers(0, 10_000), st.integers(1, 255))
@settings(max_examples=1000)
def test_messages_with_one_byte_changed(message: Message, place: int, change: int) -> None:
    data = bytearray(message.pack())
    data[place % len(data)] ^= change
    parse_or_refuse(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        b"[" * MAX_MESSAGE_SIZE,
        b'{"a":' * (MAX_MESSAGE_SIZE // 5),
        b'{"udpsend":' + b"1" * 8000 + b"}",
        b'{"udpsend":NaN}',
        b'{"udpsend":1e999}',
        b'{"udpsend":1.0}',
        b'{"udpsend":true}',
        '{"udpsend":1}'.encode("utf-16"),
        b'\xef\xbb\xbf{"udpsend":1}',
        b'{"udpsend":1,"kind":"\\ud800"}',
        b"x" * (MAX_MESSAGE_SIZE + 1),
    ],
)
def test_a_corpus_of_unpleasant_json(data: bytes) -> None:
    with pytest.raises(BadPacket):
        parse_message_untrusted(data)


@pytest.mark.parametrize("id_", ["00ffaa00ffaa00FF", "00ffaa 0ffaa00ff", "00ffaa00ffaa00f", "0xffaa00ffaa00ff", 0])
def test_ids_that_are_none(id_: object) -> None:
    hello = {"udpsend": 1, "kind": "hello", "id": "00ffaa00ffaa00ff", "role": "sender", "from": SENDER.hex()}
    parse_message_untrusted(json.dumps(hello).encode())
    with pytest.raises(BadPacket, match="field id"):
        parse_message_untrusted(json.dumps(hello | {"id": id_}).encode())


@given(st.dictionaries(st.sampled_from(["versions", "key", "hello"]), values | encoded))
@settings(max_examples=500)
def test_any_sealed_hello(payload: dict[str, Any]) -> None:
    try:
        versions, key, hello = parse_hello_untrusted(payload)
    except BadPacket:
        return
    assert all(type(version) is int for version in versions)
    assert len(key) == 32
    assert isinstance(hello, dict)


@given(st.binary(min_size=32, max_size=33), st.sampled_from(Role), st.booleans())
@settings(max_examples=300)
def test_any_element(data: bytes, role: Role, has_side: bool) -> None:
    """Either it is refused and the run goes on, or there is a key that nothing of ours opens with."""
    random = Random(1)
    handshake = Handshake(role, read_code(CODE), SENDER, RECEIVER, random.randbytes)
    pake = (b"B" if role is Role.SENDER else b"A") + data[:32] if has_side else data
    try:
        handshake.finish_pake_untrusted(pake, bytes(32))
    except BadPacket:
        return
    with pytest.raises(BadPacket):
        handshake.open_untrusted(bytes(272))


@given(st.integers(0, MAX_NUMBER), st.binary(max_size=300))
@settings(max_examples=300)
def test_a_channel_takes_nothing_forged(number: int, body: bytes) -> None:
    channel = Channel(bytes(32), Role.SENDER, RECEIVER)
    with pytest.raises(BadPacket):
        channel.sealed_untrusted(number, body)
    with pytest.raises(BadPacket):
        channel.acknowledged_untrusted(number, body)
    assert channel.next_timer() is None


@given(st.sampled_from(Role), st.lists(almost_messages | st.binary(max_size=100), max_size=30))
@settings(max_examples=300)
def test_a_machine_raises_nothing(role: Role, messages: list[bytes]) -> None:
    instances = {Role.SENDER: SENDER, Role.RECEIVER: RECEIVER}
    random = Random(1)
    first = iter([instances[role]])  # the instance that the messages are made for
    machine = Rendezvous(role, read_code(CODE), 0.0, lambda size: next(first, random.randbytes(size)), {})
    for number, message in enumerate(messages):
        machine.message_received(message, 0.1 * number)
        machine.timer_expired(0.1 * number)
        machine.messages_to_send(0.1 * number)
    while (event := machine.next_event()) is not None:
        assert type(event).__name__ in ("WrongGuess", "Failed")


@given(st.lists(almost_messages, max_size=20))
@settings(max_examples=100)
def test_a_machine_that_agreed_raises_nothing(messages: list[bytes]) -> None:
    room = Mailroom(1)
    sender, receiver = room.join(Role.SENDER, CODE), room.join(Role.RECEIVER, CODE)
    assert room.run(lambda: sender.agreed and receiver.agreed)
    ends = [json.loads(party.published[0])["from"] for party in (sender, receiver)]
    for message in messages:
        renamed = message.replace(SENDER.hex().encode(), ends[0].encode()).replace(
            RECEIVER.hex().encode(), ends[1].encode()
        )
        for party in (sender, receiver):
            party.machine.message_received(renamed, room.now)
            party.machine.messages_to_send(room.now)
            party.take_events()
    assert sender.error is receiver.error is None
    assert sender.sealed == receiver.sealed == []


@given(st.text(max_size=140))
@settings(max_examples=500)
def test_any_text_is_a_code_or_refused(text: str) -> None:
    try:
        code = parse_code("1234 x" + text)
    except UsageError:
        return
    assert code.topic.startswith("udpsend/1/")
    assert code.topic.isascii()
    assert code.password == code.text.encode()
