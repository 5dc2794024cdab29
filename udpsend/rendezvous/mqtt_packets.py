"""The packets of a broker's byte stream that are worth looking at: short enough, and not too many.

    1 byte   type << 4 | flags
    1 to 4   length of the rest, 7 bits per byte, least significant first        (MQTT 3.1.1, 2.2)
    the rest

paho would take up to 256 MB into memory for one packet, and spend 60 µs on each of a flood. Here a packet that is too
long is skipped while it arrives, and a PUBLISH too many costs 3 µs. Both come from whoever knows the topic, not only
from the broker, so they must not cost the connection. Subscriptions are of QoS 0, so that nothing skipped was to be
acknowledged; a PUBLISH of another one is skipped, too, since of QoS 2 paho would keep 65,535. All
other packets come from the broker itself, and too many of those do end the connection.
"""

from __future__ import annotations

from udpsend.errors import BadPacket
from udpsend.rendezvous.mailbox import RateLimit
from udpsend.rendezvous.messages import MAX_MESSAGE_SIZE

MAX_PACKET_SIZE = MAX_MESSAGE_SIZE + 1024  # topic and properties beside the message
PUBLISH = 3
QOS_BITS = 6
MAX_LENGTH_BYTES = 4
CONTROL_PER_SECOND, CONTROL_BURST = 50.0, 200.0  # one PUBACK for each message of ours, and little else


class PacketFilter:
    """Bytes in by `feed_untrusted`, bytes of the packets that passed out by `take`."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._control_limit = RateLimit(CONTROL_PER_SECOND, CONTROL_BURST)
        self._partial = bytearray()
        self._passed = bytearray()
        self._skip = 0

    def __len__(self) -> int:
        """Bytes that can be taken."""
        return len(self._passed)

    def take(self, size: int) -> bytes:
        taken = bytes(self._passed[:size])
        del self._passed[:size]
        return taken

    def feed_untrusted(self, data: bytes, now: float) -> None:
        """Raises BadPacket where the stream is not one of MQTT packets."""
        self._partial += data
        while self._partial:
            if self._skip:
                step = min(self._skip, len(self._partial))
                del self._partial[:step]
                self._skip -= step
                continue
            size = packet_size_untrusted(self._partial)
            if size is None:
                return
            if size > MAX_PACKET_SIZE:
                self._skip = size
            elif len(self._partial) < size:
                return
            elif self._partial[0] >> 4 == PUBLISH and (self._partial[0] & QOS_BITS or not self._limit.take(now)):
                self._skip = size
            elif self._partial[0] >> 4 != PUBLISH and not self._control_limit.take(now):
                raise BadPacket("too many MQTT packets that are no messages")
            else:
                self._passed += self._partial[:size]
                del self._partial[:size]


def packet_size_untrusted(data: bytearray) -> int | None:
    """Bytes of the packet that begins `data`, its header included; None where too little of it is there."""
    size = 0
    for index in range(MAX_LENGTH_BYTES):
        if len(data) < 2 + index:
            return None
        size |= (data[1 + index] & 0x7F) << 7 * index
        if data[1 + index] < 0x80:
            return 2 + index + size
    raise BadPacket("length of an MQTT packet")
