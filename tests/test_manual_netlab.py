"""Two networks behind NATs with no broker at all: the texts go by hand, the file goes through the hole."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.netlab_fixtures import PATIENCE, PROGRAM, STUN_PORT, laboratory, start_coturn
from tools.netlab import internet

CODE = "4821-marble-otter"


def next_text(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"udpsend1."):
            return line
    raise AssertionError("it ended without a text")


def give(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


def test_two_nats_and_nothing_but_stun(tmp_path: Path) -> None:
    source, target = tmp_path / "source.bin", tmp_path / "received"
    source.write_bytes(os.urandom(1_000_000))
    target.mkdir()
    with laboratory(internet("masquerade", "masquerade")) as lab, open(tmp_path / "log", "wb") as log:
        start_coturn(lab, "server", tmp_path)
        options = ["--manual", "-q", "--stun", f"{lab.address('server')}:{STUN_PORT}"]
        send = [*PROGRAM, "send", str(source), "--code", CODE, *options]
        recv = [*PROGRAM, "recv", CODE, "--yes", "-o", str(target), *options]
        alice, bob = (
            lab.run(host, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
            for host, argv in (("alice", send), ("bob", recv))
        )
        give(bob, next_text(alice))
        give(alice, next_text(bob))
        assert (alice.wait(PATIENCE), bob.wait(PATIENCE)) == (0, 0), (tmp_path / "log").read_text()
    assert (target / source.name).read_bytes() == source.read_bytes()
