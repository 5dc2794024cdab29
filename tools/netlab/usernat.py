"""A NAT in user space, for the kinds that nftables does not offer. Runs in a router's namespace; standard library only.

`python usernat.py PUBLIC INSIDE/PREFIX [options]` makes the device `nat0`, routes the router's UDP through it, prints
READY and translates until it is killed; on SIGUSR1 it forgets all mappings, as on a restart:

1. UDP from `lan`, and from `wan` to PUBLIC, is routed into `nat0` instead of out of the other side.
2. A packet from inside gets the mapping of its source and of as much of its destination as mapping depends on.
3. A packet to PUBLIC goes to the mapping of its port if filtering lets it in; from inside only where hairpinning is on.
4. What is translated is written to `nat0` and routed as usual. The packet crosses two routing decisions, so its TTL is
   raised by one: to others this is one hop, as any router is.
"""

from __future__ import annotations

import argparse
import fcntl
import ipaddress
import os
import random
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
DEVICE = "nat0"
UDP = 17
FIRST_PORT = 20_000  # of sequential allocation

Address = tuple[str, int]
Scope = tuple[str | int, ...]
"""As much of the other end as mapping or filtering looks at."""

_SCOPES = {"none": 0, "address": 1, "port": 2}


@dataclass(slots=True)
class Mapping:
    inside: Address
    port: int
    used: float
    written_to: dict[Scope, float] = field(default_factory=dict)


class Nat:
    """The tables. `translate` gives the new source and destination of a datagram, or None to drop it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._public: str = options.public
        self._inside = ipaddress.ip_network(options.inside)
        self._mapping_scope = _SCOPES[options.mapping]
        self._filter_scope = _SCOPES[options.filtering]
        self._ports: str = options.ports
        self._lifetime: float = options.lifetime
        self._hairpin: bool = options.hairpin
        self._by_inside: dict[tuple[Address, Scope], Mapping] = {}
        self._by_port: dict[int, Mapping] = {}
        self._next = FIRST_PORT + random.randrange(10_000)

    def forget(self) -> None:
        self._by_inside.clear()
        self._by_port.clear()

    def translate(self, source: Address, target: Address, now: float) -> tuple[Address, Address] | None:
        from_inside = ipaddress.ip_address(source[0]) in self._inside
        if from_inside:
            source = self._public, self._mapped(source, target, now)
        if target[0] != self._public:
            return (source, target) if from_inside else None
        if from_inside and not self._hairpin:
            return None
        mapping = self._by_port.get(target[1])
        if mapping is None or self._is_old(mapping.used, now):
            return None
        let_in = mapping.written_to.get(source[: self._filter_scope])
        return None if let_in is None or self._is_old(let_in, now) else (source, mapping.inside)

    def _is_old(self, used: float, now: float) -> bool:
        return now - used > self._lifetime

    def _mapped(self, inside: Address, target: Address, now: float) -> int:
        key = inside, target[: self._mapping_scope]
        mapping = self._by_inside.get(key)
        if mapping is None or self._is_old(mapping.used, now):
            if mapping is not None:
                del self._by_port[mapping.port]
            mapping = Mapping(inside, self._free_port(inside[1]), now)
            self._by_inside[key] = self._by_port[mapping.port] = mapping
        mapping.used = mapping.written_to[target[: self._filter_scope]] = now
        return mapping.port

    def _free_port(self, inside: int) -> int:
        port = inside
        while port in self._by_port or (self._ports != "kept" and port == inside):
            if self._ports == "random":
                port = random.randrange(1024, 65_536)
            else:
                port, self._next = self._next, self._next + 1
        return port


def _checksum(header: bytearray) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def rewritten(packet: bytes, nat: Nat, now: float) -> bytes | None:
    """The IPv4 packet as it leaves, or None. Fragments are dropped: udpsend sends none."""
    if packet[0] != 0x45 or packet[9] != UDP or struct.unpack_from("!H", packet, 6)[0] & 0x3FFF:
        return None
    source_port, target_port = struct.unpack_from("!HH", packet, 20)
    source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    translated = nat.translate((source, source_port), (target, target_port), now)
    if translated is None:
        return None
    (source, source_port), (target, target_port) = translated
    header = bytearray(packet[:20])
    header[8] += 1
    header[10:12] = bytes(2)
    header[12:20] = socket.inet_aton(source) + socket.inet_aton(target)
    struct.pack_into("!H", header, 10, _checksum(header))
    # Without a checksum, as IPv4 allows: the one that came covers the addresses of before.
    return bytes(header) + struct.pack("!HH", source_port, target_port) + packet[24:26] + bytes(2) + packet[28:]


def _route_through_device(public: str) -> None:
    for command in (
        f"ip link set {DEVICE} up",
        f"sysctl -q -w net.ipv4.conf.{DEVICE}.accept_local=1 net.ipv4.conf.{DEVICE}.rp_filter=0",
        f"ip route add default dev {DEVICE} table 100",
        "ip rule add pref 10 iif lan ipproto udp lookup 100",
        f"ip rule add pref 11 iif wan ipproto udp to {public} lookup 100",
        # The table of own addresses comes first otherwise, and would take what is sent to PUBLIC.
        "ip rule add pref 100 lookup local",
        "ip rule del pref 0",
    ):
        subprocess.run(command.split(), check=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("public")
    parser.add_argument("inside")
    parser.add_argument("--mapping", choices=_SCOPES, default="none")
    parser.add_argument("--filtering", choices=_SCOPES, default="none")
    parser.add_argument("--ports", choices=("kept", "sequential", "random"), default="kept")
    parser.add_argument("--lifetime", type=float, default=120.0)
    parser.add_argument("--hairpin", action="store_true")
    options = parser.parse_args()
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    _route_through_device(options.public)
    nat = Nat(options)
    signal.signal(signal.SIGUSR1, lambda number, frame: nat.forget())
    print("READY", flush=True)
    while True:
        packet = rewritten(os.read(device, 65_536), nat, time.monotonic())
        if packet is not None:
            os.write(device, packet)


if __name__ == "__main__":
    main()
