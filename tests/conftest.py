"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
import random
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers import wait_until

# The time that one example takes says how busy the machine is, and nothing of the program.
settings.register_profile("untimed", deadline=None, print_blob=True)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def _options_are_given_by_tests_only() -> None:
    """Not by the user, who may have exported a broker of theirs for the program."""
    for name in [name for name in os.environ if name.startswith("UDPSEND_") and name != "UDPSEND_SEED"]:
        del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> None:
    """What a script starts in the background, or nohup, ignores these, and so does all that the tests would start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # still ends nothing here, and is the default in new processes


@pytest.fixture(scope="session", autouse=True)
def _modes_are_what_they_should_be() -> None:
    """What is received is subject to the umask, and may then differ from what is sent."""
    os.umask(0o022)


@pytest.fixture(autouse=True)
def _what_a_test_began_has_ended() -> Iterator[None]:
    """Also what the program leaves to threads that nobody waits for: the descriptors that they close meanwhile, and
    they themselves, would be counted by another test, perhaps of another file."""
    before = set(threading.enumerate())
    yield
    wait_until(lambda: before.issuperset(threading.enumerate()), "the end of its threads")


@pytest.fixture
def seed() -> int:
    """The seed of a randomised test. pytest shows it when the test fails; UDPSEND_SEED replays it."""
    value = int(os.environ.get("UDPSEND_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"replay with UDPSEND_SEED={value}")
    return value


@pytest.fixture
def rng(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where files are received."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """A process that embeds the library may have more open than the 1,023 that select takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("no more than 1,023 descriptors may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1030)]
    yield
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Every descriptor is closed, and every thread has ended."""
    gc.collect()  # or what an earlier test left in a cycle is closed meanwhile, and there are fewer
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("udpsend-")] == []
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
