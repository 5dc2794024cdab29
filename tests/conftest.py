"""Fixtures for all tests."""

from __future__ import annotations

import os
from random import SystemRandom

import pytest


@pytest.fixture
def seed() -> int:
    """The seed of a randomised test. pytest shows it when the test fails; UDPSEND_SEED replays it."""
    value = int(os.environ.get("UDPSEND_SEED") or SystemRandom().randrange(1 << 32))
    print(f"replay with UDPSEND_SEED={value}")
    return value
