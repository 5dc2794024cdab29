"""The peer's address, and how it may change: an authenticated record from elsewhere starts a check, and the transfer
moves there when the check is answered (RFC 9000, section 9)."""

from __future__ import annotations

from collections.abc import Callable

from udpsend.wire.datagram import Address

TOKEN_SIZE = 8
MAX_TRIES = 5
RETRY_INTERVAL = 0.2  # seconds


class PathCheck:
    """One address at a time is being checked; another authenticated record from a third one replaces it."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._address: Address | None = None
        self._token = b""
        self._tries = 0
        self._next_try: float | None = None

    def start(self, address: Address, now: float) -> None:
        if address == self._address:
            return
        self._address = address
        self._token = self._random_bytes(TOKEN_SIZE)
        self._tries = 0
        self._next_try = now

    def take_challenge(self, now: float) -> tuple[bytes, Address] | None:
        """The token to send now, and where."""
        if self._address is None or self._next_try is None or now < self._next_try:
            return None
        if self._tries >= MAX_TRIES:
            self._address = self._next_try = None
            return None
        self._tries += 1
        self._next_try = now + RETRY_INTERVAL
        return self._token, self._address

    def response_received(self, token: bytes) -> Address | None:
        """The address that is proved by this answer."""
        if self._address is None or token != self._token:
            return None
        address, self._address, self._next_try = self._address, None, None
        return address

    def timer(self) -> float | None:
        return self._next_try
