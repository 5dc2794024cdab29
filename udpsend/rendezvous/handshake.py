"""The cryptography of one handshake, between one start of the sender and one of the receiver. No time, no messages.

In the order of the flow:

    1  pake          SPAKE2 (A is the sender, B the receiver; identities are role and instance): one strong key of a
                     weak code. The sender adds a commitment, the SHA-256 of its X25519 public key.
    2  seal / open   receiver to sender, then sender to receiver: versions, X25519 public key, the caller's hello, under
                     keys from the SPAKE2 key and the transcript so far. That they open is the confirmation.
    3  agree         secret = HKDF-SHA256(X25519 || SPAKE2 key, salt = hash of the whole transcript)
                     phrase = three words of a hash over both X25519 public keys; six where the sender has told

Where texts go by hand the sender has one to make before it has the receiver's: in it it tells, in clear, what it would
seal, in place of the commitment and of its sealed message.

The transcript is protocol version, topic, both roles with their instances, both SPAKE2 messages, the commitment and
both sealed messages, each with its length. Whoever knows a code can stand between the two; the phrase shows it: the
sender is bound to its public key before it sees the receiver's, and the receiver chooses before it sees the sender's,
so the one between has one chance in 1296^3, and cannot search for keys that give the same words. Where the key is told
in clear it can search, among 1296^6 = 2^62.
"""

from __future__ import annotations

import base64
import copy
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.rendezvous.code import PROTOCOL_VERSION, Code, pick_words, words
from udpsend.rendezvous.messages import (
    PAKE_SIZE,
    check_payload,
    pack_payload,
    parse_hello_untrusted,
    parse_object_untrusted,
)
from udpsend.wire.json import JSON

SUPPORTED_VERSIONS = (1,)
"""Versions of what follows the handshake (punching and transfer), told to the other side under seal."""

PHRASE_WORDS = 3
PHRASE_WORDS_TOLD = 6
_FIELD = 2**255 - 19
_ONLY_NONCE = bytes(12)  # each handshake key seals one message


@dataclass(frozen=True, slots=True)
class Agreement:
    secret: bytes = field(repr=False)
    """32 uniform bytes, bound to the whole transcript."""
    phrase: str


class PeerHello(Struct, frozen=True):
    """What the other side sealed. It knows the code; it may still be hostile."""

    versions: list[int]
    public_key: bytes
    hello: dict[str, JSON]

    def has_common_version(self) -> bool:
        return any(version in SUPPORTED_VERSIONS for version in self.versions)


def prepare() -> None:
    """Load what the first run needs, while the mailboxes are being reached: 50 ms that nobody then waits for. And when
    the other side comes at last, this program may have been replaced by an update."""
    import spake2  # noqa: F401

    words()
    X25519PrivateKey.generate()  # with the first key cryptography imports its backend


