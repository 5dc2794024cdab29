"""Namespaces of a topology: made, used, and taken away again.

1. `missing_requirements` says why this machine cannot have a laboratory, or None.
2. `Lab.up` makes a namespace per host, joins them, gives addresses, routes, the settings of a real machine, and its
   ruleset to each router. Every name carries the lab's tag (the process id, unless told), so runs do not collide, and
   nothing is made or changed in the namespace that this process is in.
3. `Lab.run` starts a command on a host; `interface_bytes` and `packet_counters` say what passed where.
4. `Lab.down` ends what runs in the namespaces and removes them; a context manager and `atexit` see to it, and the next
   `up` sweeps what a killed process left.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from .nat import NAT_KINDS, NatKind
from .topology import Host, Topology

PREFIX = "udpsend-lab"
_SWITCH = "switch"
_USERSPACE_NAT = Path(__file__).with_name("usernat.py")
_counter = itertools.count(1)

# What Debian sets at start (systemd's 50-default.conf) and the kernel does not: strictness of the reverse path check.
# A namespace starts with the kernel's own defaults otherwise, as a freshly started machine does.
_HOST_SETTINGS = ("net.ipv4.conf.all.rp_filter=2", "net.ipv4.conf.default.rp_filter=2")
_ROUTER_SETTINGS = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.send_redirects=0")


class LabError(Exception):
    """A command that builds or reads the laboratory failed; the text has the command and what it said."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that an interface received and sent, link-layer headers included."""

    received_bytes: int
    sent_bytes: int


def missing_requirements() -> str | None:
    """Why there can be no laboratory here, or None when there can."""
    if not Path("/proc/self/ns/net").exists():
        return "network namespaces are a feature of Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    for command, package in (("ip", "iproute2"), ("nft", "nftables"), ("sysctl", "procps")):
        if shutil.which(command) is None:
            return f"needs the command {command} (Debian package {package})"
    probe = f"{PREFIX}-p{os.getpid()}-can"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, timeout=30).returncode != 0:
        return "this machine does not let us make network namespaces"
    _command("ip", "netns", "del", probe)
    return None


def _command(*argv: str, text: str | None = None) -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _namespaces(tag: str) -> list[str]:
    """The namespaces of the lab `tag`, or of all labs for an empty one."""
    listed = json.loads(_command("ip", "-json", "netns", "list") or "[]")
    start = f"{PREFIX}-{tag}-" if tag else f"{PREFIX}-"
    return [entry["name"] for entry in listed if entry["name"].startswith(start)]


def tags() -> list[str]:
    """The tags of all labs on this machine."""
    return sorted({name.removeprefix(f"{PREFIX}-").split("-", 1)[0] for name in _namespaces("")})


def destroy(tag: str) -> None:
    """Ends every process in the namespaces of the lab `tag` and removes them. No error if there are none."""
    names = _namespaces(tag)
    for name in names:
        for pid in _unless_gone(name, "ip", "netns", "pids", name).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
    for name in names:
        _unless_gone(name, "ip", "netns", "del", name)


def _unless_gone(namespace: str, *argv: str) -> str:
    """What the command printed; nothing if somebody else has taken the namespace away: a sweep of another process."""
    try:
        return _command(*argv)
    except LabError:
        if Path(f"/run/netns/{namespace}").exists():
            raise
        return ""


def sweep() -> None:
    """Removes the labs of processes that are no more."""
    for tag in tags():
        owner = re.fullmatch(r"p(\d+)(x\d+)?", tag)
        if owner is not None and not Path(f"/proc/{owner[1]}").exists():
            destroy(tag)


