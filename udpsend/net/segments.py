"""TCP that passes tunnels."""

from __future__ import annotations

import contextlib
import socket

SEGMENT_SIZE = 1200  # with the headers of IPv6 and TCP it passes the least that IPv6 allows: 1,280 bytes


def keep_segments_small(connection: socket.socket) -> None:
    """In both directions, from before the connection is made. Tunnels that drop what is too long for them, without a
    word, let the small packets of the beginning pass, and stop at the first certificate or sealed message."""
    if hasattr(socket, "TCP_MAXSEG"):
        with contextlib.suppress(OSError):  # a system that does not have itself told
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_SIZE)
