"""Answers STUN Binding requests of RFC 3489 and RFC 8489: "this is the address that your datagram came from".

    request                        answer
    without magic cookie           MAPPED-ADDRESS, and SOURCE-ADDRESS where it is known          (RFC 3489, 8.1)
    with it                        XOR-MAPPED-ADDRESS, and FINGERPRINT if the request had one    (RFC 8489, 6.3.1)
    asks for what is not there     error 420 with the attributes that are not understood         (RFC 8489, 6.3.1)

Anything else gets no answer. The answer is at most three times as long as the request, so that a forged source gains
little. The other address and port of RFC 3489's NAT tests are not there: with one address they would be a lie.
"""

from __future__ import annotations

import ipaddress
import struct
import zlib

from udpsend.wire.datagram import Address

MAX_REQUEST_SIZE = 1280
HEADER_SIZE = 20
MAGIC_COOKIE = 0x2112A442
FINGERPRINT_XOR = 0x5354554E

BINDING_REQUEST = 0x0001
BINDING_RESPONSE = 0x0101
BINDING_ERROR = 0x0111

MAPPED_ADDRESS = 0x0001
SOURCE_ADDRESS = 0x0004
ERROR_CODE = 0x0009
UNKNOWN_ATTRIBUTES = 0x000A
XOR_MAPPED_ADDRESS = 0x0020
FINGERPRINT = 0x8028
FIRST_OPTIONAL = 0x8000  # attributes from here on may be ignored by who does not know them

# A user name is no request for anything that is not there, and RFC 8489 (9.1.3) lets a server without credentials
# answer as if it were not there.
IGNORED = {0x0006, 0x0008, 0x001C}  # USERNAME, MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256
MAX_UNKNOWN = 4
MAX_ATTRIBUTES = 16

_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")


def respond_untrusted(datagram: bytes, source: Address, local: Address | None = None) -> bytes | None:
    """The answer to `datagram` from `source`, received at `local`; None if it deserves none."""
    if not HEADER_SIZE <= len(datagram) <= MAX_REQUEST_SIZE:
        return None
    kind, length, cookie, transaction = _HEADER.unpack_from(datagram)
    if kind != BINDING_REQUEST or length != len(datagram) - HEADER_SIZE:
        return None
    attributes = _attributes_untrusted(datagram)
    if attributes is None:
        return None
    if cookie != MAGIC_COOKIE:
        body = _attribute(MAPPED_ADDRESS, _address(source))
        if local is not None and len(body) == len(_attribute(SOURCE_ADDRESS, _address(local))):
            body += _attribute(SOURCE_ADDRESS, _address(local))
        return _message(BINDING_RESPONSE, cookie, transaction, body)

    unknown = [type_ for type_ in attributes if type_ < FIRST_OPTIONAL and type_ not in IGNORED]
    if unknown:
        listed = b"".join(type_.to_bytes(2) for type_ in unknown[:MAX_UNKNOWN])
        body = _attribute(ERROR_CODE, bytes((0, 0, 4, 20))) + _attribute(UNKNOWN_ATTRIBUTES, listed)
        return _message(BINDING_ERROR, cookie, transaction, body)
    pad = MAGIC_COOKIE.to_bytes(4) + transaction
    body = _attribute(XOR_MAPPED_ADDRESS, _address(source, pad))
    if FINGERPRINT not in attributes:
        return _message(BINDING_RESPONSE, cookie, transaction, body)
    # RFC 8489, 14.7: over all before it, with the length that includes it.
    head = _message(BINDING_RESPONSE, cookie, transaction, body + bytes(8))[:-8]
    return head + _attribute(FINGERPRINT, (zlib.crc32(head) ^ FINGERPRINT_XOR).to_bytes(4))


def _attributes_untrusted(datagram: bytes) -> list[int] | None:
    """The types of the attributes, or None if they do not add up."""
    types: list[int] = []
    position = HEADER_SIZE
    while position < len(datagram):
        if position + _ATTRIBUTE.size > len(datagram) or len(types) == MAX_ATTRIBUTES:
            return None
        type_, length = _ATTRIBUTE.unpack_from(datagram, position)
        if position + _ATTRIBUTE.size + length > len(datagram):
            return None
        if type_ == FINGERPRINT:
            expected = (zlib.crc32(datagram[:position]) ^ FINGERPRINT_XOR).to_bytes(4)
            if datagram[position + _ATTRIBUTE.size :] != expected:  # it is the last one, and it is right
                return None
        types.append(type_)
        position += _ATTRIBUTE.size + (length + 3) // 4 * 4
    return types


def _message(kind: int, cookie: int, transaction: bytes, body: bytes) -> bytes:
    return _HEADER.pack(kind, len(body), cookie, transaction) + body


def _attribute(type_: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(type_, len(value)) + value + bytes(-len(value) % 4)


def _address(address: Address, pad: bytes = bytes(16)) -> bytes:
    """Family, port and host; the port and the host XORed with `pad` (RFC 8489, 14.2)."""
    ip = ipaddress.ip_address(address[0])
    port = address[1] ^ int.from_bytes(pad[:2])
    host = bytes(a ^ b for a, b in zip(ip.packed, pad, strict=False))
    return struct.pack("!xBH", 1 if ip.version == 4 else 2, port) + host
