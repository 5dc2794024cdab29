"""Codes: what is generated, what may be typed, what of it is public."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udpsend.errors import UsageError
from udpsend.rendezvous import code as code_module
from udpsend.rendezvous.code import MAX_CODE_LENGTH, Code, generate_code, parse_code, pick_words, words

GOLDEN_CODE = "7579-cough-stony"
GOLDEN_NAMEPLATE = "x5aa"


def test_the_word_list_is_the_short_one_of_the_eff() -> None:
    assert len(words()) == len(set(words())) == 1296
    assert all(re.fullmatch(r"[a-z]{3,5}|yo-yo", word) for word in words())
    assert (words()[0], words()[-1]) == ("acid", "zoom")


def test_words_of_one_code_cannot_be_read_as_another_code() -> None:
    """A dash inside of a word must not make two codes the same."""
    assert sum("-" in word for word in words()) == 1
    assert not {"yo", "yo-yo-yo"} & set(words())


def test_generated_codes_have_the_form_and_are_not_weak(seed: int) -> None:
    random = Random(seed)
    for _ in range(2000):
        text = generate_code(random.randbytes)
        assert re.fullmatch(r"[0-9]{4}-[a-z]{2,5}(-yo)?-[a-z]{2,5}(-yo)?", text)
        code = parse_code(text)
        assert code == Code(text, text[:4], f"udpsend/1/{text[:4]}", text.encode(), None)


def test_generated_codes_use_all_nameplates_and_words() -> None:
    random = Random(1)
    nameplates: Counter[str] = Counter()
    for _ in range(20_000):
        nameplates[generate_code(random.randbytes)[0]] += 1
    assert set(nameplates) == set("0123456789")
    assert max(nameplates.values()) < 1.1 * min(nameplates.values())
    assert len({word for _ in range(20_000) for word in pick_words(random.randbytes(32), 2)}) == 1296


def test_a_code_is_golden() -> None:
    assert generate_code(Random(4821).randbytes) == GOLDEN_CODE


@pytest.mark.parametrize(
    "typed",
    [
        "4821-marble-otter",
        "4821 marble otter",
        "4821_marble_otter",
        "  4821--Marble  OTTER \n",
        "4821–marble—otter",  # dashes that a phone makes of hyphens
        "４８２１ marble otter",  # full width digits
        "4821-mar\u200bble-otter\ufeff",  # what copying brings along
        "4821\tmarble\u00a0otter",
        "-4821-marble-otter-",
    ],
)
def test_a_code_can_be_typed_in_many_ways(typed: str) -> None:
    assert parse_code(typed) == parse_code("4821-marble-otter")


@given(st.integers(0, 2**64), st.data())
@settings(max_examples=200)
def test_a_generated_code_survives_case_and_separators(number: int, data: st.DataObject) -> None:
    text = generate_code(Random(number).randbytes)
    separators = st.text("-_ ", min_size=1, max_size=3)
    typed = "".join(data.draw(separators) if c == "-" else data.draw(st.sampled_from([c, c.upper()])) for c in text)
    assert parse_code(typed).text == text


@given(st.text(max_size=60))
@settings(max_examples=500)
def test_normalising_twice_changes_nothing(text: str) -> None:
    # With a nameplate in front, so that no Argon2id is computed.
    try:
        once = parse_code("0000-x" + text)
    except UsageError:
        return
    assert parse_code(once.text) == once


@pytest.mark.parametrize("typed", ["", "   ", "-_-", "\u200b"])
def test_an_empty_code_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="empty"):
        parse_code(typed)


def test_a_long_code_is_refused() -> None:
    parse_code("1234-" + "x" * (MAX_CODE_LENGTH - 5))
    with pytest.raises(UsageError, match="longer than 128"):
        parse_code("1234-" + "x" * (MAX_CODE_LENGTH - 4))


@pytest.mark.parametrize("typed", ["1234-a\x00b", "1234-\x1b[31mred", "1234-\x7fword", "1234-\udcffword"])
def test_control_characters_are_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="control characters"):
        parse_code(typed)


def test_without_a_nameplate_one_is_hashed_from_the_whole() -> None:
    code = parse_code("Correct Horse Battery")
    assert code.text == "correct-horse-battery"
    assert code.password == b"correct-horse-battery"
    assert code.nameplate == GOLDEN_NAMEPLATE
    assert code.topic == f"udpsend/1/{GOLDEN_NAMEPLATE}"
    assert code.weak is None


@pytest.mark.parametrize("typed", ["4821", "482-marble-otter", "48212-marble-otter", "a4821-marble-otter"])
def test_what_does_not_open_with_four_digits_has_no_nameplate(typed: str) -> None:
    assert re.fullmatch("x[0-9a-f]{3}", parse_code(typed).nameplate)


def test_the_topic_says_nothing_about_the_words() -> None:
    assert parse_code("4821-marble-otter").topic == parse_code("4821-acid-zoom").topic


@pytest.mark.parametrize(
    ("typed", "weak"),
    [
        ("4821-ab", True),
        ("4821-abc-d", True),
        ("4821-ant-elf", False),
        ("word", True),
        ("4821", True),
        ("marble-otter", True),  # 11 letters, of which 12 bits are public
        ("marble-otter-acid", False),
    ],
)
def test_short_codes_draw_a_warning(typed: str, weak: bool) -> None:
    assert (parse_code(typed).weak is not None) is weak


def test_a_code_does_not_show_its_secret_in_a_traceback() -> None:
    assert "marble" not in repr(parse_code("4821-marble-otter"))


def test_without_argon2id_a_code_with_a_nameplate_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf import argon2

    def unsupported(**_: object) -> None:
        raise UnsupportedAlgorithm("no Argon2id")

    monkeypatch.setattr(argon2, "Argon2id", unsupported)
    assert parse_code("4821-marble-otter").nameplate == "4821"
    with pytest.raises(UsageError, match="4 digits"):
        parse_code("marble otter acid")


def test_the_licence_of_the_words_is_shipped() -> None:
    assert code_module.__file__ is not None
    script = (
        "from importlib import resources; print((resources.files('udpsend.rendezvous') / 'WORDS-LICENSE').read_text())"
    )
    text = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "Electronic Frontier Foundation" in text
    assert "Creative Commons Attribution 3.0 United States" in text
