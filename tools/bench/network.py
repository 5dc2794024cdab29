"""Between what a file is sent: loopback, a loopback of its own, or two namespaces joined by a veth pair.

A tool asks for the command line that runs on a side, and for a side's address; it does not know which network it is on.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal, Protocol

from tools.netlab import Host, Lab, Topology, pair

Side = Literal["sender", "receiver"]


class Network(Protocol):
    """Where the two sides are."""

    description: str
    has_way_out: bool
    """Whether a program that insists could reach the public internet from here."""

    def address(self, side: Side) -> str: ...

    def on(self, side: Side, argv: Sequence[str | os.PathLike[str]]) -> list[str]: ...


class Loopback:
    """Both sides on this host."""

    description = "loopback"
    has_way_out = True

    def address(self, side: Side) -> str:
        return "127.0.0.1"

    def on(self, side: Side, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        return [os.fspath(word) for word in argv]


class Veth:
    """alice sends to bob over a veth pair of their own."""

    has_way_out = False
    _hosts: ClassVar[dict[Side, str]] = {"sender": "alice", "receiver": "bob"}

    def __init__(self, lab: Lab, description: str) -> None:
        self._lab = lab
        self.description = description

    def address(self, side: Side) -> str:
        return self._lab.address(self._hosts[side])

    def on(self, side: Side, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        return self._lab.on(self._hosts[side], argv)


class OwnLoopback:
    """Both sides in one namespace that has a loopback interface and nothing else."""

    description = "loopback"
    has_way_out = False

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def address(self, side: Side) -> str:
        return "127.0.0.1"

    def on(self, side: Side, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        return self._lab.on("alone", argv)


@contextmanager
def own_loopback() -> Iterator[Network]:
    """A namespace for programs that would otherwise tell each other addresses of the host's, or ask public servers."""
    with Lab(Topology("alone", "a host without a network", (Host("alone", ()),))) as lab:
        # wormhole-william tells its peer no address that looks like loopback: this one does not, and is.
        lab.output("alone", ["ip", "address", "add", "10.9.0.1/32", "dev", "lo"])
        yield OwnLoopback(lab)


@contextmanager
def veth(mtu: int, gso: bool | None, gro: bool | None) -> Iterator[Network]:
    """A veth pair, with segmentation (`gso`) and receive offload (`gro`) of both devices; None leaves it as it comes.

    As it comes, GSO is on and GRO off, and trains cross the pair whole. A real card is `gso=False, gro=True`: the
    sender's device gets single packets (segmented in software), and the receiver's puts them together again.
    """
    words = [f"veth, MTU {mtu}"]
    with Lab(pair(mtu)) as lab:
        for host in ("alice", "bob"):
            if gso is not None:
                # `gso off` alone leaves trains of UDP whole (Linux 6.18, counted): they have a feature of their own.
                lab.set_offload(host, "eth0", gso=gso, tso=gso, **{"tx-udp-segmentation": gso})
            if gro is not None:
                lab.set_offload(host, "eth0", gro=gro)
        for name, chosen in (("GSO", gso), ("GRO", gro)):
            if chosen is not None:
                words.append(f"{name} {'on' if chosen else 'off'}")
        yield Veth(lab, ", ".join(words))


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody has on loopback now."""
    with socket.socket(socket.AF_INET, kind) as tried:
        tried.bind(("127.0.0.1", 0))
        port: int = tried.getsockname()[1]
        return port
