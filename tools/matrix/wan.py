"""A bottleneck in user space, for real time: a rate, a drop-tail queue and a delay. Standard library only.

`python wan.py MBIT/S DELAY_MS QUEUE_BYTES INSIDE` runs in the namespace of a router with the ports `lan`, where the
network INSIDE is, and `wan`, routes what comes from either through the device `wan0`, prints READY, and then ten times
a second a line of JSON: the bytes of IP packets that have gone from `lan` to `wan`, by protocol, what was dropped, and
what waits. Rate and queue are those of this direction; the delay counts both ways.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import select
import struct
import subprocess
import time
from collections import Counter, deque

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
DEVICE = "wan0"
PROTOCOLS = {6: "tcp", 17: "udp"}
REPORT = 0.1  # seconds


class Line:
    """One direction. Packets are due in the order in which they came."""

    def __init__(self, rate: float | None, delay: float, queue: float) -> None:
        self.packets: deque[tuple[float, bytes]] = deque()
        self.passed: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._rate = rate
        self._delay = delay
        self._queue = queue
        self._busy_until = 0.0

    def backlog(self, now: float) -> float:
        return max(0.0, self._busy_until - now) * (self._rate or 0.0)

    def put(self, packet: bytes, now: float) -> None:
        protocol = PROTOCOLS.get(packet[9], "other")
        leaves = now
        if self._rate is not None:
            if self.backlog(now) + len(packet) > self._queue:
                self.dropped[protocol] += len(packet)
                return
            self._busy_until = leaves = max(self._busy_until, now) + len(packet) / self._rate
        self.passed[protocol] += len(packet)
        self.packets.append((leaves + self._delay, packet))


class Wan:
    def __init__(self, device: int, there: Line, back: Line, inside: bytes) -> None:
        self._device = device
        self._there = there
        self._back = back
        self._inside = inside

    def run(self) -> None:
        poll = select.epoll()
        poll.register(self._device, select.EPOLLIN)
        report = time.monotonic() + REPORT
        while True:
            now = time.monotonic()
            due = min([report, *(line.packets[0][0] for line in (self._there, self._back) if line.packets)])
            poll.poll(max(0.0, due - now))
            self._read()
            now = time.monotonic()
            for line in (self._there, self._back):
                while line.packets and line.packets[0][0] <= now:
                    self._write(line.packets.popleft()[1])
            if now >= report:
                report += REPORT
                facts = {"passed": self._there.passed, "dropped": self._there.dropped}
                print(json.dumps({"time": now, "waiting": self._there.backlog(now), **facts}), flush=True)

    def _read(self) -> None:
        while True:
            try:
                packet = os.read(self._device, 65_536)
            except BlockingIOError:
                return
            if packet[0] >> 4 == 4:
                line = self._there if packet[12:15] == self._inside else self._back
                line.put(packet, time.monotonic())

    def _write(self, packet: bytes) -> None:
        try:
            os.write(self._device, packet)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOBUFS):
                raise


def _device() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    for command in (
        f"ip link set {DEVICE} up txqueuelen 10000",
        f"sysctl -q -w net.ipv4.conf.{DEVICE}.rp_filter=0 net.ipv4.conf.all.rp_filter=0",
        f"ip route add default dev {DEVICE} table 100",
        "ip rule add pref 10 iif lan lookup 100",
        "ip rule add pref 11 iif wan lookup 100",
    ):
        subprocess.run(command.split(), check=True)
    return device


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("megabits", type=float)
    parser.add_argument("delay", type=float, help="ms, one way")
    parser.add_argument("queue", type=float, help="bytes")
    parser.add_argument("inside", help="the first three numbers of the network at `lan`")
    options = parser.parse_args()
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # its lateness would be the link's jitter
    delay = options.delay / 1e3
    there = Line(options.megabits * 1e6 / 8, delay, options.queue)
    wan = Wan(_device(), there, Line(None, delay, 0), bytes(int(number) for number in options.inside.split(".")))
    print("READY", flush=True)
    wan.run()


if __name__ == "__main__":
    main()
