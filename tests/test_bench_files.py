"""The benchmark of many files and of going on: what it compares with delivers, and what it says of kills is so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.bench import files
from tools.bench.network import Loopback
from tools.bench.process import BenchError
from tools.bench.tool import Place


def test_tar_over_ssh_moves_a_tree(tmp_path: Path) -> None:
    tool = files.TarOverSsh()
    missing = tool.missing()
    if missing is not None:
        pytest.skip(missing)
    work = tmp_path / "with blanks in it"
    for name in ("scratch", "to"):
        (work / name).mkdir(parents=True)
    files.make_many(work / "many", files.IN_DIRECTORY + 5)
    place = Place(Loopback(), work / "many", work / "scratch", work / "to", limit=20.0)
    with tool.session(place):
        tool.transfer(place)
    assert files.is_same(place.source, place.destination)
    (place.destination / "0001" / "004.dat").write_bytes(b"other")
    assert not files.is_same(place.source, place.destination)


def test_kills_and_resuming(tmp_path: Path, seed: int) -> None:
    rows = [*files.kills(tmp_path, 20_000_000, 2, seed), *files.resume(tmp_path, 100_000_000)]
    killed, twice, resumed = rows
    assert killed.holds, rows
    assert "2 kill -9" in killed.what
    assert twice.figure.endswith("%")
    assert resumed.figure.endswith("there)")


def test_a_peer_that_fails_is_told(tmp_path: Path) -> None:
    peer = files.Peer("send", "4821-x-y", tmp_path / "missing")
    with pytest.raises(BenchError, match="missing"):
        peer.wait_for(lambda event: event["event"] == "PeerMet")
    assert peer.wait() != 0
