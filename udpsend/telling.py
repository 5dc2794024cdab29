"""What is offered, and what has come of it, as the events of both ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from udpsend import events
from udpsend.files.entries import File
from udpsend.files.manifest import Manifest
from udpsend.files.offers import Offer, Stream, Text

TEXT_NAME = "a message"


class _Listing:
    """Paths and sizes, as often as they are gone through."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def __iter__(self) -> Iterator[tuple[str, int | None]]:
        for entry in self._manifest:
            yield entry.path, entry.size if isinstance(entry, File) else None

    def __reduce__(self) -> tuple[Any, ...]:
        """Where the event goes to another process (pickle), the paths go with it, not what is behind them."""
        return tuple, (list(self),)


def offered_event(offer: Offer) -> events.Offered:
    match offer:
        case Stream(name):
            return events.Offered(name, None)
        case Text(size):
            return events.Offered(TEXT_NAME, size, is_text=True)
    listing = _Listing(offer)
    return events.Offered(
        offer.name, offer.full_size, offer.files, offer.directories, offer.links, listing, holes=offer.holes
    )


def skipped_event(manifest: Manifest) -> events.Skipped:
    return events.Skipped(manifest.skipped_count, tuple((s.path, s.why) for s in manifest.skipped))


def verified_event(
    manifest: Manifest, seconds: float, digest: bytes, left_out: int, path: str | None = None
) -> events.Verified:
    return events.Verified(
        manifest.name,
        manifest.full_size,
        seconds,
        digest.hex(),
        path,
        manifest.files,
        manifest.skipped_count,
        left_out,
        manifest.holes,
        manifest.others,
    )


def stream_verified_event(
    offer: Stream | Text, size: int, seconds: float, digest: bytes, path: str | None = None
) -> events.Verified:
    name = offer.name if isinstance(offer, Stream) else TEXT_NAME
    return events.Verified(name, size, seconds, digest.hex(), path)
