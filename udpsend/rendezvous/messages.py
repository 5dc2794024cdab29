"""The messages that cross a mailbox: JSON objects of at most 8 KiB, in UTF-8. Binary values are base64, ids are hex.

Every message has

    udpsend     1, the version of this format
    kind        hello, pake, sealed, fail or ack
    id          8 random bytes, new for each publication: copies that come through several mailboxes are taken
                once, and what is said again is heard again
    role        sender or receiver: of whom it comes from
    from        16 random bytes, the instance: one start of the program

and, by kind,

    hello       nothing more: "I am here". The only kind that is read from another version
    pake        to, body (33 bytes of SPAKE2), and from the sender commitment (32 bytes, see handshake.py)
    sealed      to, number (0 in the handshake, then counting), body (ciphertext and tag)
    fail        to: "what you sealed does not open"; a hint that ends nothing by itself, since anybody can say it
    ack         to, number (how many sealed messages after the handshake came, without a gap), body (16 bytes of tag)

Unknown fields are ignored. What is sealed is a JSON object, padded with spaces to a multiple of 256 bytes, so that its
length tells nothing about names and addresses.
"""

from __future__ import annotations

import base64
import json
from enum import Enum

from msgspec import Struct

from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.rendezvous.code import PROTOCOL_VERSION
from udpsend.wire.json import JSON

MAX_MESSAGE_SIZE = 8192  # bytes; also what a mailbox hands on
MAX_PAYLOAD_SIZE = 4096  # of what a caller seals; with envelope, padding, tag and base64 it stays below 6.3 KiB
PADDING = 256
ID_SIZE = 8
INSTANCE_SIZE = 16
PAKE_SIZE = 33  # SPAKE2: the side, and an element of Ed25519
COMMITMENT_SIZE = 32
TAG_SIZE = 16
HEX_DIGITS = frozenset("0123456789abcdef")
MAX_NUMBER = 1000  # sealed messages after the handshake; a session sends a few dozen


class Kind(Enum):
    HELLO = "hello"
    PAKE = "pake"
    SEALED = "sealed"
    FAIL = "fail"
    ACK = "ack"


class Message(Struct, frozen=True):
    """One message of any kind; fields that the kind does not have are empty."""

    kind: Kind
    id: bytes
    role: Role
    origin: bytes
    to: bytes = b""
    body: bytes = b""
    number: int = 0
    commitment: bytes = b""
    version: int = PROTOCOL_VERSION

    def pack(self) -> bytes:
        fields: dict[str, JSON] = {
            "udpsend": self.version,
            "kind": self.kind.value,
            "id": self.id.hex(),
            "role": self.role.value,
            "from": self.origin.hex(),
        }
        if self.kind is not Kind.HELLO:
            fields["to"] = self.to.hex()
        if self.kind in (Kind.SEALED, Kind.ACK):
            fields["number"] = self.number
        if self.body:
            fields["body"] = base64.b64encode(self.body).decode()
        if self.commitment:
            fields["commitment"] = base64.b64encode(self.commitment).decode()
        return _dump(fields)


def parse_message_untrusted(data: bytes) -> Message:
    """The message in `data`. Raises BadPacket. Only a hello can have another `version` than ours."""
    if len(data) > MAX_MESSAGE_SIZE:
        raise BadPacket("oversize message")
    fields = parse_object_untrusted(data)
    version = _number_untrusted(fields, "udpsend", 1, 1 << 16)
    try:
        kind, role = Kind(fields.get("kind")), Role(fields.get("role"))
    except ValueError as error:
        raise BadPacket("message kind or role") from error
    if version != PROTOCOL_VERSION and kind is not Kind.HELLO:
        raise BadPacket("another version")
    identity, origin = _hex_untrusted(fields, "id", ID_SIZE), _hex_untrusted(fields, "from", INSTANCE_SIZE)
    if kind is Kind.HELLO:
        return Message(kind, identity, role, origin, version=version)
    to = _hex_untrusted(fields, "to", INSTANCE_SIZE)
    if kind is Kind.PAKE:
        body = _base64_untrusted(fields, "body", PAKE_SIZE, PAKE_SIZE)
        size = COMMITMENT_SIZE if role is Role.SENDER else 0
        commitment = _base64_untrusted(fields, "commitment", size, size) if size else b""
        return Message(kind, identity, role, origin, to, body, commitment=commitment)
    if kind is Kind.FAIL:
        return Message(kind, identity, role, origin, to)
    longest = MAX_MESSAGE_SIZE if kind is Kind.SEALED else TAG_SIZE
    body = _base64_untrusted(fields, "body", TAG_SIZE, longest)
    return Message(kind, identity, role, origin, to, body, _number_untrusted(fields, "number", 0, MAX_NUMBER))


def pack_payload(payload: dict[str, JSON]) -> bytes:
    """The plaintext of a sealed message, padded."""
    data = _dump(payload)
    return data.ljust(-(-len(data) // PADDING) * PADDING)


def check_payload(payload: dict[str, JSON]) -> None:
    """Raises ValueError if `payload` does not fit into a sealed message: a mistake of the caller."""
    if (size := len(_dump(payload))) > MAX_PAYLOAD_SIZE:
        raise ValueError(f"a sealed payload of {size} bytes, more than {MAX_PAYLOAD_SIZE}")


def parse_hello_untrusted(payload: dict[str, JSON]) -> tuple[list[int], bytes, dict[str, JSON]]:
    """The versions, the X25519 public key and the caller's own object of a sealed hello. Raises BadPacket."""
    versions, hello = payload.get("versions"), payload.get("hello")
    if not isinstance(versions, list) or not isinstance(hello, dict):
        raise BadPacket("sealed hello")
    return [v for v in versions if type(v) is int], _base64_untrusted(payload, "key", 32, 32), hello


def _dump(fields: dict[str, JSON]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()


def parse_object_untrusted(data: bytes) -> dict[str, JSON]:
    """The object that a message is, or the plaintext of a sealed one. Raises BadPacket."""
    try:
        fields = json.loads(data.decode(), parse_constant=_no_constant)
    # ValueError: not UTF-8, not JSON, NaN, or an integer of thousands of digits. RecursionError: 8 KiB of '['.
    except (ValueError, RecursionError) as error:
        raise BadPacket("not JSON") from error
    if not isinstance(fields, dict):
        raise BadPacket("not an object")
    return fields


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _number_untrusted(fields: dict[str, JSON], name: str, low: int, high: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not low <= value <= high:  # a bool is no number here
        raise BadPacket(f"field {name}")
    return value


def _hex_untrusted(fields: dict[str, JSON], name: str, size: int) -> bytes:
    value = fields.get(name)
    if not isinstance(value, str) or len(value) != 2 * size or not set(value) <= HEX_DIGITS:
        raise BadPacket(f"field {name}")
    return bytes.fromhex(value)


def _base64_untrusted(fields: dict[str, JSON], name: str, low: int, high: int) -> bytes:
    value = fields.get(name)
    if not isinstance(value, str):
        raise BadPacket(f"field {name}")
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError as error:  # binascii.Error is one; so is a character beyond ASCII
        raise BadPacket(f"field {name}") from error
    if not low <= len(data) <= high:
        raise BadPacket(f"field {name}")
    return data
