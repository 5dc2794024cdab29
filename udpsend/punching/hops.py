"""How many routers on the way out may translate addresses, as far as they say so. Linux.

A datagram of small TTL dies at a router, which says so by ICMP from its address on this side. Behind a NAT that is a
private one, so the last that answers from such an address is the outermost NAT there may be. Routers that say nothing
do not count, unless one behind them does.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
import time

from udpsend.punching.behaviour import Routers
from udpsend.punching.gateway import is_behind_nat

IP_RECVERR = 11  # linux/in.h
MSG_ERRQUEUE = 0x2000
POLLERR = 8
ICMP_TIME_EXCEEDED = 11
MAX_HOPS = 4  # a virtual machine's host, a home router, a carrier's NAT, and the first behind them
TRACE_PORT = 33434  # traceroute's
PATIENCE = 0.2  # seconds; routers so near answer in a few milliseconds


def routers_that_translate(target: str, bind: str | None) -> Routers:
    """Counting the one next to us. They are all where one on the internet answered behind them. `target` is any host
    there; nothing gets to it. Blocks for PATIENCE at most."""
    if sys.platform != "linux" or (bind is not None and ":" in bind):
        return Routers()
    with contextlib.ExitStack() as opened:
        try:
            probes = [_probe(opened, ttl, bind) for ttl in range(1, MAX_HOPS + 1)]
            for hop, probe in enumerate(probes, 1):
                probe.sendto(b"", (target, TRACE_PORT + hop))
        except OSError:  # no way out
            return Routers()
        return _outermost(_answers(probes))


def _probe(opened: contextlib.ExitStack, ttl: int, bind: str | None) -> socket.socket:
    probe = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    probe.setblocking(False)
    probe.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    probe.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
    probe.bind((bind or "", 0))
    return probe


def _answers(probes: list[socket.socket]) -> dict[int, str]:
    """Hop -> who answered, until the first that is not inside of a NAT has."""
    poll = select.poll()
    for probe in probes:
        poll.register(probe, POLLERR)
    hops = {probe.fileno(): hop for hop, probe in enumerate(probes, 1)}
    answers: dict[int, str] = {}
    deadline = time.monotonic() + PATIENCE
    while len(answers) < len(probes) and (left := deadline - time.monotonic()) > 0:
        for fileno, _ in poll.poll(left * 1000):
            poll.unregister(fileno)
            router = _who_dropped(probes[hops[fileno] - 1])
            answers[hops[fileno]] = router
        ends = [hop for hop, router in answers.items() if not router or not is_behind_nat(router)]
        if ends and all(hop in answers for hop in range(1, min(ends))):
            break
    return answers


def _who_dropped(probe: socket.socket) -> str:
    """The router, or "" if it was something else, such as the target itself."""
    with contextlib.suppress(OSError):
        _, ancillary, _, _ = probe.recvmsg(64, 512, MSG_ERRQUEUE)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, IP_RECVERR) and len(data) >= 24 and data[5] == ICMP_TIME_EXCEEDED:
                # struct sock_extended_err, 16 bytes, and the sockaddr_in of who sent the ICMP
                return socket.inet_ntoa(struct.unpack_from("4s", data, 20)[0])
    return ""


def _outermost(answers: dict[int, str]) -> Routers:
    """The last hop that is inside of a NAT, before the first that is not."""
    outermost = 1
    for hop, router in sorted(answers.items()):
        if not router or not is_behind_nat(router):
            return Routers(outermost, bool(router) and all(before in answers for before in range(1, hop)))
        outermost = hop
    return Routers(outermost)
