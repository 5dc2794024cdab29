"""Where the locale has file names in another encoding than UTF-8: what can be named is, and what cannot is said."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import udpsend
from udpsend.config import Config
from udpsend.errors import TransferFailed
from udpsend.rendezvous.code import generate_code

OPTIONS = ("--bind", "127.0.0.1", "--broker", "none", "--stun", "none", "--no-port-mapping", "--timeout", "20")
CONFIG = Config(bind="127.0.0.1", brokers=(), stun_servers=(), port_mapping=False, timeout=20)
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAME = "Größe-日本.txt"


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("UDPSEND_LAN_INTERFACES", "127.0.0.1")
    return generate_code(secrets.token_bytes)


def run_in_ascii(directory: Path, *words: str) -> tuple[int, str]:
    """Exit code, and all that was said."""
    command = [sys.executable, "-m", "udpsend", *words]
    environment = {**os.environ, **ASCII}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("as_link", [False, True])
def test_a_name_that_cannot_be_given_is_told_to_both(tmp_path: Path, code: str, as_link: bool) -> None:
    """It was a bug, UnicodeEncodeError; and the sender was told that the other side had stopped unexpectedly."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / NAME).write_text("content")
    if as_link:
        (tree / "a").symlink_to(NAME)
    there = tmp_path / "there"
    there.mkdir()
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(udpsend.send, tree, code=code, config=CONFIG)
        status, said = run_in_ascii(there, "recv", code, "--yes", *OPTIONS)
        with pytest.raises(TransferFailed, match="cannot be written: the locale has names in ascii"):
            sent.result(30)
    assert status == 7
    assert "cannot be written: the locale has names in ascii. Set LC_ALL=C.UTF-8" in said
    assert os.listdir(there) == []


def test_a_directory_of_such_a_name_is_no_obstacle(tmp_path: Path, code: str) -> None:
    (tmp_path / "content").write_text("content")
    (tmp_path / NAME).mkdir()
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(udpsend.send, tmp_path / "content", code=code, config=CONFIG)
        status, said = run_in_ascii(tmp_path, "recv", code, "--yes", "-o", NAME, *OPTIONS)
        assert sent.result(30).size == 7
    assert status == 0, said
    assert (tmp_path / NAME / "content").read_text() == "content"


def test_what_cannot_be_sent_says_what_helps(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("content")
    status, said = run_in_ascii(tmp_path, "send", NAME, *OPTIONS)
    assert status == 7
    assert "cannot be sent" in said
    assert "Set LC_ALL=C.UTF-8" in said


def test_sums_are_of_the_bytes_of_a_name(tmp_path: Path) -> None:
    """They were written as such, and read as UTF-8: 'no file can have this name'."""
    (tmp_path / NAME).write_text("content")
    assert run_in_ascii(tmp_path, "verify", "--save", "sums.b3", NAME)[0] == 0
    assert NAME in (tmp_path / "sums.b3").read_text("utf-8")
    status, said = run_in_ascii(tmp_path, "verify", "sums.b3")
    assert status == 0, said
