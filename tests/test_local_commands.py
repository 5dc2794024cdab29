"""`udpsend partials` and `udpsend verify`: what interrupted transfers left, and files against saved sums."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trees import make_tree, move, open_source
from udpsend.cli import main
from udpsend.files import sums
from udpsend.files.existing import Policy
from udpsend.files.outlets import FileOutlet
from udpsend.files.sink import open_sink
from udpsend.files.sums import sum_of

BOUND = 60  # seconds that a process may take


def leave(path: Path, here: Path) -> None:
    source = open_source(path)
    sink = open_sink(source.manifest, here, Policy())
    move(source, sink, limit=sink.size // 2)
    sink.abandon()
    source.close()


def test_partials_are_listed_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "mine").write_text("mine")
    assert main(["partials", str(here)]) == 0
    assert capsys.readouterr().out == ""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_bytes(bytes(200_000))
    (tmp_path / "y").write_bytes(bytes(200_000))
    leave(tmp_path / "d", here)
    leave(tmp_path / "y", here)
    (here / ".z.udpsend-journal").touch()
    assert main(["partials", str(here)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["d", "y", "z"]
    source = open_source(tmp_path / "y")
    sink = open_sink(source.manifest, here)
    assert main(["partials", "--clean", str(here)]) == 0
    assert ", being written\n" in capsys.readouterr().out
    assert sorted(os.listdir(here)) == [".y.udpsend-journal", ".y.udpsend-part", "mine"]
    sink.abandon()
    source.close()
    assert main(["partials", "--clean", str(here)]) == 0
    assert os.listdir(here) == ["mine"]


def test_partials_that_cannot_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "y").write_bytes(bytes(200_000))
    here = tmp_path / "here"
    here.mkdir()
    leave(tmp_path / "y", here)
    (here / ".x.udpsend-journal").touch()
    stream = FileOutlet(here, "stdin", Policy())
    stream.write(memoryview(bytes(200_000)))
    stream.close()  # as it is killed: not discarded
    assert main(["partials", str(here)]) == 0
    states = [line.split(", ", 1) for line in capsys.readouterr().out.splitlines()]
    assert [(name.partition(":")[0], state) for name, state in states] == [
        ("stdin", "cannot go on, the same commands begin anew"),
        ("y", "goes on with the same commands"),
        ("x", "cannot go on, the same commands begin anew"),
    ]


def test_partials_of_what_is_no_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for name in ("nope", "file"):
        assert main(["partials", str(tmp_path / name)]) == 7
        assert capsys.readouterr().err == f"udpsend: There is no directory '{tmp_path / name}'.\n"


def test_partials_that_may_not_be_removed_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another user, or in a directory that is read-only: it was called a bug."""
    (tmp_path / ".y.udpsend-part").touch()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    assert main(["partials", "--clean", str(tmp_path)]) == 7
    assert capsys.readouterr().err.startswith("udpsend: Cannot remove '.y.udpsend-part': permission denied; check who")


def test_partials_that_may_not_be_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory that may be listed, and not entered."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    assert main(["partials", str(tmp_path)]) == 7
    assert capsys.readouterr().err.startswith(f"udpsend: Cannot list '{tmp_path}': permission denied; check who")


def test_a_partial_that_gets_its_name_meanwhile_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".y.udpsend-part").touch()
    real = os.listdir

    def just_before(directory: int) -> list[str]:
        names = real(directory)
        os.rename(tmp_path / ".y.udpsend-part", tmp_path / "y")
        return names

    monkeypatch.setattr(os, "listdir", just_before)
    assert main(["partials", str(tmp_path)]) == 0
    assert capsys.readouterr().err == "Nothing was left.\n"


