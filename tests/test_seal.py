"""Sealing: keys, records of one and of several datagrams against golden bytes and against the bare primitives, what is
refused, and the replay window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.sealing import seal
from udpsend.sealing.keys import DirectionKeys, derive_generation, derive_keys
from udpsend.sealing.replay import WINDOW, ReplayWindow
from udpsend.sealing.seal import TAG_BYTES, Opener, Sealer
from udpsend.transfer.train import TrainWriter
from udpsend.wire.datagram import HEADER_SIZE, MAX_DATAGRAM_SIZE, MAX_DATAGRAMS, MAX_SEGMENTS, MAX_TRAIN_SIZE
from udpsend.wire.packets import parse_header_untrusted

VECTORS = json.loads((Path(__file__).parent / "vectors" / "wire.json").read_text())
SECRET = bytes.fromhex(VECTORS["keys"]["secret"])
KEYS = derive_keys(SECRET, Role.SENDER, "traffic")
ADDRESS = ("10.0.0.1", 1)


def test_golden_keys() -> None:
    for role, pair in ((Role.SENDER, KEYS), (Role.RECEIVER, derive_keys(SECRET, Role.RECEIVER, "traffic"))):
        golden, other = VECTORS["keys"][role.value], VECTORS["keys"][role.other.value]
        assert (pair.send.key.hex(), pair.send.iv.hex(), pair.send.tag.hex()) == tuple(golden.values())
        assert (pair.receive.key.hex(), pair.receive.iv.hex(), pair.receive.tag.hex()) == tuple(other.values())


def test_keys_are_hkdf_of_the_secret() -> None:
    material = HKDFExpand(SHA256(), 51, b"udpsend 1 traffic sender").derive(SECRET)
    assert material == KEYS.send.key + KEYS.send.iv + KEYS.send.tag


def test_each_punching_has_a_secret_of_its_own() -> None:
    """Its probes count from 0 again: with the keys of another a nonce would serve twice."""
    assert derive_generation(SECRET, 0) == SECRET
    for number in (1, 200):
        expand = HKDFExpand(SHA256(), 32, b"udpsend 1 punching %d" % number)
        assert derive_generation(SECRET, number) == expand.derive(SECRET)


def test_keys_are_not_shown() -> None:
    keys = derive_keys(bytes(range(32)), Role.SENDER, "traffic")
    assert repr(keys) == "KeyPair(send=DirectionKeys(...), receive=DirectionKeys(...))"


def test_no_key_serves_twice() -> None:
    pairs = [derive_keys(SECRET, role, purpose) for role in Role for purpose in ("probe", "traffic")]
    assert len({pair.send.key for pair in pairs}) == 4
    assert len({pair.send.tag for pair in pairs}) == 4
    assert derive_keys(bytes(32), Role.SENDER, "traffic").send.key != KEYS.send.key


@pytest.mark.parametrize("vector", VECTORS["records"], ids=lambda vector: vector["name"])
def test_golden_records(vector: dict[str, Any]) -> None:
    plaintext = bytes.fromhex(vector["plaintext"])
    writer = TrainWriter(KEYS.send, vector["datagram_size"])
    transmit, count = writer.seal(vector["number"], memoryview(bytearray(plaintext)), ADDRESS)
    datagrams = list(transmit.datagrams())
    assert [datagram.hex() for datagram in datagrams] == vector["datagrams"]
    assert count == len(datagrams)
    # The same from the bare primitive, as another implementation would have it.
    nonce = (int.from_bytes(KEYS.send.iv) ^ vector["number"]).to_bytes(12)
    ciphertext = b"".join(datagram[HEADER_SIZE:] for datagram in datagrams)
    assert ChaCha20Poly1305(KEYS.send.key).decrypt(nonce, ciphertext, datagrams[0][:HEADER_SIZE]) == plaintext


@given(
    st.integers(0, (1 << 48) - 1),
    st.integers(1, 5000),
    st.sampled_from((100, 548, 1200, 1452, 1472, 8972, MAX_DATAGRAM_SIZE)),
)
def test_trains_open_again(number: int, length: int, datagram_size: int) -> None:
    writer = TrainWriter(KEYS.send, datagram_size)
    plaintext = bytes(i & 255 for i in range(min(length, writer.capacity(MAX_DATAGRAMS))))
    transmit, count = writer.seal(number, memoryview(bytearray(plaintext)), ADDRESS)
    datagrams = list(transmit.datagrams())
    assert len(datagrams) == count
    assert sum(map(len, datagrams)) == transmit.size
    assert all(len(datagram) == datagram_size for datagram in datagrams[:-1])
    headers = [parse_header_untrusted(datagram) for datagram in datagrams]
    assert [(h.number, h.index, h.count, h.tag) for h in headers] == [
        (number, i, count, KEYS.send.tag) for i in range(count)
    ]
    opener = Opener(derive_keys(SECRET, Role.RECEIVER, "traffic").receive)
    ciphertext = b"".join(datagram[HEADER_SIZE:] for datagram in datagrams)
    assert opener.open_untrusted(number, datagrams[0][:HEADER_SIZE], ciphertext) == plaintext


def test_a_full_train_is_whole_calls() -> None:
    for size in (548, 1200, 1452, 1472, 8972, 32_000, MAX_DATAGRAM_SIZE):
        writer = TrainWriter(KEYS.send, size)
        assert writer.per_call == min(MAX_SEGMENTS, MAX_DATAGRAM_SIZE // size)
        assert writer.max_datagrams % writer.per_call == 0
        assert writer.max_datagrams // writer.per_call in (3, 4)
        full = memoryview(bytearray(writer.capacity(MAX_DATAGRAMS)))
        transmit, count = writer.seal(1, full, ADDRESS)
        assert count == writer.max_datagrams
        assert transmit.size == count * size <= MAX_TRAIN_SIZE


def test_a_single_datagram_of_any_size() -> None:
    writer = TrainWriter(KEYS.send, 1200)
    transmit = writer.seal_single(3, bytes(5000), ADDRESS)
    (datagram,) = transmit.datagrams()
    assert len(datagram) == transmit.size == transmit.segment_size == 5000 + HEADER_SIZE + TAG_BYTES


@pytest.mark.parametrize("where", ["number", "header", "ciphertext", "tag", "key"])
def test_what_is_changed_does_not_open(where: str) -> None:
    number, header, sealed = 5, bytes(16), Sealer(KEYS.send).seal(5, bytes(16), b"plain")
    keys = KEYS.send
    match where:
        case "number":
            number = 6
        case "header":
            header = bytes(15) + b"\1"
        case "ciphertext":
            sealed = bytes([sealed[0] ^ 1]) + sealed[1:]
        case "tag":
            sealed = sealed[:-1] + bytes([sealed[-1] ^ 128])
        case _:
            keys = DirectionKeys(bytes(32), keys.iv, keys.tag)
    opener = Opener(keys)
    with pytest.raises(BadPacket, match="forged"):
        opener.open_untrusted(number, header, sealed)
    assert opener.forgeries == 1


@pytest.mark.parametrize("length", range(TAG_BYTES))
def test_short_records(length: int) -> None:
    opener = Opener(KEYS.send)
    with pytest.raises(BadPacket, match="short record"):
        opener.open_untrusted(0, bytes(16), bytes(length))
    assert opener.forgeries == 0


def test_a_key_wears_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "MAX_FORGERIES", 2)
    opener = Opener(KEYS.send)
    good = Sealer(KEYS.send).seal(0, b"", b"good")
    for _ in range(2):
        with pytest.raises(BadPacket, match="forged"):
            opener.open_untrusted(0, b"", bytes(20))
    with pytest.raises(BadPacket, match="worn out"):
        opener.open_untrusted(0, b"", good)


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=200))
def test_replay_window_against_a_model(numbers: list[int]) -> None:
    window, seen = ReplayWindow(), set[int]()
    for number in numbers:
        new = number not in seen and (not seen or number > max(seen) - WINDOW)
        assert window.is_new(number) == new
        if new:
            window.take(number)
            seen.add(number)
    assert window._seen.bit_length() <= WINDOW
