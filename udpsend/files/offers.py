"""What can be offered in place of files: a stream of unknown size, or a text.

{"stream": "stdin"}     a name for whoever makes a file of it
{"text": 12}            how many bytes of UTF-8
"""

from __future__ import annotations

from msgspec import Struct

from udpsend.files.manifest import Announced, Manifest, parse_manifest_untrusted
from udpsend.files.names import check_name_untrusted
from udpsend.wire.json import JSON

MAX_TEXT = 64 << 10  # bytes


class Stream(Struct, frozen=True):
    name: str

    def to_json(self) -> dict[str, JSON]:
        return {"stream": self.name}


class Text(Struct, frozen=True):
    size: int

    def to_json(self) -> dict[str, JSON]:
        return {"text": self.size}


Offer = Manifest | Stream | Text


def parse_offer_untrusted(value: object) -> Offer | Announced:
    """Raises BadPacket, whose text says what is wrong with it."""
    match value:
        case {"stream": str(name)}:
            check_name_untrusted(name)
            return Stream(name)
        case {"text": int(size)} if type(size) is int and 0 <= size <= MAX_TEXT:
            return Text(size)
    return parse_manifest_untrusted(value)
