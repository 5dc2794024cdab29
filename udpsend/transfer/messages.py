"""What the two sides say over the control stream, and what a connection reports to its owner.

sender                                   receiver
offer {manifest}            ->
                            <-           list {}                  if the manifest is too long to go with the offer
DATA ...                    ->           the manifest, which then takes the first bytes of the byte space
                            <-           accept {present: [[start, stop], ...], known: [[first, last], ...], left_out,
                                                 ahead, limit, background}
                                         or CLOSE refused
DATA ...                    ->
hashes {first, hashes}      ->           of consecutive blocks that are not known, as soon as they were read
                            <-           need {ranges: [[start, stop], ...]}        of blocks whose hash differs
finished {digest, size}     ->           (as soon as the sender has hashed what it read; size: of a stream only)
                            <-           verified {digest}                          or CLOSE failed
CLOSE done                  ->
"""

from __future__ import annotations

import base64
import itertools
import math
import re
from collections.abc import Iterable, Iterator

from msgspec import Struct

from udpsend.config import SLOWEST_LIMIT
from udpsend.errors import BadPacket, UdpsendError
from udpsend.transfer.control_stream import Message
from udpsend.wire.json import JSON
from udpsend.wire.ranges import DIGEST_SIZE, MAX_LEFT_OUT, MAX_TOLD, RangeSet

MIN_AHEAD = 1 << 17  # bytes; with less most round trips would carry part of a record only


class OfferReceived(Struct, frozen=True):
    """Receiver: answer with `accept` or `close`. The manifest is not checked yet."""

    manifest: JSON


class ManifestArrived(Struct, frozen=True):
    """Receiver: the manifest that was asked for by `list`, not checked yet. Answer with `accept` or `close`."""

    packed: bytes


class OfferAccepted(Struct, frozen=True):
    """Sender: the receiver wants it, and has `already` bytes of it; the `missing` ranges will be read next."""

    already: int
    missing: tuple[tuple[int, int], ...]
    known: tuple[tuple[int, int], ...] = ()
    """Blocks (first, last excluded) that were compared in an earlier attempt."""


class BlocksNeeded(Struct, frozen=True):
    """Sender: these ranges differ and will be sent again; their blocks' hashes are wanted anew."""

    ranges: tuple[tuple[int, int], ...]


class HashesArrived(Struct, frozen=True):
    """Receiver: the hashes of consecutive blocks, the first of which is number `first`."""

    first: int
    hashes: bytes


class ContentArrived(Struct, frozen=True):
    """Receiver: every byte is in the sink; its BLAKE3 must be `digest`. Answer with `verified` or `close`."""

    digest: bytes


class PeerVerified(Struct, frozen=True):
    """Sender: the receiver has it all, and its hash is ours. Answer with `close`. `digest` is that of all blocks."""

    digest: bytes


class Closed(Struct, frozen=True):
    """The last event. `error` is None after a verified transfer."""

    error: UdpsendError | None


ConnectionEvent = (
    OfferReceived
    | ManifestArrived
    | OfferAccepted
    | HashesArrived
    | BlocksNeeded
    | ContentArrived
    | PeerVerified
    | Closed
)


def _listed(ranges: Iterable[tuple[int, int]]) -> JSON:
    return [[start, stop] for start, stop in ranges]


def accept_message(
    present: RangeSet,
    left_out: bytes,
    known: RangeSet,
    ahead: int | None = None,
    limit: float | None = None,
    background: bool = False,
) -> Message:
    """The largest ranges, if there are too many to tell; of `known` there may be no more than that (MAX_TOLD), since
    the digest leaves out all of them. `left_out`: entries that are not wanted, packed, if any.
    `ahead`: bytes that may be sent past the first one that is missing, if that is bounded. `limit`: bytes per second
    that may be sent, if that is. `background`: everybody else on the path comes first."""
    message: Message = {"type": "accept", "present": _listed(present.largest())}
    if known:
        message["known"] = _listed(known)
    if left_out:
        message["left_out"] = base64.b64encode(left_out).decode()
    if ahead is not None:
        message["ahead"] = ahead
    if limit is not None:
        message["limit"] = int(limit)
    if background:
        message["background"] = True
    return message


def hashes_message(first: int, hashes: bytes) -> Message:
    return {"type": "hashes", "first": first, "hashes": base64.b64encode(hashes).decode()}


def need_messages(ranges: RangeSet) -> Iterator[Message]:
    """As many as it takes to tell all of them."""
    pieces = iter(ranges)
    while some := list(itertools.islice(pieces, MAX_TOLD)):
        yield {"type": "need", "ranges": _listed(some)}


def parse_hashes_untrusted(message: Message) -> tuple[int, bytes]:
    """(first block, hashes). Raises BadPacket."""
    first, text = _integer_untrusted(message, "first", 0), message.get("hashes")
    hashes = _base64_untrusted(text) if isinstance(text, str) else b""
    if not hashes or len(hashes) % DIGEST_SIZE:
        raise BadPacket("hashes")
    return first, hashes


def _integer_untrusted(message: Message, name: str, least: int) -> int:
    value = message.get(name)
    if type(value) is not int or not least <= value < 1 << 62:  # a bool is no number here
        raise BadPacket(name)
    return value


def _base64_untrusted(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error is one; so is a character beyond ASCII
        raise BadPacket("base64") from error


def parse_left_out_untrusted(message: Message) -> bytes:
    """The packed set of what is not wanted; empty if there is none. Raises BadPacket."""
    value = message.get("left_out", "")
    if not isinstance(value, str) or len(value) > MAX_LEFT_OUT * 4 // 3 + 4:
        raise BadPacket("left out")
    return _base64_untrusted(value)


def parse_ahead_untrusted(message: Message) -> int | None:
    """Raises BadPacket."""
    return _integer_untrusted(message, "ahead", MIN_AHEAD) if message.get("ahead") is not None else None


def parse_limit_untrusted(message: Message) -> float:
    """Infinite if there is none. Raises BadPacket."""
    match message.get("limit"):
        case None:
            return math.inf
        case int(limit) if type(limit) is int and limit >= SLOWEST_LIMIT:
            return float(min(limit, 1 << 62))
    raise BadPacket("limit")


def parse_background_untrusted(message: Message) -> bool:
    """Raises BadPacket."""
    background = message.get("background", False)
    if not isinstance(background, bool):
        raise BadPacket("background")
    return background


def parse_size_untrusted(message: Message) -> int:
    """Of a stream that has ended. Raises BadPacket."""
    return _integer_untrusted(message, "size", 0)


def parse_ranges_untrusted(value: JSON, size: int) -> RangeSet:
    """Ranges of [0, size), ascending. Raises BadPacket."""
    if not isinstance(value, list) or len(value) > MAX_TOLD:
        raise BadPacket("list of ranges")
    ranges = RangeSet()
    end = 0
    for item in value:
        match item:
            case [int(start), int(stop)] if type(start) is type(stop) is int and end <= start < stop <= size:
                ranges.add(start, stop)
                end = stop
            case _:
                raise BadPacket("range")
    return ranges


def parse_digest_untrusted(message: Message) -> bytes:
    """Raises BadPacket."""
    value = message.get("digest")
    if not isinstance(value, str) or not re.fullmatch(f"[0-9A-Fa-f]{{{2 * DIGEST_SIZE}}}", value):
        raise BadPacket("digest")
    return bytes.fromhex(value)
