"""What the two sides say over the control stream, and what a connection reports to its owner.

sender                                   receiver
offer {manifest}            ->
                            <-           list {}                  if the manifest is too long to go with the offer
DATA ...                    ->           the manifest, which then takes the first bytes of the byte space
                            <-           accept {present: [[start, stop], ...], left_out}     or CLOSE refused
DATA ...                    ->
finished {digest}           ->           (as soon as the sender has hashed what it read)
                            <-           verified {}                                or CLOSE failed
CLOSE done                  ->
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from udpsend.errors import BadPacket, UdpsendError
from udpsend.transfer.control_stream import Json, Message
from udpsend.wire.ranges import RangeSet

MAX_PRESENT_RANGES = 4096
MAX_LEFT_OUT = 128 << 10  # bytes of the set of entries that are not wanted
DIGEST_SIZE = 32


@dataclass(frozen=True, slots=True)
class OfferReceived:
    """Receiver: answer with `accept` or `close`. The manifest is not checked yet."""

    manifest: Json


@dataclass(frozen=True, slots=True)
class ManifestArrived:
    """Receiver: the manifest that was asked for by `list`, not checked yet. Answer with `accept` or `close`."""

    packed: bytes


@dataclass(frozen=True, slots=True)
class OfferAccepted:
    """Sender: the receiver wants it, and has `already` bytes of it; the `missing` ranges will be read next."""

    already: int
    missing: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ContentArrived:
    """Receiver: every byte is in the sink; its BLAKE3 must be `digest`. Answer with `verified` or `close`."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class PeerVerified:
    """Sender: the receiver has it all, and its hash is ours. Answer with `close`."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The last event. `error` is None after a verified transfer."""

    error: UdpsendError | None


ConnectionEvent = OfferReceived | ManifestArrived | OfferAccepted | ContentArrived | PeerVerified | Closed


def accept_message(present: RangeSet, left_out: bytes) -> Message:
    """The largest ranges, if there are too many to tell. `left_out`: entries that are not wanted, packed, if any."""
    ranges = sorted(present, key=lambda r: r[0] - r[1])[:MAX_PRESENT_RANGES]
    message: Message = {"type": "accept", "present": [[start, stop] for start, stop in sorted(ranges)]}
    if left_out:
        message["left_out"] = base64.b64encode(left_out).decode()
    return message


def parse_left_out_untrusted(message: Message) -> bytes:
    """The packed set of what is not wanted; empty if there is none. Raises BadPacket."""
    value = message.get("left_out", "")
    if not isinstance(value, str) or len(value) > MAX_LEFT_OUT * 4 // 3 + 4:
        raise BadPacket("left out")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadPacket("left out") from error


def parse_present_untrusted(message: Message, size: int) -> RangeSet:
    """What the receiver has already, of `size` bytes. Raises BadPacket."""
    value = message.get("present")
    if not isinstance(value, list) or len(value) > MAX_PRESENT_RANGES:
        raise BadPacket("accept without ranges")
    present = RangeSet()
    for item in value:
        match item:
            case [int(start), int(stop)] if 0 <= start < stop <= size:
                present.add(start, stop)
            case _:
                raise BadPacket("accept range")
    return present


def parse_digest_untrusted(message: Message) -> bytes:
    """Raises BadPacket."""
    value = message.get("digest")
    try:
        digest = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        digest = b""
    if len(digest) != DIGEST_SIZE:
        raise BadPacket("digest")
    return digest
