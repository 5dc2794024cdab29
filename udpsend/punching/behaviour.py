"""What the NATs on the way out do to our mappings, as far as STUN servers can tell, and what the other side is told.

One socket asks servers at different addresses. The same outside address everywhere: a mapping that does not depend on
the destination, so the peer reaches us where the servers saw us ('easy'). Another port for each: the peer's port cannot
be known beforehand ('hard'), but where the ports are neighbours the next ones are worth a guess. RFC 4787, section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from udpsend.errors import BadPacket
from udpsend.wire.candidate import Candidate, CandidateType, parse_candidate_untrusted
from udpsend.wire.datagram import Address
from udpsend.wire.json import JSON

NEIGHBOURS = 16  # ports apart, at most, of two mappings made one after the other where ports go up in order


class MappingBehaviour(Enum):
    """The value goes over the wire."""

    UNKNOWN = "unknown"  # fewer than two servers answered
    SILENT = "silent"  # none did, though some were asked: not those whose names nobody knew
    NONE = "none"  # no translation: the outside address is one of the host's own
    INDEPENDENT = "independent"
    DEPENDENT = "dependent"


class Routers(Struct, frozen=True):
    """Those on this side's way out that may translate (`hops.py`)."""

    count: int = 1
    """At least."""
    are_all: bool = False
    """Further ones were looked for, and there are none."""


class NatBehaviour(Struct, frozen=True):
    """IPv4 alone: IPv6 is not translated."""

    mapping: MappingBehaviour = MappingBehaviour.UNKNOWN
    outside: Address | None = None
    """As a server saw it; of several, the one with the highest port. Where the NAT keeps ports, that of `local`."""
    sequential: bool = False
    """DEPENDENT: the next mapping probably gets one of the next ports."""
    routers: Routers = Routers()
    """This side's openers have to pass them; nobody is told."""
    local: int = 0
    """The socket from which ports are searched (`hard.py`), which nobody wrote to; nobody is told."""

    @property
    def is_hard(self) -> bool:
        return self.mapping is MappingBehaviour.DEPENDENT

    def to_json(self) -> list[JSON]:
        host, port = self.outside or (None, 0)
        return [self.mapping.value, host, port, self.sequential]

    def __str__(self) -> str:
        match self.mapping:
            case MappingBehaviour.UNKNOWN:
                return "an unknown NAT"
            case MappingBehaviour.SILENT:
                return "a network that lets no UDP through (no STUN server answered)"
            case MappingBehaviour.NONE:
                return "no NAT, but maybe a firewall"
            case MappingBehaviour.INDEPENDENT:
                return "an ordinary NAT"
            case MappingBehaviour.DEPENDENT:
                order = "sequential" if self.sequential else "random"
                return f"a symmetric NAT with {order} ports"


def judge_behaviour(own: Sequence[Candidate], seen: Mapping[str, Address | None]) -> NatBehaviour:
    """From what the servers said, by server; None for one that did not answer."""
    addresses = sorted((a for a in seen.values() if a is not None and ":" not in a[0]), key=lambda a: a[1])
    if not addresses:
        return NatBehaviour(MappingBehaviour.SILENT if seen else MappingBehaviour.UNKNOWN)
    hosts = {candidate.address for candidate in own if candidate.type is CandidateType.HOST}
    outside = addresses[-1]
    if outside in hosts:
        return NatBehaviour(MappingBehaviour.NONE, outside)
    if len(addresses) < 2:
        return NatBehaviour(MappingBehaviour.UNKNOWN, outside)
    if len(set(addresses)) == 1:
        return NatBehaviour(MappingBehaviour.INDEPENDENT, outside)
    step = addresses[-1][1] - addresses[-2][1]
    one_address = len({host for host, _ in addresses}) == 1
    return NatBehaviour(MappingBehaviour.DEPENDENT, outside, one_address and 0 < step <= NEIGHBOURS)


def search_apart(behaviour: NatBehaviour, main: int, another: Callable[[], tuple[int, int] | None]) -> NatBehaviour:
    """With a socket of its own for searches, where that one's outside port is known unasked: the NAT has kept the port
    `main`. `another` opens it: its number and port, None if that cannot be."""
    if behaviour.mapping is not MappingBehaviour.INDEPENDENT or behaviour.outside is None:
        return behaviour
    host, port = behaviour.outside
    if port != main or (opened := another()) is None:
        return behaviour
    local, port = opened
    return replace(behaviour, outside=(host, port), local=local)


def parse_behaviour_untrusted(value: object) -> NatBehaviour:
    """From its JSON form `[mapping, host or null, port, sequential]`. Raises BadPacket."""
    match value:
        case [str(name), str() | None as host, int(port), bool(sequential)]:
            pass
        case _:
            raise BadPacket("NAT form")
    try:
        mapping = MappingBehaviour(name)
    except ValueError as error:
        raise BadPacket("NAT mapping") from error
    if host is None:
        return NatBehaviour(mapping)
    outside = parse_candidate_untrusted([CandidateType.SERVER_REFLEXIVE.value, host, port])
    if outside.is_ipv6:
        raise BadPacket("NAT address")
    return NatBehaviour(mapping, outside.address, sequential)
