"""When the other side was heard last, when to speak to it, and how long its silence is borne."""

from __future__ import annotations

IDLE_TIMEOUT = 300.0  # seconds without a word from the other side: a laptop may sleep for two minutes
# NAT mappings live two minutes by RFC 4787, REQ-5, but some live 5 s, consent is asked for as often (RFC 7675, 5.1).
# One small datagram, where nothing else is sent; more often after a path was lost, perhaps with its mapping.
KEEPALIVE = 3.5
MIN_KEEPALIVE = 1.0  # seconds
LINGER = 5.0  # a receiver whose "verified" was acknowledged waits so long to be told that all is over
LINGER_UNHEARD = 60.0  # the same while it was not: an outage may pass, and the sender would not know that all is well


class Liveness:
    def __init__(self, now: float) -> None:
        self.last_heard = now
        self.keepalive = KEEPALIVE
        self.verified = False
        """This side has received all and said so."""

    def over_at(self, is_acked: bool) -> float:
        """When it is over, if nothing more is heard. `is_acked`: the other side has all that was said."""
        if not self.verified:
            return self.last_heard + IDLE_TIMEOUT
        return self.last_heard + (LINGER if is_acked else LINGER_UNHEARD)

    def path_lost(self) -> None:
        """The NAT gave another port, or the path died."""
        self.keepalive = max(MIN_KEEPALIVE, self.keepalive / 2)

    def silence(self, last_asked: float, now: float) -> float:
        """Seconds since the other side was heard, if it was asked something since then; else 0."""
        return now - self.last_heard if last_asked > self.last_heard else 0.0
