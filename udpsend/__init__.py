"""Send a file straight to another machine, over hole-punched and encrypted UDP.

    import udpsend

    udpsend.send("film.mkv", on_event=print)                    # prints CodeReady(code='4821-marble-otter'), ...
    udpsend.receive("4821-marble-otter", "Downloads")           # on the other machine

`Config` has the options, `events` what `on_event` is given, `errors` what may be raised.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from udpsend import errors, events
    from udpsend.api import receive, send
    from udpsend.config import Config

__all__ = ["Config", "errors", "events", "receive", "send"]

_FROM = {"Config": "udpsend.config", "receive": "udpsend.api", "send": "udpsend.api"}


def __getattr__(name: str) -> object:
    """Nothing is imported before it is used: `udpsend --help` need not wait for what a transfer takes, and Ctrl-C ends
    the command (`__main__`) while its modules are imported."""
    if name in _FROM:
        return getattr(import_module(_FROM[name]), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Also what was not used yet."""
    return sorted({*globals(), *__all__})
