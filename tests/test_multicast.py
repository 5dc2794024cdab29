"""The mailbox of the local network: on loopback only, and in namespaces made here."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import LOOPBACK, Mailman, wait_until
from udpsend.errors import BadPacket
from udpsend.rendezvous import multicast
from udpsend.rendezvous.messages import MAX_MESSAGE_SIZE
from udpsend.rendezvous.multicast import MulticastMailbox, frame, open_multicast, parse_frame_untrusted
from udpsend.rendezvous.multicast_groups import GROUP, GROUP_IPV6, PORT, Group, interfaces_by_version

TOPIC = f"udpsend/1/test-{os.getpid()}"  # not that of another run on this machine


@pytest.fixture(autouse=True)
def _unrestricted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(multicast.ENVIRONMENT, raising=False)


@contextlib.contextmanager
def mailbox(
    topic: str = TOPIC, interfaces: tuple[str, ...] = (LOOPBACK,)
) -> Iterator[tuple[MulticastMailbox, Mailman]]:
    man = Mailman()
    box = open_multicast(topic, man.on_message, man.on_state, interfaces)
    try:
        yield box, man
    finally:
        box.close()
        assert not box._thread.is_alive()


def test_messages_cross_on_loopback() -> None:
    largest = bytes(range(256)) * (MAX_MESSAGE_SIZE // 256)
    with mailbox() as (a, man_a), mailbox() as (b, man_b), mailbox(TOPIC + "2") as (_, man_c):
        for man in (man_a, man_b, man_c):
            man.wait_until_up()
        a.publish(b"one")
        a.publish(largest)
        b.publish(b"two")
        man_b.wait_for(b"one")
        man_b.wait_for(largest)
        man_a.wait_for(b"two")
        assert man_a.states == [("local network", True, "")]
        assert not man_c.messages


def test_close_loses_nothing_that_was_published() -> None:
    with mailbox() as (_, man):
        man.wait_until_up()
        with mailbox() as (leaving, man_leaving):
            man_leaving.wait_until_up()
            leaving.publish(b"bye")
        man.wait_for(b"bye")
        leaving.publish(b"after the end: dropped")
        leaving.close()


def send_to_group(*datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
        stranger.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
        for datagram in datagrams:
            stranger.sendto(datagram, (GROUP, PORT))


def test_strangers_are_ignored() -> None:
    with mailbox() as (_, man):
        man.wait_until_up()
        good = frame(TOPIC, b"good")
        send_to_group(
            b"", b"UDPS", good[:-4], b"X" + good[1:], good[:4] + b"\x02" + good[5:], frame(TOPIC, bytes(9000)), good
        )
        man.wait_for(b"good")
        assert man.messages == [b"good"]


def test_a_flood_of_another_topic_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multicast, "BURST", 5.0)
    monkeypatch.setattr(multicast, "MAX_MESSAGES_PER_SECOND", 1e-6)
    with mailbox() as (_, man):
        man.wait_until_up()
        send_to_group(*[frame("another", b"x")] * 50, frame(TOPIC, b"good"))
        man.wait_for(b"good")
        send_to_group(*[frame(TOPIC, b"x")] * 50, frame("another", b"end"))
        wait_until(lambda: len(man.messages) == 5)
        with mailbox() as (other, man_other):
            man_other.wait_until_up()
            other.publish(b"over the limit of the first")
            man_other.wait_for(b"over the limit of the first")
        assert man.messages == [b"good"] + [b"x"] * 4


def test_interfaces_can_be_restricted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert multicast._restricted(None) is None
    assert multicast._restricted(("a", "b")) == frozenset({"a", "b"})
    monkeypatch.setenv(multicast.ENVIRONMENT, f"{LOOPBACK}, 192.0.2.1,")
    assert multicast._restricted(None) == frozenset({LOOPBACK, "192.0.2.1"})
    assert multicast._restricted(("192.0.2.1", "192.0.2.2")) == frozenset({"192.0.2.1"})
    monkeypatch.setenv(multicast.ENVIRONMENT, "192.0.2.1")
    with mailbox() as (box, man):  # 127.0.0.1 is allowed by us, and not by the environment
        wait_until(lambda: man.states)
        assert man.states == [("local network", False, "no interface with an allowed address")]
        box.publish(b"to nobody")


def test_a_socket_that_cannot_be_had_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[Group]:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(multicast, "open_groups", fail)
    with mailbox() as (box, man):
        wait_until(lambda: man.states)
        box.publish(b"to nobody")
        assert man.states == [("local network", False, "Operation not permitted")]


def test_golden_frame() -> None:
    assert frame("udpsend/1/0000", b"hi").hex() == "5544505301" + "b62606ae451c474cf3a9cfbaf943b56d" + "6869"
    assert parse_frame_untrusted("udpsend/1/0000", frame("udpsend/1/0000", b"hi")) == b"hi"


@given(st.binary(max_size=60), st.booleans())
def test_any_datagram_raises_bad_packet_only(data: bytes, has_magic: bool) -> None:
    with contextlib.suppress(BadPacket):
        parse_frame_untrusted(TOPIC, multicast.MAGIC + data if has_magic else data)


# In a namespace: nothing there but what the test makes.

PEER = """
import sys, threading
from udpsend.rendezvous.multicast import open_multicast
inbox, seen, over = [], threading.Event(), threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
def on_message(message):
    if message.decode() != sys.argv[1]:
        inbox.append(message)
        seen.set()
