"""Two real processes on loopback, and kill -9 of either at any moment: the same commands go on, and all is verified."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.trees import make_tree, picture

KILLS = int(os.environ.get("UDPSEND_KILLS", "6"))
OPTIONS = ["--broker", "none", "--stun", "none", "--bind", "127.0.0.1", "--timeout", "20", "-v"]


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "udpsend", *map(str, arguments), *OPTIONS],
        env={**os.environ, "UDPSEND_LAN_INTERFACES": "127.0.0.1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def already(text: str) -> float:
    """Bytes that the receiver said it had."""
    match = re.search(r"There already: ([0-9.]+) (bytes?|[kMG]B),", text)
    return float(match[1]) * {"k": 1e3, "M": 1e6, "G": 1e9}.get(match[2][0], 1) if match else 0.0


def files(root: Path) -> dict[str, object]:
    """Without the times and modes of directories, which come last."""
    return {name: seen for name, seen in picture(root).items() if isinstance(seen, str) or len(seen) == 3}  # type: ignore[arg-type]


def test_kill_9_of_either_side(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    root = make_tree(tmp_path / "tree", rng)
    (root / "big").write_bytes(rng.randbytes(100_000_000))
    here = tmp_path / "here"
    here.mkdir()
    had = 0.0
    for attempt in range(KILLS + 1):
        code = f"{rng.randrange(10_000):04d}-{'kill' * 3}-{attempt}"
        receiver = start("recv", code, "-y", "-o", here)
        sender = start("send", root, "--code", code)
        if attempt < KILLS:
            victim, other = rng.sample([receiver, sender], 2)
            time.sleep(rng.uniform(0.3, 1.5))
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            other.terminate()
        texts = [process.communicate(timeout=60)[0] for process in (receiver, sender)]
        assert not any("Traceback" in text or "bug in udpsend" in text for text in texts), texts
        now = already(texts[0])
        if now:
            assert now >= had * 0.99, texts  # nothing that had arrived is lost
            had = now
        if receiver.returncode == 0:
            break
        if (here / "tree").exists():  # killed just after it was verified and placed
            break
    else:
        pytest.fail(f"the last attempt failed: {texts}")
    assert files(here / "tree") == files(root)
    if receiver.returncode == 0:
        assert picture(here / "tree") == picture(root)
        assert os.listdir(here) == ["tree"]
