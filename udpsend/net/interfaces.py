"""The network interfaces of this host. Asks the system."""

from __future__ import annotations

from msgspec import Struct


class Interface(Struct, frozen=True):
    number: int | None
    name: str
    addresses: list[str]
    """Without zones."""


def interfaces() -> list[Interface]:
    """Raises OSError where the system does not list any (Android, and services that may not use netlink)."""
    import ifaddr  # slow

    return [
        Interface(adapter.index, adapter.name, [_without_zone(entry.ip) for entry in adapter.ips])
        for adapter in ifaddr.get_adapters()
    ]


def _without_zone(ip: str | tuple[str, int, int]) -> str:
    """IPv6 comes with flow label and scope, and on some systems with the zone as well."""
    return ip if isinstance(ip, str) else ip[0].partition("%")[0]
