"""Who we are to a TURN server: long-term credentials (RFC 8489, section 9.2).

1. The first request has none. The server refuses it, with its realm and a nonce.
2. `take_challenge_untrusted` makes a key of the realm. From then on `sign` puts user, realm, nonce and integrity into
   each request, and `have_signed` tells whether an answer comes from who has the password, too.
3. A server wants another nonce now and then, and refuses what has the old one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aioice.stun import Message

MAX_QUOTED = 763  # bytes of a realm or a nonce (RFC 8489, 14.9 and 14.10): both go into each request

_UNAUTHORIZED, _STALE_NONCE = 401, 438


class Credentials:
    def __init__(self, user: str, password: str) -> None:
        self._user = user
        self._password = password
        self._realm = ""
        self._nonce = b""
        self._key = b""

    def sign(self, request: Message) -> None:
        if self._key:
            request.attributes |= {"USERNAME": self._user, "REALM": self._realm, "NONCE": self._nonce}
            request.add_message_integrity(self._key)

    def have_signed(self, answer: Message) -> bool:
        return bool(self._key) and answer.check_message_integrity(self._key)

    def take_challenge_untrusted(self, refusal: Message) -> bool:
        """Whether the request is worth making anew, with what the server wants in it."""
        code, realm, nonce = refusal.error_code, refusal.attributes.get("REALM"), refusal.attributes.get("NONCE")
        is_first = code == _UNAUTHORIZED and not self._key
        is_quotable = max(len(nonce or b""), len((realm or "").encode())) <= MAX_QUOTED
        if not nonce or not is_quotable or not ((is_first and realm) or (code == _STALE_NONCE and self._key)):
            return False
        self._nonce = nonce
        if is_first:
            self._realm = str(realm)
            # MD5 is what RFC 8489, section 9.2.2 says; the server decides with it whether to serve us, no more.
            text = f"{self._user}:{self._realm}:{self._password}".encode()
            self._key = hashlib.md5(text, usedforsecurity=False).digest()
        return True
