"""A diagnosis as lines of text: the picture of the way out first, then each examination, then with whom it works."""

from __future__ import annotations

from udpsend.cli.escape import escape
from udpsend.cli.quantity import address_text, round_trip_text, size_text
from udpsend.doctor.diagnosis import Behaviour, Diagnosis, Lifetime, Nat, Place, System
from udpsend.doctor.outlook import Chance, kind_in_plain_words, prospects

NAME_WIDTH = 17
_MARKS = {Chance.YES: "yes", Chance.SLOW: "likely", Chance.NO: "no"}


def picture(diagnosis: Diagnosis, *, unicode: bool) -> list[str]:
    """The path from here to the internet, three stations side by side, as rows that are safe to print."""
    nat = diagnosis.ipv4 if diagnosis.ipv4.is_open_to_udp or not diagnosis.ipv6.is_open_to_udp else diagnosis.ipv6
    brokers = sum(place.seconds is not None for place in diagnosis.brokers)
    servers = sum(place.seconds is not None for place in diagnosis.stun_servers)
    own = [nat.local[0] if nat.local else next(iter(diagnosis.system.addresses), "?")]
    if diagnosis.mtu.interface is not None:
        own.append(f"MTU {diagnosis.mtu.interface}")
    internet = [
        f"{servers} of {len(diagnosis.stun_servers)} STUN servers",
        f"{brokers} of {len(diagnosis.brokers)} brokers",
    ]
    stations = [("this host", own), ("the internet", internet)]
    if nat.mapping is not Behaviour.NONE or not nat.is_open_to_udp:
        stations.insert(1, ("router", _router_rows(diagnosis, nat)))
    arrow, broken = ("──▶", "─✕ ") if unicode else ("-->", "-x ")
    way = arrow if nat.is_open_to_udp else broken
    columns = [_box(title, rows, unicode) for title, rows in stations]
    height = max(map(len, columns))
    widths = [len(column[0]) for column in columns]
    lines = []
    for row in range(height):
        gap = f" {way} " if row == 2 else "     "
        cells = (
            column[row] if row < len(column) else " " * width for column, width in zip(columns, widths, strict=True)
        )
        lines.append("  " + gap.join(cells).rstrip())
    return lines


def _router_rows(diagnosis: Diagnosis, nat: Nat) -> list[str]:
    if nat.public is None:
        rows = ["not asked through" if nat.not_asked else "lets no UDP through"]
    elif nat.is_symmetric:
        rows = [nat.public[0], "hard NAT"]
    else:
        rows = [nat.public[0], "NAT" if nat.mapping is Behaviour.NOT_TOLD else "easy NAT"]
    if nat.routers > 1:
        rows.append(f"{nat.routers} routers, one behind the other")
    if diagnosis.port_mapping.address is not None:
        rows.append(f"maps ports ({diagnosis.port_mapping.protocol})")
    return rows


def _box(title: str, rows: list[str], unicode: bool) -> list[str]:
    horizontal, vertical, corners = ("─", "│", "┌┐└┘") if unicode else ("-", "|", "++++")
    inside = [escape(text) for text in (title, *rows)]
    width = max(map(len, inside))
    middle = [f"{vertical} {text.ljust(width)} {vertical}" for text in inside]
    edge = horizontal * (width + 2)
    return [corners[0] + edge + corners[1], *middle, corners[2] + edge + corners[3]]


def lines(diagnosis: Diagnosis) -> list[str]:
    """Everything else; what servers and routers said is in it, so it has to be escaped when it is printed."""
    return [
        *_places("Brokers", diagnosis.brokers),
        *_places("STUN servers", diagnosis.stun_servers),
        *([] if diagnosis.relay is None else _places("Relay", (diagnosis.relay,))),
        *_family("IPv4", diagnosis.ipv4, diagnosis),
        *_family("IPv6", diagnosis.ipv6, diagnosis),
        _line("Port mapping", _port_mapping(diagnosis)),
        *_system(diagnosis),
        "",
        "A direct path to a peer",
        *_outlook(diagnosis),
    ]


def _line(name: str, text: str) -> str:
    return f"{name:{NAME_WIDTH}} {text}"


def _places(name: str, places: tuple[Place, ...]) -> list[str]:
    if not places:
        return [_line(name, "none to ask")]
    texts = [
        f"{place.name}: {place.detail or 'no answer'}"
        if place.seconds is None
        else f"{place.name}: {round_trip_text(place.seconds)}" + (f" ({place.detail})" if place.detail else "")
        for place in places
    ]
    return [_line(name if index == 0 else "", text) for index, text in enumerate(texts)]


def _nat(name: str, nat: Nat) -> list[str]:
    found = [_line(name, kind_in_plain_words(nat))]
    if nat.public is None:
        return found
    if nat.local is not None:
        here, outside = address_text(nat.local), address_text(nat.public)
        found.append(_line("", f"{here} here, {outside} outside; ports {nat.ports.value}"))
    hairpin = {True: "yes", False: "no", None: "not told"}[nat.hairpin]
    found.append(
        _line("", f"RFC 4787: mapping {nat.mapping.value}, filtering {nat.filtering.value}, hairpinning {hairpin}")
    )
    if nat.lifetime is not None:
        found.append(_line("", f"mapping lifetime: {_lifetime(nat.lifetime)}"))
    return found


def _family(name: str, nat: Nat, diagnosis: Diagnosis) -> list[str]:
    has_address = any((":" in address) == (name == "IPv6") for address in diagnosis.system.addresses)
    return _nat(name, nat) if nat.is_open_to_udp or has_address else [_line(name, f"this host has no {name} address")]


def _lifetime(lifetime: Lifetime) -> str:
    if lifetime.detail:
        return f"not told: {lifetime.detail}"
    if lifetime.dead is None:
        return f"more than {lifetime.alive:g} s" if lifetime.alive is not None else "not told"
    return f"between {lifetime.alive or 0:g} and {lifetime.dead:g} s without traffic"


def _port_mapping(diagnosis: Diagnosis) -> str:
    found = diagnosis.port_mapping
    if found.address is None:
        return f"none ({found.detail})" if found.detail else "none"
    return f"{found.protocol}, {address_text(found.address)}"


def _system(diagnosis: Diagnosis) -> list[str]:
    system, mtu = diagnosis.system, diagnosis.mtu
    interface = "not told" if mtu.interface is None else f"{mtu.interface} bytes at the interface"
    path = "" if mtu.path is None else f", at least {mtu.path} on the way to a server"
    return [
        _line("MTU", interface + path),
        _line("Own addresses", ", ".join(system.addresses) or "none"),
        _line("Socket buffers", _buffers(system)),
        _line("Offload", f"sending {_works(system.segmentation)}, receiving {_works(system.coalescing)}"),
    ]


def _buffers(system: System) -> str:
    granted = f"{size_text(system.receive_buffer)} to receive, {size_text(system.send_buffer)} to send"
    if system.receive_buffer >= system.buffer_wanted:
        return granted
    return f"{granted}; for fast networks: sysctl -w net.core.rmem_max={system.buffer_wanted}"


def _works(state: bool | None) -> str:
    return {True: "works", False: "does not work", None: "is not there"}[state]


def _outlook(diagnosis: Diagnosis) -> list[str]:
    table = prospects(diagnosis)
    width = max(len(prospect.peer.name) for prospect in table)
    return [
        f"  {prospect.peer.name:{width}}  {_MARKS[prospect.chance]}" + (f": {prospect.why}" if prospect.why else "")
        for prospect in table
    ]
