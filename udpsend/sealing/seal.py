"""ChaCha20-Poly1305 over one record of any length; nonce: the direction's IV XOR the record number (RFC 9001, 5.3)."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from udpsend.errors import BadPacket
from udpsend.sealing.keys import DirectionKeys

TAG_BYTES = 16

# RFC 9001, 6.6: with ChaCha20-Poly1305 a key must not be used after 2^36 forgeries were tried.
MAX_FORGERIES = 1 << 36


class Sealer:
    """Seals the records of one direction. The caller never uses a number twice."""

    def __init__(self, keys: DirectionKeys) -> None:
        self._aead = ChaCha20Poly1305(keys.key)
        self._iv = int.from_bytes(keys.iv)

    def seal(self, number: int, header: bytes, plaintext: bytes) -> bytes:
        return self._aead.encrypt((self._iv ^ number).to_bytes(12), plaintext, header)

    def seal_into(self, number: int, header: bytes, plaintext: memoryview | bytes, out: memoryview) -> None:
        """`out` must be exactly TAG_BYTES longer than `plaintext` and must not overlap it."""
        self._aead.encrypt_into((self._iv ^ number).to_bytes(12), plaintext, header, out)


class Opener:
    """Opens the records of one direction and counts what was forged."""

    def __init__(self, keys: DirectionKeys) -> None:
        self._aead = ChaCha20Poly1305(keys.key)
        self._iv = int.from_bytes(keys.iv)
        self.forgeries = 0

    def open_untrusted(self, number: int, header: bytes, ciphertext: bytes | memoryview) -> bytes:
        """The plaintext. Raises BadPacket."""
        out = bytearray(max(0, len(ciphertext) - TAG_BYTES))
        self.open_into_untrusted(number, header, ciphertext, memoryview(out))
        return bytes(out)

    def open_into_untrusted(self, number: int, header: bytes, ciphertext: bytes | memoryview, out: memoryview) -> None:
        """`out` must be exactly TAG_BYTES shorter than `ciphertext`; it holds garbage if this raises BadPacket."""
        if len(ciphertext) < TAG_BYTES:
            raise BadPacket("short record")
        if self.forgeries >= MAX_FORGERIES:
            raise BadPacket("key worn out by forgeries")
        try:
            self._aead.decrypt_into((self._iv ^ number).to_bytes(12), ciphertext, header, out)
        except InvalidTag:
            self.forgeries += 1
            raise BadPacket("forged") from None
