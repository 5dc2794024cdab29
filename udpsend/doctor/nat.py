"""The behaviour of what is between this host and the internet, in the words of RFC 4787, after the method of RFC 5780.

1. One socket asks all servers: the same outside address everywhere means endpoint-independent mapping. Servers at
   different addresses are compared, since address-dependent mapping does not show between two ports of one.
2. A server with a second address (most have none) also tells the rest: whether the port alone makes a difference, and,
   by answering a fresh socket from there, what is filtered.
3. Two sockets write to each other's outside addresses: hairpinning. The first has to, or its NAT may filter the other.
4. On request: sockets that stay idle for a while, each for another time, and are then written to by the server at the
   request of another socket (RESPONSE-PORT): the lifetime of a mapping.
"""

from __future__ import annotations

import itertools
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack

from msgspec.structs import replace

from udpsend.doctor.diagnosis import Behaviour, Lifetime, Nat, Ports
from udpsend.doctor.stun_probe import CHANGE_BOTH, CHANGE_PORT, Answer, Question, StunProbe
from udpsend.punching.behaviour import NEIGHBOURS
from udpsend.rendezvous.stun import DEFAULT_TIMEOUT
from udpsend.wire.datagram import Address

HAIRPIN_TIMEOUT = 0.4  # seconds
IDLE_SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
LIFETIME_ANSWER = 1.0  # seconds, of all tries together
TRIES = 3


def examine_nat(
    family: socket.AddressFamily, servers: Sequence[Address], bind: str | None
) -> tuple[Nat, list[Answer | None]]:
    """What the servers tell, and their answers in the same order. Takes about 8 s at the most."""
    if not servers:
        return Nat(), []
    try:
        probe = StunProbe(family, bind)
    except OSError:
        return Nat(), [None] * len(servers)
    with probe:
        answers = probe.ask([Question(server) for server in servers], DEFAULT_TIMEOUT)  # as long as a session waits
        told = [(server, answer) for server, answer in zip(servers, answers, strict=True) if answer is not None]
        if not told:
            return Nat(), answers
        server, first = told[0]
        nat = Nat(probe.local_address(server), first.mapped)
        teachers = [(at, answer.other) for at, answer in told if answer.other and answer.other[0] != at[0]]
        seen = {at[0]: answer.mapped for at, answer in reversed(told)}
        mapping = _mapping(nat, list(seen.values()))
        ports = [answer.mapped[1] for _, answer in told]
        for at, other in teachers[:1]:
            mapping, more = _ask_other_address(probe, at, other, mapping)
            ports += more
        nat = replace(nat, mapping=mapping, ports=_ports(probe.port, ports))
        filtering = _filtering(family, teachers[0][0], bind, nat) if teachers else Behaviour.NOT_TOLD
        hairpin = None if mapping is Behaviour.NONE else _hairpin(probe, first.mapped, server, bind)
        return replace(nat, filtering=filtering, hairpin=hairpin), answers


def _mapping(nat: Nat, seen: list[Address]) -> Behaviour:
    """`seen`: our address as seen from different hosts."""
    if nat.public == nat.local:
        return Behaviour.NONE
    if len(seen) < 2:
        return Behaviour.NOT_TOLD
    return Behaviour.ENDPOINT_INDEPENDENT if len(set(seen)) == 1 else Behaviour.DEPENDENT


def _ask_other_address(
    probe: StunProbe, server: Address, other: Address, known: Behaviour
) -> tuple[Behaviour, list[int]]:
    """Mapping behaviour by a server with two addresses (RFC 5780, section 4.3), and the ports it saw."""
    if known is Behaviour.NONE:
        return known, []
    at_server, at_port, at_other = probe.ask(
        [Question(server), Question((other[0], server[1])), Question((other[0], other[1]))]
    )
    ports = [answer.mapped[1] for answer in (at_server, at_port, at_other) if answer is not None]
    if at_server is None or at_port is None:
        return known, ports
    if at_server.mapped == at_port.mapped:
        return known if known is Behaviour.DEPENDENT else Behaviour.ENDPOINT_INDEPENDENT, ports
    if at_other is None:
        return Behaviour.DEPENDENT, ports
    same = at_port.mapped == at_other.mapped
    return Behaviour.ADDRESS_DEPENDENT if same else Behaviour.ADDRESS_AND_PORT_DEPENDENT, ports


def _filtering(family: socket.AddressFamily, server: Address, bind: str | None, nat: Nat) -> Behaviour:
    """RFC 5780, section 4.4, on a socket that has written to nobody else."""
    with StunProbe(family, bind) as fresh:
        plain, both, port = fresh.ask(
            [Question(server), Question(server, change=CHANGE_BOTH), Question(server, change=CHANGE_PORT)]
        )
    if plain is None:
        return Behaviour.NOT_TOLD
    if both is not None and both.source[0] == server[0]:
        return Behaviour.NOT_TOLD  # it ignores the wish
    if both is not None:
        return Behaviour.NONE if nat.mapping is Behaviour.NONE else Behaviour.ENDPOINT_INDEPENDENT
    if port is not None:
        return Behaviour.NOT_TOLD if port.source[1] == server[1] else Behaviour.ADDRESS_DEPENDENT
    return Behaviour.ADDRESS_AND_PORT_DEPENDENT


def _ports(own: int, seen: list[int]) -> Ports:
    """`seen`: outside ports in the order in which they were asked for."""
    if set(seen) == {own}:
        return Ports.KEPT
    if len(set(seen)) == 1:
        return Ports.CHANGED if len(seen) > 1 else Ports.NOT_TOLD
    steps = [after - before for before, after in itertools.pairwise(seen) if after != before]
    return Ports.SEQUENTIAL if all(0 < step <= NEIGHBOURS for step in steps) else Ports.RANDOM


def _hairpin(probe: StunProbe, public: Address, server: Address, bind: str | None) -> bool | None:
    token = secrets.token_bytes(16)
    with StunProbe(probe.family, bind) as other:
        answer = other.ask([Question(server)])[0]
        if answer is None:
            return None
        probe.send(token, answer.mapped)
        other.send(token, public)
        return probe.hears(token, HAIRPIN_TIMEOUT)


def measure_lifetime(server: Address, bind: str | None, longest: float) -> Lifetime:
    """How long a mapping lives without traffic. Takes `longest` seconds, and a little."""
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with ExitStack() as stack:
        asking, test, *idle = (stack.enter_context(StunProbe(family, bind)) for _ in range(len(IDLE_SHARES) + 2))
        mapped = test.ask([Question(server)])[0]
        if mapped is None:
            return Lifetime(detail="no answer of the server")
        if not _reached(asking, test, server, mapped.mapped[1]):
            return Lifetime(detail="the server cannot write to another port (RESPONSE-PORT of RFC 5780)")
        answers = [probe.ask([Question(server)])[0] for probe in idle]
        started = time.monotonic()
        alive: float | None = None
        for share, probe, answer in zip(IDLE_SHARES, idle, answers, strict=True):
            if answer is None:
                continue
            time.sleep(max(0.0, started + share * longest - time.monotonic()))
            if not _reached(asking, probe, server, answer.mapped[1]):
                return Lifetime(alive, round(share * longest, 1))
            alive = round(share * longest, 1)
        return Lifetime(alive)


def _reached(asking: StunProbe, waiting: StunProbe, server: Address, port: int) -> bool:
    """Whether the server's answer comes to `waiting` where `asking` has asked for it."""
    question = Question(server, response_port=port)
    return any(waiting.hears(asking.send_question(question), LIFETIME_ANSWER / TRIES) for _ in range(TRIES))
