"""What is offered: a list of entries (entries.py), whose files, end to end, are the byte space of the transfer.

Entries are kept, and sent, in pages of 1,000, each compressed: a million files with names of usual length take 20 MB.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Container, Iterable, Iterator
from itertools import islice
from typing import cast

from msgspec import Struct, to_builtins

from udpsend.errors import BadPacket
from udpsend.files.entries import (
    MAX_NAMED,
    MAX_RANGES,
    MAX_SIZE,
    Directory,
    Entry,
    File,
    Link,
    Sparse,
    Tree,
    encode_entries,
    parse_entries_untrusted,
)
from udpsend.files.holes import Ranges
from udpsend.wire.json import JSON

MAX_ENTRIES = 1 << 22
MAX_PACKED = 64 << 20  # bytes of all pages
MAX_PAGE = 8 << 20  # bytes of one page, not compressed: 1,000 of the longest paths
PAGE = 1000  # entries
CACHED_PAGES = 4
MAX_INLINE = 48 << 10  # bytes of a manifest that goes with the offer

_LENGTH = struct.Struct("!I")


class Skipped(Struct, frozen=True):
    """What is not sent, and why: the text completes 'it ...'."""

    path: str
    why: str


class Manifest:
    """An immutable sequence of entries. `skipped` are the first of `skipped_count`."""

    def __init__(self, entries: Iterable[Entry] = (), skipped: Iterable[Skipped] = (), skipped_count: int = 0) -> None:
        self.skipped = tuple(skipped)[:MAX_NAMED]
        self.skipped_count = max(skipped_count, len(self.skipped))
        self.size = self.full_size = self.count = self.files = self.directories = self.links = self._packed_size = 0
        self.name = ""
        """What a user is shown: the path of the first entry."""
        self.twins: list[tuple[str, str]] = []
        """Pairs of names that are one name where case or the form of accents does not count."""
        self.sizes = array("Q")
        """Bytes of the transfer of every entry: what is asked most often, without opening a page. 0 for no file."""
        self.data: dict[int, Ranges] = {}
        """Where the files with holes have data, by number."""
        self.largest = 0
        """Bytes of the largest file, holes included."""
        self._ranges = 0
        self.runs: list[tuple[str, int]] = []
        """(directory, number of the first entry in it), in order."""
        self._pages: list[bytes] = []
        self._parsed: OrderedDict[int, list[Entry]] = OrderedDict()
        self._identity = hashlib.sha256(b"udpsend manifest 2")
        rest, tree = iter(entries), Tree(self.twins)
        while page := list(islice(rest, PAGE)):
            self._check_untrusted(page, tree)
            self._keep_page(encode_entries(page))

    @property
    def identity(self) -> str:
        """64 hex digits that bind everything in it: what an earlier attempt left is only believed for the same one.
        Each side computes it; it is not sent."""
        return self._identity.hexdigest()

    def _check_untrusted(self, page: list[Entry], tree: Tree) -> None:
        if not self.runs:
            self.name = page[0].path
            self.runs.append(("", 0))
        self.runs += [(directory, self.count + index) for directory, index in tree.add_untrusted(page)]
        sizes = [entry.size for entry in page]
        kinds = Counter(map(type, page))
        self.full_size += sum(sizes)
        self.largest = max(self.largest, *sizes)
        if kinds[Sparse]:
            self._leave_out_holes_untrusted(page, sizes)
        self.sizes.extend(sizes)
        self.size += sum(sizes)
        self.files += kinds[File] + kinds[Sparse]
        self.directories += kinds[Directory]
        self.links += kinds[Link]
        self.count += len(page)
        if self.full_size > MAX_SIZE:
            raise BadPacket("the manifest is too large")
        if self.count > MAX_ENTRIES:
            raise BadPacket(f"the manifest has more than {MAX_ENTRIES} entries")

    def _leave_out_holes_untrusted(self, page: list[Entry], sizes: list[int]) -> None:
        for index, entry in enumerate(page):
            if isinstance(entry, Sparse):
                entry.check_untrusted()
                self.data[self.count + index] = entry.data
                self._ranges += len(entry.data)
                sizes[index] = entry.content
        if self._ranges > MAX_RANGES:
            raise BadPacket("the manifest has files with too many holes")

    def _keep_page(self, text: bytes, packed: bytes = b"") -> None:
        self._identity.update(text)
        self._pages.append(packed or zlib.compress(text, 1))
        self._packed_size += len(self._pages[-1]) + _LENGTH.size
        if self._packed_size > MAX_PACKED:
            raise BadPacket("the manifest is too large")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Entry]:
        for index in range(len(self._pages)):
            yield from self._page(index)

    def __getitem__(self, number: int) -> Entry:
        return self._page(number // PAGE)[number % PAGE]

    def file(self, number: int) -> File:
        """One of those that have bytes."""
        page = self._parsed.get(number // PAGE) or self._page(number // PAGE)
        return cast(File, page[number % PAGE])

    def in_runs(self, wanted: Container[str]) -> Iterator[tuple[int, Entry]]:
        """The entries, with their numbers, of those directories that are in `wanted` when their turn comes."""
        for index, (directory, first) in enumerate(self.runs):
            if directory in wanted:
                end = self.runs[index + 1][1] if index + 1 < len(self.runs) else self.count
                for number in range(first, end):
                    yield number, self[number]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self)

    @property
    def is_single_file(self) -> bool:
        return self.count == self.files == 1

    @property
    def others(self) -> int:
        """Entries of the first level beside the first one."""
        return (self.runs[1][1] if len(self.runs) > 1 else self.count) - 1

    @property
    def holes(self) -> int:
        """Bytes of the files that are not sent, and take no place."""
        return self.full_size - self.size

    def _page(self, index: int) -> list[Entry]:
        page = self._parsed.get(index)
        if page is None:
            page = parse_entries_untrusted(zlib.decompress(self._pages[index]))
            self._parsed[index] = page
            if len(self._parsed) > CACHED_PAGES:
                self._parsed.popitem(last=False)
        return page

    def to_json(self) -> dict[str, JSON]:
        """What goes with the offer: all of it, or how long it is packed."""
        told: dict[str, JSON] = {}
        if self.skipped_count:
            told = {"skipped": [[s.path, s.why] for s in self.skipped], "skipped_count": self.skipped_count}
        if self.count <= PAGE:
            entries = to_builtins(self.entries)
            if len(json.dumps(entries)) <= MAX_INLINE:
                return {"entries": entries, **told}
        return {"packed": self._packed_size, "count": self.count, "size": self.size, **told}

    def pack(self) -> bytes:
        """All pages, each its length as u32 and its JSON, a list of entries, compressed by zlib."""
        return b"".join(_LENGTH.pack(len(page)) + page for page in self._pages)

    @classmethod
    def unpack_untrusted(
        cls, data: bytes | bytearray | memoryview, skipped: Iterable[Skipped] = (), skipped_count: int = 0
    ) -> Manifest:
        """The manifest in what `pack` gave. Raises BadPacket."""
        manifest = cls((), skipped, skipped_count)
        tree = Tree(manifest.twins)
        at = 0
        while at < len(data):
            if at + _LENGTH.size > len(data):
                raise BadPacket("the manifest is cut")
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            packed = bytes(data[at : at + length])
            if len(packed) < length:
                raise BadPacket("the manifest is cut")
            at += length
            text = _inflate_untrusted(packed)
            page = parse_entries_untrusted(text)
            if len(page) > PAGE or (len(page) < PAGE and at < len(data)) or not page:
                raise BadPacket("a page of the manifest has a wrong length")
            manifest._check_untrusted(page, tree)
            manifest._keep_page(text, packed)
        return manifest


class Announced(Struct, frozen=True):
    """A manifest that does not go with the offer: so many bytes, packed, are the first of the byte space."""

    packed: int
    count: int
    size: int
    skipped: list[Skipped]
    skipped_count: int

    def unpack_untrusted(self, data: bytes) -> Manifest:
        """What `pack` gave, if it is the one that was announced. Raises BadPacket."""
        manifest = Manifest.unpack_untrusted(data, self.skipped, self.skipped_count)
        if (len(manifest), manifest.size) != (self.count, self.size):
            raise BadPacket("the manifest is not the one that was announced")
        return manifest


def parse_manifest_untrusted(value: object) -> Manifest | Announced:
    """What came with the offer. Raises BadPacket, whose text says what is wrong with it."""
    if not isinstance(value, dict):
        raise BadPacket("there is no manifest")
    skipped, skipped_count = _skipped_untrusted(value)
    match value:
        case {"entries": [*entries]} if 1 <= len(entries) <= PAGE:
            return Manifest(parse_entries_untrusted(entries), skipped, skipped_count)
        case {"packed": int(packed), "count": int(count), "size": int(size)}:
            if not 0 < packed <= MAX_PACKED or not 0 < count <= MAX_ENTRIES or not 0 <= size <= MAX_SIZE:
                raise BadPacket("the manifest is too large")
            return Announced(packed, count, size, skipped, skipped_count)
    raise BadPacket(f"the manifest has no list of 1 to {PAGE:,} entries")


def _skipped_untrusted(value: dict[str, JSON]) -> tuple[list[Skipped], int]:
    skipped = []
    told = value.get("skipped", [])
    count = value.get("skipped_count", 0)
    if not isinstance(told, list) or len(told) > MAX_NAMED or type(count) is not int or not 0 <= count <= MAX_SIZE:
        raise BadPacket("the list of what was skipped makes no sense")
    for item in told:
        match item:
            case [str(path), str(why)] if len(path) <= 4096 and len(why) <= 200:
                skipped.append(Skipped(path, why))
            case _:
                raise BadPacket("the list of what was skipped makes no sense")
    return skipped, count


def _inflate_untrusted(packed: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(packed, MAX_PAGE)
    except zlib.error as error:
        raise BadPacket("a page of the manifest cannot be read") from error
    if not inflate.eof or inflate.unused_data:
        raise BadPacket("a page of the manifest is too long")
    return text
