"""From the one secret that both sides agreed on to the keys of each direction (HKDF-SHA256, RFC 5869)."""

from __future__ import annotations

from typing import Literal

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from msgspec import Struct

from udpsend.config import Role
from udpsend.wire.packets import TAG_SIZE

KEY_SIZE = 32
IV_SIZE = 12

Purpose = Literal["probe", "traffic"]


class DirectionKeys(Struct, frozen=True):
    """What one side sends with and the other receives with."""

    key: bytes
    iv: bytes
    tag: bytes
    """Opens every datagram of this direction: strangers cannot guess it, so their datagrams are not looked at."""

    def __repr__(self) -> str:
        return "DirectionKeys(...)"


class KeyPair(Struct, frozen=True):
    send: DirectionKeys
    receive: DirectionKeys


def derive_keys(secret: bytes, role: Role, purpose: Purpose) -> KeyPair:
    """The keys of both directions for `purpose`, as `role` sees them. `secret` is 32 uniform bytes that are already
    bound to the whole transcript of the handshake."""
    return KeyPair(_expand(secret, role, purpose), _expand(secret, role.other, purpose))


def derive_generation(secret: bytes, generation: int) -> bytes:
    """The secret of a later punching, whose probes count from 0 again; that of the first one is `secret` itself."""
    if generation == 0:
        return secret
    return HKDFExpand(SHA256(), len(secret), f"udpsend 1 punching {generation}".encode()).derive(secret)


def _expand(secret: bytes, sending: Role, purpose: Purpose) -> DirectionKeys:
    info = f"udpsend 1 {purpose} {sending.value}".encode()
    material = HKDFExpand(SHA256(), KEY_SIZE + IV_SIZE + TAG_SIZE, info).derive(secret)
    return DirectionKeys(material[:KEY_SIZE], material[KEY_SIZE : KEY_SIZE + IV_SIZE], material[KEY_SIZE + IV_SIZE :])
