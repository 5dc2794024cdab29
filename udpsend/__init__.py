"""Send a file straight to another machine, over hole-punched and encrypted UDP.

    import udpsend

    udpsend.send("film.mkv", on_event=print)                    # prints CodeReady(code='4821-marble-otter'), ...
    udpsend.receive("4821-marble-otter", "Downloads")           # on the other machine

`Config` has the options, `events` what `on_event` is given, `errors` what may be raised.
"""

from typing import TYPE_CHECKING

from udpsend import errors, events
from udpsend.config import Config

if TYPE_CHECKING:
    from udpsend.api import receive, send

__all__ = ["Config", "errors", "events", "receive", "send"]


def __getattr__(name: str) -> object:
    """`send` and `receive` bring all the rest along, which `udpsend --help` need not wait for."""
    if name in ("send", "receive"):
        from udpsend import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
