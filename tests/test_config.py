"""What a caller of the library may choose: what cannot be is said when it is chosen."""

from __future__ import annotations

import math
from typing import Any

import pytest

from udpsend.config import LARGEST_DATAGRAM, LONGEST_TIMEOUT, SLOWEST_LIMIT, SMALLEST_DATAGRAM, Config
from udpsend.errors import UsageError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_datagram_size", value) for value in (-1, 0, SMALLEST_DATAGRAM - 1, LARGEST_DATAGRAM + 1, math.nan)),
        *(("limit", value) for value in (-1.0, 0.0, SLOWEST_LIMIT - 1, math.inf, math.nan)),
        *(("timeout", value) for value in (-1.0, 0.0, LONGEST_TIMEOUT + 1, math.inf, math.nan)),
        *(("congestion", value) for value in ("", "BBR", "reno", None)),
    ],
)
def test_what_cannot_be(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        Config(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_datagram_size", value) for value in (None, SMALLEST_DATAGRAM, LARGEST_DATAGRAM)),
        *(("limit", value) for value in (None, SLOWEST_LIMIT, 5_000_000)),
        *(("timeout", value) for value in (0.001, 30, LONGEST_TIMEOUT)),
        *(("congestion", value) for value in ("bbr", "cubic")),
    ],
)
def test_what_can_be(field: str, value: Any) -> None:
    assert getattr(Config(**{field: value}), field) == value


def test_passwords_are_not_shown() -> None:
    config = Config(brokers=("mqtts://me:s3cret@host:1", "ws://other"), relay="turn:me:s3cret@host?secret=s3cret")
    shown = repr(config)
    assert "s3cret" not in shown
    assert "brokers=('mqtts://...@host:1', 'ws://other')" in shown
    assert "timeout=600.0" in shown
    assert "relay=None" in repr(Config())


def test_passwords_are_not_shown_of_what_is_no_url() -> None:
    assert "brokers=('...@host:1',)" in repr(Config(brokers=("me:s3cret@host:1",)))
