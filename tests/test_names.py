"""The names that the other side may send, and those of our own files beside them."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpsend.errors import BadPacket, LocalFileError
from udpsend.files.names import (
    are_ordinary,
    check_name_untrusted,
    check_own_name,
    check_path_untrusted,
    journal_name,
    partial_name,
    quote,
    tree_journal_name,
    tree_name,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "hostile_names.json").read_text())
HOSTILE = [(vector["name"], vector["reason"]) for vector in VECTORS["hostile"]]

# Text in which what is dangerous is likely.
DANGEROUS = ["/", ".", "..", "\\", "\0", "\n", "\x1b", "\u202e", ":", " ", "CON", "nul", "~", "a", "é", "\ud800"]
texts = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(DANGEROUS), max_size=12).map("".join))


@pytest.mark.parametrize(("name", "reason"), HOSTILE, ids=[ascii(name)[:40] for name, _ in HOSTILE])
def test_hostile_name_is_refused_for_its_reason(name: str, reason: str) -> None:
    with pytest.raises(BadPacket) as refusal:
        check_path_untrusted(name)
    assert str(refusal.value) == reason


@pytest.mark.parametrize("name", VECTORS["allowed"], ids=[ascii(name)[:40] for name in VECTORS["allowed"]])
def test_ordinary_name_is_taken_as_it_is(name: str) -> None:
    assert "/".join(check_path_untrusted(name)) == name


@pytest.mark.parametrize("value", [None, 1, b"x", ["x"], {"x": 1}, 1.5, True])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(BadPacket):
        check_path_untrusted(value)


@given(texts)
def test_what_is_taken_stays_below_the_directory(name: str) -> None:
    try:
        components = check_path_untrusted(name)
    except BadPacket:
        return
    root = "/srv/root"
    path = os.path.normpath(os.path.join(root, *components))
    assert path.startswith(root + "/")
    assert path == f"{root}/{name}"
    assert path.count("/") == root.count("/") + len(components)
    for component in components:
        assert 0 < len(component.encode()) <= 255
        assert all(unicodedata.category(c) not in ("Cc", "Cs") for c in component)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b", "con", "x "]), min_size=1, max_size=6))
def test_no_mixture_of_components_leads_out(components: list[str]) -> None:
    harmless = all(component in ("a", "b") for component in components)
    try:
        check_path_untrusted("/".join(components))
    except BadPacket:
        assert not harmless
    else:
        assert harmless


@given(st.text(st.characters(exclude_characters="/", exclude_categories=["C"]), min_size=1, max_size=255))
def test_own_files_fit_beside_any_name(name: str) -> None:
    name = name.encode()[:255].decode(errors="ignore")
    for own in (partial_name(name), tree_name(name), journal_name(name) + "~", tree_journal_name(name) + "~"):
        assert own.startswith(".")
        assert len(own.encode()) <= 255
        with pytest.raises(BadPacket):
            check_path_untrusted(own)


def test_long_names_that_begin_alike_have_partials_of_their_own() -> None:
    assert partial_name("a" * 254 + "b") != partial_name("a" * 254 + "c")
    cut = "a" * 220 + "~" + hashlib.sha256(b"a" * 255).hexdigest()[:16]
    assert partial_name("a" * 255) == f".{cut}.udpsend-part"
    assert journal_name("a" * 255) == f".{cut}.udpsend-journal"
    assert partial_name("report.pdf") == ".report.pdf.udpsend-part"
    assert journal_name("report.pdf") == ".report.pdf.udpsend-journal"
    assert tree_journal_name("report.pdf") == ".report.pdf.udpsend-treelog"


def test_the_sender_hears_of_a_bad_name_first() -> None:
    assert check_own_name("a.txt") == "a.txt"
    for name in ("a\nb", "nul", "x ", "a\\b", "\udc80", "a/b"):
        with pytest.raises(LocalFileError, match="cannot be sent: its name"):
            check_own_name(name)


@given(texts)
def test_quoted_text_is_safe_to_print(text: str) -> None:
    quoted = quote(text)
    assert quoted.isprintable()
    assert not set(quoted) & set("\u202e\u2066\u200f\x1b\n\r")
    quoted.encode()


def test_quoted_text_shows_what_it_is() -> None:
    assert quote("été.txt") == "'été.txt'"
    assert quote("a\x1b[2J\n") == r"'a\x1b[2J\n'"
    assert quote("photo\u202egpj.exe") == r"'photo\u202egpj.exe'"


def test_many_names_at_once_are_judged_as_each_of_them() -> None:
    assert not are_ordinary([""])
    for name in (name for name, _ in HOSTILE if "/" not in name):
        assert not are_ordinary([name])
        assert not are_ordinary(["a", name])
        assert not are_ordinary([name, "b"])
    assert are_ordinary(["README.md", ".hidden", "console", "a" * 200, "nul_"])
    assert are_ordinary([])


@given(st.lists(st.text(st.sampled_from("aCoNuUlLpt19.-_ \n\0é$~"), max_size=6), max_size=5))
def test_what_is_ordinary_is_allowed(names: list[str]) -> None:
    if are_ordinary(names):
        for name in names:
            check_name_untrusted(name)
