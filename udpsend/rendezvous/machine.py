"""The rendezvous as a machine without I/O: messages in, messages out, and at the end one secret.

    1  HELLO    from both, at once, whenever a mailbox comes up, and every 1 to 5 s until agreed
    2  PAKE     receiver -> sender for each sender that says hello; the sender answers with its own
    3  SEALED   receiver -> sender: the confirmation. The sender opens it, or counts a wrong guess and answers FAIL
    4  SEALED   sender -> receiver. Both sides have agreed
    5  SEALED, ACK   both ways, from number 1 on: what the session has to say over the mailboxes

Here are 1 and 5 and what concerns all messages; 2 to 4 are in `meeting.py`, 5 is carried by `channel.py`. Any message
may be lost, doubled, late or forged, and until there is a key anybody can write anything: what cannot be believed is
dropped and counted in `drops`. Runs, guesses, work per second and everything remembered are bounded.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from hashlib import blake2b

from udpsend.config import Role
from udpsend.errors import BadPacket, UdpsendError
from udpsend.events import WrongGuess
from udpsend.rendezvous.channel import Channel
from udpsend.rendezvous.code import PROTOCOL_VERSION, Code
from udpsend.rendezvous.meeting import MAX_WRONG_GUESSES, Meeting, Met
from udpsend.rendezvous.messages import (
    ID_SIZE,
    INSTANCE_SIZE,
    Kind,
    Message,
    check_payload,
    parse_message_untrusted,
)
from udpsend.rendezvous.outcome import Agreed, Failed, RendezvousEvent, SealedMessage, another_version
from udpsend.rendezvous.patience import VersionWatch
from udpsend.rendezvous.repeat import Repeat
from udpsend.wire.json import JSON

HELLO_SPACING = 0.25  # between the hellos that strangers provoke
GREETED = 8  # strangers whose first hello is answered sooner,
GREETING_PATIENCE = 0.06  # seconds in which one who has heard ours says more, where the broker is not far away
REMEMBERED_MESSAGES = 1024


class Rendezvous:
    """One side. `hello` is sealed for the other side; it may be replaced until `Agreed` (see `set_hello`)."""

    def __init__(
        self, role: Role, code: Code, now: float, random_bytes: Callable[[int], bytes], hello: dict[str, JSON]
    ) -> None:
        self.drops: Counter[str] = Counter()
        """Messages that were not acted upon, by reason."""
        self._role = role
        self._random_bytes = random_bytes
        self._instance = random_bytes(INSTANCE_SIZE)
        self._events: deque[RendezvousEvent] = deque()
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._hello_repeat = Repeat()
        self._hello_repeat.at_once(now)
        self._greeted: set[bytes] = set()
        self._version_watch = VersionWatch()
        self._meeting = Meeting(role, code, self._instance, random_bytes)
        self._channel: Channel | None = None
        self._failed = False
        self.set_hello(hello)

    def set_hello(self, hello: dict[str, JSON]) -> None:
        """Replace what will be sealed for the other side. If it is sealed already and there is no agreement yet, the
        new one will be the first SealedMessage there. Raises ValueError above 4 KiB."""
        check_payload(hello)
        self._meeting.hello = hello

    # The mailboxes and the clock

    def message_received(self, message: bytes, now: float) -> None:
        """From any mailbox: in any order, doubled, hostile."""
        guesses = self._meeting.wrong_guesses
        try:
            self._take_once_untrusted(message)
            self._accept_untrusted(parse_message_untrusted(message), len(message), now)
        except BadPacket as error:
            self.drops[str(error)] += 1
        if self._meeting.wrong_guesses > guesses:
            self._events.append(WrongGuess(MAX_WRONG_GUESSES - self._meeting.wrong_guesses))
        self._settle(len(message))

    def mailbox_up(self, now: float) -> None:
        """A mailbox came up or came back: say there at once what is waiting for an answer."""
        if self._hello_repeat.due is not None:
            self._hello_repeat.at_once(now)
        self._meeting.repeat_at_once(now)
        if self._channel is not None:
            self._channel.repeat_at_once(now)

    def next_timer(self) -> float | None:
        """When to call `timer_expired` and then `messages_to_send`, or None for never."""
        timers = [self._hello_repeat.due, self._version_watch.due, self._meeting.next_timer()]
        if self._channel is not None:
            timers.append(self._channel.next_timer())
        return min((timer for timer in timers if timer is not None), default=None)

    def timer_expired(self, now: float) -> None:
        self._meeting.timer_expired(now)
        self._settle()
        if what := self._version_watch.verdict(now, others=len(self._meeting)):
            self._fail(another_version(what))

    def messages_to_send(self, now: float) -> list[bytes]:
        """What is due, each to be published on all mailboxes."""
        messages = []
        if self._hello_repeat.is_due(now):
            self._hello_repeat.said(now, again=True)
            messages.append(self._pack(Kind.HELLO))
        runs = self._meeting.runs_to_speak(now)
        messages += [self._pack(run.kind, run.peer, run.body, commitment=run.commitment) for run in runs]
        if (channel := self._channel) is not None:
            said = channel.messages_to_send(now)
            messages += [self._pack(kind, channel.peer, body, number) for kind, number, body in said]
        return messages

    def next_event(self) -> RendezvousEvent | None:
        return self._events.popleft() if self._events else None

    def send_sealed(self, payload: dict[str, JSON], *, is_last: bool = False) -> None:
        """Send `payload` to the other side over the mailboxes, repeated until it is acknowledged; `is_last`: nothing
        more will be said. It is dropped and counted where the other side takes no more numbers. Raises RuntimeError
        before agreement, ValueError above 4 KiB."""
        if self._channel is None:
            raise RuntimeError("no agreement yet")
        if not self._channel.send(payload, is_last=is_last):
            self.drops["no number left"] += 1

    # One message

    def _take_once_untrusted(self, message: bytes) -> None:
        """Copies come through every mailbox. Told by their whole content: an id alone could be taken by a forgery."""
        digest = blake2b(message, digest_size=16).digest()
        if digest in self._seen:
            raise BadPacket("copy")
        self._seen[digest] = None
        if len(self._seen) > REMEMBERED_MESSAGES:
            self._seen.popitem(last=False)

    def _accept_untrusted(self, message: Message, size: int, now: float) -> None:
        if self._failed:
            raise BadPacket("after the end")
        if message.origin == self._instance:
            raise BadPacket("own")
        if message.role is self._role:
            raise BadPacket("same role")
        if message.kind is Kind.HELLO:
            if self._channel is None:
                self._hello_received_untrusted(message, now)
            return
        if message.to != self._instance:
            raise BadPacket("not for us")
        if self._channel is not None:
            self._received_after_agreement_untrusted(message, size, self._channel, now)
        elif message.kind is Kind.PAKE:
            self._meeting.pake_received_untrusted(message, now)
            self._hello_repeat.calmed()
        elif message.kind is Kind.SEALED and message.number == 0:
            self._meeting.sealed_received_untrusted(message, now)
        elif message.kind is Kind.FAIL:
            self._meeting.fail_received_untrusted(message, now)
        else:
            raise BadPacket("before agreement")

    def _hello_received_untrusted(self, message: Message, now: float) -> None:
        if message.version != PROTOCOL_VERSION:
            self._version_watch.hello_received(message.version, now)
        elif self._meeting.hello_received_untrusted(message.origin, now):
            return
        # They may have come after our last hello.
        if message.origin not in self._greeted and len(self._greeted) < GREETED:
            self._greeted.add(message.origin)
            self._hello_repeat.provoked(now, HELLO_SPACING, GREETING_PATIENCE)
        else:
            self._hello_repeat.provoked(now, HELLO_SPACING)

    def _received_after_agreement_untrusted(self, message: Message, size: int, channel: Channel, now: float) -> None:
        if message.origin != channel.peer:
            raise BadPacket("after agreement with another")
        if message.kind is Kind.SEALED and message.number > 0:
            payload = channel.sealed_untrusted(message.number, message.body)
            if payload is not None:
                self._events.append(SealedMessage(payload, size))
        elif message.kind is Kind.ACK:
            channel.acknowledged_untrusted(message.number, message.body)
        elif message.kind is Kind.SEALED and self._role is Role.SENDER:
            self._meeting.repetition_received(message.origin, now)
        else:
            raise BadPacket("late")

    def _settle(self, size: int = 0) -> None:
        """Once the meeting has an outcome; by a message of so many bytes, if it is an agreement."""
        outcome = self._meeting.outcome
        if outcome is None or self._failed or self._channel is not None:
            return
        if isinstance(outcome, Met):
            self._channel = Channel(outcome.agreement.secret, self._role, outcome.peer)
            if self._meeting.hello != outcome.told:
                self._channel.send(self._meeting.hello)
            self._hello_repeat.stop()
            self._version_watch.stop()
            self._events.append(Agreed(outcome.agreement.secret, outcome.agreement.phrase, outcome.hello, size))
        else:
            self._fail(outcome)

    def _fail(self, error: UdpsendError) -> None:
        self._failed = True
        self._hello_repeat.stop()
        self._version_watch.stop()
        self._meeting.stop()
        self._events.append(Failed(error))

    def _pack(self, kind: Kind, to: bytes = b"", body: bytes = b"", number: int = 0, commitment: bytes = b"") -> bytes:
        identity = self._random_bytes(ID_SIZE)
        return Message(kind, identity, self._role, self._instance, to, body, number, commitment).pack()
