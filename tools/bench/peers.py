"""What the program is compared with: scp, socat, and a plain copy as the ceiling."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .network import free_port
from .process import BenchError
from .tool import Place, Sample, race

_CIPHER = "chacha20-poly1305@openssh.com"
_SSHD = "/usr/sbin/sshd"
_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")


def first_line(*argv: str) -> str:
    """The first line that a command prints, for the versions."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    return next(iter(done.stdout.splitlines()), "").strip()


class Copy:
    """The ceiling: no network at all."""

    name = "cp"
    about = "a copy on the same file system: no network, nothing encrypted"

    def missing(self) -> str | None:
        return None if shutil.which("cp") else "no cp here"

    def version(self) -> str:
        return first_line("cp", "--version")

    @contextmanager
    def session(self, place: Place) -> Iterator[None]:
        yield

    def transfer(self, place: Place) -> Sample:
        return race(place, None, ["cp", "--reflink=never", place.source, place.destination])


class Socat:
    """One plain TCP connection, in blocks of 64 KiB (the default of 8 KiB is slower)."""

    name = "socat"
    about = "plain TCP, nothing encrypted"

    def missing(self) -> str | None:
        return None if shutil.which("socat") else "needs socat (Debian package socat)"

    def version(self) -> str:
        lines = subprocess.run(["socat", "-V"], capture_output=True, text=True, timeout=30).stdout.splitlines()
        return next((line for line in lines if line.startswith("socat version")), "socat").split(" on ")[0]

    @contextmanager
    def session(self, place: Place) -> Iterator[None]:
        yield

    def transfer(self, place: Place) -> Sample:
        where = f"{place.network.address('receiver')}:{free_port()}"
        host, port = where.split(":")
        return race(
            place,
            ["socat", "-u", "-b65536", f"TCP-LISTEN:{port},bind={host},reuseaddr", f"CREATE:{place.destination}"],
            ["socat", "-u", "-b65536", f"OPEN:{place.source},rdonly", f"TCP:{where},retry=500,interval=0.01"],
        )


class Scp:
    """scp to a private sshd: own keys, own settings, nothing of the user's is read or written."""

    name = "scp"
    about = "SSH, ChaCha20-Poly1305 (the default), over TCP"

    def missing(self) -> str | None:
        wanted = ("scp", "ssh-keygen", _SSHD)
        lacking = [command for command in wanted if shutil.which(command) is None]
        if not lacking and not any(Path(path).exists() for path in _SFTP_SERVERS):
            lacking = ["sftp-server"]
        return f"needs {', '.join(lacking)} (Debian package openssh-server)" if lacking else None

    def version(self) -> str:
        return first_line("ssh", "-V")

    @contextmanager
    def session(self, place: Place) -> Iterator[None]:
        for key in ("host_key", "user_key"):
            target = place.scratch / key
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", target], check=True, timeout=30)
        if os.geteuid() == 0:
            # sshd insists on it; Debian's service makes it at boot, and without the service nobody does.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        yield

    def _settings(self, place: Place, port: int) -> Path:
        settings = place.scratch / "sshd_config"
        sftp_server = next(path for path in _SFTP_SERVERS if Path(path).exists())
        settings.write_text(
            f"ListenAddress {place.network.address('receiver')}\nPort {port}\nHostKey {place.scratch}/host_key\n"
            f"AuthorizedKeysFile {place.scratch}/user_key.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
            f"LogLevel INFO\nSubsystem sftp {sftp_server}\n"
        )
        return settings

    def transfer(self, place: Place) -> Sample:
        # A server of its own for each transfer: what it has used at its end is what the transfer took.
        port = free_port()
        server = place.start("receiver", [_SSHD, "-D", "-e", "-f", self._settings(place, port)])
        try:
            server.wait_for_text("Server listening", time.monotonic() + 10)
            client = race(place, None, self._command(place, port))
            server.wait_for_text("Disconnected from", time.monotonic() + 10)
            server.wait_for_children(time.monotonic() + 10)
        finally:
            used = server.terminate()
        if used.cpu == 0.0:
            raise BenchError("sshd took no time: it was not what received")
        return Sample(client.seconds, client.sender, used)

    def _command(self, place: Place, port: int) -> list[str | os.PathLike[str]]:
        options = (
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "LogLevel=ERROR",
        )
        chosen = [word for option in options for word in ("-o", option)]
        target = f"{getpass.getuser()}@{place.network.address('receiver')}:{place.destination}"
        key = place.scratch / "user_key"
        return [
            "scp",
            "-q",
            "-F",
            "/dev/null",
            "-c",
            _CIPHER,
            "-i",
            key,
            *chosen,
            "-P",
            str(port),
            place.source,
            target,
        ]
