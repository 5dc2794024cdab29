"""What a NAT does, seen from both of its sides. Runs on the hosts of a laboratory; the standard library only.

`python probe.py answer IP:PORT...` on the server: each datagram is a list of indexes into the addresses given; one
answer goes out from each of those, and tells the address that the datagram came from.
`python probe.py ask IP:PORT...` on the host behind the NAT, with the same addresses in the same order (two ports of one
address, then another address): prints as JSON the mappings that were seen, which answers came in, and whether outside
addresses work from inside.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from typing import Any

ATTEMPTS = 3
# An answer crosses three namespaces in well under a millisecond; what has not come by now was filtered.
PATIENCE = 0.3


def _parse(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def answer(addresses: list[tuple[str, int]]) -> None:
    sockets = []
    for address in addresses:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind(address)
        sockets.append(opened)
    print("READY", flush=True)
    while True:
        for ready in select.select(sockets, [], [])[0]:
            question, source = ready.recvfrom(2048)
            try:
                indexes = json.loads(question)
                for index in indexes:
                    told = json.dumps({"from": index, "seen": list(source)})
                    sockets[index].sendto(told.encode(), source)
            except (ValueError, TypeError, IndexError, OSError):
                continue


def _gather(own: socket.socket, expected: int) -> dict[int, list[Any]]:
    """Who answered, and which address each of them saw."""
    came: dict[int, list[Any]] = {}
    while len(came) < expected and select.select([own], [], [], PATIENCE)[0]:
        told = json.loads(own.recv(2048))
        came[told["from"]] = told["seen"]
    return came


def _question(own: socket.socket, target: tuple[str, int], indexes: list[int]) -> dict[int, list[Any]]:
    for _ in range(ATTEMPTS):
        own.sendto(json.dumps(indexes).encode(), target)
        came = _gather(own, len(indexes))
        if came:
            return came
    return {}


def ask(addresses: list[tuple[str, int]]) -> dict[str, object]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("0.0.0.0", 0))  # noqa: S104
        mappings = []
        for index, target in enumerate(addresses):
            came = _question(own, target, [index])
            mappings.append(came.get(index))
        port = own.getsockname()[1]
    # A fresh socket has written to the first address alone: which of the others get in?
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("0.0.0.0", 0))  # noqa: S104
        admitted = sorted(_question(own, addresses[0], list(range(len(addresses)))))
        hairpin = _hairpins(own, addresses[0]) if admitted else False
    return {"port": port, "mappings": mappings, "admitted": admitted, "hairpin": hairpin}


def _hairpins(own: socket.socket, server: tuple[str, int]) -> bool:
    """Whether two sockets of this host reach each other at their outside addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 0))  # noqa: S104
        seen = [_question(sock, server, [0])[0] for sock in (own, other)]
        for _ in range(ATTEMPTS):
            for sock, (host, port) in zip((own, other), reversed(seen), strict=True):
                sock.sendto(b"hairpin", (host, port))
            if select.select([own, other], [], [], PATIENCE)[0]:
                return True
    return False


if __name__ == "__main__":
    given = [_parse(text) for text in sys.argv[2:]]
    if sys.argv[1] == "answer":
        answer(given)
    else:
        print(json.dumps(ask(given)))
