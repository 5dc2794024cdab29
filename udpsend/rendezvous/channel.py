"""After agreement: sealed messages over the mailboxes, numbered, repeated until acknowledged, taken once.

    send                    seal under the key of this direction; the number is the nonce; keep until acknowledged
    messages_to_send        what is due, and the acknowledgement if something came
    sealed_untrusted        open, note the number, hand out unless it was there before
    acknowledged_untrusted  forget what the other side has

A repetition is the same bytes again, so no nonce seals two things. An acknowledgement is a tag over nothing, with its
number as the nonce of a key of its own.
"""

from __future__ import annotations

from math import inf

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.rendezvous.messages import (
    MAX_NUMBER,
    Kind,
    check_payload,
    pack_payload,
    parse_object_untrusted,
)
from udpsend.rendezvous.repeat import Repeat
from udpsend.wire.json import JSON

MAX_REPEATS = 30  # about two minutes; a mailbox that was away longer will not help the session any more
MAX_PER_ROUND = 16  # repetitions of one moment


class Channel:
    """Both directions of sealed messages with the instance `peer`. Numbers count from 1."""

    def __init__(self, secret: bytes, role: Role, peer: bytes) -> None:
        self.peer = peer
        self._seal = _cipher(secret, "sealed", role)
        self._open = _cipher(secret, "sealed", role.other)
        self._acknowledge = _cipher(secret, "ack", role)
        self._check = _cipher(secret, "ack", role.other)
        self._last_number = 0
        self._unacknowledged: dict[int, bytes] = {}
        self._unsaid: list[int] = []
        self._repeat = Repeat()
        self._repeats = 0
        self._contiguous = 0  # all numbers up to this one came
        self._beyond: set[int] = set()
        self._acknowledgement_due = False

    def send(self, payload: dict[str, JSON], *, is_last: bool = False) -> bool:
        """Whether there was a number for it: one is left for what is said last. Raises ValueError if it is too
        large."""
        check_payload(payload)
        if self._last_number >= MAX_NUMBER - (not is_last):
            return False
        self._last_number += 1
        body = self._seal.encrypt(_nonce(self._last_number), pack_payload(payload), None)
        self._unacknowledged[self._last_number] = body
        self._unsaid.append(self._last_number)
        return True

    def repeat_at_once(self, now: float) -> None:
        """There is a new way to say what is unacknowledged."""
        self._repeats = 0
        if self._unacknowledged:
            self._repeat.at_once(now)

    def next_timer(self) -> float | None:
        return -inf if self._acknowledgement_due or self._unsaid else self._repeat.due

    def messages_to_send(self, now: float) -> list[tuple[Kind, int, bytes]]:
        """Kind, number and body of each."""
        messages = []
        if self._acknowledgement_due:
            self._acknowledgement_due = False
            tag = self._acknowledge.encrypt(_nonce(self._contiguous), b"", None)
            messages.append((Kind.ACK, self._contiguous, tag))
        numbers = self._unsaid
        if self._repeat.is_due(now):
            numbers = sorted({*numbers, *sorted(self._unacknowledged)[:MAX_PER_ROUND]})
            self._repeats += 1
        if numbers:
            if self._unsaid:
                self._repeats = 0
                self._repeat.at_once(now)
            self._repeat.said(now, again=self._repeats < MAX_REPEATS)
            messages += [(Kind.SEALED, number, self._unacknowledged[number]) for number in numbers]
            self._unsaid = []
        return messages

    def sealed_untrusted(self, number: int, body: bytes) -> dict[str, JSON] | None:
        """The payload, or None if it came before. Raises BadPacket."""
        plaintext = _opened_untrusted(self._open, number, body)
        self._acknowledgement_due = True
        if number <= self._contiguous or number in self._beyond:
            return None
        self._beyond.add(number)
        while self._contiguous + 1 in self._beyond:
            self._contiguous += 1
            self._beyond.remove(self._contiguous)
        return parse_object_untrusted(plaintext)

    def acknowledged_untrusted(self, number: int, tag: bytes) -> None:
        """Raises BadPacket."""
        _opened_untrusted(self._check, number, tag)
        remaining = {n: body for n, body in self._unacknowledged.items() if n > number}
        if len(remaining) < len(self._unacknowledged):
            self._repeats = 0
        self._unacknowledged = remaining
        self._unsaid = [n for n in self._unsaid if n > number]
        if not self._unacknowledged:
            self._repeat.stop()


def _cipher(secret: bytes, purpose: str, sending: Role) -> ChaCha20Poly1305:
    info = f"udpsend 1 mailbox {purpose} {sending.value}".encode()
    return ChaCha20Poly1305(HKDFExpand(SHA256(), 32, info).derive(secret))


def _opened_untrusted(cipher: ChaCha20Poly1305, number: int, sealed: bytes) -> bytes:
    try:
        return cipher.decrypt(_nonce(number), sealed, None)
    except InvalidTag:
        raise BadPacket("does not open") from None


def _nonce(number: int) -> bytes:
    return number.to_bytes(12)
