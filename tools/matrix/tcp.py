"""A TCP flow of the kernel's: `python tcp.py recv PORT`, `python tcp.py send HOST PORT CONGESTION`.

The sender waits for SIGUSR1, then sends zeros without end."""

from __future__ import annotations

import signal
import socket
import sys

CHUNK = 1 << 18


def receive(port: int) -> None:
    with socket.create_server(("0.0.0.0", port)) as server:  # noqa: S104 (in a namespace)
        print("READY", flush=True)
        flow, _ = server.accept()
        room = bytearray(CHUNK)
        while flow.recv_into(room):
            pass


def send(host: str, port: int, congestion: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    with socket.socket() as flow:
        flow.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        signal.sigwait({signal.SIGUSR1})
        flow.connect((host, port))
        zeros = bytes(CHUNK)
        while True:
            flow.sendall(zeros)


if __name__ == "__main__":
    _, side, *words = sys.argv
    if side == "recv":
        receive(int(words[0]))
    else:
        send(words[0], int(words[1]), words[2])
