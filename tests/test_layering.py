"""The architecture, held: who may import whom, where each third-party package comes in, what pure code must not touch.

The tables are those of the design document; to widen one is a decision, and its reason stands beside the entry.
Imports are read from the syntax tree, those inside functions included; what only type checkers see is included too,
because a type is a dependency of the reader.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import udpsend

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "udpsend"

# Each module or package, and the modules or packages of ours that it may import. The longest name that fits counts.
# A room (the second part of the name) may import itself; LEAVES may be imported by all.
LEAVES = ("udpsend.errors", "udpsend.events", "udpsend.config")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "udpsend": ("udpsend.api",),
    "udpsend.__main__": ("udpsend.cli",),
    "udpsend.errors": (),
    "udpsend.events": (),
    "udpsend.config": (),
    "udpsend.cli": ("udpsend", "udpsend.serve", "udpsend.doctor", "udpsend.limits"),
    # Commands without another side.
    "udpsend.cli.local": ("udpsend.cli", "udpsend.files.leftovers", "udpsend.files.sums"),
    # Examines the network with the parts that a session uses, and tries a session.
    "udpsend.doctor": (
        "udpsend.caller",
        "udpsend.shell",
        "udpsend.leaving",
        "udpsend.relaying",
        "udpsend.session",
        "udpsend.net",
        "udpsend.rendezvous",
        "udpsend.punching",
        "udpsend.wire",
    ),
    "udpsend.arguments": (),
    "udpsend.caller": (),
    "udpsend.limits": (),
    "udpsend.api": (
        "udpsend.arguments",
        "udpsend.limits",
        "udpsend.sending",
        "udpsend.streaming",
        "udpsend.receiving",
        "udpsend.caller",
        "udpsend.files",
        "udpsend.rendezvous.code",
    ),
    "udpsend.sending": (
        "udpsend.caller",
        "udpsend.telling",
        "udpsend.shell",
        "udpsend.session",
        "udpsend.files",
        "udpsend.rendezvous.code",
        "udpsend.transfer.messages",
        "udpsend.wire",
    ),
    "udpsend.streaming": (
        "udpsend.caller",
        "udpsend.telling",
        "udpsend.shell",
        "udpsend.session",
        "udpsend.files",
        "udpsend.rendezvous.code",
        "udpsend.transfer.messages",
        "udpsend.wire",
    ),
    "udpsend.receiving": (
        "udpsend.caller",
        "udpsend.telling",
        "udpsend.shell",
        "udpsend.session",
        "udpsend.net.clock",
        "udpsend.files",
        "udpsend.rendezvous.code",
        "udpsend.transfer.messages",
        "udpsend.transfer.receiver",  # what it asks of the other side
        "udpsend.wire",
    ),
    "udpsend.telling": ("udpsend.files",),
    # What both ends of the api share; with it, the one place where pure and effectful parts meet.
    "udpsend.shell": (
        "udpsend.caller",
        "udpsend.session",
        "udpsend.discovery",
        "udpsend.exchange",
        "udpsend.interrupts",
        "udpsend.leaving",
        "udpsend.reporting",
        "udpsend.net",
        "udpsend.rendezvous",
        "udpsend.punching",  # candidates.py asks the system for its addresses: an effect, so not the session's
        "udpsend.transfer.closing",  # what this side says when it stops
        "udpsend.transfer.connection",  # what the ends offer, accept and verify by
        "udpsend.transfer.messages",  # what the connection reports of the file, which the session passes on
        "udpsend.wire",
    ),
    # Where this side can be reached, and the relay among it: sockets and threads, taken out of the shell.
    "udpsend.discovery": ("udpsend.relaying", "udpsend.net", "udpsend.rendezvous", "udpsend.punching", "udpsend.wire"),
    "udpsend.relaying": ("udpsend.unreachable", "udpsend.net", "udpsend.punching", "udpsend.wire"),
    "udpsend.unreachable": (),
    "udpsend.session": (
        "udpsend.rendezvous",
        "udpsend.punching",
        "udpsend.transfer",
        "udpsend.wire",
    ),
    "udpsend.exchange": ("udpsend.caller", "udpsend.session", "udpsend.net.clock"),
    "udpsend.rendezvous": ("udpsend.wire.datagram", "udpsend.wire.json"),
    "udpsend.rendezvous.broker_connection": ("udpsend.net.names", "udpsend.net.segments", "udpsend.unreachable"),
    "udpsend.rendezvous.broker_mailbox": ("udpsend.unreachable",),
    "udpsend.rendezvous.multicast_groups": ("udpsend.net.interfaces",),
    "udpsend.punching": ("udpsend.sealing", "udpsend.wire"),
    "udpsend.punching.candidates": ("udpsend.net.interfaces", "udpsend.wire"),
    "udpsend.files": ("udpsend.wire.ranges", "udpsend.wire.json"),
    # Records are read and written in place: how long they and their headers are is all that files/ knows of them.
    "udpsend.files.read_ahead": ("udpsend.wire.ranges", "udpsend.wire.frames"),
    "udpsend.files.write_behind": ("udpsend.wire.ranges", "udpsend.wire.frames", "udpsend.wire.datagram"),
    "udpsend.files.stream_source": ("udpsend.wire.frames",),
    "udpsend.files.in_order": ("udpsend.wire.ranges", "udpsend.wire.frames", "udpsend.wire.datagram"),
    "udpsend.transfer": ("udpsend.wire",),
    "udpsend.transfer.connection": ("udpsend.sealing", "udpsend.wire"),
    "udpsend.transfer.outbound": ("udpsend.sealing", "udpsend.wire"),
    "udpsend.transfer.train": ("udpsend.sealing", "udpsend.wire"),  # a record's datagrams, and the AEAD over them
    "udpsend.sealing": ("udpsend.wire.packets",),
    "udpsend.reporting": (),
    "udpsend.interrupts": (),
    "udpsend.leaving": (),
    "udpsend.wire": (),
    "udpsend.net": ("udpsend.wire.datagram", "udpsend.wire.relayed"),
    # Whoever takes a train in several calls says where it ends.
    "udpsend.net.portable": ("udpsend.wire.datagram", "udpsend.wire.packets"),
    "udpsend.net.slots": ("udpsend.wire.datagram", "udpsend.wire.packets"),
    "udpsend.net.lanes": ("udpsend.wire.datagram", "udpsend.wire.packets"),
    # serve/ holds strangers to the same bounds and packet sizes as the peers that use it.
    "udpsend.serve": ("udpsend.wire.datagram", "udpsend.rendezvous.mailbox", "udpsend.rendezvous.mqtt_packets"),
}

# The edges of rooms that are pure otherwise: sockets and threads. Their caller imports them, and they one another.
EDGES = (
    "udpsend.rendezvous.broker_connection",
    "udpsend.rendezvous.broker_mailbox",
    "udpsend.rendezvous.mailboxes",
    "udpsend.rendezvous.mqtt",
    "udpsend.rendezvous.multicast",
    "udpsend.rendezvous.multicast_groups",
    "udpsend.rendezvous.stun",
    "udpsend.rendezvous.stun_round",
    "udpsend.punching.portmap",
    "udpsend.punching.mappers",
    "udpsend.punching.gateway",
    "udpsend.punching.hops",
)
MAY_IMPORT_EDGES = ("udpsend.shell", "udpsend.discovery", "udpsend.doctor", *EDGES)
ASKS_THE_SYSTEM = "udpsend.punching.candidates"  # for interfaces and the host's identity, which the session is given

# Each third-party package by the name it is imported under, and its door.
DOORS: dict[str, tuple[str, ...]] = {
    "aioice": (
        "udpsend.rendezvous.stun",
        "udpsend.punching.relay",
        "udpsend.punching.relay_credentials",
        "udpsend.doctor.stun_probe",
    ),
    "amqtt": ("udpsend.serve",),
    "blake3": ("udpsend.files",),
    "click": ("udpsend.cli",),
    "cryptography": (
        "udpsend.rendezvous.channel",  # seals the messages of the handshake
        "udpsend.rendezvous.code",  # Argon2id of a code without a nameplate
        "udpsend.rendezvous.handshake",
        "udpsend.sealing",
    ),
    "ifaddr": ("udpsend.net.interfaces",),
    "msgspec": ("udpsend",),  # Struct, in place of dataclasses: a language feature, used wherever there are values
    "pathspec": ("udpsend.files.ignore",),
    "paho": ("udpsend.rendezvous.mqtt", "udpsend.rendezvous.broker_connection", "udpsend.doctor.places"),
    "segno": ("udpsend.cli",),
    "spake2": ("udpsend.rendezvous.handshake",),
    "stun": ("udpsend.rendezvous.stun",),
    "tqdm": ("udpsend.cli",),
}
# Imported inside functions only. (amqtt is not here: serve/ builds classes on it, and is itself imported late.)
SLOW = ("aioice", "blake3", "paho", "segno", "spake2", "stun", "tqdm")

# Where the time, random bytes and datagrams are arguments; all but EDGES and ASKS_THE_SYSTEM.
SANS_IO = (
    "udpsend.wire",
    "udpsend.transfer",
    "udpsend.sealing",
    "udpsend.punching",
    "udpsend.rendezvous",
    "udpsend.session",
)
EFFECTS = frozenset(
    {"asyncio", "multiprocessing", "queue", "random", "sched", "secrets", "select", "selectors", "signal", "socket"}
    | {"ssl", "subprocess", "threading", "time", "uuid"}
)

LONGEST_MODULE = 300  # lines
LONGER_MODULES: dict[str, str] = {}  # module: the reason why it is longer

TYPE_CHECKERS_ONLY = "TYPE_CHECKING"


@dataclass(frozen=True)
class Import:
    """`importer` (a module of ours) imports `imported`, at `line`; `late` if inside of a function."""

    importer: str
    imported: str
    line: int
    late: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str, path: Path) -> Iterator[Import]:
    yield from _imports_below(ast.parse(path.read_text(), str(path)), module, path.name == "__init__.py", late=False)


def _imports_below(node: ast.AST, module: str, is_package: bool, late: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, child.lineno, late)
        elif isinstance(child, ast.ImportFrom):
            for name in _names_from(child, module, is_package):
                yield Import(module, name, child.lineno, late)
        else:
            runs_later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            unseen = isinstance(child, ast.If) and TYPE_CHECKERS_ONLY in ast.dump(child.test)
            yield from _imports_below(child, module, is_package, late or runs_later or unseen)


def _names_from(node: ast.ImportFrom, module: str, is_package: bool) -> Iterator[str]:
    base = node.module or ""
    if node.level:
        package = module.split(".") if is_package else module.split(".")[:-1]
        base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
    for alias in node.names:
        # `from udpsend import events` names a module, `from udpsend.events import Progress` something in one.
        inner = f"{base}.{alias.name}"
        yield inner if inner in MODULES else base


ALL_IMPORTS = [found for module, path in MODULES.items() for found in imports_of(module, path)]
OURS = [found for found in ALL_IMPORTS if found.imported.split(".")[0] == "udpsend"]
OTHERS = [found for found in ALL_IMPORTS if found.imported.split(".")[0] not in {"udpsend", *sys.stdlib_module_names}]


def is_below(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def entry_for(module: str) -> str | None:
    """The longest name in the table that `module` is or lies below. The bare package stands for itself alone."""
    fitting = [name for name in MAY_IMPORT if module == name or (name != "udpsend" and is_below(module, (name,)))]
    return max(fitting, key=len, default=None)


def is_allowed(found: Import) -> bool:
    entry = entry_for(found.importer)
    if entry is None:
        return False
    if is_below(found.imported, EDGES) and not is_below(found.importer, MAY_IMPORT_EDGES):
        return False
    allowed = MAY_IMPORT[entry]
    if found.imported == "udpsend":
        return "udpsend" in allowed
    room = ".".join(entry.split(".")[:2])
    own = () if room == "udpsend" else (room,)
    others = tuple(name for name in allowed if name != "udpsend")
    return is_below(found.imported, (*LEAVES, *others, *own))


def report(found: list[Import]) -> str:
    return "\n".join(map(str, found))


def test_every_module_is_in_the_table() -> None:
    assert MODULES
    assert [module for module in MODULES if entry_for(module) is None] == []


def test_who_may_import_whom() -> None:
    wrong = [found for found in OURS if not is_allowed(found)]
    assert not wrong, report(wrong)


def test_the_table_allows_nothing_that_nobody_uses() -> None:
    used = {(entry_for(found.importer), found.imported) for found in OURS}
    for entry, allowed in MAY_IMPORT.items():
        assert [name for name in allowed if not any(by == entry and is_below(what, (name,)) for by, what in used)] == []


def test_leaves_import_nothing_of_ours() -> None:
    # What a configuration cannot be, it says with the error that everybody else raises.
    may = ("udpsend.config", "udpsend.errors")
    wrong = [found for found in OURS if found.importer in LEAVES and (found.importer, found.imported) != may]
    assert not wrong, report(wrong)


def test_nothing_imports_the_command_line() -> None:
    wrong = [
        found
        for found in OURS
        if is_below(found.imported, ("udpsend.cli",))
        and not is_below(found.importer, ("udpsend.cli", "udpsend.__main__"))
    ]
    assert not wrong, report(wrong)


def test_third_party_packages_come_in_by_their_door() -> None:
    wrong = [found for found in OTHERS if not is_below(found.importer, DOORS.get(found.imported.split(".")[0], ()))]
    assert not wrong, report(wrong)


def test_slow_packages_are_imported_where_they_are_used() -> None:
    wrong = [found for found in OTHERS if found.imported.split(".")[0] in SLOW and not found.late]
    assert not wrong, report(wrong)


def test_sans_io_code_has_no_effects() -> None:
    effects = [found for found in ALL_IMPORTS if found.imported.split(".")[0] in EFFECTS]
    pure = [found for found in effects if not is_below(found.importer, (*EDGES, ASKS_THE_SYSTEM))]
    wrong = [found for found in pure if is_below(found.importer, SANS_IO)]
    assert not wrong, report(wrong)


def test_modules_are_short() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    too_long = {module: length for module, length in lengths.items() if length > LONGEST_MODULE}
    assert {module: length for module, length in too_long.items() if module not in LONGER_MODULES} == {}
    assert [module for module in LONGER_MODULES if module not in too_long] == [], "exceptions that are none any more"


def test_the_library_shows_what_it_has() -> None:
    """Before it is used, too: who explores it in a shell would not find `send`."""
    assert set(udpsend.__all__) <= set(dir(udpsend))
    assert all(getattr(udpsend, name) for name in udpsend.__all__)


@pytest.mark.parametrize(
    "arguments", [["--help"], *([command, "--help"] for command in ("send", "recv", "serve", "doctor"))]
)
def test_help_loads_nothing_slow(arguments: list[str]) -> None:
    """What keeps `udpsend --help` quick, without a clock: of our packages, click and msgspec (7 ms)
    are loaded for it, and no other."""
    script = (
        "import sys\n"
        "from udpsend.cli import main\n"
        f"status = main({arguments!r})\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
        "sys.exit(status)\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(finished.stderr.split())
    assert "click" in loaded
    assert loaded & (set(DOORS) - {"click", "msgspec"} | {"asyncio", "logging", "ssl"}) == set()


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("udpsend.wire.frames", "udpsend.transfer.sender"),
        ("udpsend.transfer.sender", "udpsend.sealing.seal"),
        ("udpsend.session", "udpsend.rendezvous.mqtt"),
        ("udpsend.rendezvous.machine", "udpsend.rendezvous.stun"),
        ("udpsend.rendezvous.handshake", "udpsend.rendezvous.mqtt"),
        ("udpsend.punching.puncher", "udpsend.rendezvous.machine"),
        ("udpsend.files.sink", "udpsend.wire.frames"),
        ("udpsend.net.udp", "udpsend.wire.packets"),
        ("udpsend.sealing.seal", "udpsend.wire.frames"),
        ("udpsend.errors", "udpsend"),
        ("udpsend.cli.commands", "udpsend.api"),
        ("udpsend.api", "udpsend.cli"),
        ("udpsend.unheard_of", "udpsend.errors"),
    ],
)
def test_the_table_forbids(importer: str, imported: str) -> None:
    """The check itself: a table that allowed everything would pass above, too."""
    assert not is_allowed(Import(importer, imported, 1, late=False))


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("udpsend.transfer.connection", "udpsend.sealing.seal"),
        ("udpsend.transfer.connection", "udpsend.transfer.sender"),
        ("udpsend.transfer.sender", "udpsend.errors"),
        ("udpsend.session", "udpsend.rendezvous.machine"),
        ("udpsend.cli.commands", "udpsend"),
        ("udpsend.cli.display", "udpsend.events"),
        ("udpsend", "udpsend.api"),
        ("udpsend.rendezvous.stun", "udpsend.wire.datagram"),
    ],
)
def test_the_table_allows(importer: str, imported: str) -> None:
    assert is_allowed(Import(importer, imported, 1, late=False))


def test_relative_imports_are_understood() -> None:
    tree = ast.parse("from . import seal\nfrom ..wire.packets import Header\ndef f():\n    import tqdm")
    found = list(_imports_below(tree, "udpsend.sealing.keys", is_package=False, late=False))
    assert [(one.imported, one.late) for one in found] == [
        ("udpsend.sealing.seal", False),
        ("udpsend.wire.packets", False),
        ("tqdm", True),
    ]
