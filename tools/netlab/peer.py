"""One end of a transfer, for the matrix: `python -m tools.netlab.peer send|recv PATH [--broker URL] [--stun SERVER]
[--relay URL] [--mark BYTES]`.

Prints each event that the matrix looks at as a line of JSON, with the seconds since the peer was met, and at last the
outcome: {"event": "Verified"} or {"event": error class, "text": ...}.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import udpsend
from udpsend import events
from udpsend.config import Config
from udpsend.errors import UdpsendError

CODE = "4821-marble-otter"
PEER_TIMEOUT = 60.0


class Log:
    """Takes events; prints those of interest."""

    def __init__(self, mark: int | None) -> None:
        self._met: float | None = None
        self._mark = mark

    def say(self, what: str, **facts: Any) -> None:
        seconds = None if self._met is None else round(time.monotonic() - self._met, 3)
        print(json.dumps({"event": what, "seconds": seconds, **facts}), flush=True)

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.PeerMet():
                self._met = time.monotonic()
                self.say("PeerMet")
            case events.PathFound(kind, address, round_trip):
                self.say("PathFound", kind=kind.value, address=address, round_trip=round_trip)
            case events.Progress(done, _) if self._mark is not None and done >= self._mark:
                self._mark = None
                self.say("Underway", done=done)
            case events.Statistics(counters):
                self.say("Statistics", counters=counters)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("send", "recv"))
    parser.add_argument("path")
    parser.add_argument("--broker", action="append", default=[])
    parser.add_argument("--stun", action="append", default=[])
    parser.add_argument("--relay")
    parser.add_argument("--mark", type=int, help="say when so many bytes have arrived")
    options = parser.parse_args()
    config = Config(
        brokers=tuple(options.broker), stun_servers=tuple(options.stun), relay=options.relay, timeout=PEER_TIMEOUT
    )
    log = Log(options.mark)
    try:
        if options.side == "send":
            udpsend.send(options.path, code=CODE, config=config, on_event=log)
        else:
            udpsend.receive(CODE, options.path, overwrite=True, config=config, on_event=log)
    except UdpsendError as error:
        log.say(type(error).__name__, text=str(error))
    else:
        log.say("Verified")


if __name__ == "__main__":
    main()
