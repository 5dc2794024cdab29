"""From the staging directory to where it all belongs: a directory that is not there yet in one step, with all in it.

Where a directory exists, what is in it is moved one by one, and never replaces anything unless the policy says so: what
has appeared since it was looked at is an error, and what was not moved stays in the staging directory.

Before the first move it is said in the staging directory that moving begins, and where to: who is killed meanwhile goes
on with what is not moved yet, and with the modes and times of directories, which come last.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from msgspec import Struct, json

from udpsend.errors import BadPacket, LocalFileError
from udpsend.files import disk
from udpsend.files.byte_space import ByteSpace, unpack_set_untrusted
from udpsend.files.directories import Directories
from udpsend.files.entries import MODE_BITS, Directory, Entry, File
from udpsend.files.existing import Destination, Policy, give_name
from udpsend.files.journal import vouches_for_all
from udpsend.files.manifest import Manifest
from udpsend.files.names import tree_journal_name
from udpsend.files.older import OFFER
from udpsend.files.opening import is_own_read_only, set_directory_mode

PLACING = ".udpsend-placing"


class _Begun(Struct, frozen=True):
    """JSON in the staging directory."""

    identity: str
    left_out: bytes
    names: dict[str, str]


def save_begun(staging: int, manifest: Manifest, destination: Destination) -> None:
    """All is verified and complete, and about to be moved. Durable when it returns. Raises OSError."""
    begun = _Begun(manifest.identity, destination.left_out.pack(), destination.names)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | disk.FLAGS
    with open(os.open(PLACING, flags, 0o600, dir_fd=staging), "wb") as file:
        file.write(json.encode(begun))
        file.flush()
        os.fsync(file.fileno())
    disk.sync_directory(staging)


def load_begun(where: int, staging: int, manifest: Manifest) -> Destination | None:
    """Where an attempt at the same offer began to move what is in `staging`, if one did, and it is to be believed."""
    try:
        with open(os.open(PLACING, os.O_RDONLY | disk.FLAGS, dir_fd=staging), "rb") as file:
            begun = json.decode(file.read(), type=_Begun)
        if begun.identity == manifest.identity:
            destination = Destination(unpack_set_untrusted(begun.left_out, len(manifest)), begun.names)
            if _is_vouched_for(where, manifest, destination) and _is_all_there(where, staging, manifest, destination):
                return destination
    except (OSError, ValueError, BadPacket):  # none, or one that was not written to its end
        pass
    return None


def forget_begun(staging: int) -> None:
    """It was not written to its end, or is not true any more: what comes is verified anew. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(PLACING, dir_fd=staging)


def _is_vouched_for(where: int, manifest: Manifest, destination: Destination) -> bool:
    """Without its journal all would come again, and what was moved already would be in the way."""
    size = ByteSpace(manifest, destination.left_out).size
    return not size or vouches_for_all(where, tree_journal_name(manifest.name), destination.bound_to(manifest), size)


def _is_all_there(where: int, staging: int, manifest: Manifest, destination: Destination) -> bool:
    """Each entry either still in `staging`, or where it goes. Somebody may have removed some of it since."""
    old, new = Directories(staging), Directories(where)
    try:
        wanted = (entry for number, entry in enumerate(manifest) if number not in destination.left_out)
        return all(_is_there(old, entry) or _is_there(new, entry, destination.path_of(entry.path)) for entry in wanted)
    finally:
        old.close()
        new.close()


def _is_there(directories: Directories, entry: Entry, path: str | None = None) -> bool:
    try:
        directory, name = directories.locate(path or entry.path)
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    if isinstance(entry, File):
        return stat.S_ISREG(status.st_mode) and status.st_size == entry.size
    return stat.S_ISDIR(status.st_mode) == isinstance(entry, Directory)


def check_complete(staging: int, manifest: Manifest, destination: Destination) -> None:
    """Counts what each directory has: to look at each of 100,000 files takes a quarter of a second. Raises OSError, and
    LocalFileError where somebody has removed some."""
    directories = Directories(staging)
    try:
        ends = [first for _, first in manifest.runs[1:]] + [len(manifest)]
        for (path, first), end in zip(manifest.runs, ends, strict=True):
            left_out = (
                sum(number in destination.left_out for number in range(first, end)) if destination.left_out else 0
            )
            names = disk.names_in(directories.descriptor(path))
            own = sum(name in (OFFER, PLACING) for name in names) if not path else 0
            if len(names) - own < end - first - left_out:
                raise LocalFileError("Somebody removed some of what has arrived while it was received: try again.")
    finally:
        directories.close()


def move_into_place(
    root: int, staging: int, manifest: Manifest, destination: Destination, policy: Policy, begun: bool
) -> None:
    """`root` and `staging` are descriptors; `begun`: some of it may be there. Raises LocalFileError, OSError."""
    old, new = Directories(staging), Directories(root)
    merged = {""}  # directories that were there
    try:
        for number, entry in manifest.in_runs(merged):
            if number in destination.left_out or (begun and not _is_there(old, entry)):
                continue
            if _move(old, new, entry, destination, policy):
                merged.add(entry.path)
        empty = (manifest[number] for number, size in enumerate(manifest.sizes) if not size)
        fresh = [entry for entry in empty if isinstance(entry, Directory) and entry.path not in merged]
        umask = disk.current_umask()
        for entry in reversed(fresh):
            # What was finished before may not let us in any more.
            with contextlib.suppress(*((PermissionError,) if begun else ())):
                _finish_directory(new, destination.path_of(entry.path), entry, umask)
    finally:
        old.close()
        new.close()


def _move(old: Directories, new: Directories, entry: Entry, destination: Destination, policy: Policy) -> bool:
    """Returns whether it is a directory that was there."""
    target = destination.path_of(entry.path)
    to, new_name = new.locate(target)
    source, name = old.locate(entry.path)
    status = disk.status_of(to, new_name)
    if status is not None and isinstance(entry, Directory) and stat.S_ISDIR(status.st_mode):
        return True
    try:
        give_name(entry, policy, source, name, to, new_name)
    except PermissionError as error:
        if not (policy.overwrite and is_own_read_only(to)):
            raise disk.local_error(error, "write into the directory", target.rpartition("/")[0] or ".") from error
        with _writable(to):
            give_name(entry, policy, source, name, to, new_name)
    return False


@contextlib.contextmanager
def _writable(directory: int) -> Iterator[None]:
    """Only while one name is moved: who is killed then leaves a mode that nobody remembers."""
    mode = stat.S_IMODE(os.fstat(directory).st_mode)
    os.fchmod(directory, mode | stat.S_IWUSR)
    try:
        yield
    finally:
        os.fchmod(directory, mode)


def _finish_directory(new: Directories, path: str, entry: Directory, umask: int) -> None:
    """Last of all, from the innermost outwards: one that its owner may not write to would not let us in."""
    fd = os.open(".", disk.DIRECTORY_FLAGS, dir_fd=new.descriptor(path))
    try:
        disk.set_time(fd, entry.mtime_ns)
        set_directory_mode(fd, entry.mode & MODE_BITS & ~umask)
    finally:
        os.close(fd)
