"""One broker as a mailbox: a thread that keeps a connection to it, by the first of its URLs that works.

1. The URLs are alternatives, TLS before plain, each with MQTT 5 and, where the broker does not speak it, MQTT 3.1.1.
   A broker that cannot be found, refuses or stays silent costs seconds of this thread and one `on_state(False)`.
2. The connection (`mqtt.py`) lasts as long as it lasts.
3. Then wait (0.5 s, doubling to 30 s while connections are short, and no longer than until `renew`) and start again
   with 1.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from udpsend.rendezvous.broker_url import BrokerUrl
from udpsend.rendezvous.mailbox import (
    BURST,
    CLOSE_TIMEOUT,
    MAX_MESSAGES_PER_SECOND,
    OnMessage,
    OnState,
    RateLimit,
)
from udpsend.unreachable import describe

FIRST_BACKOFF = 0.5  # seconds
MAX_BACKOFF = 30.0  # seconds
STABLE = 10.0  # seconds that a connection must have been up for the backoff to start anew
MAX_OUTGOING = 64  # messages that wait for the thread
IDLE_CLOSE_TIMEOUT = 0.1  # seconds
FLUSH_TIME = 0.8 * CLOSE_TIMEOUT  # seconds, of those for closing: the rest is for the thread to end


class Link(Protocol):
    """One connection."""

    is_up: bool
    was_refused: bool
    """The broker was there, and did not want us: perhaps it does another version of MQTT."""
    problem: str

    def run(self, context: ssl.SSLContext | None) -> None:
        """Returns when the connection has ended, or raises what ended it."""

    def close(self) -> None: ...


class BrokerMailbox:
    """One broker, reached by one of several URLs."""

    def __init__(
        self,
        alternatives: Sequence[BrokerUrl],
        contexts: dict[Path, ssl.SSLContext],
        topic: str,
        on_message: OnMessage,
        on_state: OnState,
        link: Callable[[BrokerUrl, bool, BrokerMailbox], Link],
    ) -> None:
        """`contexts`: for each `ca` of a URL. `link` makes a connection by a URL, by MQTT 5 or not, for a mailbox."""
        self.name = alternatives[0].name
        self._alternatives = alternatives
        self._contexts = contexts
        self.topic = topic
        self._on_message = on_message
        self._on_state = on_state
        self._make_link = link
        self._state: bool | None = None
        self.limit = RateLimit(MAX_MESSAGES_PER_SECOND, BURST)
        self._prefers_mqtt5 = True
        self.outgoing: deque[bytes] = deque(maxlen=MAX_OUTGOING)
        self._socket: socket.socket | None = None
        self._closed = threading.Event()
        self._at_once = threading.Event()  # no further wait before the next attempt
        self._deadline = 0.0  # set by close: when the thread must be done
        self.wake_reader, self._wake_writer = socket.socketpair()
        self.wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"udpsend-{self.name}", daemon=True)
        self._thread.start()

    # For other threads.

    def publish(self, message: bytes) -> None:
        if self._state and not self._closed.is_set():
            self.outgoing.append(message)
            self._wake()

    def renew(self) -> None:
        self._at_once.set()
        self._break_connection()

    def _break_connection(self) -> None:
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket.shutdown, which takes the TLS object away from under the thread.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def close(self) -> None:
        self._deadline = time.monotonic() + CLOSE_TIMEOUT
        self._closed.set()
        self._at_once.set()
        if not self._state:
            self._break_connection()
        self._wake()
        if threading.current_thread() is not self._thread:
            # With nothing to send there is nobody to wait for: the thread may be with a resolver that takes its time.
            self._thread.join(CLOSE_TIMEOUT if self._state else IDLE_CLOSE_TIMEOUT)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"\0")

    # All below: on the mailbox's thread.

    def _run(self) -> None:
        backoff = FIRST_BACKOFF
        while not self._closed.is_set():
            started = time.monotonic()
            was_up, detail = self._try_alternatives()
            self._report(False, detail)
            if was_up and time.monotonic() - started > STABLE:
                backoff = FIRST_BACKOFF
            share = 0.75 + secrets.randbelow(500) / 1000  # not all clients of a broker at once
            backoff = FIRST_BACKOFF if self._at_once.wait(backoff * share) else min(backoff * 2, MAX_BACKOFF)
            self._at_once.clear()
        self.wake_reader.close()
        self._wake_writer.close()

    def _report(self, up: bool, detail: str) -> None:
        if up != self._state and not self._closed.is_set():
            self._state = up
            self._on_state(self.name, up, detail)

    def _try_alternatives(self) -> tuple[bool, str]:
        """Uses the first URL that works until its connection breaks. Whether one worked, and what was wrong."""
        problems: list[str] = []
        for url in self._alternatives:
            for is_mqtt5 in (True, False) if self._prefers_mqtt5 else (False,):
                if self._closed.is_set():
                    return False, ""
                link = self._make_link(url, is_mqtt5, self)
                try:
                    link.run(self._contexts[url.ca] if url.ca else None)
                except Exception as error:  # paho on hostile bytes (mqtt.py)
                    link.was_refused = link.was_refused and not isinstance(error, TimeoutError)
                    link.problem = describe(error)
                finally:
                    self._socket = None
                    link.close()
                if link.is_up:
                    self._prefers_mqtt5 = is_mqtt5
                    self.outgoing.clear()
                    return True, "connecting anew" if self._at_once.is_set() else f"connection lost: {link.problem}"
                if not link.was_refused:
                    break
            problems.append(f"{url.name}: {link.problem}")
        self._prefers_mqtt5 = True
        return False, "; ".join(problems)

    # For the link, on the same thread.

    @property
    def is_closing(self) -> bool:
        return self._closed.is_set()

    @property
    def flush_until(self) -> float:
        return self._deadline - CLOSE_TIMEOUT + FLUSH_TIME

    def hold(self, connecting: socket.socket) -> None:
        """Keeps the socket that the thread is about to wait for, so that others can end the waiting."""
        self._socket = connecting
        if self._closed.is_set():
            raise ConnectionAbortedError("closed")

    def deliver(self, message: bytes) -> None:
        if not self._closed.is_set():
            self._on_message(message)

    def came_up(self, url: BrokerUrl) -> None:
        self._report(True, "" if url == self._alternatives[0] else f"through {url.name}")
