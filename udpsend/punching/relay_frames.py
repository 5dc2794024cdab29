"""How TURN puts messages on a wire, where aioice's codec leaves off: ChannelData (RFC 8656, section 12), and both kinds
of frames in a stream.

    0..1    channel number, 0x4000 to 0x4FFF
    2..3    length
    4..     the datagram; in a stream padded to a multiple of 4
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

from udpsend.errors import BadPacket
from udpsend.wire.datagram import Address

STUN_HEADER_SIZE = 20
_CHANNEL_HEADER = struct.Struct("!HH")

REASONS = {
    401: "it does not accept the user and password",
    403: "it forbids that",
    437: "it does not know our allocation any more",
    441: "it does not accept the user and password",
    442: "it does not relay UDP",
    486: "this user has no more allocations left",
    508: "it has no capacity left",
}
"""What error codes of a server mean, for the user."""


def is_channel_data(data: bytes) -> bool:
    return len(data) > 0 and 0x40 <= data[0] <= 0x4F


def pack_channel_data(number: int, payload: bytes, is_stream: bool) -> bytes:
    return _CHANNEL_HEADER.pack(number, len(payload)) + payload + (bytes(-len(payload) % 4) if is_stream else b"")


def parse_channel_data_untrusted(data: bytes) -> tuple[int, bytes]:
    """(channel number, datagram). Raises BadPacket."""
    if len(data) < _CHANNEL_HEADER.size:
        raise BadPacket("size")
    number, length = _CHANNEL_HEADER.unpack_from(data)
    if len(data) < _CHANNEL_HEADER.size + length:
        raise BadPacket("size")
    return number, data[_CHANNEL_HEADER.size : _CHANNEL_HEADER.size + length]


def ipv4_untrusted(address: Address | None) -> Address:
    if address is None or not 0 < address[1] < 65536:
        raise BadPacket("address")
    try:
        ip = ipaddress.IPv4Address(address[0])
    except ValueError as error:
        raise BadPacket("no IPv4 address") from error
    if ip.is_unspecified or ip.is_multicast:
        raise BadPacket("address")
    return str(ip), address[1]


def split_stream_untrusted(buffer: bytearray) -> Iterator[bytes]:
    """Takes the whole frames off the front of what TCP or TLS has brought. Raises BadPacket where there is no frame:
    then the connection is of no more use."""
    while len(buffer) >= 4:
        if buffer[0] & 0xC0 == 0x40:
            length = int.from_bytes(buffer[2:4])
            size = 4 + length + -length % 4
        elif buffer[0] & 0xC0 == 0:
            size = STUN_HEADER_SIZE + int.from_bytes(buffer[2:4])
        else:
            raise BadPacket("no TURN")
        if len(buffer) < size:
            return
        yield bytes(buffer[:size])
        del buffer[:size]