class Handshake:
    """One run, for one pair of instances. Receiver: finish_pake, seal, open. Sender: finish_pake, open, seal."""

    def __init__(
        self, role: Role, code: Code, instance: bytes, peer_instance: bytes, random_bytes: Callable[[int], bytes]
    ) -> None:
        import spake2

        self.role = role
        sender, receiver = (instance, peer_instance) if role is Role.SENDER else (peer_instance, instance)
        self._opening = (
            b"udpsend rendezvous",
            str(PROTOCOL_VERSION).encode(),
            code.topic.encode(),
            Role.SENDER.value.encode(),
            sender,
            Role.RECEIVER.value.encode(),
            receiver,
        )
        side = spake2.SPAKE2_A if role is Role.SENDER else spake2.SPAKE2_B
        identities = (b"udpsend sender " + sender, b"udpsend receiver " + receiver)
        self._spake = side(code.password, *identities, entropy_f=random_bytes)
        self._private = X25519PrivateKey.from_private_bytes(random_bytes(32))
        self._public = self._private.public_key().public_bytes_raw()
        self._sealed: dict[Role, bytes] = {}
        self._keys: dict[Role, bytes] = {}
        self._pakes: tuple[bytes, ...] = ()
        self._spake_key = b""
        self.pake: bytes = self._spake.start()
        """This side's SPAKE2 message."""
        self.commitment = sha256(self._public).digest() if role is Role.SENDER else b""
        self._is_told = False

    def tell(self, hello: dict[str, JSON]) -> bytes:
        """Sender, before anything else: what it would seal, in clear, in place of the commitment. Raises ValueError if
        `hello` is too large."""
        self._is_told = True
        self.commitment = self._pack(hello).rstrip()
        return self.commitment

    def finish_pake_untrusted(self, pake: bytes, commitment: bytes) -> None:
        """Take the other side's SPAKE2 message (and the sender's commitment). Costs about 5 ms. Raises BadPacket for
        what is no element of the group, of the wrong side, or our own message sent back; may be called again then."""
        from spake2 import SPAKEError
        from spake2.ed25519_basic import NotOnCurve

        _check_encoding_untrusted(pake)
        if pake[1:] == self.pake[1:]:
            raise BadPacket("reflected SPAKE2 message")
        try:
            # A copy, because the library's object refuses a second message after a bad one.
            key = copy.copy(self._spake).finish(pake)
        except (SPAKEError, NotOnCurve, ValueError) as error:
            raise BadPacket("bad SPAKE2 message") from error
        self._spake_key = key
        if self.role is Role.SENDER:
            self._pakes = (self.pake, self.commitment, pake)
        else:
            self._pakes = (pake, commitment, self.pake)
        salt = self._transcript()
        self._keys = {role: _derive(key, salt, f"udpsend 1 handshake {role.value}") for role in Role}

    def seal(self, hello: dict[str, JSON]) -> bytes:
        """This side's sealed message; to be called once, after `finish_pake_untrusted`. Raises ValueError if `hello`
        is too large."""
        plaintext = self._pack(hello)
        aead = ChaCha20Poly1305(self._keys.pop(self.role))
        self._sealed[self.role] = aead.encrypt(_ONLY_NONCE, plaintext, self._transcript())
        return self._sealed[self.role]

    def _pack(self, hello: dict[str, JSON]) -> bytes:
        check_payload(hello)
        key = base64.b64encode(self._public).decode()
        return pack_payload({"versions": list(SUPPORTED_VERSIONS), "key": key, "hello": hello})

    def open_untrusted(self, sealed: bytes) -> bytes:
        """The plaintext of the other side's sealed message. Raises BadPacket if it does not open: its maker has
        another code, or another run. May be called again then; trying again is no second guess at the code, as SPAKE2
        binds each run to one."""
        aead = ChaCha20Poly1305(self._keys[self.role.other])
        try:
            plaintext = aead.decrypt(_ONLY_NONCE, sealed, self._transcript())
        except InvalidTag:
            raise BadPacket("does not open") from None
        self._sealed[self.role.other] = sealed
        return plaintext

    def read_hello_untrusted(self, plaintext: bytes) -> PeerHello:
        """What is in an opened message, or in what the sender told. Raises BadPacket if the other side broke the
        protocol."""
        versions, public_key, hello = parse_hello_untrusted(parse_object_untrusted(plaintext))
        if self.role is Role.RECEIVER:
            self._is_told = plaintext == self._pakes[1]
            if not self._is_told and not hmac.compare_digest(sha256(public_key).digest(), self._pakes[1]):
                raise BadPacket("another key than the one committed to")
        return PeerHello(versions, public_key, hello)

    def agree_untrusted(self, public_key: bytes) -> Agreement:
        """The secret, once both messages are sealed (or told). Raises BadPacket for a public key of low order."""
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(public_key))
        except ValueError as error:  # all zero, RFC 7748, section 6.1
            raise BadPacket("X25519 key of low order") from error
        secret = _derive(shared + self._spake_key, self._transcript(), "udpsend 1 secret")
        keys = (self._public, public_key) if self.role is Role.SENDER else (public_key, self._public)
        count = PHRASE_WORDS_TOLD if self._is_told else PHRASE_WORDS
        entropy = _derive(b"".join(keys), b"", "udpsend 1 phrase", 16 * count)
        return Agreement(secret, " ".join(pick_words(entropy, count)))

    def _transcript(self) -> bytes:
        """The hash of all that was said so far: without the sealed messages for their own keys, with both for the
        secret."""
        sealed = (self._sealed[role] for role in (Role.RECEIVER, Role.SENDER) if role in self._sealed)
        items = (*self._opening, *self._pakes, *sealed)
        return sha256(b"".join(len(item).to_bytes(4) + item for item in items)).digest()


def _check_encoding_untrusted(pake: bytes) -> None:
    """What spake2 0.9 lets pass: elements that are too short, coordinates beyond the field, and the identity in such
    an encoding (or with a sign). Everything else is checked by the library."""
    y = int.from_bytes(pake[1:], "little") & ((1 << 255) - 1)
    if len(pake) != PAKE_SIZE or y >= _FIELD or y == 1:
        raise BadPacket("bad SPAKE2 message")


def _derive(material: bytes, salt: bytes, info: str, length: int = 32) -> bytes:
    return HKDF(SHA256(), length, salt, info.encode()).derive(material)
