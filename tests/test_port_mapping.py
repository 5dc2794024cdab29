"""Port mapping: the three protocols against routers that behave, refuse and lie, and the life of a mapping."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.routers import EXTERNAL, GATEWAY, IgdRouter, nat_pmp_answer, pcp_answer, ports
from tests.servers import LOOPBACK, UdpServer, wait_until
from udpsend.errors import BadPacket
from udpsend.punching import gateway, igd, mappers, pcp, portmap
from udpsend.punching.gateway import default_gateway, find_gateway, is_behind_nat
from udpsend.punching.mappers import IgdMapper, PortMapError, PortMapping, RouterPorts
from udpsend.punching.portmap import PortMapper

PORT = 5000
NONCE = bytes(range(12))


class Told:
    """What a mapper said."""

    def __init__(self) -> None:
        self.mappings: list[PortMapping] = []
        self.failures: list[str] = []

    @contextmanager
    def mapper(self, where: RouterPorts) -> Iterator[PortMapper]:
        mapper = PortMapper(GATEWAY, PORT, self.mappings.append, self.failures.append, where)
        try:
            wait_until(lambda: self.mappings or self.failures, "an outcome")
            yield mapper
        finally:
            mapper.close()


def test_pcp_maps_and_deletes() -> None:
    told = Told()
    with UdpServer(lambda request: [pcp_answer(request)]) as router:
        with told.mapper(ports(pcp=router.port)):
            assert told.mappings == [PortMapping("PCP", (EXTERNAL, 40000), 600)]
        first, last = router.received[0], router.received[-1]
    assert first[:2] == b"\x02\x01"
    assert int.from_bytes(first[4:8]) == 600
    assert ipaddress.ip_address(first[8:24]) == ipaddress.ip_address(f"::ffff:{LOOPBACK}")
    assert int.from_bytes(first[40:42]) == PORT
    assert last[4:8] == bytes(4), "no deletion"
    assert last[24:36] == first[24:36], "another nonce"


def test_router_that_knows_only_nat_pmp() -> None:
    told = Told()
    with UdpServer(lambda request: [nat_pmp_answer(request)]) as router:
        with told.mapper(ports(pcp=router.port)):
            assert told.mappings == [PortMapping("NAT-PMP", (EXTERNAL, 40001), 600)]
        assert router.received[-1] == b"\x00\x01\x00\x00" + PORT.to_bytes(2) + bytes(6)


def test_mapping_is_renewed_and_a_new_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portmap, "MIN_RENEWAL", 0.01)
    monkeypatch.setattr(portmap, "MAX_RENEWAL", 0.01)
    told = Told()
    hosts = iter([EXTERNAL, EXTERNAL, "203.0.113.99"])
    last = [EXTERNAL]

    def answer(request: bytes) -> list[bytes]:
        last[0] = next(hosts, last[0])
        return [pcp_answer(request, host=last[0])]

    with UdpServer(answer) as router, told.mapper(ports(pcp=router.port)):
        wait_until(lambda: len(told.mappings) == 2, "the new address")
        assert [mapping.address[0] for mapping in told.mappings] == [EXTERNAL, "203.0.113.99"]
        # A renewal wishes for the port that was granted.
        assert int.from_bytes(router.received[1][42:44]) == 40000


def test_renewal_survives_a_router_that_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portmap, "MIN_RENEWAL", 0.01)
    monkeypatch.setattr(portmap, "MAX_RENEWAL", 0.01)
    told = Told()
    requests = 0

    def answer(request: bytes) -> list[bytes]:
        nonlocal requests
        requests += 1
        if requests == 2:
            return [pcp_answer(request, result=7)]
        return [pcp_answer(request, port=40000 if requests == 1 else 40002)]

    with UdpServer(answer) as router, told.mapper(ports(pcp=router.port)):
        wait_until(lambda: len(told.mappings) == 2, "the mapping after the restart")
        assert told.mappings[1].address == (EXTERNAL, 40002)


def test_nobody_there() -> None:
    told = Told()
    with told.mapper(ports()):
        assert told.mappings == []
        assert len(told.failures) == 1
        assert "does not speak it" in told.failures[0]


@pytest.mark.parametrize("result", [2, 7, 8, 12, 13, 99])
def test_router_that_says_no_is_asked_by_upnp_then(result: int) -> None:
    told = Told()
    with (
        IgdRouter() as home,
        UdpServer(home.search_answer) as ssdp,
        UdpServer(lambda request: [pcp_answer(request, result=result)]) as router,
        told.mapper(ports(router.port, ssdp.port)),
    ):
        assert told.mappings == [PortMapping("UPnP", (EXTERNAL, PORT), 600)]


def test_refusal_is_told() -> None:
    told = Told()
    with UdpServer(lambda request: [pcp_answer(request, result=2)]) as router, told.mapper(ports(pcp=router.port)):
        assert told.failures[0].startswith("PCP: it does not permit that")


@pytest.mark.parametrize("version", [1, 2])
def test_upnp_maps_and_deletes(version: int) -> None:
    told = Told()
    with IgdRouter(version) as home, UdpServer(home.search_answer) as ssdp:
        with told.mapper(ports(ssdp=ssdp.port)):
            external = PORT if version == 1 else 45678
            assert told.mappings == [PortMapping("UPnP", (EXTERNAL, external), 600)]
        action, arguments = home.calls[1]
        assert action == ("AddPortMapping" if version == 1 else "AddAnyPortMapping")
        assert arguments["NewInternalClient"] == LOOPBACK
        assert arguments["NewInternalPort"] == str(PORT)
        assert arguments["NewProtocol"] == "UDP"
        assert arguments["NewLeaseDuration"] == "600"
        assert home.calls[-1] == (
            "DeletePortMapping",
            {"NewRemoteHost": "", "NewExternalPort": str(external), "NewProtocol": "UDP"},
        )


def test_upnp_takes_another_port_when_the_wish_is_taken() -> None:
    told = Told()
    with IgdRouter(errors={"AddPortMapping": [718, 718]}) as home, UdpServer(home.search_answer) as ssdp:
        with told.mapper(ports(ssdp=ssdp.port)):
            assert told.mappings[0].address[1] != PORT
        assert home.calls[-1][1]["NewExternalPort"] == str(told.mappings[0].address[1])


def test_upnp_of_a_router_that_is_silent_where_it_was_found() -> None:
    """It has restarted, and listens at another port: the search is what finds that."""
    with socket.create_server((LOOPBACK, 0)) as silent, IgdRouter() as home, UdpServer(home.search_answer) as ssdp:
        mapper = IgdMapper(GATEWAY, PORT, ports(ssdp=ssdp.port))
        there = home.description_text()
        home.description = there.replace("/ctl", f"http://{LOOPBACK}:{silent.getsockname()[1]}/ctl")
        with pytest.MonkeyPatch.context() as hasty:
            hasty.setattr(mappers, "HTTP_TIMEOUT", 0.1)
            with pytest.raises(PortMapError, match="no answer to UPnP"):
                mapper.obtain()
        home.description = there
        assert mapper.obtain() == PortMapping("UPnP", (EXTERNAL, PORT), 600)


def test_upnp_mapping_of_which_the_renewal_failed_is_deleted() -> None:
    """One of a router that knows only permanent ones would stay for good."""
    with IgdRouter() as home, UdpServer(home.search_answer) as ssdp:
        mapper = IgdMapper(GATEWAY, PORT, ports(ssdp=ssdp.port))
        mapper.obtain()
        home.errors = {"GetExternalIPAddress": [501]}
        with pytest.raises(PortMapError, match="501"):
            mapper.obtain()
        mapper.release()
        assert home.calls[-1][0] == "DeletePortMapping"


def test_upnp_that_knows_only_permanent_mappings() -> None:
    told = Told()
    with (
        IgdRouter(errors={"AddPortMapping": [725]}) as home,
        UdpServer(home.search_answer) as ssdp,
        told.mapper(ports(ssdp=ssdp.port)),
    ):
        assert told.mappings == [PortMapping("UPnP", (EXTERNAL, PORT), 0)]
        assert home.calls[-1][1]["NewLeaseDuration"] == "0"


@pytest.mark.parametrize("external", ["", "0.0.0.0", "127.0.0.1", "224.0.0.1", "::1", "169.254.1.1", "x" * 100])  # noqa: S104
def test_upnp_external_addresses_that_nobody_has(external: str) -> None:
    told = Told()
    with (
        IgdRouter(external=external) as home,
        UdpServer(home.search_answer) as ssdp,
        told.mapper(ports(ssdp=ssdp.port)),
    ):
        assert told.mappings == []


@pytest.mark.parametrize(
    "description",
    [
        "",
        "<root/>",
        "<root><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>"
        "<controlURL>http://192.0.2.9/ctl</controlURL></service></root>",
        '<!DOCTYPE r [<!ENTITY a "b">]><root>&a;</root>',
        "<a>" * 20000,
        "<a>" * 9000 + "</a>" * 9000,
        "x" * 70000,
        '<?xml version="1.0" encoding="utf-7"?><root/>',
    ],
)
def test_upnp_descriptions_that_lead_nowhere(description: str) -> None:
    told = Told()
    with (
        IgdRouter(description=description) as home,
        UdpServer(home.search_answer) as ssdp,
        told.mapper(ports(ssdp=ssdp.port)),
    ):
        assert told.mappings == []
        assert home.calls == []


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.9:80/root.xml",
        "https://127.0.0.1/root.xml",
        "file:///etc/passwd",
        "http://127.0.0.1@192.0.2.9/",
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "http://127.0.0.1/\x07",
    ],
)
def test_search_answers_that_lead_elsewhere(url: str) -> None:
    with pytest.raises(BadPacket):
        igd.parse_search_answer_untrusted(IgdRouter.location(url), LOOPBACK)


def test_closing_while_the_router_is_silent_does_not_wait_for_it() -> None:
    told = Told()
    with UdpServer(lambda request: []) as silent:
        mapper = PortMapper(GATEWAY, PORT, told.mappings.append, told.failures.append, ports(silent.port, silent.port))
        wait_until(lambda: silent.received, "a request")
        mapper.close()
    assert not told.mappings
    assert not told.failures


def test_answers_come_from_the_router_alone() -> None:
    """A mapper's socket is connected: what another port sends to it does not come in."""
    told = Told()
    with UdpServer(lambda request: []) as silent:
        mapper = PortMapper(GATEWAY, PORT, told.mappings.append, told.failures.append, ports(silent.port))
        try:
            wait_until(lambda: silent.received, "a request")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(pcp_answer(silent.received[0]), silent.sources[0])
            wait_until(lambda: told.failures, "the end of patience")
        finally:
            mapper.close()
    assert told.mappings == []