class Lab:
    """A topology as namespaces. Usable as a context manager; `up` and `down` may be called any number of times."""

    def __init__(self, topology: Topology, tag: str | None = None) -> None:
        self.topology = topology
        self.tag = tag or f"p{os.getpid()}x{next(_counter)}"
        if not self.tag.isalnum():
            raise LabError("a lab's tag has letters and digits only")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._is_up = False

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    # Building

    def up(self) -> None:
        """Makes the namespaces. Raises LabError; nothing is left in that case."""
        if self._is_up:
            return
        sweep()
        destroy(self.tag)
        atexit.register(self.down)
        self._is_up = True
        try:
            self._build()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Ends the processes that were started here and removes the namespaces."""
        if not self._is_up:
            return
        self._is_up = False
        atexit.unregister(self.down)
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        destroy(self.tag)
        for process in self._processes:
            process.wait(timeout=30)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        self._processes.clear()

    def namespace(self, host: str) -> str:
        """The name that `ip netns exec` takes."""
        return f"{PREFIX}-{self.tag}-{host}"

    def _ip(self, host: str, *lines: str) -> None:
        _command("ip", "-n", self.namespace(host), "-batch", "-", text="\n".join(lines) + "\n")

    def _build(self) -> None:
        names = [host.name for host in self.topology.hosts]
        segments = self.topology.segments()
        if any(len(ports) != 2 for ports in segments.values()):
            names.append(_SWITCH)
        for name in names:
            _command("ip", "netns", "add", self.namespace(name))
            self._ip(name, "link set lo up")
        for host in self.topology.hosts:
            self._apply_settings(host)
        for segment in segments:
            self._join(segment)
        for host in self.topology.hosts:
            self._configure(host)

    def _apply_settings(self, host: Host) -> None:
        settings = _HOST_SETTINGS + (_ROUTER_SETTINGS if host.forwards else ())
        _command("ip", "netns", "exec", self.namespace(host.name), "sysctl", "-q", "-w", *settings)

    def _join(self, segment: str) -> None:
        ports = self.topology.segments()[segment]
        mtu = self.topology.mtu.get(segment, 1500)
        if len(ports) == 2:
            (first, one), (second, other) = ports
            peer = f"peer name {other.interface} mtu {mtu} netns {self.namespace(second.name)}"
            self._ip(first.name, f"link add {one.interface} mtu {mtu} type veth {peer}")
            return
        bridge = f"br{list(self.topology.segments()).index(segment)}"
        lines = [f"link add {bridge} mtu {mtu} type bridge", f"link set {bridge} up"]
        for number, (host, port) in enumerate(ports):
            plug = f"{bridge}p{number}"
            peer = f"peer name {port.interface} mtu {mtu} netns {self.namespace(host.name)}"
            lines += [f"link add {plug} mtu {mtu} type veth {peer}", f"link set {plug} master {bridge} up"]
        self._ip(_SWITCH, *lines)

    def _configure(self, host: Host) -> None:
        lines = []
        for port in host.ports:
            for address in port.addresses:
                # IPv6 would otherwise look for a second or two whether somebody else has the address.
                unchecked = " nodad" if ":" in address else ""
                lines.append(f"address add {address} dev {port.interface}{unchecked}")
            lines.append(f"link set {port.interface} up")
        if host.gateway is not None:
            lines.append(f"route add default via {host.gateway}")
        for destination, way in host.routes:
            lines.append(
                f"route add {destination} {way}" if way.startswith("via ") else f"route add {way} {destination}"
            )
        self._ip(host.name, *lines)
        if host.nat is not None:
            self._start_nat(host, NAT_KINDS[host.nat])

    def _start_nat(self, host: Host, kind: NatKind) -> None:
        _command(*self.on(host.name, ["nft", "-f", "-"]), text=kind.ruleset)
        if kind.settings:
            _command(*self.on(host.name, ["sysctl", "-q", "-w", *kind.settings]))
        if not kind.userspace:
            return
        ports = {port.interface: port for port in host.ports}
        public = ports["wan"].addresses[0].split("/")[0]
        inside = str(ip_network(ports["lan"].addresses[0], strict=False))
        program: list[str | Path] = [sys.executable, _USERSPACE_NAT, public, inside, *kind.userspace]
        process = self.run(host.name, program, stdout=subprocess.PIPE)
        if process.stdout is None or process.stdout.readline() != b"READY\n":
            raise LabError(f"the NAT of {host.name} did not start")

    # Using

    def address(self, host: str, number: int = 0) -> str:
        """The host's address without prefix length, of its first interface."""
        return self.topology.host(host).ports[0].addresses[number].split("/")[0]

    def on(self, host: str, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The command line that runs `argv` on `host`; the process it starts becomes `argv`."""
        return ["ip", "netns", "exec", self.namespace(host), *(os.fspath(word) for word in argv)]

    def run(
        self,
        host: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts `argv` on `host`. What still runs at `down` is killed."""
        process = subprocess.Popen(
            self.on(host, argv), stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
        self._processes.append(process)
        return process

    def output(self, host: str, argv: Sequence[str | os.PathLike[str]], text: str | None = None) -> str:
        """Runs `argv` on `host`, with `text` for its input, to its end and gives what it printed. Raises LabError, also
        after 60 s."""
        return _command(*self.on(host, argv), text=text)

    def signal(self, host: str, word: str, number: int) -> None:
        """Sends the signal to the processes on `host` that have `word` in their command line."""
        for pid in _command("ip", "netns", "pids", self.namespace(host)).split():
            try:
                if word in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(int(pid), number)
            except (FileNotFoundError, ProcessLookupError):
                continue

    def set_offload(self, host: str, interface: str, **features: bool) -> None:
        """Switches features of a device as `ethtool -K` names them, such as gso=False, gro=True."""
        words = [word for name, on in features.items() for word in (name, "on" if on else "off")]
        self.output(host, ["ethtool", "-K", interface, *words])

    # Reading

    def interface_bytes(self, host: str, interface: str) -> Traffic:
        """What the interface has carried since `up`."""
        shown = _command("ip", "-n", self.namespace(host), "-json", "-statistics", "link", "show", interface)
        counters = json.loads(shown)[0]["stats64"]
        return Traffic(counters["rx"]["bytes"], counters["tx"]["bytes"])

    def packet_counters(self, host: str) -> dict[str, tuple[int, int]]:
        """The named counters of the host's ruleset: name -> (packets, bytes)."""
        shown = json.loads(self.output(host, ["nft", "-json", "list", "counters"]))
        counters = [entry["counter"] for entry in shown["nftables"] if "counter" in entry]
        return {counter["name"]: (counter["packets"], counter["bytes"]) for counter in counters}
