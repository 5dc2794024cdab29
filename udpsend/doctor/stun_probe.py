"""Questions to STUN servers beyond what a session asks: several at once on one socket, from another address of the
server (CHANGE-REQUEST, RFC 5780), to another port of this host (RESPONSE-PORT), and of a given size.

A server that does not know such a wish says so or ignores it; `Answer.source` shows which.
"""

from __future__ import annotations

import secrets
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence

from msgspec import Struct

from udpsend.errors import BadPacket
from udpsend.rendezvous.stun import checked_address_untrusted
from udpsend.wire.datagram import Address, ip_overhead

CHANGE_PORT, CHANGE_BOTH = 0x2, 0x6
TIMEOUT = 1.6  # seconds
RESENDS = (0.0, 0.25, 0.75)  # seconds after the question

_COOKIE = 0x2112A442
_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_CHANGE_REQUEST = 0x0003
_RESPONSE_PORT = 0x0027
_PADDING = 0xC0DE  # of the range that a server ignores where it does not know it; RFC 5780's own PADDING it must know


class Question(Struct, frozen=True):
    server: Address
    change: int = 0
    response_port: int | None = None
    size: int = 0
    """Bytes of the IP packet that carries it; 0: as it comes."""


class Answer(Struct, frozen=True):
    mapped: Address
    source: Address
    """Where it came from."""
    seconds: float
    other: Address | None
    """The server's other address and port, if it has them (OTHER-ADDRESS, or CHANGED-ADDRESS of RFC 3489)."""


class StunProbe:
    """One socket, so one mapping. A context manager. Raises OSError if this host has no such address."""

    def __init__(self, family: socket.AddressFamily, bind: str | None) -> None:
        import aioice.stun  # noqa: F401 - slow, and not to be counted as the server's time

        self.family = family
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if sys.platform == "linux":
                from udpsend.net.linux import forbid_fragments

                forbid_fragments(self._socket)
            self._socket.bind((bind or "", 0))
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def __enter__(self) -> StunProbe:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def local_address(self, server: Address) -> Address:
        """What this host would be for `server` if nothing translated. Nothing is sent for it."""
        with socket.socket(self.family, socket.SOCK_DGRAM) as route:
            route.bind((self._socket.getsockname()[0], 0))
            route.connect(server)
            return (str(route.getsockname()[0]), self.port)

    def ask(self, questions: Sequence[Question], timeout: float = TIMEOUT) -> list[Answer | None]:
        """The answers in the order of the questions; None where none came."""
        requests = {secrets.token_bytes(12): index for index, _ in enumerate(questions)}
        answers: list[Answer | None] = [None] * len(questions)
        started, resends = time.monotonic(), list(RESENDS)
        while None in answers and (passed := time.monotonic() - started) < timeout:
            if resends and passed >= resends[0]:
                resends.pop(0)
                for transaction, index in requests.items():
                    if answers[index] is None:
                        self.send(_pack(questions[index], transaction), questions[index].server)
            wait = max(0.0, min(timeout, resends[0] if resends else timeout) - passed)
            for data, source in self._arrived(wait):
                taken = _answered_untrusted(data, requests)
                if taken is not None and answers[taken[0]] is None:
                    index, mapped, other = taken
                    answers[index] = Answer(mapped, source, time.monotonic() - started, other)
        return answers

    def send_question(self, question: Question) -> bytes:
        """Once, and without waiting; the transaction id, which an answer has in it."""
        transaction = secrets.token_bytes(12)
        self.send(_pack(question, transaction), question.server)
        return transaction

    def hears(self, content: bytes, timeout: float) -> bool:
        """Whether a datagram with `content` in it arrives in time."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if any(content in data for data, _ in self._arrived(left)):
                return True
        return False

    def send(self, data: bytes, address: Address) -> None:
        try:
            self._socket.sendto(data, address)
        except OSError:  # no route, too large for the interface: as good as no answer
            return

    def _arrived(self, wait: float) -> list[tuple[bytes, Address]]:
        if not select.select([self._socket], [], [], wait)[0]:
            return []
        try:
            data, source = self._socket.recvfrom(2048)
        except OSError:  # what an ICMP message says of an earlier datagram
            return []
        return [(data, (str(source[0]), int(source[1])))]


def _pack(question: Question, transaction: bytes) -> bytes:
    attributes = b""
    if question.change:
        attributes += _ATTRIBUTE.pack(_CHANGE_REQUEST, 4) + question.change.to_bytes(4)
    if question.response_port is not None:
        attributes += _ATTRIBUTE.pack(_RESPONSE_PORT, 4) + question.response_port.to_bytes(2) + bytes(2)
    room = question.size - ip_overhead(question.server[0]) - _HEADER.size - len(attributes) - _ATTRIBUTE.size
    if question.size and room >= 0:
        attributes += _ATTRIBUTE.pack(_PADDING, room) + bytes(room + -room % 4)
    return _HEADER.pack(1, len(attributes), _COOKIE, transaction) + attributes


def _answered_untrusted(data: bytes, requests: dict[bytes, int]) -> tuple[int, Address, Address | None] | None:
    """(index of the question, our address, the server's other one), or None for what is no answer to any."""
    index = requests.get(data[8:20]) if len(data) >= 20 else None
    if index is None:
        return None
    try:
        mapped, other = parse_answer_untrusted(data)
    except BadPacket:
        return None
    return index, mapped, other


def parse_answer_untrusted(data: bytes) -> tuple[Address, Address | None]:
    """Our address and the server's other one, of a Binding response. Raises BadPacket."""
    from aioice import stun  # slow

    try:
        message = stun.parse_message(data)
    except Exception as error:  # ValueError where it checks, struct.error and others where it does not
        raise BadPacket("unreadable") from error
    if message.message_method != stun.Method.BINDING or message.message_class != stun.Class.RESPONSE:
        raise BadPacket("no Binding response")
    found: dict[str, Address | None] = message.attributes
    host, port = found.get("XOR-MAPPED-ADDRESS") or found.get("MAPPED-ADDRESS") or ("", 0)
    # A session believes no other: a server may not send it to a multicast group, nor us here.
    mapped = checked_address_untrusted(host, port, socket.AF_INET6 if ":" in str(host) else socket.AF_INET)
    other = found.get("OTHER-ADDRESS") or found.get("CHANGED-ADDRESS")
    return mapped, (str(other[0]), other[1]) if other and other[0] and other[1] else None