up = threading.Event()
box = open_multicast("udpsend/1/namespace", on_message, lambda name, is_up, detail: is_up and up.set())
assert up.wait(20), "not up"
for _ in range(200):
    box.publish(sys.argv[1].encode())
    if seen.wait(0.1):
        break
print(inbox[0].decode() if inbox else "nobody", flush=True)
while not over.wait(0.1):  # the other side may join its group later
    box.publish(sys.argv[1].encode())
box.close()
"""


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two, joined by a cable whose ends have addresses but no route to anywhere; only their `lo` is up as well."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and ip (Debian package iproute2)")
    suffix = uuid.uuid4().hex[:6]
    names = (f"udps-a-{suffix}", f"udps-b-{suffix}")
    try:
        for name in names:
            if subprocess.run(["ip", "netns", "add", name], check=False).returncode != 0:
                pytest.skip("root may not make network namespaces here: a container")
        run_in = ["ip", "-n", names[0]]
        subprocess.run(
            [*run_in, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1]], check=True
        )
        for number, name in enumerate(names):
            subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
            subprocess.run(["ip", "-n", name, "address", "add", f"10.77.0.{number + 1}/32", "dev", "cable"], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def peer(namespace: str, word: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-W", "error", "-c", PEER, word]
    environment = {name: value for name, value in os.environ.items() if name != multicast.ENVIRONMENT}
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, **streams, text=True, env=environment)


def heard(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What each of them heard first. They speak until both have."""
    words = [process.stdout.readline().strip() for process in processes if process.stdout]
    results = [process.communicate(timeout=60) for process in processes]
    assert not any(process.returncode for process in processes), results
    return words


def talk(*where: str) -> None:
    """Two processes, one in each namespace named, hear each other's word."""
    processes = [peer(namespace, word) for namespace, word in zip(where, ("left", "right"), strict=True)]
    assert heard(processes) == ["right", "left"]


def test_two_processes_on_a_host_with_nothing_but_loopback(namespaces: tuple[str, str]) -> None:
    talk(namespaces[0], namespaces[0])


def test_two_hosts_on_one_cable_without_any_route(namespaces: tuple[str, str]) -> None:
    for name in namespaces:
        subprocess.run(["ip", "-n", name, "link", "set", "cable", "up"], check=True)
    talk(*namespaces)


def test_a_network_that_comes_later(namespaces: tuple[str, str]) -> None:
    processes = [peer(namespace, word) for namespace, word in zip(namespaces, ("left", "right"), strict=True)]
    for name in namespaces:
        subprocess.run(["ip", "-n", name, "link", "set", "cable", "up"], check=True)
    assert heard(processes) == ["right", "left"]


def test_two_hosts_with_nothing_but_the_ipv6_addresses_they_gave_themselves(namespaces: tuple[str, str]) -> None:
    for name in namespaces:
        subprocess.run(["ip", "-n", name, "address", "flush", "dev", "cable"], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "cable", "addrgenmode", "eui64"], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "cable", "up"], check=True)
    talk(*namespaces)


def test_interfaces_of_both_versions() -> None:
    everything, loopback = interfaces_by_version(None), interfaces_by_version(frozenset({LOOPBACK}))
    index = socket.if_nametoindex("lo")
    assert everything[socket.AF_INET][index] == LOOPBACK
    assert next(iter(everything[socket.AF_INET])) == index
    assert set(loopback[socket.AF_INET]) == {index}
    assert set(loopback[socket.AF_INET6]) <= {index}


def test_what_came_to_this_host_alone_over_ipv6_is_ignored() -> None:
    if not interfaces_by_version(frozenset({LOOPBACK}))[socket.AF_INET6]:
        pytest.skip("no IPv6 on loopback here")
    with mailbox() as (_, man), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as stranger:
        man.wait_until_up()
        stranger.sendto(frame(TOPIC, b"to this host alone"), ("::1", PORT))
        send_to_group(frame(TOPIC, b"to the group"))
        man.wait_for(b"to the group")
        assert b"to this host alone" not in man.messages


def test_the_ipv6_group_is_transient_and_of_one_link() -> None:
    """RFC 4291, section 2.7: flags 1, scope 2."""
    assert GROUP_IPV6.startswith("ff12::")
