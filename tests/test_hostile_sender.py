"""A sender that speaks the protocol and means harm: names of the corpus, and manifests that lie, to a receiver that
takes everything. Nothing is written outside of its directory, nothing that was there changes, and each is refused."""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest

import udpsend
from tests.trees import picture
from udpsend.caller import Caller
from udpsend.config import Config
from udpsend.errors import PeerError, UdpsendError
from udpsend.files.source import Source
from udpsend.rendezvous.code import parse_code
from udpsend.sending import Sending

VECTORS = json.loads((Path(__file__).parent / "vectors" / "hostile_names.json").read_text())
NAMES = [v["name"] for v in VECTORS["hostile"] if not any("\ud800" <= c <= "\udfff" for c in v["name"])]
DIRECTORY = ["d", "d", 0o755, 1]


def file(path: str, size: int = 5) -> list[Any]:
    return ["f", path, size, 0o644, 1, 1]


def pages(*entries: object) -> bytes:
    page = zlib.compress(json.dumps(entries).encode())
    return struct.pack("!I", len(page)) + page


MANIFESTS: list[tuple[Any, bytes]] = [
    ({"entries": [DIRECTORY, ["l", "d/l", "/etc", 1], file("d/l/x")]}, b""),
    ({"entries": [DIRECTORY, ["l", "d/l", "..", 1], file("d/l/x")]}, b""),
    ({"entries": [DIRECTORY, ["l", "d/l", "../../x", 1]]}, b""),
    ({"entries": [["l", "l", "../precious", 1]]}, b""),
    ({"entries": [file("x"), file("x")]}, b""),
    ({"entries": [file("x", 1 << 61)]}, b""),
    ({"entries": [["f", "x", 5, 0o4755, 1, 1]]}, b""),
    ({"entries": [["b", "x", 5, 0o644, 1, 1]]}, b""),
    ({"packed": 30, "count": 1, "size": 5}, bytes(30)),
    ({"packed": len(pages(file("../x"))), "count": 1, "size": 5}, pages(file("../x"))),
    ({"packed": len(pages(file("x"))), "count": 2, "size": 5}, pages(file("x"))),
    ({"packed": len(pages(file("x"))), "count": 1, "size": 6}, pages(file("x"))),
    ({"packed": 1 << 50, "count": 1, "size": 5}, b""),
    (None, b""),
]


class _Hostile(Sending):
    value: Any = None
    packed = b""

    def _offer(self) -> None:
        self._sender = self.connection.offer(self._source, 5, self.value, self.packed)


def contents(directory: Path) -> dict[str, object]:
    """Without the times of directories: an offer that does not fit may have had its partial there for a moment."""
    return {name: seen for name, seen in picture(directory).items() if name != "root"} | {"root": os.listdir(directory)}


def attack(value: Any, packed: bytes, directory: Path, source: Path, number: int) -> BaseException | None:
    code = parse_code(f"{number % 10_000:04d}-hostile-{'x' * 20}")
    config = Config(brokers=(), stun_servers=(), bind="127.0.0.1", timeout=20)
    sending = _Hostile(code, config, Caller(), Source([source]))
    sending.value, sending.packed = value, packed

    def send() -> None:
        with pytest.raises(UdpsendError):
            sending.run()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        udpsend.receive(code.text, directory, overwrite=True, config=config)
    except UdpsendError as error:
        return error
    finally:
        thread.join(30)
        sending._source.close()
    return None


def test_nothing_gets_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDPSEND_LAN_INTERFACES", "127.0.0.1")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/mine").write_text("mine")
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "source").write_text("12345")
    before = contents(tmp_path)
    offers = [({"entries": [file(name)]}, b"") for name in NAMES[::4]]
    offers += [({"entries": [DIRECTORY, file(f"d/{name}")]}, b"") for name in NAMES[1::8]]
    for number, (value, packed) in enumerate([*MANIFESTS, *offers]):
        error = attack(value, packed, tmp_path / "root", tmp_path / "source", os.getpid() + number)
        assert error is not None, value
        assert isinstance(error, PeerError) or "space" in str(error) or "larger" in str(error), (value, error)
        assert contents(tmp_path) == before, value
