"""What is offered: a list of entries whose bytes, end to end, are the byte space of the transfer.

    {"entries": [{"path": "report.pdf", "size": 1048576, "mode": 420, "mtime_ns": 1790000000000000000}]}

    path      as names.py allows
    size      bytes, 0 to 2^62 - 1, also in total
    mode      permission bits, 0 to 0o777; nothing else of a mode is ever sent
    mtime_ns  modification time, nanoseconds since 1970, between -2^62 and 2^62

Numbers are exact integers of up to 63 bits. Unknown keys are ignored, but for `kind`: an entry with a kind other than
"file" is refused, so that a later version's directories and links are never mistaken for files. Version 1 takes exactly
one entry whose path has one component.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from udpsend.errors import BadPacket
from udpsend.files.names import check_path_untrusted

MAX_ENTRIES = 1
MAX_SIZE = (1 << 62) - 1
MAX_TIME = 1 << 62
MODE_BITS = 0o777

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    path: str
    """Relative, components parted by '/'."""
    size: int
    mode: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Manifest:
    entries: tuple[Entry, ...]

    identity: str = field(init=False)
    """64 hex digits that bind paths, sizes and times: what an earlier attempt left is only used for the same ones.
    Each side computes it; it is not sent."""

    def __post_init__(self) -> None:
        bound = ["udpsend manifest 1", [[e.path, e.size, e.mtime_ns] for e in self.entries]]
        digest = hashlib.sha256(json.dumps(bound, separators=(",", ":")).encode())
        object.__setattr__(self, "identity", digest.hexdigest())

    @property
    def size(self) -> int:
        """Bytes in total."""
        return sum(entry.size for entry in self.entries)

    @property
    def name(self) -> str:
        """What a user is shown: the path of the first entry."""
        return self.entries[0].path

    def to_json(self) -> JSON:
        return {
            "entries": [{"path": e.path, "size": e.size, "mode": e.mode, "mtime_ns": e.mtime_ns} for e in self.entries]
        }


def parse_manifest_untrusted(value: object) -> Manifest:
    """The manifest in a JSON value from the other side. Raises BadPacket, whose text says what is wrong with it."""
    match value:
        case {"entries": [*entries]}:
            pass
        case _:
            raise BadPacket("the manifest has no list of entries")
    if not 1 <= len(entries) <= MAX_ENTRIES:
        raise BadPacket(f"the manifest has {len(entries)} entries, and this version takes {MAX_ENTRIES}")
    manifest = Manifest(tuple(_parse_entry_untrusted(entry) for entry in entries))
    if manifest.size > MAX_SIZE:
        raise BadPacket("the manifest is too large")
    return manifest


def _parse_entry_untrusted(value: object) -> Entry:
    match value:
        case {"path": str(path), "size": int(size), "mode": int(mode), "mtime_ns": int(mtime_ns), **rest}:
            kind = rest.get("kind", "file")
        case _:
            raise BadPacket("an entry of the manifest lacks a field")
    if kind != "file":
        raise BadPacket("an entry of the manifest is of an unknown kind")
    if bool in (type(size), type(mode), type(mtime_ns)):
        raise BadPacket("a number in the manifest is none")
    try:
        components = check_path_untrusted(path)
    except BadPacket as error:
        raise BadPacket(f"its name {error}") from None
    if len(components) > 1:
        raise BadPacket("its name has a directory in it, and this version takes a bare name")
    if not 0 <= size <= MAX_SIZE:
        raise BadPacket("a size in the manifest is out of range")
    if not 0 <= mode <= MODE_BITS:
        raise BadPacket("a mode in the manifest is out of range")
    if not -MAX_TIME <= mtime_ns <= MAX_TIME:
        raise BadPacket("a time in the manifest is out of range")
    return Entry(path, size, mode, mtime_ns)
