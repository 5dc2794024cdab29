"""Glue between the tests and `tools.netlab`: a laboratory and its servers, or a skip; and udpsend on its hosts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tools.netlab import Lab, Topology, missing_requirements, servers
from tools.netlab.servers import MQTT_PORT, PATIENCE, STUN_PORT, Started, missing_program

__all__ = [
    "MQTT_PORT",
    "PATIENCE",
    "PROGRAM",
    "STUN_PORT",
    "Started",
    "laboratory",
    "needs",
    "start_coturn",
    "start_miniupnpd",
    "start_mosquitto",
    "udpsend",
]

PROGRAM = (sys.executable, "-m", "udpsend")


@cache
def _why_not() -> str | None:
    return missing_requirements()


@contextmanager
def laboratory(topology: Topology) -> Iterator[Lab]:
    """The topology as namespaces, or a skip with the reason."""
    reason = _why_not()
    if reason is not None:
        pytest.skip(reason)
    with Lab(topology) as lab:
        yield lab


def needs(*programs: str) -> None:
    reason = missing_program(*programs)
    if reason is not None:
        pytest.skip(reason)


def udpsend(lab: Lab, host: str, log: Path, *arguments: str) -> Started:
    """udpsend on a host. `log` is the file for its output."""
    return Started(lab, host, [*PROGRAM, *arguments], log)


def start_mosquitto(lab: Lab, host: str, directory: Path) -> Started:
    needs("mosquitto")
    return servers.start_mosquitto(lab, host, directory)


def start_coturn(lab: Lab, host: str, directory: Path) -> Started:
    needs("turnserver")
    return servers.start_coturn(lab, host, directory)


def start_miniupnpd(lab: Lab, router: str, directory: Path, *, pcp: bool, upnp: bool) -> Started:
    needs("miniupnpd")
    return servers.start_miniupnpd(lab, router, directory, pcp=pcp, upnp=upnp)
