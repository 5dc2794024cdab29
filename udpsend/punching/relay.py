"""A relay of last resort: a TURN client (RFC 8656) over UDP, TCP or TLS. Sans-IO.

1. Allocate: the server asks for credentials (`relay_credentials.py`), the second request has them. Its answer has the
   relayed address, which becomes a candidate.
2. What is to go to a peer is wrapped: as a Send indication at first, as ChannelData once the channel that is bound for
   that peer is confirmed. Binding a channel also permits the peer's IP address.
3. What comes from a peer is unwrapped; the server lets in whom we permitted.
4. Allocation and channels are refreshed before they expire; `farewell` gives the allocation back.

Answers have to come with the message integrity that our password makes. The server still sees who talks to whom and
when; what it carries is sealed. Only IPv4 addresses are relayed.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from udpsend.errors import BadPacket
from udpsend.punching.relay_credentials import Credentials
from udpsend.punching.relay_frames import (
    REASONS,
    ipv4_untrusted,
    is_channel_data,
    pack_channel_data,
    parse_channel_data_untrusted,
    split_stream_untrusted,
)
from udpsend.wire.datagram import Address

if TYPE_CHECKING:
    from aioice.stun import Message

LIFETIME = 600  # seconds asked for
CHANNEL_REFRESH = 240.0  # a permission lasts 300 s, a channel 600
FIRST_RESEND = 0.5  # seconds; it doubles
MAX_TRIES = 6  # over UDP: 0.5 + 1 + 2 + 4 + 8 s
STREAM_TIMEOUT = 10.0  # seconds; nothing is sent twice there
MAX_RENEWALS = 2  # of one request: for the realm, and for a nonce that has grown old meanwhile
MAX_CHANNELS = 48

_UDP = 17 << 24
_FIRST_CHANNEL = 0x4000


class Allocated(Struct, frozen=True):
    """Who sends to `address` reaches us, once permitted."""

    address: Address


class RelayLost(Struct, frozen=True):
    """There is no allocation, or none any more. `reason` is for the user."""

    reason: str


class _Request(Struct):
    message: Message
    peer: Address | None
    due: float
    tries: int = 0
    renewed: int = 0
    """How often it was made anew, for a realm or a nonce."""


class _Channel(Struct):
    number: int
    used: float
    refresh: float
    is_bound: bool = False


class TurnClient:
    """One allocation at one server."""

    def __init__(
        self, user: str, password: str, now: float, random_bytes: Callable[[int], bytes], *, is_stream: bool
    ) -> None:
        """`is_stream`: over TCP or TLS, where nothing is sent twice and ChannelData is padded."""
        self.drops: Counter[str] = Counter()
        self.relayed: Address | None = None
        self._credentials = Credentials(user, password)
        self._random_bytes = random_bytes
        self._is_stream = is_stream
        self._requests: dict[bytes, _Request] = {}
        self._channels: dict[Address, _Channel] = {}
        self._peers: dict[int, Address] = {}
        self._refresh_at = math.inf
        self._lost = False
        self._out: list[bytes] = []
        self._events: deque[Allocated | RelayLost] = deque()
        self._request("ALLOCATE", {"LIFETIME": LIFETIME, "REQUESTED-TRANSPORT": _UDP}, now)

    # to the server

    def messages_to_send(self) -> list[bytes]:
        out, self._out = self._out, []
        return out

    def wrap(self, payload: bytes, peer: Address, now: float) -> bytes | None:
        """What to send to the server, so that `payload` goes to `peer`. None where that cannot be."""
        if self.relayed is None or self._lost:
            return None
        channel = self._channels.get(peer) or self._bind(peer, now)
        if channel is None:
            self.drops["too many peers"] += 1
            return None
        channel.used = now
        if channel.is_bound:
            return pack_channel_data(channel.number, payload, self._is_stream)
        from aioice import stun

        attributes = {"XOR-PEER-ADDRESS": peer, "DATA": payload}
        return bytes(stun.Message(stun.Method.SEND, stun.Class.INDICATION, self._random_bytes(12), attributes))

    def farewell(self) -> bytes | None:
        """The last message, after which the allocation is gone."""
        if self.relayed is None or self._lost:
            return None
        self._lost = True
        return bytes(self._message("REFRESH", {"LIFETIME": 0}))

    # from the server

    def message_received(self, data: bytes, now: float) -> tuple[bytes, Address] | None:
        """Of a datagram, or of a frame of the stream: what a peer sent, and which. Never raises."""
        try:
            if is_channel_data(data):
                return self._channel_data_untrusted(data)
            return self._stun_untrusted(data, now)
        except BadPacket as error:
            self.drops[str(error)] += 1
            return None

    def next_event(self) -> Allocated | RelayLost | None:
        return self._events.popleft() if self._events else None

    def split_untrusted(self, buffer: bytearray) -> Iterator[bytes]:
        """The frames of a stream. Raises BadPacket where it is not TURN's."""
        return split_stream_untrusted(buffer)

    # the clock

    def next_timer(self) -> float | None:
        if self._lost:
            return None
        timers = [self._refresh_at, *(request.due for request in self._requests.values())]
        timers += [channel.refresh for channel in self._channels.values()]
        return min((timer for timer in timers if timer < math.inf), default=None)

    def timer_expired(self, now: float) -> None:
        if self._lost:
            return
        for transaction, request in list(self._requests.items()):
            if now >= request.due and not self._lost:  # by the one before
                self._overdue(transaction, request, now)
        if now >= self._refresh_at:
            self._refresh_at = math.inf
            self._request("REFRESH", {"LIFETIME": LIFETIME}, now)
        for peer, channel in list(self._channels.items()):
            if now >= channel.refresh and channel.used + CHANNEL_REFRESH > now:
                self._request_channel(peer, channel, now)
            elif now >= channel.refresh:
                del self._channels[peer]  # it expires, and is bound again when it is wanted

    def _overdue(self, transaction: bytes, request: _Request, now: float) -> None:
        if self._is_stream or request.tries >= MAX_TRIES:
            del self._requests[transaction]
            self._failed(request, "it does not answer")
            return
        request.tries += 1
        request.due = now + FIRST_RESEND * 2**request.tries
        self._out.append(bytes(request.message))

    # requests

    def _request(self, method: str, attributes: dict[str, Any], now: float, peer: Address | None = None) -> _Request:
        message = self._message(method, attributes)
        request = _Request(message, peer, now + (STREAM_TIMEOUT if self._is_stream else FIRST_RESEND))
        self._requests[message.transaction_id] = request
        self._out.append(bytes(message))
        return request

    def _message(self, method: str, attributes: dict[str, Any]) -> Message:
        from aioice import stun  # slow

        message = stun.Message(stun.Method[method], stun.Class.REQUEST, self._random_bytes(12), dict(attributes))
        self._credentials.sign(message)
        return message

    def _bind(self, peer: Address, now: float) -> _Channel | None:
        if len(self._channels) >= MAX_CHANNELS:
            return None
        # A number stays with its peer for as long as the server may remember it.
        number = next((n for n, known in self._peers.items() if known == peer), _FIRST_CHANNEL + len(self._peers))
        if number > 0x4FFF:
            return None
        self._channels[peer] = channel = _Channel(number, now, math.inf)
        self._peers[number] = peer
        self._request_channel(peer, channel, now)
        return channel

    def _request_channel(self, peer: Address, channel: _Channel, now: float) -> None:
        channel.refresh = now + CHANNEL_REFRESH
        self._request("CHANNEL_BIND", {"CHANNEL-NUMBER": channel.number, "XOR-PEER-ADDRESS": peer}, now, peer)

    # what arrived

    def _channel_data_untrusted(self, data: bytes) -> tuple[bytes, Address]:
        number, payload = parse_channel_data_untrusted(data)
        if number not in self._peers:
            raise BadPacket("unknown channel")
        return payload, self._peers[number]

    def _stun_untrusted(self, data: bytes, now: float) -> tuple[bytes, Address] | None:
        from aioice import stun

        try:
            message = stun.parse_message(data)
        except Exception as error:  # ValueError where it checks, struct.error and others where it does not
            raise BadPacket("unreadable") from error
        if message.message_method == stun.Method.DATA and message.message_class == stun.Class.INDICATION:
            payload, peer = message.attributes.get("DATA"), message.attributes.get("XOR-PEER-ADDRESS")
            if payload is None or peer is None:
                raise BadPacket("empty indication")
            return payload, ipv4_untrusted(peer)
        request = self._requests.get(message.transaction_id)
        if request is None or message.message_method != request.message.message_method:
            raise BadPacket("answer to no request")
        if message.message_class == stun.Class.RESPONSE:
            if not self._credentials.have_signed(message):
                raise BadPacket("integrity")
            del self._requests[message.transaction_id]
            self._succeeded_untrusted(request, message, now)
        elif message.message_class == stun.Class.ERROR:
            del self._requests[message.transaction_id]
            self._refused_untrusted(request, message, now)
        return None

    def _succeeded_untrusted(self, request: _Request, answer: Message, now: float) -> None:
        method = request.message.message_method.name
        if method == "CHANNEL_BIND":
            if request.peer in self._channels:  # it may have run out meanwhile, while this host slept
                self._channels[request.peer].is_bound = True
            return
        lifetime = answer.attributes.get("LIFETIME", LIFETIME)
        self._refresh_at = now + min(max(lifetime, 60), LIFETIME) / 2
        if method == "ALLOCATE":
            relayed = answer.attributes.get("XOR-RELAYED-ADDRESS")
            try:
                self.relayed = ipv4_untrusted(relayed)
            except BadPacket:
                self._give_up("it gives no IPv4 address")
                return
            self._events.append(Allocated(self.relayed))

    def _refused_untrusted(self, request: _Request, answer: Message, now: float) -> None:
        if request.renewed >= MAX_RENEWALS or not self._credentials.take_challenge_untrusted(answer):
            code = answer.error_code or 0
            self._failed(request, REASONS.get(code, f"it answers with error {code}"))
            return
        wanted = ("LIFETIME", "REQUESTED-TRANSPORT", "CHANNEL-NUMBER", "XOR-PEER-ADDRESS")
        attributes = {name: value for name, value in request.message.attributes.items() if name in wanted}
        again = self._request(request.message.message_method.name, attributes, now, request.peer)
        again.renewed = request.renewed + 1

    def _failed(self, request: _Request, reason: str) -> None:
        """Without a channel one peer cannot be reached; without the rest, nobody."""
        if request.message.message_method.name != "CHANNEL_BIND":
            self._give_up(reason)
        else:
            self.drops[f"channel: {reason}"] += 1

    def _give_up(self, reason: str) -> None:
        if not self._lost:
            self._lost = True
            self._requests.clear()
            self._events.append(RelayLost(reason))
