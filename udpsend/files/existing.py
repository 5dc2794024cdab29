"""What is at the destination already, looked at before the first byte: refused, left out, replaced, or given way to."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Container

from msgspec import Struct

from udpsend.errors import LocalFileError
from udpsend.files import disk
from udpsend.files.byte_space import EntrySet
from udpsend.files.directories import Directories
from udpsend.files.entries import Directory, Entry, File, Link, parent_of
from udpsend.files.manifest import Manifest
from udpsend.files.names import quote, tree_name
from udpsend.files.opening import check_takes_names, is_own_read_only, open_destination
from udpsend.wire.ranges import MAX_LEFT_OUT

MAX_RENAMES = 10_000
# What times are multiples of, ns: most file systems; NTFS and SMB; UDF; exFAT; sshfs; FAT.
TIME_STEPS = (1, 100, 1_000, 10_000_000, 1_000_000_000, 2_000_000_000)


class Policy(Struct, frozen=True):
    """What to do with files that exist. Without any of these they are an error, which names the first."""

    overwrite: bool = False
    """Replace files and links, never directories, and never through a link; also in directories of ours that are
    read-only, as those are that were received so."""
    rename: bool = False
    """Give what is received another name, such as 'photos (1)'."""
    skip: bool = False
    """Leave out files of the same size and time."""
    delta: bool = False
    """Of files that are replaced, use what is the same."""


class Destination(Struct):
    """What `look` found."""

    left_out: EntrySet
    names: dict[str, str]
    """The names of the first level that are changed."""

    def path_of(self, path: str) -> str:
        """Where the entry `path` goes."""
        top, slash, rest = path.partition("/")
        return self.names.get(top, top) + slash + rest

    def bound_to(self, manifest: Manifest) -> str:
        """Another one for each offer, and for each choice of what is left out: only what has the same is resumed."""
        return hashlib.sha256(manifest.identity.encode() + self.left_out.pack()).hexdigest()


def look_first(directory: str | os.PathLike[str], manifest: Manifest, policy: Policy) -> None:
    """Refuse before the user is asked what would be refused in any case; nothing is made. Where an earlier attempt has
    left a staging directory, `look` comes later: what that attempt has moved into place already is not in the way.
    Raises LocalFileError."""
    root = open_destination(directory)
    try:
        if disk.status_of(root, tree_name(manifest.name)) is None:
            look(root, manifest, policy)
    except OSError as error:
        raise disk.local_error(error, "write", manifest.name) from error
    finally:
        os.close(root)


def look(root: int, manifest: Manifest, policy: Policy) -> Destination:
    """Raises LocalFileError where something is in the way that the policy does not cover, OSError."""
    found = Destination(EntrySet(len(manifest)), {})
    there: set[str] = {""}  # directories of the offer that exist
    taken: set[str] = set()  # names that nothing else may get
    refused: tuple[Entry, os.stat_result] | None = None  # the first,
    count = 0  # and how many
    checked = ""  # the latest directory that was
    device = os.fstat(root).st_dev
    directories = Directories(root)
    try:
        for number, entry in manifest.in_runs(there):
            fd, name = directories.locate(entry.path)
            status = disk.status_of(fd, name)
            if status is None:
                pass
            elif policy.rename:
                taken = taken or {top.path for _, top in manifest.in_runs({""})}
                found.names[name] = fresh = free_name(root, name, taken)
                taken.add(fresh)
            elif isinstance(entry, Directory) and stat.S_ISDIR(status.st_mode):
                there.add(entry.path)
                continue
            elif policy.skip and is_same(entry, status, fd, name):
                found.left_out.add(number)
                continue
            elif not policy.overwrite or isinstance(entry, Directory) or stat.S_ISDIR(status.st_mode):
                count += 1
                refused = refused or (entry, status)
                continue
            parent = parent_of(entry)
            if parent != checked and refused is None:
                checked = parent
                if not (policy.overwrite and is_own_read_only(fd)):
                    check_takes_names(fd, parent)
                if os.fstat(fd).st_dev != device:
                    raise disk.local_error(OSError(errno.EXDEV, ""), "write into the directory", parent)
    finally:
        directories.close()
    if refused is not None:
        raise LocalFileError(refusal(*refused, policy, count - 1))
    if len(found.left_out.pack()) > MAX_LEFT_OUT:
        raise LocalFileError(
            f"{len(found.left_out):,} of the files are here already, scattered among others: that is more than can be "
            "told to the other side. Receive into another directory, or part of them at a time."
        )
    return found


def is_same(entry: Entry, status: os.stat_result, fd: int, name: str) -> bool:
    """By size and time; a file system that keeps coarser times is given the benefit of the doubt."""
    if isinstance(entry, Link):
        return stat.S_ISLNK(status.st_mode) and os.readlink(name, dir_fd=fd) == entry.target
    if not isinstance(entry, File) or not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
        return False
    return any(status.st_mtime_ns == entry.mtime_ns // step * step for step in TIME_STEPS)


def is_here(directory: str | os.PathLike[str], entry: Entry) -> bool:
    """Whether the same is in `directory` already. Raises LocalFileError, OSError."""
    fd = disk.open_directory(directory)
    try:
        status = disk.status_of(fd, entry.path)
        return status is not None and is_same(entry, status, fd, entry.path)
    finally:
        os.close(fd)


def refusal(entry: Entry, status: os.stat_result, policy: Policy, others: int = 0) -> str:
    """What to say of the first thing that is in the way, and of how many others are."""
    name, already = quote(entry.path), f"already ({others} more are, too)" if others else "already"
    if stat.S_ISDIR(status.st_mode):
        return f"A directory named {name} is there {already}: receive into another directory, or use --rename."
    if isinstance(entry, Directory):
        return f"{name} is there {already}, and is no directory: receive into another one, or use --rename."
    if policy.skip:
        return (
            f"{name} exists {already}, and --skip-existing leaves out only what has the same size and time: "
            "receive into another directory, or use --overwrite."
        )
    return f"{name} exists {already}: receive into another directory, or use --overwrite, --rename or --skip-existing."


def give_name(entry: Entry, policy: Policy, source: int, name: str, to: int, new_name: str) -> None:
    """Rename what was received, in place of what the policy replaces. Raises LocalFileError for anything else that has
    appeared there since it was looked at, OSError."""
    try:
        if policy.overwrite and not isinstance(entry, Directory):
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=to)
        else:
            disk.rename_no_replace(source, name, new_name, to)
    except (FileExistsError, IsADirectoryError) as error:
        status = os.stat(new_name, dir_fd=to, follow_symlinks=False)
        raise LocalFileError(refusal(entry, status, policy)) from error


def free_name(root: int, name: str, taken: Container[str] = ()) -> str:
    """`a (1).txt`, or with the first number that is free; none of those `taken`."""
    stem, dot, suffix = name.rpartition(".")
    if not stem.strip(".") or len(suffix) > 10 or " " in suffix:  # no suffix: '.bashrc', 'Mr. Smith'
        stem, dot, suffix = name, "", ""
    for number in range(1, MAX_RENAMES):
        end = f" ({number}){dot}{suffix}"
        room = 255 - len(end.encode())
        fresh = stem.encode()[:room].decode(errors="ignore") + end
        if fresh not in taken and disk.status_of(root, fresh) is None:
            return fresh
    raise LocalFileError(f"There is no name left for {quote(name)}: receive into another directory.")
