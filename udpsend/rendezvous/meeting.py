"""Which of all who came knows the code: the handshake runs with each of them, until one confirms.

    receiver    hello_received_untrusted -> PAKE -> pake_received_untrusted -> SEALED -> sealed_received...
    sender      pake_received_untrusted -> PAKE -> sealed_received_untrusted -> SEALED, or FAIL and one guess less

The receiver repeats what it waits an answer to; the sender answers each repetition with what it said before. The
first of two contradicting PAKE messages stands, and a run stays open to a sealed message that opens, whatever else came
before it, so that forgeries which come later than the truth change nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from udpsend.config import Role
from udpsend.errors import BadPacket, UdpsendError
from udpsend.rendezvous.code import Code
from udpsend.rendezvous.handshake import SUPPORTED_VERSIONS, Agreement, Handshake
from udpsend.rendezvous.messages import Kind, Message
from udpsend.rendezvous.outcome import (
    another_version,
    broken_protocol,
    not_the_code_of_the_sender,
    too_many_guesses,
    too_many_senders,
)
from udpsend.rendezvous.patience import GiveUp
from udpsend.rendezvous.run import DORMANT_AFTER, REPLACED_AFTER, Run, Runs, Stage
from udpsend.wire.json import JSON

MAX_WRONG_GUESSES = 3  # a code of two words then falls to 1 attack in 560,000
MAX_CONFIRMATIONS = 6  # each lets one sender test one guess; other pairs may share the nameplate, so it is not 1


class Met(Struct, frozen=True):
    """The one who knows the code."""

    peer: bytes
    agreement: Agreement
    hello: dict[str, JSON]
    told: dict[str, JSON]
    """Our hello as it was when it was sealed."""


class Meeting:
    """One side, until `outcome` is there."""

    def __init__(self, role: Role, code: Code, instance: bytes, random_bytes: Callable[[int], bytes]) -> None:
        self.hello: dict[str, JSON] = {}
        """What is sealed for the other side."""
        self.wrong_guesses = 0
        """Sender: confirmations that did not open, at most one for each run."""
        self.outcome: Met | UdpsendError | None = None
        self._role = role
        self._code = code
        self._instance = instance
        self._random_bytes = random_bytes
        self._runs = Runs()
        self._confirmations = 0
        self._give_up = GiveUp()

    def __len__(self) -> int:
        return len(self._runs)

    def next_timer(self) -> float | None:
        timers = [self._give_up.due, *(run.repeat.due for run in self._runs)]
        return min((timer for timer in timers if timer is not None), default=None)

    def timer_expired(self, now: float) -> None:
        if self._give_up.is_over(now, self._runs.last_heard_of_open_runs()):
            worn_out = self._confirmations == MAX_CONFIRMATIONS
            self._finish(too_many_senders(MAX_CONFIRMATIONS) if worn_out else not_the_code_of_the_sender())

    def repeat_at_once(self, now: float) -> None:
        for run in self._runs:
            if run.repeat.due is not None:
                run.repeat.at_once(now)

    def runs_to_speak(self, now: float) -> list[Run]:
        """The runs in which something is to be said now."""
        runs = [run for run in self._runs if run.repeat.is_due(now)]
        for run in runs:
            # A confirmation is said until it is answered: whom it reached says hello no more.
            gone = run.stage is Stage.EXCHANGING and run.heard + DORMANT_AFTER < now
            run.repeat.said(now, again=self._role is Role.RECEIVER and not gone)
        return runs

    def hello_received_untrusted(self, peer: bytes, now: float) -> bool:
        """Whether there is a run with `peer` now. The receiver starts one; the sender waits to be asked."""
        run = self._runs.get(peer)
        if run is None:
            if self._role is Role.RECEIVER:
                self._start_untrusted(peer, now)
            return self._role is Role.RECEIVER
        run.heard = now
        if self._role is Role.RECEIVER and run.repeat.due is None:
            run.repeat.at_once(now)
        return True

    def _start_untrusted(self, peer: bytes, now: float) -> None:
        """Receiver: our PAKE message for a sender that said hello."""
        self._check_confirmations_untrusted()
        run = self._new_run_untrusted(peer, now)
        self._runs.add(run)
        run.say(Kind.PAKE, run.handshake.pake, now)

    def pake_received_untrusted(self, message: Message, now: float) -> None:
        run = self._runs.get(message.origin)
        if run is not None and message.body == run.peer_pake:
            run.heard = run.peer_pake_heard = now
            if self._role is Role.SENDER:
                run.answer_again(now)
        elif run is not None and run.peer_pake and not self._may_be_replaced(run, now):
            raise BadPacket("another PAKE message")
        elif self._role is Role.SENDER:
            run = self._new_run_untrusted(message.origin, now)
            run.take_pake_untrusted(message.body, message.commitment, now)
            self._runs.add(run)
            run.say(Kind.PAKE, run.handshake.pake, now, run.handshake.commitment)
        elif run is not None:
            self._check_confirmations_untrusted()
            self._runs.spend_untrusted(now)
            run.take_pake_untrusted(message.body, message.commitment, now)
            self._confirm(run, now)
        else:
            raise BadPacket("no such run")

    def sealed_received_untrusted(self, message: Message, now: float) -> None:
        run = self._runs.get(message.origin)
        if run is None or not run.peer_pake:
            raise BadPacket("no such run")
        run.heard = now
        try:
            plaintext = run.handshake.open_untrusted(message.body)
        except BadPacket:
            if self._role is Role.SENDER:
                self._confirmation_failed(run, now)
            raise
        try:
            self._opened_untrusted(run, plaintext, now)
        except BadPacket as error:
            self._finish(broken_protocol(str(error)))

    def fail_received_untrusted(self, message: Message, now: float) -> None:
        """Anybody can say it, so it only starts the wait for something better."""
        run = self._runs.get(message.origin)
        if run is None or run.stage is not Stage.CONFIRMING:
            raise BadPacket("no such run")
        run.stage = Stage.FAILED
        run.heard = now
        self._give_up.run_failed(now)

    def repetition_received(self, peer: bytes, now: float) -> None:
        """Sender, after agreement: `peer` has not got our sealed message yet."""
        run = self._runs.get(peer)
        if run is not None:
            run.heard = now
            run.answer_again(now)

    def stop(self) -> None:
        """Nothing is waited for any more. The sender's last answer is still to be said."""
        self._give_up.stop()
        if self._role is Role.RECEIVER:
            for run in self._runs:
                run.repeat.stop()

    def _new_run_untrusted(self, peer: bytes, now: float) -> Run:
        self._runs.make_room_untrusted(now)
        handshake = Handshake(self._role, self._code, self._instance, peer, self._random_bytes)
        return Run(peer, handshake, heard=now)

    def _may_be_replaced(self, run: Run, now: float) -> bool:
        """Sender: a receiver under a flood can have lost its run; it does not repeat that message any more."""
        is_waiting = self._role is Role.SENDER and run.stage is Stage.EXCHANGING
        return is_waiting and run.peer_pake_heard + REPLACED_AFTER <= now

    def _check_confirmations_untrusted(self) -> None:
        if self._confirmations == MAX_CONFIRMATIONS:
            raise BadPacket("too many confirmations")

    def _confirm(self, run: Run, now: float) -> None:
        """Receiver: seal our hello under the key of this run, which shows the sender whether we know the code."""
        run.stage = Stage.CONFIRMING
        self._say_hello(run, now)
        self._confirmations += 1
        if self._confirmations == MAX_CONFIRMATIONS:
            self._give_up.no_more_runs(now)

    def _confirmation_failed(self, run: Run, now: float) -> None:
        """Sender: a wrong guess. Once for each run, as SPAKE2 binds a run to one guess."""
        if run.stage is Stage.FAILED:
            run.answer_again(now)
            return
        run.stage = Stage.FAILED
        run.say(Kind.FAIL, b"", now)
        self.wrong_guesses += 1
        if self.wrong_guesses == MAX_WRONG_GUESSES:
            self._finish(too_many_guesses(MAX_WRONG_GUESSES))

    def _opened_untrusted(self, run: Run, plaintext: bytes, now: float) -> None:
        """They know the code: from here on BadPacket is a breach of the protocol by the other side."""
        peer = run.handshake.read_hello_untrusted(plaintext)
        if self._role is Role.SENDER:
            self._say_hello(run, now)
        agreement = run.handshake.agree_untrusted(peer.public_key)
        if peer.has_common_version():
            self._runs.keep_only(run)
            self._finish(Met(run.peer, agreement, peer.hello, run.told))
        else:
            self._finish(another_version(f"{peer.versions[:8]} instead of {list(SUPPORTED_VERSIONS)}"))

    def _say_hello(self, run: Run, now: float) -> None:
        run.told = self.hello
        run.say(Kind.SEALED, run.handshake.seal(self.hello), now)

    def _finish(self, outcome: Met | UdpsendError) -> None:
        self.outcome = outcome
        self.stop()
