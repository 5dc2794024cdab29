"""What both ends of a session share: sockets, mailboxes, discovery, the driver, and the way out.

1. Say the code; open the sockets.
2. Open the mailboxes and look for addresses of ours (`discovery.py`), all in threads of their own; the session meets
   and punches meanwhile.
3. Hand each event of the session to the end that knows what to do (`sending.py`, `streaming.py`, `receiving.py`).
   Whatever may block (the user, the disk) runs in a thread (`beside`) and comes back through the driver.
4. Leave: the other side is told, every thread is stopped.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from udpsend import events
from udpsend.caller import Caller, OnEvent
from udpsend.config import Config, Role
from udpsend.discovery import Discovery
from udpsend.errors import Cancelled, TransferFailed, UdpsendError
from udpsend.exchange import ManualExchange
from udpsend.interrupts import interruptible
from udpsend.leaving import at_once
from udpsend.net import clock
from udpsend.net.driver import Driver
from udpsend.net.udp import UdpEndpoint
from udpsend.punching.candidates import same_host_token
from udpsend.punching.path import CandidatesWanted, SocketChosen, SocketsWanted
from udpsend.rendezvous.code import Code
from udpsend.rendezvous.handshake import prepare
from udpsend.rendezvous.mailbox import Inbox
from udpsend.rendezvous.mailboxes import Mailboxes
from udpsend.reporting import Reporter
from udpsend.session import PathMoved, Session, SessionEvent
from udpsend.transfer.closing import INTERVAL, REPEATS, unconfirmed
from udpsend.transfer.connection import Connection
from udpsend.transfer.messages import Closed
from udpsend.wire.datagram import Address

PROGRESS_INTERVAL = 0.1  # seconds
LATE = 2.0  # seconds after which it is told what takes so long
GOODBYE_TIMEOUT = 1.0  # to leave a last word in the mailboxes

T = TypeVar("T")


class Shell:
    """One end; the subclass knows which."""

    role: Role
    after_stopping = "What has arrived is kept: the same commands go on from there."

    def __init__(self, code: Code, config: Config, caller: Caller) -> None:
        self._reporter = Reporter(caller.on_event)
        self.emit: OnEvent = self._reporter.emit
        self._confirm, self._read_text, self._cancel = caller.confirm, caller.read_text, caller.cancel
        self._config = config
        self._code = code
        self._mailboxes = Mailboxes()
        self._exchange: ManualExchange | None = None
        self._error: UdpsendError | None = None
        self._is_path_lost = False
        self._verified: events.Verified | None = None
        self._progress: tuple[int, int | None] = (-1, -1)
        self.started = self._progress_time = 0.0
        self._late: events.Event | None = None

    def run(self) -> events.Verified:
        """Raises a subclass of UdpsendError, and what `on_event` or another function of the caller's raised."""
        with self._reporter:
            verified = self._run()
        self._reporter.check()
        return verified

    def _run(self) -> events.Verified:
        self.emit(events.CodeReady(self._code.text, self._code.weak))
        self.look_ahead()
        self._endpoint = UdpEndpoint(self._config.bind, offload=self._config.offload)
        try:
            self._put_together()
        except BaseException:
            self._endpoint.close()
            raise
        try:
            self._open_mailboxes()
            self._discovery.start()
            prepare()
            with interruptible(lambda: self.driver.call_soon(self.interrupted)):
                self.driver.run()
            self.emit(events.Statistics(self.session.counters() | self._endpoint.counters()))
        except BaseException as error:
            self._say_why(error)
            raise
        finally:
            self.leave()
        if self._verified is None:
            raise self._error or TransferFailed("The other side ended the transfer.")
        return self._verified

    def look_ahead(self) -> None:
        """Tell what can be known before anybody comes."""

    def _put_together(self) -> None:
        self._discovery = Discovery(
            self._config,
            self._endpoint,
            lambda call: self.driver.call_soon(call),
            self.emit,
            lambda found, are_all: self.session.add_candidates(found, clock.now(), are_all=are_all),
            lambda behaviour: self.session.set_behaviour(behaviour, clock.now()),
        )
        self.session = Session(
            self.role,
            self._code,
            clock.now(),
            secrets.token_bytes,
            candidates=self._discovery.candidates,
            host_token=same_host_token(self._code.password),
            max_datagram_size=self._max_datagram_size,
            receive_buffer=self._endpoint.receive_buffer,
            timeout=self._config.timeout,
            by_hand=self._read_text is not None,
            config=self._config,
        )
        if self._read_text is not None:
            self._exchange = ManualExchange(self.session, self._read_text, self.ask, self.emit, clock.now())
        self.driver = Driver(self._endpoint, self.session, self._discovery.stun_received, self.turn, self._publish)

    def _max_datagram_size(self, address: Address) -> int:
        limit = self._endpoint.max_datagram_size(address)
        return min(limit, self._config.max_datagram_size or limit)

    # mailboxes: everything comes from other threads

    def _open_mailboxes(self) -> None:
        if self._exchange is not None:
            return

        def on_state(name: str, up: bool, detail: str) -> None:
            self.driver.call_soon(lambda: self._mailbox_changed(events.MeetingPlace(name, up, detail)))

        inbox = Inbox(self.driver.call_soon, lambda message: self.session.message_received(message, clock.now()))
        self._mailboxes.open(self._config, self._code.topic, inbox.put, on_state)

    def _mailbox_changed(self, place: events.MeetingPlace) -> None:
        self.emit(place)
        if place.up:
            self.session.mailbox_up(place.name, clock.now())

    # the session's events

    def turn(self, now: float) -> None:
        self._reporter.check()
        if self._cancel is not None and self._cancel.is_set():
            self._cancel = None
            self.interrupted()
        self._discovery.turn(now, self.session.datagram_received)
        if (connection := self.session.connection) is not None:
            if connection.receiver is not None:
                opening = connection.opening if self.driver.comes_fast else None
                connection.receive_buffer = self._endpoint.room(connection.address, opening)
        elif self._exchange is not None:
            self._exchange.turn(now, self._discovery.is_complete)
            self._discovery.keep_alive(now)
        elif self._discovery.look_around(now):
            self._mailboxes.renew()
        while (event := self.session.next_event()) is not None:
            self.session_event(event, now)
        if self._late is not None and now >= self._late_at:
            self.emit(self._late)
            self._late = None
        if now - self._progress_time >= PROGRESS_INTERVAL:
            self.show_progress(now)

    def _publish(self, now: float) -> None:
        """When datagrams have left: the other side may act on 'opened' before a busy machine lets the openers go."""
        for message in self.session.messages_to_send(now):
            self._mailboxes.publish(message)

    def show_progress(self, now: float) -> None:
        self._progress_time = now
        if self.started and self.connection.progress != self._progress:
            self._progress = self.connection.progress
            self.emit(events.Progress(*self._progress))

    def session_event(self, event: SessionEvent, now: float) -> None:
        match event:
            case events.PeerMet(phrase):
                self.emit(event)
                self._phrase = phrase
                if self._discovery.refresh(now):
                    self._mailboxes.renew()
            case SocketsWanted(count):
                self.session.sockets_opened(self._endpoint.open_more(count), now)
            case SocketChosen(local):
                self._endpoint.keep(local)
            case CandidatesWanted(by_peer):
                # Once, however often it is tried; not for what is part of looking for the first one.
                if self.session.connection is not None and not self._is_path_lost:
                    self._is_path_lost = True
                    self.emit(events.PathLost())
                self._discovery.again()
                if not by_peer:
                    self._mailboxes.renew()
            case PathMoved(found):
                self._is_path_lost = False
                self.emit(found)
            case events.PathFound():
                self.emit(event)
                self._ask_phrase()
            case events.WrongGuess():
                self.emit(event)
            case Closed(error):
                self._error = error
                self.driver.stop()

    def _ask_phrase(self) -> None:
        if (confirm := self._confirm) is None:
            self.path_confirmed()
        else:
            self.ask(lambda: confirm(self._phrase), self._phrase_answered)

    def _phrase_answered(self, same: bool) -> None:
        if same:
            self.path_confirmed()
        else:
            self.end(unconfirmed())

    def path_confirmed(self) -> None:
        """The file may move."""
        self.tell_if_late(events.OfferLate())

    def tell_if_late(self, event: events.Event | None) -> None:
        """Unless this is called again before."""
        self._late, self._late_at = event, clock.now() + LATE

    @property
    def connection(self) -> Connection:
        """There is one from the first path on."""
        assert self.session.connection is not None  # noqa: S101
        return self.session.connection

    def beside(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Run `work` in a thread, and `then` with its result in the loop. What `work` raises ends the session."""

        def run() -> None:
            try:
                call = partial(then, work())
            except BaseException as error:
                call = partial(self._failed_beside, error)
            self.driver.call_soon(call)

        threading.Thread(target=run, name="udpsend-beside", daemon=True).start()

    def _failed_beside(self, error: BaseException) -> None:
        if not isinstance(error, UdpsendError):  # the caller's own, or a bug of ours: raised where the caller waits
            raise error
        self.end(error)

    def ask(self, question: Callable[[], T], then: Callable[[T], None]) -> None:
        """As `beside`, after all that was emitted before has been shown."""

        def after_all_else() -> T:
            self._reporter.flush()
            return question()

        self.beside(after_all_else, then)

    # the way out

    def end(self, error: UdpsendError) -> None:
        self.session.end(error, clock.now())

    def interrupted(self) -> None:
        """Ctrl-C or `cancel`, in the loop."""
        self.end(Cancelled(f"Stopped. {self.after_stopping}" if self.started else "Stopped."))

    def _say_why(self, error: BaseException) -> None:
        """The loop ends by an exception: the other side is told, lest it look for us for minutes."""
        with suppress(Exception):  # what is raised already says more
            last = error if isinstance(error, UdpsendError) else TransferFailed("it stopped unexpectedly.")
            self.end(Cancelled() if isinstance(error, KeyboardInterrupt) else last)
            for _ in range(REPEATS):
                self.driver.send(clock.now())
                clock.sleep(INTERVAL)

    def done(self, verified: events.Verified) -> None:
        self.show_progress(clock.now())
        self._verified = verified
        self.emit(verified)

    def leave(self) -> None:
        self._publish(clock.now())
        at_once([self._discovery.close, *self._mailboxes.closing()], GOODBYE_TIMEOUT)
        self.driver.close()
        self._endpoint.close()