def test_verify_against_saved_sums(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    import random

    monkeypatch.chdir(tmp_path)
    root = make_tree(Path("tree"), random.Random(seed), 8)
    for link in [path for path in root.rglob("*") if path.is_symlink()]:
        link.unlink()
    (root / "a\\b\nc").write_text("odd")
    (root / "one").write_text("one")
    assert main(["verify", "--save", "sums.b3", "tree"]) == 0
    assert main(["verify", "--save", "sums.b3", "tree"]) == 7
    assert main(["verify", "sums.b3"]) == 0
    (root / "one").write_text("two")
    (root / "a\\b\nc").unlink()
    capsys.readouterr()
    assert main(["verify", "sums.b3"]) == 1
    out = capsys.readouterr().out
    assert "tree/one: its content is another" in out
    assert "No such file" in out
    assert main(["verify"]) == 2
    assert main(["verify", "sums.b3", "tree"]) == 2
    Path("bad.b3").write_text("nonsense\n")
    assert main(["verify", "bad.b3"]) == 7


def test_verify_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("d")
    names = ["*", " a", "a\\new", "\\\\n", "a\nb", "a\r", "a\rb", "a\x0cb\x85c\u2028d", "grüße", "a\udcff"]
    for name in names:
        Path("d", name).write_text(name, errors="surrogateescape")
        Path(name).write_text(name, errors="surrogateescape")
    assert main(["verify", "--save", "sums.b3", "d", *names]) == 0
    assert main(["verify", "sums.b3"]) == 0
    assert f"{2 * len(names)} of {2 * len(names)} files" in capsys.readouterr().out


def test_verify_sums_that_others_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("a")
    a = sum_of("a")
    Path("sums.b3").write_bytes(f"{a}  a\n{a} *a\n{a} a".encode())
    assert main(["verify", "sums.b3"]) == 0
    Path("sums.b3").write_bytes(f"{a}  a\r\n\\{a}  a\r\n{a}  a\r".encode())  # of Windows, or through an editor there
    assert main(["verify", "sums.b3"]) == 0
    Path("sums.b3").write_bytes(f"{a}  a\0b".encode())
    assert main(["verify", "sums.b3"]) == 1
    assert "no file can have this name" in capsys.readouterr().out


@pytest.mark.parametrize(("failure", "status"), [(KeyboardInterrupt(), 130), (OSError(errno.EIO, "broken"), 7)])
def test_sums_have_their_name_when_they_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, status: int
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []

    def failing(path: str) -> str:
        seen.append(set(os.listdir()))
        if path == "b":
            raise failure
        return "0" * 64

    Path("a").touch()
    Path("b").touch()
    monkeypatch.setattr(sums, "sum_of", failing)
    assert main(["verify", "--save", "sums.b3", "a", "b"]) == status
    assert all("sums.b3" not in names for names in seen)
    assert set(os.listdir()) == {"a", "b"}


def test_sums_replace_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").touch()
    Path("link").symlink_to("nowhere")
    for name in ("a", "link", ".", str(tmp_path)):
        assert main(["verify", "--save", name, "a"]) == 7
        assert "exists" in capsys.readouterr().err

    def appears(path: str) -> str:
        Path("sums.b3").write_text("mine")
        return "0" * 64

    monkeypatch.setattr(sums, "sum_of", appears)
    assert main(["verify", "--save", "sums.b3", "a"]) == 7
    assert "exists" in capsys.readouterr().err
    assert Path("sums.b3").read_text() == "mine"
    assert set(os.listdir()) == {"a", "link", "sums.b3"}


def test_sums_are_not_of_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor of what a kill has left of them."""
    monkeypatch.chdir(tmp_path)
    Path("a").touch()
    Path(".0123456789abcdef.udpsend-sums").touch()
    assert main(["verify", "--save", "sums.b3", "."]) == 0
    assert [line.split("  ")[1] for line in Path("sums.b3").read_text().splitlines()] == ["./a"]


def test_what_a_kill_has_left_of_sums_is_listed_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").touch()
    Path(".0123456789abcdef.udpsend-sums").touch()
    listed = []

    def look(path: str) -> str:
        assert main(["partials", "--clean"]) == 0
        listed.append(capsys.readouterr().out)
        return "0" * 64

    monkeypatch.setattr(sums, "sum_of", look)
    assert main(["verify", "--save", "sums.b3", "a"]) == 0
    assert sorted(listed[0].splitlines()) == [
        "a list of sums: 0 bytes, being written",
        "a list of sums: 0 bytes, removed",
    ]
    assert sorted(os.listdir()) == ["a", "sums.b3"]
    assert capsys.readouterr().out == "1 sum is in sums.b3.\n"


def test_nothing_is_not_what_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sums.b3").touch()
    assert main(["verify", str(tmp_path / "sums.b3")]) == 7
    out, err = capsys.readouterr()
    assert out == ""
    assert "There are no sums in" in err


def in_process(*words: str) -> subprocess.CompletedProcess[str]:
    """What might hang."""
    command = [sys.executable, "-c", "import sys; from udpsend.cli import main; sys.exit(main())", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "directory"])
def test_verify_what_is_no_file_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").touch()
    assert main(["verify", "--save", "sums.b3", "a"]) == 0
    os.unlink("a")
    with socket.socket(socket.AF_UNIX) as listening:
        match kind:
            case "pipe":
                os.mkfifo("a")
            case "socket":
                listening.bind("a")
            case "device":
                os.symlink("/dev/null", "a")
            case _:
                os.mkdir("a")
        finished = in_process("verify", "sums.b3")
    assert finished.returncode == 1, finished.stderr
    assert ("Is a directory" if kind == "directory" else "it is a device, a pipe or a socket") in finished.stdout


def test_what_becomes_a_pipe_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    status = os.stat(tmp_path / "file")
    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as replaced:
        replaced.setattr(os, "stat", lambda path: status)
        with pytest.raises(OSError, match="a pipe"):
            sum_of(tmp_path / "pipe")
    assert os.listdir("/proc/self/fd") == before


def test_what_cannot_be_read_is_named_and_the_rest_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.makedirs("d/closed")
    os.mkfifo("d/pipe")
    os.symlink("nowhere", "d/dangling")
    os.symlink("/dev/null", "d/device")
    for name in ("a", "locked", "z"):
        Path("d", name).touch()
    real_open, real_scandir = os.open, os.scandir

    def opened(path: Any, *arguments: Any, **options: Any) -> int:
        if path == "d/locked":
            raise PermissionError(errno.EACCES, "locked", path)
        return real_open(path, *arguments, **options)

    def listed(path: str) -> Any:
        if path == "d/closed":
            raise PermissionError(errno.EACCES, "closed", path)
        return real_scandir(path)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "scandir", listed)
    assert main(["verify", "--save", "sums.b3", "d"]) == 8
    out, err = capsys.readouterr()
    assert out == "2 sums are in sums.b3; 5 could not be read.\n"
    assert sorted(err.splitlines()) == [
        "Warning: d/closed is left out: closed.",
        "Warning: d/dangling is left out: it is a link that leads nowhere.",
        "Warning: d/device is left out: it is a device, a pipe or a socket.",
        "Warning: d/locked is left out: locked.",
        "Warning: d/pipe is left out: it is a device, a pipe or a socket.",
    ]
    assert [line.split("  ")[1] for line in Path("sums.b3").read_text().splitlines()] == ["d/a", "d/z"]
    assert main(["verify", "sums.b3"]) == 0


def test_what_is_named_has_to_be_readable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").touch()
    os.mkdir("empty")
    os.symlink("nowhere", "dangling")
    monkeypatch.setattr(sums, "sum_of", lambda path: pytest.fail("nothing is read before"))
    assert main(["verify", "--save", "sums.b3", "a", "nope"]) == 7
    assert "Cannot read 'nope'" in capsys.readouterr().err
    assert main(["verify", "--save", "sums.b3", "a", "dangling"]) == 7
    assert main(["verify", "--save", "sums.b3", "empty"]) == 7
    assert "no file of which a sum could be saved" in capsys.readouterr().err
    assert set(os.listdir()) == {"a", "empty", "dangling"}


def test_no_sum_is_saved_of_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    finished = in_process("verify", "--save", str(tmp_path / "sums.b3"), str(tmp_path / "pipe"))
    assert finished.returncode == 7
    assert "pipe': it is a device, a pipe or a socket." in finished.stderr
