"""Servers for tests, each on loopback and ended with its `with`: mosquitto, coturn, the embedded one; and a CA.

Who asks for a server that is not installed skips, with the reason.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

LOOPBACK = "127.0.0.1"
PATIENCE = 20.0
"""Seconds after which a test that waits for a real event gives up. Nothing is measured by it."""


def wait_until(condition: Callable[[], object], what: str = "it") -> None:
    """Returns when `condition()` is true; fails the test after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen within {PATIENCE:.0f} s")
        time.sleep(0.005)


def slow_look_ups(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Each look-up of a name takes so long."""
    look_up = socket.getaddrinfo

    def slow(*words: Any, **options: Any) -> list[Any]:
        time.sleep(seconds)
        return look_up(*words, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody had a moment ago."""
    return free_ports(1, kind)[0]


def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[int]:
    """As many different ones: of those that are asked for one after the other, the second may be the first again."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket(socket.AF_INET, kind)) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]


def has_ipv6() -> bool:
    """A kernel may be built without it, or a container have no address of it."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@dataclass
class Mailman:
    """Callbacks for a mailbox, and what they were told."""

    messages: list[bytes] = field(default_factory=list)
    states: list[tuple[str, bool, str]] = field(default_factory=list)

    def on_message(self, message: bytes) -> None:
        self.messages.append(message)

    def on_state(self, name: str, up: bool, detail: str) -> None:
        self.states.append((name, up, detail))

    @property
    def is_up(self) -> bool:
        return bool(self.states) and self.states[-1][1]

    def wait_until_up(self) -> None:
        wait_until(lambda: self.is_up, f"a mailbox coming up (so far: {self.states})")

    def wait_for(self, message: bytes) -> None:
        wait_until(lambda: message in self.messages, f"the message {message[:40]!r}")


# Processes.


def _program(name: str, package: str) -> str:
    # Debian puts daemons where the path of ordinary users does not lead.
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return found


@contextlib.contextmanager
def running(command: list[str], is_ready: Callable[[], bool], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process from when it is ready; terminated at the end."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not is_ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.01)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def accepts_tcp(port: int, host: str = LOOPBACK) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


# A certificate authority for one test run.


def make_certificates(
    directory: Path, host: str = LOOPBACK, starts: datetime.timedelta = datetime.timedelta(hours=-1)
) -> Path:
    """Writes `ca.pem`, `server.pem` and `server.key` for the address `host`; the path of `ca.pem`. Valid for a day,
    which `starts` so long from now."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)

    def builder(name: str, key: ec.EllipticCurvePublicKey, issuer: str) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + starts)
            .not_valid_after(now + starts + datetime.timedelta(days=1))
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        builder("udpsend test CA", ca_key.public_key(), "udpsend test CA")
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(ca_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        builder("udpsend test server", key.public_key(), "udpsend test CA")
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "ca.pem").write_bytes(ca.public_bytes(pem))
    (directory / "server.pem").write_bytes(certificate.public_bytes(pem))
    (directory / "server.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "ca.pem"


def trusting(ca: Path) -> str:
    """What follows a URL whose server is known by `ca`; the path may have blanks in it."""
    return f"?ca={quote(str(ca))}"


# The servers.


@dataclass(frozen=True)
class Mosquitto:
    process: subprocess.Popen[bytes]
    ca: Path
    tcp_port: int
    tls_port: int
    ws_port: int
    wss_port: int

    @property
    def tcp(self) -> str:
        return f"mqtt://{LOOPBACK}:{self.tcp_port}"

    @property
    def tls(self) -> str:
        return f"mqtts://{LOOPBACK}:{self.tls_port}{trusting(self.ca)}"

    @property
    def ws(self) -> str:
        return f"ws://{LOOPBACK}:{self.ws_port}"

    @property
    def wss(self) -> str:
        return f"wss://{LOOPBACK}:{self.wss_port}{trusting(self.ca)}"


@contextlib.contextmanager
def mosquitto(
    directory: Path, settings: str = "allow_anonymous true", ports: Sequence[int] = ()
) -> Iterator[Mosquitto]:
    """mosquitto with listeners for TCP, TLS, WebSocket and secure WebSocket. Skips where it is not installed."""
    program = _program("mosquitto", "mosquitto")
    ca = directory / "ca.pem" if (directory / "ca.pem").exists() else make_certificates(directory)
    tcp, tls, ws, wss = ports or free_ports(4)
    keys = f"certfile {directory / 'server.pem'}\nkeyfile {directory / 'server.key'}\n"
    (directory / "mosquitto.conf").write_text(
        # It would change from root to its own user, which cannot read the directory.
        (f"user {_user()}\n" if os.geteuid() == 0 else "")
        + f"persistence false\n{settings}\n"
        + f"listener {tcp} {LOOPBACK}\n"
        + f"listener {tls} {LOOPBACK}\n{keys}"
        + f"listener {ws} {LOOPBACK}\nprotocol websockets\n"
        + f"listener {wss} {LOOPBACK}\nprotocol websockets\n{keys}"
    )
    with running(
        [program, "-c", str(directory / "mosquitto.conf")],
        lambda: all(accepts_tcp(port) for port in (tcp, tls, ws, wss)),
        directory / "mosquitto.log",
    ) as process:
        yield Mosquitto(process, ca, tcp, tls, ws, wss)


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


@contextlib.contextmanager
def coturn(directory: Path, configuration: Path | None = None) -> Iterator[int]:
    """turnserver on 127.0.0.1, with the file that Debian ships or without any; its port. Skips where it is not
    installed."""
    program = _program("turnserver", "coturn")
    if configuration is not None and not configuration.exists():
        pytest.skip(f"{configuration} is not there (Debian package coturn)")
    port = free_port(socket.SOCK_DGRAM)
    command = [program, *(["-c", str(configuration)] if configuration else ["-n"])]
    command += ["-L", LOOPBACK, "-E", LOOPBACK, "-p", str(port), "--no-tls", "--no-dtls", "--no-cli"]
    command += ["--pidfile", str(directory / "turnserver.pid"), "--log-file", "stdout"]
    with running(command, lambda: accepts_tcp(port), directory / "turnserver.log"):
        yield port


@dataclass
class UdpServer:
    """Answers each datagram with what `answer(datagram)` makes of it, on a thread. For servers that misbehave."""

    answer: Callable[[bytes], list[bytes]]
    received: list[bytes] = field(default_factory=list)
    sources: list[tuple[str, int]] = field(default_factory=list)

    def __enter__(self) -> UdpServer:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOOPBACK, 0))
        self._socket.settimeout(PATIENCE)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopper:
            stopper.sendto(b"", (LOOPBACK, self.port))
        self._thread.join(PATIENCE)
        self._socket.close()

    def _run(self) -> None:
        while True:
            datagram, source = self._socket.recvfrom(2048)
            if not datagram:
                return
            self.sources.append(source)
            self.received.append(datagram)
            for reply in self.answer(datagram):
                self._socket.sendto(reply, source)
