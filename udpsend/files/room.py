"""Whether a directory can take what is offered: names that its file system tells apart, links, bytes, inodes."""

from __future__ import annotations

import contextlib
import errno
import os

from udpsend.errors import LocalFileError
from udpsend.files import disk
from udpsend.files.holes import MIN_HOLE
from udpsend.files.manifest import Manifest
from udpsend.files.names import quote

PROBE = ".udpsend-Probe-\u00e9"  # encoded here, since not every locale has the letter
LINK_PROBE = ".udpsend-probe-link"
FLAGS = os.O_CREAT | os.O_RDWR | disk.FLAGS


def check_twins(root: int, manifest: Manifest) -> None:
    """Two names that this file system takes for one. Raises LocalFileError, OSError."""
    if not manifest.twins:
        return
    os.close(os.open(PROBE.encode(), FLAGS, 0o600, dir_fd=root))
    try:
        for other in (PROBE.swapcase(), PROBE.replace("\u00e9", "e\u0301")):
            with contextlib.suppress(FileNotFoundError):
                os.stat(other.encode(), dir_fd=root)
                one, two = manifest.twins[0]
                raise LocalFileError(
                    f"{quote(one)} and {quote(two)} would be one file here, since this file system does not tell "
                    "such names apart: receive on another one."
                )
    finally:
        os.unlink(PROBE.encode(), dir_fd=root)


def check_links(root: int, manifest: Manifest) -> None:
    """FAT and exFAT have none. Raises LocalFileError, OSError."""
    if not manifest.links:
        return
    try:
        with contextlib.suppress(FileExistsError):
            os.symlink(".", LINK_PROBE, dir_fd=root)
    except OSError as error:
        if error.errno not in disk.NO_SUCH_WAY | {errno.EPERM}:
            raise
        raise LocalFileError(
            "Symbolic links are offered, and this file system cannot hold any: receive on another one, or let the "
            "sender send what they point to (--follow)."
        ) from error
    os.unlink(LINK_PROBE, dir_fd=root)


def check_space(root: int, manifest: Manifest, needed: int, has_files: bool) -> None:
    """`needed` bytes are not there yet. Raises LocalFileError, OSError."""
    status = os.fstatvfs(root)
    if status.f_files and not has_files and len(manifest) > status.f_favail:
        raise LocalFileError(
            f"Not enough room: {len(manifest):,} files and directories are offered, and this file system "
            f"can take {status.f_favail:,} more. Choose another directory."
        )
    makes_holes = _makes_holes(root, manifest.largest)
    if manifest.data and not makes_holes:
        needed += manifest.holes
    disk.check_room(root, needed)


def _makes_holes(root: int, largest: int) -> bool:
    """Raises LocalFileError if a file may not be as large."""
    fd = os.open(PROBE.encode(), FLAGS, 0o600, dir_fd=root)
    try:
        if not disk.holds_size(fd, largest):
            raise LocalFileError(
                f"A file of {largest / 1e6:,.1f} MB is offered, and this file system does not allow files as large: "
                "choose another directory."
            )
        os.ftruncate(fd, MIN_HOLE)
        return os.fstat(fd).st_blocks * 512 < MIN_HOLE
    finally:
        os.close(fd)
        os.unlink(PROBE.encode(), dir_fd=root)
