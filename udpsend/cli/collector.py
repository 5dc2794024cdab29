"""The garbage collector of this process: not while modules are imported, and seldom after that.

Importing allocates ten thousand objects that stay, and the collector looks at all of them several times: 10 to 20 ms of
a start-up of 200 (2026-11). A transfer makes no cycles to speak of, and a collection in its middle holds the loop.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Around one command: no collection, or few after `collect_rarely`, and at the end all as it was."""
    was_enabled, threshold = gc.isenabled(), gc.get_threshold()
    gc.disable()
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def collect_rarely() -> None:
    """All modules are there: never look at them again, and at the rest only after many allocations."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()
