"""Receiving into file systems as they are mounted by people: what each of them does otherwise than ext4 and tmpfs."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trees import contents, interrupted, transfer
from udpsend.errors import LocalFileError
from udpsend.files.existing import Policy

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount file systems"),
]
IMAGE_SIZE = 400_000_000  # xfs takes no less than 300 MB


def run(*words: str | Path) -> None:
    """Skips the test where this system has not got it."""
    program = shutil.which(words[0], path=f"{os.defpath}:/sbin:/usr/sbin")
    if program is None:
        pytest.skip(f"{words[0]} is not installed")
    ended = subprocess.run([program, *words[1:]], capture_output=True, text=True, timeout=60)
    if ended.returncode:
        pytest.skip(f"{words[0]}: {ended.stderr.strip()}")


def on_loop(*make: str) -> Callable[[Path, Path], None]:
    def mount(image: Path, where: Path) -> None:
        run(*make, image)
        run("mount", "-o", "loop", image, where)

    return mount


def overlay(image: Path, where: Path) -> None:
    """The upper of two directories: containers have that."""
    run("mount", "-t", "tmpfs", "tmpfs", where)
    for name in ("lower", "upper", "work"):
        (where / name).mkdir()
    options = f"lowerdir={where}/lower,upperdir={where}/upper,workdir={where}/work"
    run("mount", "-t", "overlay", "-o", options, "overlay", where)


def ntfs(image: Path, where: Path) -> None:
    """All files are those of somebody else, and times multiples of 100 ns."""
    run("mkfs.ntfs", "-q", "-F", "-Q", image)
    run("ntfs-3g", "-o", "uid=12345,gid=12345,umask=0", image, where)


MOUNT = {
    "btrfs": on_loop("mkfs.btrfs", "-q"),
    "ext4": on_loop("mkfs.ext4", "-q"),
    "xfs": on_loop("mkfs.xfs", "-q"),
    "overlay": overlay,
    "ntfs": ntfs,
}


@pytest.fixture(params=MOUNT)
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    image, where = tmp_path / "image", tmp_path / "mounted"
    where.mkdir()
    image.touch()
    os.truncate(image, IMAGE_SIZE)
    try:
        MOUNT[request.param](image, where)
        here = where / "here"
        here.mkdir()
        yield here
    finally:
        while os.path.ismount(where):
            subprocess.run(["umount", where], check=True, timeout=60)


@pytest.fixture
def tree(tmp_path: Path, rng: random.Random) -> Path:
    root = tmp_path / "tree"
    for number in range(30):
        path = root / f"d{number % 4}" / f"e{number % 3}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice([0, 1, 4096, 100_000, 1_200_000])))
    (root / "empty").mkdir()
    return root


def test_a_tree(mounted: Path, tree: Path) -> None:
    interrupted(tree, mounted, 0.5)
    transfer([tree], mounted)
    assert contents(mounted / "tree") == contents(tree)
    assert os.listdir(mounted) == ["tree"]
    with pytest.raises(LocalFileError, match="exists already"):
        transfer([tree], mounted)
    transfer([tree], mounted, Policy(skip=True))
    changed = tree / "d1/e1/f1"
    changed.write_bytes(changed.read_bytes() + b"x")
    transfer([tree], mounted, Policy(overwrite=True))
    assert contents(mounted / "tree") == contents(tree)
    changed.write_bytes(changed.read_bytes() + b"x")
    transfer([tree], mounted, Policy(overwrite=True, delta=True))
    transfer([tree], mounted, Policy(rename=True))
    assert contents(mounted / "tree") == contents(mounted / "tree (1)") == contents(tree)
    assert sorted(os.listdir(mounted)) == ["tree", "tree (1)"]


def test_a_file(mounted: Path, tmp_path: Path, rng: random.Random) -> None:
    file = tmp_path / "file"
    file.write_bytes(rng.randbytes(3_000_000))
    interrupted(file, mounted, 0.5)
    transfer([file], mounted)
    transfer([file], mounted, Policy(rename=True))
    transfer([file], mounted, Policy(skip=True))
    assert contents(mounted) == {"file": file.read_bytes(), "file (1)": file.read_bytes()}
    file.write_bytes(b"other")
    transfer([file], mounted, Policy(overwrite=True))
    assert contents(mounted)["file"] == b"other"
    assert sorted(os.listdir(mounted)) == ["file", "file (1)"]


def test_sent_from_there(mounted: Path, tree: Path, here: Path) -> None:
    shutil.copytree(tree, mounted / "tree")
    transfer([mounted / "tree"], here)
    assert contents(here / "tree") == contents(tree)
