"""From the staging directory to where it all belongs: a directory that is not there yet in one step, with all in it.

Where a directory exists, what is in it is moved one by one, and never replaces anything unless the policy says so: what
has appeared since it was looked at is an error, and what was not moved stays in the staging directory.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time

from udpsend.errors import LocalFileError
from udpsend.files import disk
from udpsend.files.directories import Directories
from udpsend.files.entries import MODE_BITS, Directory, Entry
from udpsend.files.existing import Destination, Policy, refusal
from udpsend.files.manifest import Manifest


def move_into_place(root: int, staging: int, manifest: Manifest, destination: Destination, policy: Policy) -> None:
    """`root` and `staging` are descriptors. Raises LocalFileError, OSError."""
    old, new = Directories(staging), Directories(root)
    merged = {""}  # directories that were there
    try:
        for number, entry in manifest.in_runs(merged):
            if number not in destination.left_out and _move(old, new, entry, destination, policy):
                merged.add(entry.path)
        empty = (manifest[number] for number, size in enumerate(manifest.sizes) if not size)
        fresh = [entry for entry in empty if isinstance(entry, Directory) and entry.path not in merged]
        umask = disk.current_umask()
        for entry in reversed(fresh):
            _finish_directory(new, destination.path_of(entry.path), entry, umask)
    finally:
        old.close()
        new.close()


def _move(old: Directories, new: Directories, entry: Entry, destination: Destination, policy: Policy) -> bool:
    """Returns whether it is a directory that was there."""
    target = destination.path_of(entry.path)
    to, new_name = new.locate(target)
    source, name = old.locate(entry.path)
    try:
        status = os.stat(new_name, dir_fd=to, follow_symlinks=False)
    except FileNotFoundError:
        status = None
    if status is not None and isinstance(entry, Directory) and stat.S_ISDIR(status.st_mode):
        return True
    if policy.overwrite and not isinstance(entry, Directory):
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=to)
        return False
    try:
        disk.rename_no_replace(source, name, new_name, to)
    except FileExistsError as error:
        raise LocalFileError(refusal(entry, os.stat(new_name, dir_fd=to, follow_symlinks=False))) from error
    return False


def _finish_directory(new: Directories, path: str, entry: Directory, umask: int) -> None:
    """Last of all, from the innermost outwards: one that its owner may not write to would not let us in."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=new.descriptor(path))
    try:
        with contextlib.suppress(OSError, OverflowError):  # a time that this file system cannot keep
            os.utime(fd, ns=(time.time_ns(), entry.mtime_ns))
        os.fchmod(fd, entry.mode & MODE_BITS & ~umask)
    finally:
        os.close(fd)
