"""scp and rsync to a private sshd: own keys, own settings, nothing of the user's is read or written."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .network import free_port
from .peers import first_line
from .process import BenchError
from .tool import Command, Place, Sample, Tool, race

_CIPHER = "chacha20-poly1305@openssh.com"
_SSHD = "/usr/sbin/sshd"
_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "IdentitiesOnly=yes",
    "LogLevel=ERROR",
)


def _user() -> pwd.struct_passwd:
    """Raises KeyError where the user has no entry, as in a container that was given a number."""
    return pwd.getpwuid(os.geteuid())


def _may_log_in() -> bool:
    try:
        user = _user()
    except KeyError:
        return False
    if Path(user.pw_shell).name in ("nologin", "false"):
        return False
    # Ubuntu locks the account of root; what it says of others, only an sshd of root's could read.
    return user.pw_uid != 0 or not any(
        line.startswith(f"{user.pw_name}:!") for line in Path("/etc/shadow").read_text().splitlines()
    )


class Scp(Tool):
    """scp as Debian has it: the SFTP protocol."""

    name = "scp"
    about = "SSH, ChaCha20-Poly1305 (the default), over TCP"
    _programs: tuple[str, ...] = ("scp", "ssh-keygen", _SSHD)

    def missing(self) -> str | None:
        lacking = [command for command in self._programs if shutil.which(command) is None]
        if not lacking and not any(Path(path).exists() for path in _SFTP_SERVERS):
            lacking = ["sftp-server"]
        if lacking:
            return f"needs {', '.join(lacking)} (Debian packages openssh-server, rsync)"
        return None if _may_log_in() else "needs a user that sshd lets in"

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
            f'ListenAddress {place.network.address("receiver")}\nPort {port}\nHostKey "{place.scratch}/host_key"\n'
            f'AuthorizedKeysFile "{place.scratch}/user_key.pub"\nStrictModes no\nUsePAM no\nPidFile none\n'
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

    def _target(self, place: Place) -> str:
        return f"{_user().pw_name}@{place.network.address('receiver')}:{place.destination}"

    def _client(self, place: Place) -> list[str | os.PathLike[str]]:
        """Options that scp and ssh share."""
        chosen = [word for option in _OPTIONS for word in ("-o", option)]
        return ["-q", "-F", "/dev/null", "-c", _CIPHER, "-i", place.scratch / "user_key", *chosen]

    def _command(self, place: Place, port: int) -> Command:
        return ["scp", *self._client(place), "-P", str(port), place.source, self._target(place)]


class Rsync(Scp):
    """rsync through the same sshd, the whole file, as it does when there is nothing at the other end."""

    name = "rsync"
    about = "rsync over SSH with ChaCha20-Poly1305"
    _programs = ("rsync", "ssh", "ssh-keygen", _SSHD)

    def version(self) -> str:
        return first_line("rsync", "--version")

    def _command(self, place: Place, port: int) -> Command:
        shell = shlex.join(["ssh", *(os.fspath(word) for word in self._client(place)), "-p", str(port)])
        return ["rsync", "--whole-file", "-e", shell, place.source, self._target(place)]
