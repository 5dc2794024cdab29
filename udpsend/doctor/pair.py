"""Tries a pair: two doctors with the same code meet, punch, say which path they found, and send nothing.

A session has a sender and a receiver, and two doctors start alike. So each first leaves a random number in the
mailboxes, on a topic beside that of the code; whose number is larger is the sender. That is not authenticated: a
stranger can make both the same role, and then they do not meet. Everything after it is an ordinary session.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

from udpsend import events
from udpsend.caller import Caller, OnEvent
from udpsend.config import Config, Role
from udpsend.errors import PeerNeverCame, TransferFailed
from udpsend.leaving import at_once
from udpsend.net import clock
from udpsend.rendezvous.code import Code, parse_code
from udpsend.rendezvous.mailboxes import Mailboxes
from udpsend.session import SessionEvent
from udpsend.shell import Shell
from udpsend.wire.frames import Close, CloseCode

PREFIX = b"udpsend doctor 1 "
NUMBER_SIZE = 16
INTERVAL = 0.5  # seconds between two repetitions


class PairReport(Struct, frozen=True):
    path: events.PathFound
    seconds: float
    """From when both were known to each other to the path."""
    this_side: str
    other_side: str
    """What stands before each, in words, as each found it."""


def try_pair(code: str, config: Config, on_event: OnEvent | None = None) -> PairReport:
    """Blocks until there is a path, the same on both sides. Raises what `send` raises: PeerNeverCame, WrongCode,
    NoDirectPath and others."""
    parsed = parse_code(code)
    tell: OnEvent = on_event or (lambda event: None)
    tell(events.CodeReady(parsed.text, parsed.weak))
    with _elected_role(parsed, config) as role:
        trying = _Trying(role, parsed, config, tell)
        try:
            trying.run()
        except TransferFailed:
            if trying.report is None:
                raise
    if trying.report is None:
        raise TransferFailed("The other side ended the trial before there was a path.")
    return trying.report


class _Trying(Shell):
    def __init__(self, role: Role, code: Code, config: Config, on_event: OnEvent) -> None:
        self.role = role
        self.report: PairReport | None = None
        self._met = clock.now()

        def tell(event: events.Event) -> None:
            if not isinstance(event, events.CodeReady):  # it has been said already
                on_event(event)

        super().__init__(code, config, Caller(tell))

    def session_event(self, event: SessionEvent, now: float) -> None:
        match event:
            case events.PeerMet():
                self._met = now
            case events.PathFound():
                this, other = self.session.behaviours
                self.report = PairReport(event, now - self._met, str(this), str(other))
        super().session_event(event, now)

    def path_confirmed(self) -> None:
        # The receiver has the path last. So it ends the session, and the sender waits for that.
        if self.role is Role.RECEIVER:
            self.connection.close(Close(CloseCode.DONE, ""), clock.now())


@contextmanager
def _elected_role(code: Code, config: Config) -> Iterator[Role]:
    """The role of this side. The number is repeated for as long as the context lasts: the other side needs it, too."""
    own = PREFIX + secrets.token_bytes(NUMBER_SIZE)
    heard: queue.Queue[bytes] = queue.Queue(1)  # the first; a stranger may leave any amount
    ended = threading.Event()
    mailboxes = Mailboxes()

    def on_message(message: bytes) -> None:
        if message != own and len(message) == len(own) and message.startswith(PREFIX):
            with suppress(queue.Full):
                heard.put_nowait(message)

    def on_state(name: str, up: bool, detail: str) -> None:
        """The session that follows tells the same."""

    def repeat() -> None:
        while not ended.wait(INTERVAL):
            mailboxes.publish(own)

    try:
        mailboxes.open(config, f"{code.topic}/doctor", on_message, on_state)
        threading.Thread(target=repeat, name="udpsend-doctor", daemon=True).start()
        yield Role.SENDER if own > _first(heard, config.timeout) else Role.RECEIVER
    finally:
        ended.set()
        at_once(mailboxes.closing(), 0.0)


def _first(heard: queue.Queue[bytes], timeout: float) -> bytes:
    try:
        return heard.get(timeout=timeout)
    except queue.Empty:
        raise PeerNeverCame(
            f"Nobody with this code came within {timeout:.0f} s. Start 'udpsend doctor --code' with the same code and "
            "the same brokers on the other machine."
        ) from None
