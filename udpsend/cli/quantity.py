"""Sizes, rates, times and addresses as people read them. Decimal units, as disks and networks count: 1 MB is 10^6
bytes."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")


def size_text(size: float) -> str:
    """`268.4 MB`; below 1000 exact: `999 bytes`."""
    if size < 1000:
        return "1 byte" if size == 1 else f"{size:.0f} bytes"
    value = size
    for unit in _UNITS:
        value /= 1000
        if round(value, 1) < 1000:
            return f"{value:.1f} {unit}"
    return f"{value:.1f} {_UNITS[-1]}"


def rate_text(bytes_per_second: float) -> str:
    """`319 MB/s`, `3.4 MB/s`; below 0.1 MB/s in kB/s."""
    megabytes = bytes_per_second / 1e6
    if megabytes < 0.1:
        return f"{bytes_per_second / 1e3:.1f} kB/s"
    return f"{megabytes:.1f} MB/s" if megabytes < 9.95 else f"{megabytes:.0f} MB/s"


def duration_text(seconds: float) -> str:
    """`0.84 s`, `12.3 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def round_trip_text(seconds: float) -> str:
    """`0.13 ms`, `34 ms`."""
    milliseconds = seconds * 1000
    return f"{milliseconds:.2f} ms" if milliseconds < 9.995 else f"{milliseconds:.0f} ms"


def address_text(address: tuple[str, int]) -> str:
    """`203.0.113.7:4000`, `[2001:db8::7]:4000`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
