"""The rendezvous without any mailbox: two texts that people carry between the two sides by hand. Sans-IO.

    1  sender -> receiver    instance 16 | SPAKE2 message 33 | hello, in clear
    2  receiver -> sender    SPAKE2 message 33 | sealed hello

Each is written as `udpsend1.NUMBER.` and, in the alphabet of base64 for URLs, those bytes with the first four of their
SHA-256 behind them, against what copying breaks. White space in it does not matter.

It is the handshake of `handshake.py`, with the same code, but that the sender tells its key and addresses before there
is anything to seal them with. Whoever sees the text sees these addresses; whoever changes it gets a text 2 that does
not open. Sealed under the code alone they would let everybody who sees the text guess the code at leisure; sealed
under both SPAKE2 messages they would take a third text. The receiver's instance is zero: it plays no other part than
to tell runs apart, and there is one.

The receiver agrees when it makes its text, and looks for the sender from then on: that what comes is sealed with the
same secret is the confirmation. A receiver that typed another code is a wrong guess, as everywhere: the sender takes a
few, then stops.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter, deque
from collections.abc import Callable

from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.events import WrongGuess
from udpsend.rendezvous.code import Code
from udpsend.rendezvous.handshake import Handshake
from udpsend.rendezvous.meeting import MAX_WRONG_GUESSES
from udpsend.rendezvous.messages import INSTANCE_SIZE, PAKE_SIZE, TAG_SIZE
from udpsend.rendezvous.outcome import (
    Agreed,
    Failed,
    RendezvousEvent,
    another_version,
    broken_protocol,
    too_many_guesses,
)
from udpsend.wire.json import JSON

PREFIX = "udpsend1."
MAX_TEXT_SIZE = 4000  # characters; a terminal's line takes 4095
CHECK_SIZE = 4
MAX_CANDIDATES = 8  # of a hello: each makes the text longer by some fifty characters

_SEEN_FROM_OUTSIDE = ("srflx", "mapped", "relay")  # without these, only a peer on the same network could come
_RECEIVER = bytes(INSTANCE_SIZE)
_SHORTEST = {1: INSTANCE_SIZE + PAKE_SIZE, 2: PAKE_SIZE + TAG_SIZE}


def write_text(number: int, body: bytes) -> str:
    return f"{PREFIX}{number}.{base64.urlsafe_b64encode(body + _check(number, body)).decode().rstrip('=')}"


def read_text_untrusted(number: int, text: str) -> bytes:
    """The bytes of the text `number`. Raises BadPacket, whose reason is fit for the one who pasted it."""
    stripped = "".join(text.split())
    if not stripped.startswith(PREFIX):
        raise BadPacket(f"it does not begin with '{PREFIX}{number}.'")
    if len(stripped) > MAX_TEXT_SIZE:
        raise BadPacket("it is too long")
    kind, _, encoded = stripped.removeprefix(PREFIX).partition(".")
    if kind != str(number):
        raise BadPacket(
            f"this is text {kind}, and text {number} is due" if kind in ("1", "2") else "it is no such text"
        )
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise BadPacket("something of it is missing or has changed") from error
    body, check = data[:-CHECK_SIZE], data[-CHECK_SIZE:]
    if check != _check(number, body) or len(body) < _SHORTEST[number]:
        raise BadPacket("something of it is missing or has changed")
    return body


def _check(number: int, body: bytes) -> bytes:
    return hashlib.sha256(b"udpsend text %d " % number + body).digest()[:CHECK_SIZE]


class ManualRendezvous:
    """Takes the place of `Rendezvous` in a session; there are no mailboxes, so nothing is told after the agreement."""

    def __init__(
        self, role: Role, code: Code, now: float, random_bytes: Callable[[int], bytes], hello: dict[str, JSON]
    ) -> None:
        self.drops: Counter[str] = Counter()
        self._role = role
        self._code = code
        self._random_bytes = random_bytes
        self.set_hello(hello)
        self._events: deque[RendezvousEvent] = deque()
        self._wrong_guesses = 0
        self._ended = False
        self._has_text = role is Role.SENDER
        self._pasted = ""
        self._handshake: Handshake | None = None
        if role is Role.SENDER:
            self._instance = random_bytes(INSTANCE_SIZE)
            self._handshake = Handshake(role, code, self._instance, _RECEIVER, random_bytes)

    # texts

    @property
    def due(self) -> int | None:
        """The number of the text that is waited for; None while there is one to show first, and in the end."""
        if self._ended or self._has_text:
            return None
        return 2 if self._role is Role.SENDER else 1

    @property
    def text_number(self) -> int | None:
        """The number of the text that this side has to show next."""
        if not self._has_text:
            return None
        return 1 if self._role is Role.SENDER else 2

    def take_text(self) -> str:
        """That text, made of what is known by now; once."""
        if not self._has_text:
            raise RuntimeError("no text is due")
        self._has_text = False
        handshake = self._running()
        if self._role is Role.SENDER:
            return write_text(1, self._instance + handshake.pake + handshake.tell(self._offer()))
        text = write_text(2, handshake.pake + handshake.seal(self._hello))
        self._agree(self._opening)
        return text

    def text_received(self, text: str) -> None:
        """What somebody pasted. Raises BadPacket, with a reason for the user, if it is not the text that is due."""
        if self.due is None:
            raise BadPacket("no text is due")
        # A terminal gives a text that a mail has folded line by line.
        self._pasted = text if text.strip().startswith(PREFIX) else self._pasted + text
        body = read_text_untrusted(self.due, self._pasted)
        self._pasted = ""
        if self._role is Role.RECEIVER:
            self._opening_received_untrusted(body)
        else:
            self._answer_received_untrusted(body)

    def _opening_received_untrusted(self, body: bytes) -> None:
        instance, rest = body[:INSTANCE_SIZE], body[INSTANCE_SIZE:]
        handshake = Handshake(self._role, self._code, _RECEIVER, instance, self._random_bytes)
        pake, self._opening = rest[:PAKE_SIZE], rest[PAKE_SIZE:]
        handshake.finish_pake_untrusted(pake, self._opening)
        handshake.read_hello_untrusted(self._opening)
        self._handshake = handshake
        self._has_text = True

    def _answer_received_untrusted(self, body: bytes) -> None:
        handshake = self._running()
        handshake.finish_pake_untrusted(body[:PAKE_SIZE], b"")
        try:
            plaintext = handshake.open_untrusted(body[PAKE_SIZE:])
        except BadPacket:
            self._wrong_guess()
            return
        self._agree(plaintext)

    def _wrong_guess(self) -> None:
        self._wrong_guesses += 1
        self._events.append(WrongGuess(MAX_WRONG_GUESSES - self._wrong_guesses))
        if self._wrong_guesses == MAX_WRONG_GUESSES:
            self._end(Failed(too_many_guesses(MAX_WRONG_GUESSES)))

    def _agree(self, hello: bytes) -> None:
        """Both hellos are told; this is the other side's."""
        handshake = self._running()
        try:
            peer = handshake.read_hello_untrusted(hello)
            agreement = handshake.agree_untrusted(peer.public_key)
        except BadPacket as error:
            self._end(Failed(broken_protocol(str(error))))
            return
        if peer.has_common_version():
            self._end(Agreed(agreement.secret, agreement.phrase, peer.hello, math.inf))
        else:
            self._end(Failed(another_version(f"{peer.versions[:8]}")))

    def _running(self) -> Handshake:
        if self._handshake is None:
            raise RuntimeError("no handshake yet")
        return self._handshake

    def _end(self, event: RendezvousEvent) -> None:
        self._ended = True
        self._events.append(event)

    def _offer(self) -> dict[str, JSON]:
        """The hello as strangers may see it: without the host token, which is made of the code, and so without what
        only a peer on the same host could use."""
        candidates = self._hello["candidates"]
        known = candidates if isinstance(candidates, list) else []
        return {"candidates": [one for one in known if isinstance(one, list) and one[0] != "loopback"]}

    # as Rendezvous

    def set_hello(self, hello: dict[str, JSON]) -> None:
        """What will be in this side's next text. Only the best candidates; of the NAT nothing, because the methods
        for hard ones need both sides to begin together."""
        candidates = hello.get("candidates")
        given = candidates if isinstance(candidates, list) else []
        found = [one for one in given if isinstance(one, list) and one[0] in _SEEN_FROM_OUTSIDE]
        best = [*found, *(one for one in given if one not in found)][:MAX_CANDIDATES]
        self._hello = {"candidates": best, "host": hello.get("host")}

    def next_event(self) -> RendezvousEvent | None:
        return self._events.popleft() if self._events else None

    def message_received(self, message: bytes, now: float) -> None:
        """There are no mailboxes."""

    def messages_to_send(self, now: float) -> list[bytes]:
        return []

    def mailbox_up(self, now: float) -> None:
        """There are no mailboxes."""

    def next_timer(self) -> float | None:
        return None

    def timer_expired(self, now: float) -> None:
        """Nothing is repeated."""

    def send_sealed(self, payload: dict[str, JSON], *, is_last: bool = False) -> None:
        """No more texts: what is not known yet is found by probing, or not at all."""
