"""The cryptography of one run: it agrees, it binds, and it refuses what is not what it claims to be."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import struct
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.mailroom import read_code
from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.rendezvous.code import words
from udpsend.rendezvous.handshake import Agreement, Handshake, prepare
from udpsend.rendezvous.messages import pack_payload, parse_object_untrusted

CODE = "4821-marble-otter"
SENDER, RECEIVER = b"S" * 16, b"R" * 16

GOLDEN_SECRET = "62ab3607ec4305e35f1b6066ada20a26e2b68c706fd7c59746166fe547aacf63"  # noqa: S105 - of a test
GOLDEN_PHRASE = "opera flirt grant"


def test_who_is_prepared_reads_no_more_files_when_the_other_side_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile an update may have taken them away."""
    words.cache_clear()
    prepare()
    monkeypatch.setattr("pkgutil.get_data", lambda *_: None)
    assert words()


def make_pair(seed: int = 1, sender_code: str = CODE, receiver_code: str = CODE) -> tuple[Handshake, Handshake]:
    random = Random(seed)
    sender = Handshake(Role.SENDER, read_code(sender_code), SENDER, RECEIVER, random.randbytes)
    receiver = Handshake(Role.RECEIVER, read_code(receiver_code), RECEIVER, SENDER, random.randbytes)
    return sender, receiver


def exchange_pakes(sender: Handshake, receiver: Handshake) -> None:
    sender.finish_pake_untrusted(receiver.pake, b"")
    receiver.finish_pake_untrusted(sender.pake, sender.commitment)


def complete(sender: Handshake, receiver: Handshake, hello: dict[str, Any]) -> tuple[Agreement, Agreement]:
    exchange_pakes(sender, receiver)
    from_receiver = sender.read_hello_untrusted(sender.open_untrusted(receiver.seal(hello)))
    from_sender = receiver.read_hello_untrusted(receiver.open_untrusted(sender.seal(hello)))
    assert from_receiver.hello == from_sender.hello == hello
    assert from_receiver.has_common_version()
    return sender.agree_untrusted(from_receiver.public_key), receiver.agree_untrusted(from_sender.public_key)


def test_both_sides_agree_on_secret_and_phrase() -> None:
    one, other = complete(*make_pair(), {"candidates": [["host", "192.0.2.1", 9]]})
    assert one == other
    assert len(one.secret) == 32
    assert one.secret.hex() == GOLDEN_SECRET
    assert one.phrase == GOLDEN_PHRASE


def test_every_run_has_another_secret_and_phrase() -> None:
    agreements = [complete(*make_pair(seed), {})[0] for seed in range(20)]
    assert len({agreement.secret for agreement in agreements}) == 20
    assert len({agreement.phrase for agreement in agreements}) == 20
    assert all(len(agreement.phrase.split()) == 3 for agreement in agreements)


def test_the_secret_does_not_show_in_a_traceback() -> None:
    agreement, _ = complete(*make_pair(), {})
    assert "secret" not in repr(agreement)


@pytest.mark.parametrize("other", ["4821-marble-ottes", "4821-marble", "4822-marble-otter"])
def test_another_code_does_not_open(other: str) -> None:
    sender, receiver = make_pair(receiver_code=other)
    exchange_pakes(sender, receiver)
    sealed = receiver.seal({})
    with pytest.raises(BadPacket, match="does not open"):
        sender.open_untrusted(sealed)


def test_the_instances_are_bound() -> None:
    random = Random(1)
    code = read_code(CODE)
    sender = Handshake(Role.SENDER, code, SENDER, b"X" * 16, random.randbytes)
    receiver = Handshake(Role.RECEIVER, code, RECEIVER, SENDER, random.randbytes)
    exchange_pakes(sender, receiver)
    with pytest.raises(BadPacket, match="does not open"):
        sender.open_untrusted(receiver.seal({}))


def test_the_commitment_is_bound() -> None:
    sender, receiver = make_pair()
    sender.finish_pake_untrusted(receiver.pake, b"")
    receiver.finish_pake_untrusted(sender.pake, bytes(32))
    with pytest.raises(BadPacket, match="does not open"):
        sender.open_untrusted(receiver.seal({}))


def test_a_sender_with_another_key_than_committed_to_is_found_out() -> None:
    """Whoever knows the code and stands between must not choose its key after it saw the receiver's."""
    sender, receiver = make_pair()
    exchange_pakes(sender, receiver)
    receiver.seal({})
    another_key = base64.b64encode(bytes(range(32))).decode()
    plaintext = pack_payload({"versions": [1], "key": another_key, "hello": {}})
    with pytest.raises(BadPacket, match="committed"):
        receiver.read_hello_untrusted(plaintext)


def test_a_message_that_does_not_open_leaves_the_run_open() -> None:
    sender, receiver = make_pair()
    exchange_pakes(sender, receiver)
    sealed = receiver.seal({"host": "here"})
    for forged in (b"", bytes(16), bytes(len(sealed)), sealed[:-1], bytes([sealed[0] ^ 1]) + sealed[1:]):
        with pytest.raises(BadPacket, match="does not open"):
            sender.open_untrusted(forged)
    assert sender.read_hello_untrusted(sender.open_untrusted(sealed)).hello == {"host": "here"}


