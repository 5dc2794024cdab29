"""What brings the other side here: the command to type there, and the code as a picture."""

from __future__ import annotations

import io
import shlex
from urllib.parse import urlsplit, urlunsplit

from udpsend.config import Config

PASSWORD_PLACEHOLDER = "PASSWORD"  # noqa: S105  # stands where the password is not shown


def command_for_other_side(
    code: str, config: Config, *, by_hand: bool = False, verify: bool = False
) -> tuple[str, bool]:
    """What to type on the other machine, and whether a broker's password was left out of it.

    Only options that both sides have to name are in it, and only where they are not the default.
    """
    default = Config()
    words = ["udpsend", "recv"]
    hides_password = False
    if by_hand:
        words.append("--manual")
    if verify:
        words.append("--verify")
    if config.brokers != default.brokers and not by_hand:
        for url in config.brokers or ("none",):
            shown = _without_password(url)
            hides_password |= shown != url
            words += ["--broker", shown]
    if config.stun_servers != default.stun_servers:
        for server in config.stun_servers or ("none",):
            words += ["--stun", server]
    words += ["--", code] if code.startswith("-") else [code]
    return shlex.join(words), hides_password


def qr_rows(text: str) -> list[str]:
    """The QR code of `text` in half blocks, two modules to a character, light on a dark terminal."""
    import segno

    drawing = io.StringIO()
    segno.make_qr(text, error="L").terminal(drawing, border=2, compact=True)
    return drawing.getvalue().splitlines()


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.password is None:
            return url
    except ValueError:  # not a URL; the library says so
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{PASSWORD_PLACEHOLDER}@{host}"))
