"""Mailboxes in virtual time: everybody hears what anybody publishes, late, lost, doubled and out of order as asked for.

    room = Mailroom(seed, loss=0.5)
    sender = room.join(Role.SENDER, "4821-marble-otter")
    room.run(until=lambda: sender.agreed)

A watcher sees every publication and may publish what it likes: the adversary.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any

from udpsend.config import Role
from udpsend.errors import UdpsendError
from udpsend.events import WrongGuess
from udpsend.rendezvous.code import Code, parse_code
from udpsend.rendezvous.machine import Rendezvous
from udpsend.rendezvous.outcome import Agreed, Failed, SealedMessage

CODE = "4821-marble-otter"
WRONG = "4821-marble-acorn"

MAX_STEPS = 200_000

read_code = lru_cache(parse_code)  # Argon2id once for each text


@dataclass
class Party:
    """A machine, what it said as events, and what it published."""

    machine: Rendezvous
    agreed: Agreed | None = None
    error: UdpsendError | None = None
    guesses: list[int] = field(default_factory=list)
    sealed: list[dict[str, Any]] = field(default_factory=list)
    published: list[bytes] = field(default_factory=list)
    deaf: bool = False

    @property
    def over(self) -> bool:
        return self.agreed is not None or self.error is not None

    def take_events(self) -> None:
        while (event := self.machine.next_event()) is not None:
            match event:
                case Agreed():
                    assert self.agreed is None
                    self.agreed = event
                case SealedMessage(payload):
                    self.sealed.append(payload)
                case WrongGuess(remaining):
                    self.guesses.append(remaining)
                case Failed(error):
                    assert self.error is None
                    self.error = error


class Mailroom:
    def __init__(
        self, seed: int, *, delay: float = 0.05, jitter: float = 0.0, loss: float = 0.0, duplication: float = 0.0
    ) -> None:
        self.random = Random(seed)
        self.now = 1000.0
        self.delay, self.jitter, self.loss, self.duplication = delay, jitter, loss, duplication
        self.parties: list[Party] = []
        self.watchers: list[Callable[[bytes], None]] = []
        self.down = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def join(self, role: Role, code: str | Code, hello: dict[str, Any] | None = None) -> Party:
        code = read_code(code) if isinstance(code, str) else code
        machine = Rendezvous(role, code, self.now, self.random.randbytes, hello or {"host": role.value})
        self.parties.append(Party(machine))
        return self.parties[-1]

    def publish(self, message: bytes) -> None:
        """To everybody, the publisher too."""
        if self.down:
            return
        for party in self.parties:
            for _ in range(2 if self.random.random() < self.duplication else 1):
                if self.random.random() >= self.loss:
                    delay = self.delay + self.random.random() * self.jitter
                    self.at(self.now + delay, lambda party=party: self._deliver(party, message))  # type: ignore[misc]
        for watcher in self.watchers:
            watcher(message)

    def at(self, time: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, action))

    def run(self, until: Callable[[], Any] = lambda: False, limit: float = 120.0) -> bool:
        """Until the condition holds, or `limit` seconds of virtual time passed; says whether it held."""
        end = self.now + limit
        for _ in range(MAX_STEPS):
            self._speak()
            if until():
                return True
            timers = [time for party in self.parties if (time := party.machine.next_timer()) is not None]
            next_time = min([*timers, *(event[0] for event in self._events[:1])], default=end)
            if next_time >= end:
                self.now = end
                return False
            self.now = max(self.now, next_time)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            for party in self.parties:
                timer = party.machine.next_timer()
                if timer is not None and timer <= self.now:
                    party.machine.timer_expired(self.now)
        raise AssertionError("the machines never come to rest")

    def _speak(self) -> None:
        for party in self.parties:
            party.take_events()
            for message in party.machine.messages_to_send(self.now):
                party.published.append(message)
                self.publish(message)

    def _deliver(self, party: Party, message: bytes) -> None:
        if not party.deaf and not self.down:
            party.machine.message_received(message, self.now)
            party.take_events()


def fields(message: bytes) -> dict[str, Any]:
    loaded = json.loads(message)
    assert isinstance(loaded, dict)
    return loaded


def forge(message: bytes, **changes: object) -> bytes:
    """The same message with other fields; None leaves a field out."""
    changed = {**fields(message), **changes}
    return json.dumps({name: value for name, value in changed.items() if value is not None}).encode()


def pair(room: Mailroom, sender_hello: dict[str, Any] | None = None) -> tuple[Party, Party]:
    return room.join(Role.SENDER, CODE, sender_hello), room.join(Role.RECEIVER, CODE)


def both_agreed(*parties: Party) -> bool:
    return all(party.agreed for party in parties)


def assert_agreed(one: Party, other: Party) -> None:
    assert one.agreed is not None
    assert other.agreed is not None
    assert one.error is None
    assert other.error is None
    assert one.agreed.secret == other.agreed.secret
    assert one.agreed.phrase == other.agreed.phrase


def kinds(party: Party) -> list[str]:
    return [fields(message)["kind"] for message in party.published]
