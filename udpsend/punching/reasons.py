"""Why there is no direct path, and what would help, for the one who reads it. At most three lines."""

from __future__ import annotations

from udpsend.punching.behaviour import MappingBehaviour, NatBehaviour
from udpsend.punching.path import PunchFailed


def explain(own: NatBehaviour, peer: NatBehaviour, failed: PunchFailed) -> str:
    """From what both NATs are known to do, and what came of the probes."""
    why = _without_nats(failed) or f"this side has {own}, the other {peer}.\n{_remedy(own, peer, failed)}"
    return f"The other side is there, but no direct path to it was found:\n{why}"


def _without_nats(failed: PunchFailed) -> str:
    """Where nothing could be tried, or IPv6 alone, no NAT is to blame."""
    for who, versions in (("this side", failed.own), ("the other side", failed.peer)):
        if not versions:
            return f"{who} has no address but those that lead to itself.\nConnect it to a network, and try again."
    if failed.own & failed.peer == {6}:
        return (
            "only IPv6 leads from one to the other, and a firewall is in the way.\n"
            "Let UDP pass it, or see that both sides have IPv4, too."
        )
    if failed.own & failed.peer:
        return ""
    own, peer = (f"IPv{min(versions)} only" for versions in (failed.own, failed.peer))
    return (
        f"this side has {own}, the other {peer}.\nOne side needs an address of the other's kind: take another network "
        "there, or a relay (--relay) on the side with IPv6."
    )


def is_hopeless(own: NatBehaviour, peer: NatBehaviour) -> bool:
    """No path will come up later, if none has come up at once."""
    if _is_silent(own) or _is_silent(peer) or _is_one_nat(own, peer):
        return True
    return own.is_hard and peer.is_hard and not (own.sequential and peer.sequential)


def _remedy(own: NatBehaviour, peer: NatBehaviour, failed: PunchFailed) -> str:
    silent = [name for name, nat in (("this side", own), ("the other side", peer)) if _is_silent(nat)]
    if silent:
        return f"UDP must get out on {' and '.join(silent)}: take another network there, or a relay over TCP (--relay)."
    if own.is_hard and peer.is_hard:
        return (
            "Two symmetric NATs cannot meet. IPv6, a port mapping in one router, another network, or a relay (--relay) "
            "on one side helps."
        )
    if _is_one_nat(own, peer):
        return "Both are behind one NAT that leads nobody back inside: the same local network, IPv6 or --relay helps."
    if failed.heard:
        return "Its packets arrive here, ours do not arrive there: a firewall there. IPv6 or a relay (--relay) helps."
    if own.is_hard or peer.is_hard:
        return "The symmetric NAT gave no port away. A port mapping in its router, IPv6 or a relay (--relay) helps."
    return (
        f"None of its {failed.tried} addresses answered: a firewall is in the way. IPv6, a port mapping, another "
        "network or a relay (--relay) on one side helps."
    )


def _is_one_nat(own: NatBehaviour, peer: NatBehaviour) -> bool:
    return own.outside is not None and peer.outside is not None and own.outside[0] == peer.outside[0]


def _is_silent(nat: NatBehaviour) -> bool:
    return nat.mapping is MappingBehaviour.SILENT