# Parsers.


def pcp_map(data: bytes) -> object:
    return pcp.parse_pcp_map_untrusted(data, PORT, NONCE)


def nat_pmp_map(data: bytes) -> object:
    return pcp.parse_nat_pmp_map_untrusted(data, PORT)


def search(data: bytes) -> object:
    return igd.parse_search_answer_untrusted(data, LOOPBACK)


def description(data: bytes) -> object:
    return igd.parse_description_untrusted(data, igd.Url(80, "/"), LOOPBACK)


def action(data: bytes) -> object:
    return igd.parse_action_answer_untrusted(500, data)


REQUEST = pcp.pack_pcp_map(LOOPBACK, PORT, NONCE, 600)
PARSERS: list[tuple[Callable[[bytes], object], bytes]] = [
    (pcp_map, pcp_answer(REQUEST)),
    (nat_pmp_map, nat_pmp_answer(pcp.pack_nat_pmp_map(PORT, 600))),
    (pcp.parse_nat_pmp_address_untrusted, nat_pmp_answer(pcp.pack_nat_pmp_address())),
    (search, IgdRouter.location(f"http://{LOOPBACK}:80/a?b")),
    (description, IgdRouter().description_text().encode()),
    (action, b"<a><errorCode>718</errorCode></a>"),
]


