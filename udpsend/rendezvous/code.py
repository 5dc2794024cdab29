"""The code that two people share: made, read, and split into what is public and what is secret.

    generate_code    4 digits and two words of the EFF short list: '4821-marble-otter'
    parse_code       any text: case, kind and number of the separators do not matter; then
                     nameplate   the 4 digits if it opens with them, else 12 bits of Argon2id of the whole code
                     topic       where both sides meet, from the nameplate alone
                     password    the whole code as SPAKE2 takes it

The words of a code never reach the broker. A code without a nameplate shows 12 bits of itself to whoever lists the
topics, at Argon2id's price per guess; the two words (20.7 bits) of a generated code show nothing.
"""

from __future__ import annotations

import pkgutil
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from udpsend.errors import UsageError

PROTOCOL_VERSION = 1
WORDS_PER_CODE = 2
MAX_CODE_LENGTH = 128  # characters; the command line and a QR picture hold this easily

# Below these numbers of letters and digits a code draws a warning. The shortest pair of words has 6. Without a
# nameplate an observer knows 12 bits, so that one word of a dictionary (about 16 bits) is as good as told.
SHORT_WITH_NAMEPLATE = 6
SHORT_WITHOUT_NAMEPLATE = 12

# RFC 9106, section 4, recommends 64 MiB and 3 passes where memory is scarce. That alone would be more than the whole
# program needs otherwise (peak 102 MB instead of 62): 24 MiB and 8 passes cost as much time, 0.2 s (2026-11).
ARGON2_MEMORY_KIB = 24 * 1024
ARGON2_PASSES = 8
ARGON2_LANES = 4
ARGON2_SALT = b"udpsend/1 nameplate"
HASHED_NAMEPLATE_BITS = 12

_WEAK = (
    "This code is short enough to be guessed by somebody who watches the meeting place. "
    "Better take one that `udpsend send` makes."
)
_NAMEPLATE = re.compile(r"([0-9]{4})-(.+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Code:
    text: str = field(repr=False)
    """The code in its normal form, as it is shown."""
    nameplate: str
    """What is public of it: '4821', or 'x' and three hex digits."""
    topic: str
    password: bytes = field(repr=False)
    weak: str | None
    """A warning for the user if the code is easy to guess."""


@cache
def words() -> tuple[str, ...]:
    """The 1,296 words of the EFF short list, in its order."""
    data = pkgutil.get_data(__package__, "words.txt")  # importlib.resources takes 10 ms and 1 MB more
    assert data is not None  # noqa: S101 - a file of this package
    return tuple(data.decode("ascii").split())


def pick_words(entropy: bytes, count: int) -> list[str]:
    """`count` words chosen by `entropy`, of which each takes 16 bytes, so that the bias is below 2^-110."""
    numbers = (int.from_bytes(entropy[16 * i : 16 * i + 16]) for i in range(count))
    return [words()[number % len(words())] for number in numbers]


def generate_code(random_bytes: Callable[[int], bytes]) -> str:
    """A new code such as '4821-marble-otter'."""
    nameplate = int.from_bytes(random_bytes(16)) % 10_000
    return "-".join([f"{nameplate:04}", *pick_words(random_bytes(16 * WORDS_PER_CODE), WORDS_PER_CODE)])


def parse_code(text: str) -> Code:
    """The code that somebody typed. Takes 0.2 s and 24 MiB if it has no nameplate. Raises UsageError."""
    normal = _normalise(text)
    match = _NAMEPLATE.fullmatch(normal)
    secret, short = (match[2], SHORT_WITH_NAMEPLATE) if match else (normal, SHORT_WITHOUT_NAMEPLATE)
    nameplate = match[1] if match else _hashed_nameplate(normal)
    weak = None
    if len(secret.replace("-", "")) < short:
        weak = _WEAK
    return Code(normal, nameplate, f"udpsend/{PROTOCOL_VERSION}/{nameplate}", normal.encode(), weak)


def _normalise(text: str) -> str:
    """Lower case, with one dash for each run of spaces, dashes and underscores, and without invisible characters."""
    if len(text) > MAX_CODE_LENGTH:
        raise UsageError(f"The code is longer than {MAX_CODE_LENGTH} characters. Choose a shorter one on both sides.")
    # Folding can undo the normal form and the other way round; twice is enough (Unicode, NFKC_Casefold).
    for _ in range(2):
        text = unicodedata.normalize("NFKC", text).casefold()
    characters = []
    for character in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(character)
        if character.isspace() or character == "_" or category == "Pd":
            characters.append("-")
        elif category in ("Cc", "Cs"):
            raise UsageError("The code contains control characters. Type it again, with letters and digits only.")
        elif category != "Cf":  # zero-width characters that copying brings along
            characters.append(character)
    normal = re.sub("-+", "-", "".join(characters)).strip("-")
    if not normal:
        raise UsageError("The code is empty. Give the code that the other side shows, such as 4821-marble-otter.")
    return normal


def _hashed_nameplate(normal: str) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    try:
        argon2 = Argon2id(
            salt=ARGON2_SALT, length=4, iterations=ARGON2_PASSES, lanes=ARGON2_LANES, memory_cost=ARGON2_MEMORY_KIB
        )
    except UnsupportedAlgorithm as error:  # a cryptography built against OpenSSL before 3.2
        raise UsageError(
            "This system's OpenSSL has no Argon2id, which a code without a number needs. "
            "Let the code open with 4 digits and a dash on both sides."
        ) from error
    digest = argon2.derive(normal.encode())
    return f"x{int.from_bytes(digest) >> (32 - HASHED_NAMEPLATE_BITS):03x}"
