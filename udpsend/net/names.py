"""The addresses of a server's name. Asks the system's resolver, which takes as long as it takes."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]  # of socket.getaddrinfo


def look_up(host: str, port: int, kind: socket.SocketKind) -> Sequence[AddressInfo]:
    """Raises OSError, also for what cannot be a name."""
    try:
        return socket.getaddrinfo(host, port, type=kind)
    except UnicodeError as error:  # a part of it is empty, or too long
        raise socket.gaierror(socket.EAI_NONAME, "not a name") from error