@given(data=st.data())
def test_parsers_raise_nothing_but_bad_packet(data: st.DataObject) -> None:
    parse, valid = data.draw(st.sampled_from(PARSERS))
    position = data.draw(st.integers(0, len(valid)))
    junk = data.draw(st.binary(max_size=40))
    hostile = data.draw(
        st.sampled_from([junk, valid[:position] + junk, valid[:position] + junk + valid[position + len(junk) :]])
    )
    try:
        parse(hostile)
    except BadPacket:
        return


def test_golden_bytes() -> None:
    assert REQUEST.hex() == (
        "0201000000000258" + "00000000000000000000ffff7f000001" + "000102030405060708090a0b"
        "11000000" + "13880000" + "00000000000000000000ffff00000000"
    )
    assert pcp.pack_nat_pmp_map(PORT, 600).hex() == "000100001388000000000258"


@pytest.mark.parametrize(
    "wrong",
    [
        pcp_answer(pcp.pack_pcp_map(LOOPBACK, PORT, bytes(12), 600)),
        pcp_answer(pcp.pack_pcp_map(LOOPBACK, PORT + 1, NONCE, 600)),
        pcp_answer(REQUEST, port=0),
        pcp_answer(REQUEST, host="0.0.0.0"),  # noqa: S104
        pcp_answer(REQUEST, host="255.255.255.255"),
        REQUEST,
    ],
)
def test_pcp_answers_that_are_not_ours(wrong: bytes) -> None:
    with pytest.raises(BadPacket):
        pcp_map(wrong)


# The gateway.

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t{slow}\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t{fast}\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0
eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
"""


def in_host_order(address: str) -> str:
    return f"{struct.unpack('=I', ipaddress.ip_address(address).packed)[0]:08X}"


def test_the_default_gateway_is_the_one_with_the_lowest_metric() -> None:
    table = ROUTES.format(slow=in_host_order("192.168.7.1"), fast=in_host_order("192.168.0.1"))
    assert default_gateway(table) == "192.168.0.1"
    assert default_gateway(ROUTES.splitlines()[0]) is None
    assert default_gateway("") is None


@pytest.mark.parametrize("bind", [LOOPBACK, "::1", "192.0.2.77"])
def test_nothing_is_asked_for_where_the_gateway_does_not_know_the_address(bind: str) -> None:
    assert find_gateway(bind) is None


def test_no_gateway_without_a_route_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "ROUTES", "/nonexistent")
    assert find_gateway() is None


@pytest.mark.parametrize(
    ("own", "needed"), [("10.1.0.70", True), ("100.64.0.1", True), ("192.0.2.2", False), ("127.0.0.1", False)]
)
def test_only_hosts_with_private_addresses_need_a_mapping(own: str, needed: bool) -> None:
    assert is_behind_nat(own) is needed
