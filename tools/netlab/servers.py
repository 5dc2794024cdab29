"""The programs of a laboratory: mosquitto and coturn on its public side, miniupnpd in a home router.

All are of Debian; what they print goes to a file of the directory that is given. Raises LabError if one is missing or
does not start.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from .lab import Lab, LabError
from .topology import MAPPED_ADDRESS

# Bounds what hangs; nothing is expected to take anywhere near it.
PATIENCE = 20.0
MQTT_PORT = 1883
STUN_PORT = 3478
RELAY_USER = "me:s3cret"
PACKAGES = {"mosquitto": "mosquitto", "turnserver": "coturn", "miniupnpd": "miniupnpd-nftables"}

# The tables that miniupnpd fills. What it maps passes the laboratory's own table by `ct status dnat`.
_UPNP_TABLES = """
table inet upnp {
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain prerouting {
        type nat hook prerouting priority dstnat;
        jump prerouting_miniupnpd
    }
}
"""


def missing_program(*names: str) -> str | None:
    """Why they cannot be had, or None."""
    for name in names:
        if _path(name) is None:
            return f"needs {name} (Debian package {PACKAGES[name]})"
    return None


def _path(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _program(name: str) -> str:
    path = _path(name)
    if path is None:
        raise LabError(f"needs {name} (Debian package {PACKAGES[name]})")
    return path


class Started:
    """A command on a host of a lab; what it prints goes to a file."""

    def __init__(self, lab: Lab, host: str, argv: Sequence[str | os.PathLike[str]], log: Path) -> None:
        self._log = log
        self._what = f"{' '.join(os.fspath(word) for word in argv)} on {host}"
        with open(log, "wb") as output:
            self._process = lab.run(host, argv, stdout=output, stderr=subprocess.STDOUT)

    def printed(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for_text(self, text: str) -> None:
        """Until it has printed `text`."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.printed():
            if self._process.poll() is not None:
                raise LabError(f"{self._what} ended:\n{self.printed()}")
            if time.monotonic() > deadline:
                raise LabError(f"{self._what} never said {text!r}:\n{self.printed()}")
            time.sleep(0.01)

    def finish(self, expected: int = 0, patience: float = PATIENCE) -> str:
        """Waits for its end with this exit code; what it has printed."""
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self._what} does not end:\n{self.printed()}") from None
        if code != expected:
            raise LabError(f"{self._what} ended with {code}:\n{self.printed()}")
        return self.printed()


def start_mosquitto(lab: Lab, host: str, directory: Path) -> Started:
    """On the host's first address, for anybody."""
    settings = directory / "mosquitto.conf"
    settings.write_text(f"listener {MQTT_PORT} {lab.address(host)}\nallow_anonymous true\nuser root\n")
    program = [_program("mosquitto"), "-v", "-c", str(settings)]
    server = Started(lab, host, program, directory / "mosquitto.log")
    server.wait_for_text("running")
    return server


def start_coturn(lab: Lab, host: str, directory: Path) -> Started:
    """STUN on both of the host's addresses, and TURN for RELAY_USER by UDP and TCP."""
    addresses = lab.address(host, 0), lab.address(host, 1)
    listening = [word for address in addresses for word in ("--listening-ip", address)]
    options = ["--listening-port", str(STUN_PORT), "--relay-ip", addresses[0], "--no-cli", "--no-tls", "--no-dtls"]
    options += ["--lt-cred-mech", "--user", RELAY_USER, "--realm", "example.org"]
    files = ["--log-file", "stdout", "--pidfile", str(directory / "coturn.pid"), "--userdb", str(directory / "turndb")]
    program = [_program("turnserver"), "-n", "-v", *listening, *options, *files]
    server = Started(lab, host, program, directory / "coturn.log")
    for address in addresses:
        server.wait_for_text(f"UDP listener opened on: {address}:{STUN_PORT}")
    return server


def relay_url(lab: Lab, more: str = "") -> str:
    return f"turn:{RELAY_USER}@{named(lab.address('server'))}:{STUN_PORT}{more}"


def named(address: str) -> str:
    """As it stands before a port."""
    return f"[{address}]" if ":" in address else address


def start_miniupnpd(lab: Lab, router: str, directory: Path, *, pcp: bool, upnp: bool) -> Started:
    """On a router that has MAPPED_ADDRESS."""
    lab.output(router, ["nft", "-f", "-"], _UPNP_TABLES)
    settings = directory / "miniupnpd.conf"
    settings.write_text(
        f"ext_ifname=wan\next_ip={MAPPED_ADDRESS}\nlistening_ip=lan\n"
        f"enable_natpmp={'yes' if pcp else 'no'}\nenable_upnp={'yes' if upnp else 'no'}\n"
        "upnp_table_name=upnp\nupnp_nat_table_name=upnp\nupnp_forward_chain=miniupnpd\n"
        "upnp_nat_chain=prerouting_miniupnpd\nupnp_nat_postrouting_chain=postrouting_miniupnpd\n"
        f"lease_file={directory / 'leases'}\nsystem_uptime=yes\nsecure_mode=yes\n"
        "uuid=00000000-0000-0000-0000-000000000001\nallow 1024-65535 10.0.0.0/8 1024-65535\n"
        "deny 0-65535 0.0.0.0/0 0-65535\n"
    )
    program = [_program("miniupnpd"), "-d", "-f", str(settings), "-P", str(directory / "miniupnpd.pid")]
    server = Started(lab, router, program, directory / "miniupnpd.log")
    server.wait_for_text("Listening for" if pcp else "HTTP listening on port")
    return server


def start_servers(lab: Lab, directory: Path) -> list[str]:
    """All that the topology has a place for; the options for the peers."""
    hosts = {host.name: host for host in lab.topology.hosts}
    if "server" not in hosts:
        return []
    start_mosquitto(lab, "server", directory)
    start_coturn(lab, "server", directory)
    for host in hosts.values():
        if host.port_mapping:
            pcp, upnp = ("pcp" in host.port_mapping, "upnp" in host.port_mapping)
            start_miniupnpd(lab, host.name, directory, pcp=pcp, upnp=upnp)
    options = ["--broker", f"mqtt://{named(lab.address('server'))}:{MQTT_PORT}"]
    for number in (0, 1):
        options += ["--stun", f"{named(lab.address('server', number))}:{STUN_PORT}"]
    return options