def test_the_secret_depends_on_both_sealed_messages() -> None:
    secrets = {complete(*make_pair(), {"n": n})[0].secret for n in range(3)}
    assert len(secrets) == 3


# Points of Ed25519 that are not in the group of prime order: the identity and those of order 2, 4, 8.
LOW_ORDER_POINTS = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    # The same in encodings that are not reduced, and coordinates without a point.
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "0200000000000000000000000000000000000000000000000000000000000000",
    "ff" * 32,
]


@pytest.mark.parametrize("point", LOW_ORDER_POINTS)
def test_bad_elements_are_refused_and_the_run_goes_on(point: str) -> None:
    sender, receiver = make_pair()
    with pytest.raises(BadPacket, match="SPAKE2"):
        sender.finish_pake_untrusted(b"B" + bytes.fromhex(point), b"")
    with pytest.raises(BadPacket, match="SPAKE2"):
        receiver.finish_pake_untrusted(b"A" + bytes.fromhex(point), bytes(32))
    one, other = complete(sender, receiver, {})
    assert one == other


@pytest.mark.parametrize("size", [0, 1, 2, 31, 32, 34])
def test_short_elements_are_refused(size: int) -> None:
    sender, _ = make_pair()
    with pytest.raises(BadPacket, match="SPAKE2"):
        sender.finish_pake_untrusted(b"B" * size, b"")


def test_reflected_elements_are_refused() -> None:
    for own, side in zip(make_pair(), (b"B", b"A"), strict=True):
        for reflected in (own.pake, side + own.pake[1:]):
            with pytest.raises(BadPacket, match="reflected"):
                own.finish_pake_untrusted(reflected, bytes(32))


def test_a_message_of_the_same_side_is_refused() -> None:
    sender, another_sender = make_pair()[0], make_pair(2)[0]
    with pytest.raises(BadPacket, match="SPAKE2"):
        sender.finish_pake_untrusted(another_sender.pake, b"")


@pytest.mark.parametrize("value", [0, 1])
def test_x25519_keys_of_low_order_are_refused(value: int) -> None:
    sender, receiver = make_pair()
    exchange_pakes(sender, receiver)
    with pytest.raises(BadPacket, match="low order"):
        sender.agree_untrusted(value.to_bytes(32, "little"))


def test_what_is_sealed_has_few_lengths() -> None:
    sizes = set()
    for length in range(0, 200, 7):
        sender, receiver = make_pair()
        exchange_pakes(sender, receiver)
        sizes.add(len(receiver.seal({"host": "x" * length})))
    assert sizes <= {256 + 16, 512 + 16}


def test_a_hello_that_is_too_large_is_the_callers_mistake() -> None:
    sender, receiver = make_pair()
    exchange_pakes(sender, receiver)
    with pytest.raises(ValueError, match="4096"):
        receiver.seal({"host": "x" * 4096})


def test_padding_is_read_back() -> None:
    for size in range(300):
        assert parse_object_untrusted(pack_payload({"x": "y" * size})) == {"x": "y" * size}


def hkdf(material: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """RFC 5869, from the standard library alone."""
    key = hmac.digest(salt or bytes(32), material, "sha256")
    block, output = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        output += block
    return output[:length]


def test_keys_secret_and_phrase_are_what_the_protocol_text_says() -> None:
    """Computed a second time, by the text."""
    sender, receiver = make_pair()
    exchange_pakes(sender, receiver)
    spake_key = copy.copy(sender._spake).finish(receiver.pake)
    from_receiver = receiver.seal({"host": "r"})
    peer = sender.read_hello_untrusted(sender.open_untrusted(from_receiver))
    from_sender = sender.seal({"host": "s"})
    agreement = sender.agree_untrusted(peer.public_key)

    items = [b"udpsend rendezvous", b"1", b"udpsend/1/4821", b"sender", SENDER, b"receiver", RECEIVER]
    items += [sender.pake, sender.commitment, receiver.pake, from_receiver, from_sender]
    t0, t1, t2 = (
        hashlib.sha256(b"".join(struct.pack("!I", len(item)) + item for item in items[:count])).digest()
        for count in (10, 11, 12)
    )
    opened = {}
    for role, data, sealed in (("receiver", t0, from_receiver), ("sender", t1, from_sender)):
        key = hkdf(spake_key, t0, f"udpsend 1 handshake {role}".encode())
        opened[role] = json.loads(ChaCha20Poly1305(key).decrypt(bytes(12), sealed, data))
        assert opened[role]["versions"] == [1]
        assert opened[role]["hello"] == {"host": role[0]}
    public = {role: base64.b64decode(payload["key"]) for role, payload in opened.items()}
    assert sender.commitment == hashlib.sha256(public["sender"]).digest()
    shared = sender._private.exchange(X25519PublicKey.from_public_bytes(public["receiver"]))
    assert agreement.secret == hkdf(shared + spake_key, t2, b"udpsend 1 secret")
    entropy = hkdf(public["sender"] + public["receiver"], b"", b"udpsend 1 phrase", 48)
    numbers = [int.from_bytes(entropy[i : i + 16]) % 1296 for i in (0, 16, 32)]
    assert agreement.phrase == " ".join(words()[number] for number in numbers)
