"""Directories: what is offered of them, how they arrive, what is in their way, and what an interrupted one leaves."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trees import (
    RECORD,
    compare,
    content_digest,
    interrupted,
    make_tree,
    move,
    open_source,
    over_the_wire,
    picture,
    remove,
    transfer,
    unlock,
)
from udpsend.errors import LocalFileError, UsageError
from udpsend.files import disk, existing, placing
from udpsend.files.entries import MAX_TIME, Directory, File
from udpsend.files.existing import Policy, free_name, look_first
from udpsend.files.hashing import BLOCK_SIZE
from udpsend.files.manifest import Manifest
from udpsend.files.room import PROBE, check_twins
from udpsend.files.sink import open_sink
from udpsend.files.staging import Staging
from udpsend.files.walk import time_of

pytestmark = pytest.mark.usefixtures("no_leaks")


def offered(*paths: Path, **options: object) -> dict[str, type]:
    source = open_source(*paths, **options)  # type: ignore[arg-type]
    source.close()
    return {entry.path: type(entry) for entry in source.manifest}


def skipped(*paths: Path, follow: bool = False) -> dict[str, str]:
    source = open_source(*paths, follow=follow)
    source.close()
    assert source.manifest.skipped_count == len(source.manifest.skipped)
    return {item.path: item.why for item in source.manifest.skipped}


# --- what is offered


def test_named_paths_first_then_directory_by_directory(tmp_path: Path) -> None:
    (tmp_path / "d/e/f").mkdir(parents=True)
    for name in ("d/b", "d/e/a", "z", "d/e/f/x"):
        (tmp_path / name).touch()
    assert list(offered(tmp_path / "z", tmp_path / "d")) == ["z", "d", "d/b", "d/e", "d/e/a", "d/e/f", "d/e/f/x"]
    assert list(offered(tmp_path / "d/e/f")) == ["f", "f/x"]
    assert list(offered(tmp_path / "d" / "e" / "f" / ".." / "f/")) == ["f", "f/x"]


def test_a_directory_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").touch()
    monkeypatch.chdir(tmp_path / "d")
    assert list(offered(Path("."))) == ["d", "d/x"]
    assert list(offered(Path("../d"))) == ["d", "d/x"]
    (tmp_path / "link").symlink_to("d")
    assert list(offered(tmp_path / "link")) == ["link", "link/x"]


def test_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path / "d")
    (tmp_path / "d").rmdir()
    with pytest.raises(LocalFileError, match=r"Cannot read '\.'"):
        open_source(".")


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "x").touch()
    (tmp_path / "d/x").touch()
    with pytest.raises(LocalFileError, match="Two of the paths are called 'x'"):
        open_source(tmp_path / "x", tmp_path / "d/x")


def test_what_cannot_be_sent_is_told(tmp_path: Path) -> None:
    root = tmp_path / "d"
    root.mkdir()
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(root / "socket"))
    (root / "out").symlink_to("/etc/passwd")
    (root / "up").symlink_to("../x")
    (root / "in").symlink_to("ok")
    (root / "ok").touch()
    (root / "con.txt").touch()
    (root / "a\nb").touch()
    Path(os.fsdecode(os.fsencode(root) + b"/\xff")).touch()
    assert skipped(root) == {
        "d/pipe": "is a pipe",
        "d/socket": "is a socket",
        "d/out": "is a link that leads out of what is sent",
        "d/up": "is a link that leads out of what is sent",
        "d/con.txt": "has a name that is reserved on Windows",
        "d/a\nb": "has a name that contains a control character or is not valid Unicode",
        "d/\\udcff": "has a name that contains a control character or is not valid Unicode",
    }
    assert list(offered(root)) == ["d", "d/in", "d/ok"]


def test_follow_sends_what_links_point_to(tmp_path: Path) -> None:
    root = tmp_path / "d"
    (root / "sub").mkdir(parents=True)
    (root / "sub/x").touch()
    (tmp_path / "outside").write_text("text")
    (root / "out").symlink_to("../outside")
    (root / "dir").symlink_to("sub")
    (root / "sub/loop").symlink_to("..")
    kinds = offered(root, follow=True)
    assert kinds == {
        "d": Directory,
        "d/dir": Directory,
        "d/out": File,
        "d/sub": Directory,
        "d/dir/x": File,
        "d/sub/x": File,
    }
    (tmp_path / "here").mkdir()
    transfer([root], tmp_path / "here", follow=True)
    assert (tmp_path / "here/d/out").read_text() == "text"
    assert not (tmp_path / "here/d/out").is_symlink()


def test_a_link_to_follow_that_points_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").touch()
    for name, target in (("gone", "nothing"), ("loop", "loop"), ("through", "file/x")):
        (tmp_path / "d" / name).symlink_to(target)
    nowhere = "is a link that points nowhere"
    assert skipped(tmp_path / "d", follow=True) == {"d/gone": nowhere, "d/loop": nowhere, "d/through": nowhere}


def test_exclude_and_gitignore(tmp_path: Path) -> None:
    root = tmp_path / "d"
    for name in (".git/config", "a.o", "b.c", "build/x", "keep/a.o", "keep/b.tmp", "sub/a.o", "sub/c.c"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / ".gitignore").write_text("*.o\n/build/\n")
    (root / "keep/.gitignore").write_text("!*.o\n")
    assert list(offered(root, gitignore=True)) == [
        *("d", "d/.gitignore", "d/b.c", "d/keep", "d/sub"),
        *("d/keep/.gitignore", "d/keep/a.o", "d/keep/b.tmp", "d/sub/c.c"),
    ]
    assert list(offered(root, exclude=["*.o", "keep/", ".git*", "/d/sub/c.c"])) == [
        *("d", "d/b.c", "d/build", "d/sub", "d/build/x"),
    ]


@pytest.mark.parametrize("line", ["!", "x\\", "[z-a]"])
def test_what_is_no_pattern(tmp_path: Path, line: str) -> None:
    """As `git` takes it in a file that others wrote; who types it is told."""
    (tmp_path / "d").mkdir()
    for name in ("a.o", "b.c"):
        (tmp_path / "d" / name).touch()
    (tmp_path / "d/.gitignore").write_text(f"{line}\n*.o\n")
    assert list(offered(tmp_path / "d", gitignore=True)) == ["d", "d/.gitignore", "d/b.c"]
    with pytest.raises(UsageError, match="is not a pattern"):
        open_source(tmp_path / "d", exclude=[line])


def test_a_set_of_a_bracket_is_a_pattern_without_warnings(tmp_path: Path) -> None:
    for name in ("[a", "a"):
        (tmp_path / name).touch()
    assert list(offered(*sorted(tmp_path.iterdir()), exclude=["[[]a"])) == ["a"]


def test_what_is_named_can_be_excluded_too(tmp_path: Path) -> None:
    """A shell makes names of `*`."""
    for name in ("cache/x", "d/a", "a.tmp", "b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths = sorted(tmp_path.iterdir())
    assert list(offered(*paths, exclude=["*.tmp", "cache/"])) == ["b.txt", "d", "d/a"]
    with pytest.raises(UsageError, match="Nothing is left to send: --exclude"):
        open_source(tmp_path / "a.tmp", tmp_path / "cache", exclude=["*.tmp", "cache"])


def test_a_time_that_no_entry_can_say_becomes_the_nearest(tmp_path: Path, here: Path) -> None:
    root = tmp_path / "d"
    (root / "sub").mkdir(parents=True)
    (root / "sub/x").write_text("text")
    (root / "link").symlink_to("sub")
    (tmp_path / "single").write_text("text")
    for path in (root / "sub/x", root / "sub", root / "link", root, tmp_path / "single"):
        os.utime(path, ns=(0, 5_000_000_000 * 1_000_000_000), follow_symlinks=False)
    if root.stat().st_mtime_ns <= MAX_TIME:
        pytest.skip("this file system keeps no such time")
    source = open_source(root, tmp_path / "single")
    source.close()
    assert [entry.mtime_ns for entry in over_the_wire(source.manifest)] == [MAX_TIME] * 5
    for path in (root, tmp_path / "single"):
        transfer([path], here)
    assert (here / "d/sub/x").read_text() == (here / "single").read_text() == "text"


def test_a_time_before_all_that_an_entry_can_say() -> None:
    assert time_of(os.stat_result(range(10), {"st_mtime_ns": -5_000_000_000 * 1_000_000_000})) == -MAX_TIME


# --- how it arrives


def test_a_tree_arrives_as_it_was(tmp_path: Path, here: Path, rng: random.Random) -> None:
    root = make_tree(tmp_path / "tree", rng)
    assert transfer([root], here) == here / "tree"
    assert picture(here / "tree") == picture(root)
    assert os.listdir(here) == ["tree"]


def test_several_paths(tmp_path: Path, here: Path, rng: random.Random) -> None:
    root = make_tree(tmp_path / "tree", rng, 5)
    (tmp_path / "x").write_bytes(b"x")
    (tmp_path / "empty").touch()
    assert transfer([tmp_path / "x", root, tmp_path / "empty"], here) == here / "x"
    assert sorted(os.listdir(here)) == ["empty", "tree", "x"]
    assert picture(here / "tree") == picture(root)


def test_out_of_order(tmp_path: Path, here: Path, rng: random.Random) -> None:
    root = make_tree(tmp_path / "tree", rng)
    source = open_source(root)
    sink = open_sink(over_the_wire(source.manifest), here)
    move(source, sink, rng=rng)
    sink.finish(source.digest())
    source.close()
    assert picture(here / "tree") == picture(root)


def test_many_small_files(tmp_path: Path, here: Path) -> None:
    root = tmp_path / "many"
    for n in range(2500):
        (root / f"{n % 7}").mkdir(parents=True, exist_ok=True)
        (root / f"{n % 7}/{n}").write_bytes(b"%d" % n * (n % 50))
    transfer([root], here)
    assert picture(here / "many") == picture(root)


def test_a_directory_tells_of_what_was_there_when_it_was_opened(
    tmp_path: Path, here: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on btrfs; the names that have come since show once it has been read to its end."""
    told: dict[int, list[str]] = {}
    real_open, real_list = os.open, os.listdir

    def opened(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        fd = real_open(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_DIRECTORY:
            told[fd] = real_list(fd)
        return fd

    def listed(directory: int) -> list[str]:
        then, told[directory] = told[directory], real_list(directory)
        return [name for name in then if name in told[directory]]

    root = make_tree(tmp_path / "tree", rng)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened)
        patch.setattr(os, "listdir", listed)
        transfer([root], here)
    assert picture(here / "tree") == picture(root)
    assert os.listdir(here) == ["tree"]


# --- what is there already


def test_an_existing_directory_is_filled(tmp_path: Path, here: Path, rng: random.Random) -> None:
    root = make_tree(tmp_path / "tree", rng, 10)
    (here / "tree").mkdir()
    (here / "tree/other").write_text("mine")
    transfer([root], here)
    assert (here / "tree/other").read_text() == "mine"
    (here / "tree/other").unlink()
    assert picture(here / "tree") == picture(root)


def test_what_arrives_in_a_directory_of_a_group_belongs_to_it(tmp_path: Path, here: Path) -> None:
    """Setgid, as shared directories have it, is handed down by the system to each directory that is made in it."""
    source = tmp_path / "photos"
    (source / "day").mkdir(parents=True)
    (source / "day" / "a").write_bytes(b"content")
    here.chmod(0o2755)
    transfer([source], here)
    made = [here / "photos", here / "photos" / "day"]
    assert [path.stat().st_mode & 0o2700 for path in made] == [0o2700] * 2


def test_an_existing_directory_keeps_its_mode(tmp_path: Path, here: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e").chmod(0o700)
    (here / "d/e").mkdir(parents=True)
    (here / "d/e").chmod(0o750)
    transfer([tmp_path / "d"], here, Policy(overwrite=True))
    assert (here / "d/e").stat().st_mode & 0o777 == 0o750


def test_what_exists_is_refused_by_name_before_the_first_byte(tmp_path: Path, here: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/x").write_text("new")
    (tmp_path / "d/y").write_text("new")
    (here / "d/e").mkdir(parents=True)
    (here / "d/e/x").write_text("old")
    (here / "d/y").write_text("old")
    before = picture(here)
    with pytest.raises(LocalFileError, match=r"^'d/y' exists already \(1 more are, too\): .*--skip-existing"):
        transfer([tmp_path / "d"], here)
    assert picture(here) == before
    transfer([tmp_path / "d"], here, Policy(overwrite=True))
    assert (here / "d/e/x").read_text() == (here / "d/y").read_text() == "new"


def test_the_name_of_what_is_in_the_way_is_shown_as_it_is(tmp_path: Path, here: Path) -> None:
    """The number of the others stood within it: 'already (1 more are, too).txt' exists already."""
    paths = [tmp_path / "already.txt", tmp_path / "b"]
    for path in paths:
        path.write_text("new")
        (here / path.name).write_text("old")
    with pytest.raises(LocalFileError, match=r"^'already\.txt' exists already \(1 more are, too\): "):
        transfer(paths, here)


def test_rename_takes_no_name_that_the_offer_has(tmp_path: Path, here: Path) -> None:
    """What a browser makes of two downloads: they stay two, whichever names are taken here."""
    for name in ("photos", "photos (1)"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    (here / "photos").mkdir()
    transfer([tmp_path / "photos", tmp_path / "photos (1)"], here, Policy(rename=True))
    assert {path.name: os.listdir(path) for path in here.iterdir()} == {
        "photos": [],
        "photos (1)": ["x"],
        "photos (2)": ["x"],
    }
    assert (here / "photos (1)/x").read_text() == "photos (1)"


def test_rename_gives_no_two_the_same_name(tmp_path: Path, here: Path) -> None:
    """Of names that are as long as names can be, and differ at their end, nothing is left to tell them apart."""
    names = ["x" * 254 + end for end in "ab"]
    for name in names:
        (tmp_path / name).write_text(name)
        (here / name).touch()
    transfer([tmp_path / name for name in names], here, Policy(rename=True))
    assert sorted(path.read_text() for path in here.iterdir()) == ["", "", *names]


def test_rename_gives_another_name(tmp_path: Path, here: Path, rng: random.Random) -> None:
    root = make_tree(tmp_path / "tree.d", rng, 5)
    (tmp_path / "x.txt").write_text("new")
    for _ in range(3):
        transfer([root, tmp_path / "x.txt"], here, Policy(rename=True))
    assert sorted(os.listdir(here)) == ["tree (1).d", "tree (2).d", "tree.d", "x (1).txt", "x (2).txt", "x.txt"]
    assert picture(here / "tree (2).d") == picture(root)
    transfer([tmp_path / "x.txt"], here, Policy(rename=True))
    assert (here / "x (3).txt").read_text() == "new"


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("a", "a (1)"),
        (".hidden", ".hidden (1)"),
        ("a.tar.gz", "a.tar (1).gz"),
        ("Mr. Smith", "Mr. Smith (1)"),
        ("x" * 255, "x" * 251 + " (1)"),
    ],
)
def test_free_names(here: Path, name: str, other: str) -> None:
    root = os.open(here, os.O_RDONLY)
    assert free_name(root, name) == other
    os.close(root)


def test_skip_existing_leaves_out_the_same_and_refuses_the_changed(
    tmp_path: Path, here: Path, rng: random.Random
) -> None:
    root = make_tree(tmp_path / "tree", rng)
    transfer([root], here)
    (root / "fresh").write_bytes(b"fresh")
    (here / "tree").chmod(0o755)
    inodes = {path: path.lstat().st_ino for path in here.rglob("*")}
    transfer([root], here, Policy(skip=True))
    assert (here / "tree/fresh").read_bytes() == b"fresh"
    assert {path: path.lstat().st_ino for path in here.rglob("*") if path.name != "fresh"} == inodes
    (root / "fresh").write_bytes(b"changed")
    with pytest.raises(LocalFileError, match="'tree/fresh' exists already, and --skip-existing leaves out only what"):
        transfer([root], here, Policy(skip=True))
    transfer([root], here, Policy(skip=True, overwrite=True))
    assert (here / "tree/fresh").read_bytes() == b"changed"


@pytest.mark.parametrize(
    ("kept", "changed"),
    [
        pytest.param(5_712_345_600, 5_712_345_500, id="NTFS"),
        pytest.param(5_710_000_000, 5_720_000_000, id="exFAT"),
        pytest.param(5_000_000_000, 6_000_000_000, id="seconds"),
        pytest.param(4_000_000_000, 8_000_000_000, id="FAT"),
    ],
)
def test_skip_existing_where_times_are_coarse(tmp_path: Path, here: Path, kept: int, changed: int) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "a").write_bytes(b"a")
    os.utime(root / "a", ns=(0, 5_712_345_678))
    transfer([root], here)
    os.utime(here / "tree/a", ns=(0, kept))
    transfer([root], here, Policy(skip=True))
    os.utime(here / "tree/a", ns=(0, changed))
    with pytest.raises(LocalFileError, match="exists already"):
        transfer([root], here, Policy(skip=True))


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_links_are_refused_where_there_are_none_before_the_first_byte(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_bytes(b"data")
    (tmp_path / "d/link").symlink_to("file")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(LocalFileError, match=r"this file system cannot hold any: .* \(--follow\)"):
        transfer([tmp_path / "d"], here)
    assert os.listdir(here) == []


def test_a_file_among_others_is_larger_than_one_may_be(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    for number, size in enumerate((10, 5000, 20)):
        (tmp_path / f"d/{number}").write_bytes(bytes(size))
    monkeypatch.setattr(disk, "holds_size", lambda _, size: size < 5000)
    with pytest.raises(LocalFileError, match=r"does not allow files as large"):
        transfer([tmp_path / "d"], here)
    assert os.listdir(here) == []


@pytest.mark.parametrize(
    "taken_for_one", [PROBE.swapcase(), PROBE.replace("\u00e9", "e\u0301")], ids=["case", "accents"]
)
def test_twins_are_refused_where_they_would_be_one_file(here: Path, taken_for_one: str) -> None:
    twins = Manifest(File(name, 1, 0o644, 1, 0) for name in ("readme", "README"))
    others = Manifest(File(name, 1, 0o644, 1, 0) for name in ("readme", "other"))
    root = os.open(here, os.O_RDONLY)
    try:
        check_twins(root, twins)
        (here / taken_for_one).touch()  # as where it is another name of the probe
        check_twins(root, others)
        with pytest.raises(LocalFileError, match="'readme' and 'README' would be one file here"):
            check_twins(root, twins)
    finally:
        os.close(root)
    assert os.listdir(here) == [taken_for_one]


def test_a_locale_without_the_letter_of_the_probe(here: Path) -> None:
    """It ended as a bug."""
    program = f"import os; from udpsend.files.room import _makes_holes; _makes_holes(os.open({str(here)!r}, 0), 1)"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program], env=os.environ | locale, check=True, timeout=60)
    assert os.listdir(here) == []


def test_more_files_are_offered_than_the_file_system_takes(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    real = os.fstatvfs
    monkeypatch.setattr(os, "fstatvfs", lambda fd: os.statvfs_result((*real(fd)[:5], 100, 1, 1, *real(fd)[8:])))
    with pytest.raises(LocalFileError, match="2 files and directories are offered, and this file system can take 1"):
        transfer([tmp_path / "a", tmp_path / "b"], here)
    assert os.listdir(here) == []


def test_more_files_are_there_than_can_be_told(
    tmp_path: Path, here: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(tmp_path / "tree", rng)
    transfer([root], here)
    before = picture(here)
    (root / "fresh").write_bytes(b"fresh")
    monkeypatch.setattr(existing, "MAX_LEFT_OUT", 5)
    with pytest.raises(LocalFileError, match=r"^[0-9]+ of the files are here already, scattered"):
        transfer([root], here, Policy(skip=True))
    assert picture(here) == before


@pytest.fixture
def modes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its owner may not write to takes no names from root either."""

    def takes_names(directory: int) -> bool:
        return bool(os.fstat(directory).st_mode & 0o200)

    def strict(real: Callable[..., None], to_of: Callable[..., int]) -> Callable[..., None]:
        def call(*arguments: object, **options: object) -> None:
            if not takes_names(to_of(*arguments, **options)):
                raise PermissionError(13, "Permission denied")
            real(*arguments, **options)

        return call

    monkeypatch.setattr(os, "access", lambda *_, dir_fd=None, **__: dir_fd is None or takes_names(dir_fd))
    monkeypatch.setattr(os, "rename", strict(os.rename, lambda *_, dst_dir_fd, **__: dst_dir_fd))
    monkeypatch.setattr(disk, "rename_no_replace", strict(disk.rename_no_replace, lambda d, _, __, to=None: to or d))


def make_read_only(root: Path) -> None:
    (root / "ro/deep").mkdir(parents=True)
    for name in ("ro/f", "ro/deep/f"):
        (root / name).write_text("old")
    close(root)


def close(root: Path) -> None:
    for path in (root / "ro/deep", root / "ro"):
        path.chmod(0o555)


@pytest.mark.usefixtures("modes_count")
def test_a_directory_that_was_received_read_only_is_overwritten_in(tmp_path: Path, here: Path) -> None:
    root = tmp_path / "d"
    make_read_only(root)
    transfer([root], here)
    unlock(root)
    (root / "ro/deep/f").write_text("new")
    (root / "ro/more").mkdir()
    (root / "ro/more/x").touch()
    (root / "ro/x").write_text("new")
    close(root)
    transfer([root], here, Policy(overwrite=True))
    for name in ("ro/f", "ro/deep/f", "ro/x"):
        assert (here / "d" / name).read_text() == (root / name).read_text()
    assert (here / "d/ro/more/x").exists()
    for name in ("d/ro", "d/ro/deep"):
        assert (here / name).stat().st_mode & 0o777 == 0o555


@pytest.mark.usefixtures("modes_count")
def test_a_read_only_directory_is_named_before_the_first_byte(tmp_path: Path, here: Path) -> None:
    root = tmp_path / "d"
    make_read_only(root)
    transfer([root], here)
    transfer([root], here, Policy(skip=True))
    unlock(root)
    (root / "ro/deep/x").touch()
    close(root)
    before = picture(here)
    for policy in (Policy(), Policy(skip=True)):
        with pytest.raises(LocalFileError) as refusal:
            transfer([root], here, policy)
        assert policy.skip == str(refusal.value).startswith("Cannot write into the directory 'd/ro/deep': permission")
    assert picture(here) == before


@pytest.mark.usefixtures("modes_count")
def test_a_directory_that_becomes_read_only_meanwhile_is_named(tmp_path: Path, here: Path) -> None:
    root = tmp_path / "d"
    make_read_only(root)
    (here / "d/ro/deep").mkdir(parents=True)
    source = open_source(root)
    sink = open_sink(source.manifest, here)
    move(source, sink)
    (here / "d/ro/deep").chmod(0o555)
    with pytest.raises(LocalFileError, match=r"^Cannot write into the directory 'd/ro/deep': permission denied"):
        sink.finish(source.digest())
    (here / "d/ro/deep").chmod(0o755)
    sink = open_sink(source.manifest, here)
    source.close()
    sink.finish(content_digest(b""))
    assert (here / "d/ro/deep/f").read_text() == "old"
    assert os.listdir(here) == ["d"]


def test_a_directory_on_another_file_system_is_named_before_the_first_byte(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree/disk").mkdir(parents=True)
    (tmp_path / "tree/disk/a").touch()
    (here / "tree/disk").mkdir(parents=True)
    mounted = os.stat(here / "tree/disk")
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        status = real(fd)
        return os.stat_result((*status[:2], -1, *status[3:])) if os.path.samestat(status, mounted) else status

    source = open_source(tmp_path / "tree")
    source.close()
    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(
        LocalFileError, match=r"Cannot write into the directory 'tree/disk': .* not to another file system"
    ):
        look_first(here, source.manifest, Policy())
    assert os.listdir(here) == ["tree"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a directory of another user")
@pytest.mark.usefixtures("modes_count")
def test_a_read_only_directory_of_another_user_stays_so(tmp_path: Path, here: Path) -> None:
    root = tmp_path / "d"
    make_read_only(root)
    transfer([root], here)
    os.chown(here / "d/ro", 12345, 12345)
    with pytest.raises(LocalFileError, match=r"^Cannot write into the directory 'd/ro': permission denied"):
        transfer([root], here, Policy(overwrite=True))
    assert os.listdir(here) == ["d"]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path, here: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_text("new")
    (tmp_path / "precious").mkdir()
    (here / "d").symlink_to(tmp_path / "precious")
    for policy in (Policy(), Policy(overwrite=True)):
        with pytest.raises(LocalFileError, match="'d' is there already, and is no directory"):
            transfer([tmp_path / "d"], here, policy)
    assert os.listdir(tmp_path / "precious") == []


# --- swapped and changed meanwhile


def test_a_directory_swapped_for_a_link_is_not_left(tmp_path: Path, here: Path) -> None:
    """On the sending side: what is offered as d/x must not become what is outside."""
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/x").write_text("mine")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/x").write_text("hers")

    def swap() -> None:
        (tmp_path / "d/e").rename(tmp_path / "d/f")
        (tmp_path / "d/e").symlink_to(tmp_path / "secret")

    with pytest.raises(LocalFileError, match="Cannot read 'd/e/x'"):
        transfer([tmp_path / "d"], here, change=swap)
    assert os.listdir(here) == []


def test_a_link_planted_in_the_staging_directory_is_not_followed(tmp_path: Path, here: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_text("new")
    (tmp_path / "d/y").write_text("new")
    (tmp_path / "precious").write_text("old")
    source = open_source(tmp_path / "d")
    sink = open_sink(source.manifest, here)
    staged = here / ".d.udpsend-tree/d"
    staged.mkdir()
    (staged / "x").symlink_to(tmp_path / "precious")
    move(source, sink)
    with pytest.raises(LocalFileError, match="Cannot write 'd'"):
        sink.finish(source.digest())
    sink.abandon()
    source.close()
    assert (tmp_path / "precious").read_text() == "old"
    assert not (here / "d").exists()


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path, here: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_text("new")
    source = open_source(tmp_path / "d")
    sink = open_sink(source.manifest, here)
    move(source, sink)
    (here / "d").mkdir()
    (here / "d/x").write_text("old")
    with pytest.raises(LocalFileError, match="'d/x' exists already"):
        sink.finish(source.digest())
    source.close()
    assert (here / "d/x").read_text() == "old"


@pytest.mark.parametrize("single", [True, False])
def test_a_directory_that_appears_meanwhile_is_named(tmp_path: Path, here: Path, single: bool) -> None:
    """It was said of what is received that it is a directory, and not what to do."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_text("new")
    source = open_source(tmp_path / ("d/x" if single else "d"))
    sink = open_sink(source.manifest, here, Policy(overwrite=True))
    move(source, sink)
    name = "x" if single else "d/x"
    (here / name).mkdir(parents=True)
    with pytest.raises(LocalFileError, match=f"A directory named '{name}' is there already: receive into another"):
        sink.finish(source.digest())
    source.close()


@pytest.mark.usefixtures("modes_count")
def test_a_destination_that_becomes_read_only_meanwhile_is_named(tmp_path: Path, here: Path) -> None:
    (tmp_path / "x").write_text("new")
    source = open_source(tmp_path / "x")
    sink = open_sink(source.manifest, here)
    move(source, sink)
    here.chmod(0o555)
    with pytest.raises(LocalFileError, match=f"^Cannot write into the directory '{here}': permission denied"):
        sink.finish(source.digest())
    here.chmod(0o755)
    open_sink(source.manifest, here).finish(content_digest(b""))
    source.close()
    assert os.listdir(here) == ["x"]


@pytest.mark.parametrize("what", ["grow", "shrink", "change", "replace"])
def test_a_file_that_changed_since_it_was_offered(tmp_path: Path, here: Path, what: str) -> None:
    (tmp_path / "d").mkdir()
    path = tmp_path / "d/x"
    path.write_bytes(bytes(1000))

    def change() -> None:
        status = path.stat()
        if what == "replace":
            path.unlink()
        path.write_bytes({"grow": bytes(2000), "shrink": bytes(1)}.get(what, b"x" * 1000))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if nothing had been

    with pytest.raises(LocalFileError, match=r"'d/x' (grew|became shorter|changed) while it was sent"):
        transfer([tmp_path / "d"], here, change=change)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
@pytest.mark.parametrize("size", [1000, 2 * RECORD])
def test_a_file_in_whose_place_is_something_else(
    tmp_path: Path, here: Path, make: Callable[[Path], None], size: int
) -> None:
    """It was said that it became shorter, or that it grew."""
    (tmp_path / "d").mkdir()
    path = tmp_path / "d/x"
    path.write_bytes(bytes(size))

    def change() -> None:
        path.unlink()
        make(path)

    with pytest.raises(LocalFileError, match="'d/x' was replaced by something that is no file while it was sent"):
        transfer([tmp_path / "d"], here, change=change)


# --- interrupted


def test_an_interrupted_tree_goes_on(tmp_path: Path, here: Path, rng: random.Random) -> None:
    root = make_tree(tmp_path / "tree", rng)
    total = moved = 0
    for attempt in range(50):
        source = open_source(root)
        sink = open_sink(over_the_wire(source.manifest), here)
        total = sink.size
        # What was given up was flushed: nothing of it moves again.
        assert sink.received == moved
        moved += move(source, sink, limit=total // 10, rng=rng if attempt % 2 else None)
        if sink.received == sink.size:
            sink.finish(source.digest())
            source.close()
            break
        sink.abandon()
        source.close()
    assert moved == total
    assert picture(here / "tree") == picture(root)
    assert os.listdir(here) == ["tree"]


def resumed(root: Path, here: Path, policy: Policy | None = None) -> int:
    """Goes on to the end. Returns how many bytes were carried."""
    source = open_source(root)
    try:
        sink = open_sink(over_the_wire(source.manifest), here, policy)
        moved = move(source, sink) + compare(source, sink)
        sink.finish(source.digest())
    finally:
        source.close()
    return moved


def test_a_damaged_block_is_found_and_fetched_again(tmp_path: Path, here: Path, rng: random.Random) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "big").write_bytes(rng.randbytes(8_000_000))
    interrupted(root, here, 0.9)
    (here / ".tree.udpsend-treelog").write_bytes(
        b"".join(
            line
            for line in (here / ".tree.udpsend-treelog").read_bytes().splitlines(keepends=True)
            if b" checked " not in line
        )
    )
    staged = here / ".tree.udpsend-tree/tree/big"
    data = bytearray(staged.read_bytes())
    data[1_000_000] ^= 1
    staged.write_bytes(data)
    assert resumed(root, here) < 900_000 + 2 * RECORD + BLOCK_SIZE
    assert picture(here / "tree") == picture(root)


@pytest.mark.parametrize("length", [None, 0, 2_000_000])
def test_a_file_that_lost_its_end_between_two_attempts_comes_again(
    tmp_path: Path, here: Path, rng: random.Random, length: int | None
) -> None:
    """Its blocks were compared, and are not compared again: the journal alone would have it believed."""
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).write_bytes(rng.randbytes(3_000_000))
    interrupted(root, here, 0.9)
    staged = next((here / ".tree.udpsend-tree/tree").iterdir())
    if length is None:
        staged.unlink()
    else:
        os.truncate(staged, length)
    assert resumed(root, here) >= 3_000_000
    assert picture(here / "tree") == picture(root)


def test_more_directories_than_are_kept_open(tmp_path: Path, here: Path, rng: random.Random) -> None:
    root = tmp_path / "tree"
    for number in range(40):
        (root / f"{number}").mkdir(parents=True)
        (root / f"{number}/x").write_bytes(b"x")
    source = open_source(root)
    sink = open_sink(over_the_wire(source.manifest), here)
    move(source, sink, rng=rng)
    sink.finish(source.digest())
    source.close()
    assert picture(here / "tree") == picture(root)


def test_a_resumed_transfer_reads_nothing_again(
    tmp_path: Path, here: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "big").write_bytes(rng.randbytes(20_000_000))
    interrupted(root, here, 0.8)
    read = []
    preadv = os.preadv

    def counting(fd: int, views: list[memoryview], offset: int) -> int:
        read.append(len(views[0]))
        return preadv(fd, views, offset)

    monkeypatch.setattr(os, "preadv", counting)
    moved = resumed(root, here)
    assert moved < 4_000_000 + 2 * RECORD
    assert sum(read) < moved + 4 * BLOCK_SIZE  # both ends


def place_of_large_file(root: Path, single: bool) -> Path:
    """What is sent is that file alone, or a directory with it."""
    if single:
        return root
    root.mkdir()
    return root / "big"


@pytest.mark.parametrize("single", [True, False])
def test_of_a_source_that_changed_only_that_is_sent_again(
    tmp_path: Path, here: Path, rng: random.Random, single: bool
) -> None:
    root = tmp_path / "tree"
    big = place_of_large_file(root, single)
    if not single:
        for n in range(5):
            (root / f"{n}").write_bytes(rng.randbytes(300_000))
    data = bytearray(rng.randbytes(9_000_000))
    big.write_bytes(data)
    interrupted(root, here, 0.95)
    data[5_000_000] ^= 1
    big.write_bytes(data + b"more")
    if not single:
        (root / "3").unlink()
        (root / "0").write_bytes(b"new")
    assert resumed(root, here) < 4 * BLOCK_SIZE
    arrived = here / "tree"
    assert (arrived if single else arrived / "big").read_bytes() == data + b"more"
    if not single:
        assert picture(arrived) == picture(root)
    assert os.listdir(here) == ["tree"]


@pytest.mark.parametrize("single", [True, False])
def test_of_a_source_that_became_shorter_the_rest_is_forgotten(
    tmp_path: Path, here: Path, rng: random.Random, single: bool
) -> None:
    root = tmp_path / "tree"
    big = place_of_large_file(root, single)
    big.write_bytes(rng.randbytes(5_000_000))
    interrupted(root, here, 0.95)
    os.truncate(big, 3_000_000)
    assert resumed(root, here) < BLOCK_SIZE
    assert (here / "tree" if single else here / "tree/big").read_bytes() == big.read_bytes()


def test_what_somebody_takes_from_the_staging_directory_is_missed(tmp_path: Path, here: Path) -> None:
    """What was written and is gone reads as zeros, so that its block differs, not as what was in memory before."""
    manifest = Manifest(File(name, 5, 0o644, 1, 0) for name in ("a", "b"))
    staging = Staging(here, manifest, Policy())
    staging.write(0, memoryview(b"abcdefghij"))
    os.truncate(here / ".a.udpsend-tree/a", 2)
    view = bytearray(b"abcdefghij")
    staging.read_into(0, memoryview(view))
    assert view == b"ab\0\0\0fghij"
    shutil.rmtree(here / ".a.udpsend-tree")
    with pytest.raises(LocalFileError, match="Somebody removed"):
        staging.flush([(0, 10)])
    staging.close()


@pytest.mark.parametrize("single", [True, False])
def test_delta_sends_what_differs(tmp_path: Path, here: Path, rng: random.Random, single: bool) -> None:
    root = tmp_path / "tree"
    if not single:
        (root / "sub").mkdir(parents=True)
    big = root if single else root / "sub/big"
    data = bytearray(rng.randbytes(9_000_000))
    big.write_bytes(data)
    assert resumed(root, here) == 9_000_000
    data[5_000_000] ^= 1
    big.write_bytes(data)
    assert resumed(root, here, Policy(overwrite=True, delta=True)) <= 2 * BLOCK_SIZE
    assert (here / "tree" if single else here / "tree/sub/big").read_bytes() == data
    assert os.listdir(here) == ["tree"]


def test_delta_copies_nothing_over_what_has_arrived(tmp_path: Path, here: Path, rng: random.Random) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "big").write_bytes(rng.randbytes(9_000_000))
    transfer([root], here)
    data = rng.randbytes(9_000_000)
    (root / "big").write_bytes(data)
    interrupted(root, here, 0.9, Policy(overwrite=True))
    (root / "other").touch()
    assert resumed(root, here, Policy(overwrite=True, delta=True)) < 3 * BLOCK_SIZE
    assert (here / "tree/big").read_bytes() == data


@pytest.fixture(params=["single", "tree"])
def changed(request: pytest.FixtureRequest, tmp_path: Path, here: Path, rng: random.Random) -> Path:
    """What is there, since when a byte of it has changed and one has come."""
    root = tmp_path / "tree"
    big = place_of_large_file(root, request.param == "single")
    data = bytearray(rng.randbytes(9_000_000))
    big.write_bytes(data)
    transfer([root], here)
    data[5_000_000] ^= 1
    big.write_bytes(data + b"x")
    return root


DELTA = Policy(overwrite=True, delta=True)


def content(root: Path) -> bytes:
    return (root / "big" if root.is_dir() else root).read_bytes()


def test_delta_copies_only_what_there_is_room_for(changed: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda _: 9_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "shares_blocks", lambda *_: False)
        patch.setattr(disk, "copy_content", lambda *_: pytest.fail("copied"))
        with pytest.raises(LocalFileError, match="Not enough space"):
            resumed(changed, here, DELTA)
    assert os.listdir(here) == ["tree"]
    monkeypatch.setattr(disk, "shares_blocks", lambda *_: True)
    assert resumed(changed, here, DELTA) <= 3 * BLOCK_SIZE
    assert content(here / "tree") == content(changed)


def test_a_copy_that_fails_is_thrown_away_and_all_is_sent(
    changed: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = disk.copy_content

    def full(source: int, target: int, size: int, offset: int = 0) -> int:
        real(source, target, size // 2, offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "copy_content", full)
    source = open_source(changed)
    sink = open_sink(source.manifest, here, DELTA)
    assert sum(path.stat().st_size for path in here.glob(".*-part")) == 0
    assert not list(here.glob(".*-tree/tree/big"))
    sink.abandon()
    source.close()
    assert os.listdir(here) == ["tree"]
    assert resumed(changed, here, DELTA) == 9_000_001
    assert content(here / "tree") == content(changed)


def test_a_copy_is_thrown_away_where_there_is_no_room_for_the_rest(
    changed: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not what has arrived before."""
    real = disk.copy_content
    free = 10_000_000

    def others_write(source: int, target: int, size: int, offset: int = 0) -> int:
        nonlocal free
        free = 0
        return real(source, target, size, offset)

    monkeypatch.setattr(disk, "free_bytes", lambda _: free)
    monkeypatch.setattr(disk, "copy_content", others_write)
    for _ in range(2):
        with pytest.raises(LocalFileError, match="Not enough space"):
            resumed(changed, here, DELTA)
        assert os.listdir(here) == ["tree"]
        free = 10_000_000
    interrupted(changed, here, 0.9, Policy(overwrite=True))
    free = 0
    with pytest.raises(LocalFileError, match="Not enough space"):
        resumed(changed, here, DELTA)
    free = 10_000_000
    assert resumed(changed, here, DELTA) < 2_000_000
    assert content(here / "tree") == content(changed)


def test_where_a_copy_shares_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"content")
    with (tmp_path / "x").open("rb") as source, (tmp_path / "y").open("wb") as target:

        def clone(to: int, _: int, fd: int) -> int:
            return os.pwrite(to, os.pread(fd, 100, 0), 0)

        monkeypatch.setattr(fcntl, "ioctl", clone)
        assert disk.shares_blocks(source.fileno(), target.fileno())
        monkeypatch.undo()
        disk.shares_blocks(source.fileno(), target.fileno())
    assert (tmp_path / "y").read_bytes() == b""


def make_small_files(root: Path, rng: random.Random) -> None:
    """More than are kept open, in one block."""
    root.mkdir()
    for n in range(40):
        (root / f"{n}").write_bytes(rng.randbytes(10_000))
        (root / f"{n}").chmod((0o644, 0o755, 0o444)[n % 3])
        os.utime(root / f"{n}", ns=(0, n * 1_000_000_000))


def edit(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"edited")


@pytest.fixture
def only_an_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read-only cannot be written to by root either."""
    real = os.open

    def strict(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and not flags & os.O_EXCL:
            with contextlib.suppress(FileNotFoundError):
                if not os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode & 0o200:
                    raise PermissionError(13, "Permission denied")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", strict)


@pytest.mark.usefixtures("only_an_owner")
def test_small_files_that_come_again_have_their_modes(tmp_path: Path, here: Path, rng: random.Random) -> None:
    root = tmp_path / "tree"
    make_small_files(root, rng)
    transfer([root], here)
    edit(root / "3")
    assert resumed(root, here, Policy(overwrite=True, delta=True)) == 400_000
    assert picture(here / "tree") == picture(root)


@pytest.mark.usefixtures("only_an_owner")
def test_small_files_whose_modes_changed_meanwhile_have_the_new_ones(
    tmp_path: Path, here: Path, rng: random.Random
) -> None:
    root = tmp_path / "tree"
    make_small_files(root, rng)
    (root / "more").write_bytes(rng.randbytes(2_000_000))
    interrupted(root, here, 0.9)
    for n in range(40):
        (root / f"{n}").chmod((0o600, 0o444, 0o755)[n % 3])
    edit(root / "3")
    assert resumed(root, here) < 2_000_000
    assert picture(here / "tree") == picture(root)


def test_two_receivers_of_one_tree(tmp_path: Path, here: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_text("x")
    source = open_source(tmp_path / "d")
    sink = open_sink(source.manifest, here)
    with pytest.raises(LocalFileError, match="Another udpsend is receiving 'd'"):
        open_sink(source.manifest, here)
    sink.abandon()
    source.close()


@pytest.mark.parametrize("again", [1, -1])
def test_a_file_and_a_tree_of_one_name_at_once(tmp_path: Path, here: Path, rng: random.Random, again: int) -> None:
    """Each is locked by itself: neither may believe, nor remove, what the other one notes."""
    names = ["file/x", "tree/x/y"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(rng.randbytes(5_000_000))
    sources = [open_source(tmp_path / kind / "x") for kind in ("file", "tree")]
    sinks = [open_sink(source.manifest, here) for source in sources]
    arrived = []
    for source, sink, limit in zip(sources, sinks, (4_000_000, 2_000_000), strict=True):
        move(source, sink, limit=limit)
        arrived.append(sink.received)
        sink.abandon()
        source.close()
    for name, had in list(zip(names, arrived, strict=True))[::again]:
        kind = name.partition("/")[0]
        source = open_source(tmp_path / kind / "x")
        sink = open_sink(source.manifest, here)
        assert sink.present == [(0, had)]
        assert not sink._partial.journal.stale
        move(source, sink)
        compare(source, sink)
        sink.finish(source.digest())
        source.close()
        os.rename(here / "x", tmp_path / "x")
        assert (tmp_path / name.removeprefix(kind + "/")).read_bytes() == (tmp_path / name).read_bytes()
        os.rename(tmp_path / "x", tmp_path / f"received {kind}")
    assert os.listdir(here) == []


class Killed(BaseException):
    pass


@contextlib.contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of moving into place; not at all if there are fewer."""
    left = step

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        for name in ("rename_no_replace", "sync_directory"):
            patch.setattr(disk, name, counted(getattr(disk, name)))
        patch.setattr(placing, "_finish_directory", counted(placing._finish_directory))
        patch.setattr(os, "rmdir", counted(os.rmdir))
        yield


def empty(directory: Path) -> None:
    remove(directory)
    directory.mkdir()


def make_tree_without_bytes(root: Path, rng: random.Random) -> None:
    make_tree(root, rng, 20)
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(0o600)
            os.truncate(path, 0)
            path.chmod(mode)


@pytest.mark.parametrize("kind", ["fresh", "merged", "without bytes", "left out"])
def test_a_kill_while_it_is_moved_into_place_is_gone_on_from(
    tmp_path: Path, here: Path, rng: random.Random, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each step of it: what was moved is not refused, the rest follows, and all modes and times are set. Also after
    another attempt that was given up, and where no bytes are to be received."""
    root = tmp_path / "tree"
    if kind in ("fresh", "merged"):
        make_tree(root, rng, 20)
    else:
        make_tree_without_bytes(root, rng)
    (root / "more").mkdir(exist_ok=True)
    (root / "more/x").touch()
    policy = Policy(skip=kind == "left out")
    if kind != "without bytes":
        (root / "some").write_bytes(b"x")
    expected = picture(root)
    done = False
    for step in range(200):
        if kind != "fresh":
            (here / "tree").mkdir()
        if kind == "left out":
            shutil.copy2(root / "some", here / "tree")
        with killed_at(step, monkeypatch):
            transfer([root], here, policy)
            done = True
        if not done:
            source = open_source(root)
            try:
                open_sink(over_the_wire(source.manifest), here, policy).abandon()
                sink = open_sink(over_the_wire(source.manifest), here, policy)
                assert move(source, sink) == 0
                sink.finish(source.digest())
            except LocalFileError as refusal:  # all was in place, as is looked at below
                print(refusal)
            source.close()
        assert picture(here / "tree") == expected
        empty(here)
        if done:
            break
    assert step > 5


def test_what_was_moved_before_a_kill_is_not_in_the_way_of_asking(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).touch()
    (here / "tree").mkdir()
    with killed_at(2, monkeypatch):
        transfer([root], here)
    assert os.listdir(here / "tree") == ["a"]
    source = open_source(root)
    source.close()
    look_first(here, source.manifest, Policy())
    resumed(root, here)
    with pytest.raises(LocalFileError, match="'tree/a' exists already"):
        look_first(here, source.manifest, Policy())
    assert os.listdir(here) == ["tree"]


@pytest.mark.parametrize("change", ["shortened", "removed", "a directory"])
def test_what_was_moved_before_a_kill_and_changed_since_is_no_success(
    tmp_path: Path, here: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("a", "b", "c"):
        (root / name).write_bytes(name.encode() * 10)
    tried = 0
    for step in range(10):
        (here / "tree").mkdir()
        with killed_at(step, monkeypatch):
            transfer([root], here)
        moved = sorted((here / "tree").iterdir())
        if 0 < len(moved) < 3:
            tried += 1
            if change == "shortened":
                os.truncate(moved[0], 9)
            else:
                moved[0].unlink()
            if change == "a directory":
                moved[0].mkdir()
            with contextlib.suppress(LocalFileError):
                resumed(root, here)
                assert picture(here / "tree") == picture(root)
        empty(here)
    assert tried


@pytest.mark.parametrize("loss", ["removed", "torn", "emptied"])
def test_a_kill_while_it_is_moved_into_place_and_the_journal_is_lost(
    tmp_path: Path, here: Path, rng: random.Random, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a success with something missing, and what was moved stays until the user says that it may not. Directories
    that were moved are like all that exist: they keep their modes."""
    root = make_tree(tmp_path / "tree", rng, 10)
    (root / "some").write_bytes(b"x")
    (root / "empty").mkdir()
    expected = picture(root)
    done = False
    refused = 0
    for step in range(200):
        with killed_at(step, monkeypatch):
            (here / "tree").mkdir()
            transfer([root], here)
            done = True
        if done:
            break
        journal = here / ".tree.udpsend-treelog"
        if journal.exists():
            lines = journal.read_bytes().splitlines(keepends=True)
            journal.unlink()
            if loss != "removed":
                journal.write_bytes(b"".join(lines[: -1 if loss == "torn" else 1]))
        before = without_directories(picture(here))
        refusal = ""
        try:
            resumed(root, here)
        except LocalFileError as error:
            refusal = str(error)
        if refusal:
            assert "already" in refusal
            assert without_directories(picture(here)) == before
            refused += 1
            unlock(here)  # some are read-only by now
            resumed(root, here, Policy(overwrite=True))
        seen = picture(here / "tree")
        assert without_directories(seen) == without_directories(expected)
        assert seen.keys() == expected.keys()
        empty(here)
    assert 0 < refused < step


def without_directories(seen: dict[str, object]) -> dict[str, object]:
    return {name: what for name, what in seen.items() if isinstance(what, str) or len(what) == 3}  # type: ignore[arg-type]
