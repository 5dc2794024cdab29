"""What a caller gave, looked at before anything begins. Of another type it would fail deep inside, or when the other
side has come."""

from __future__ import annotations

import os
import threading  # noqa: TID251 - a type of what may be given
from collections.abc import Callable, Iterable
from types import UnionType
from typing import Any, TypeGuard

from udpsend.config import Config
from udpsend.errors import UsageError

AnyPath = str | os.PathLike[str]

_FUNCTION: tuple[UnionType, str] = (Callable | None, "a function, or None")  # type: ignore[assignment]
_KINDS: dict[str, tuple[type | UnionType, str]] = {
    "stream": (int | None, "the number of a descriptor, or None"),
    "name": (str, "a text"),
    "text": (str | None, "a text, or None"),
    "code": (str, "a text"),
    "config": (Config | None, "a Config, or None"),
    "on_event": _FUNCTION,
    "confirm": _FUNCTION,
    "accept": _FUNCTION,
    "read_text": _FUNCTION,
    "cancel": (threading.Event | None, "a threading.Event, or None"),
}


def check_types(**given: object) -> None:
    """Raises UsageError. Values are not shown: the code is one."""
    for name, value in given.items():
        kind, words = _KINDS[name]
        if not isinstance(value, kind):
            raise _wrong(name, value, words)


def one_or_several_paths(paths: object) -> list[AnyPath]:
    """Raises UsageError."""
    given = _one_or_several("paths", paths, "paths")
    for path in given:
        if not _is_path(path):
            raise _wrong("one of the paths", path, "a text or a pathlib.Path")
    return given


def one_or_several_patterns(exclude: object) -> list[str]:
    """Raises UsageError."""
    given = _one_or_several("exclude", exclude, "patterns")
    for pattern in given:
        if not isinstance(pattern, str):
            raise _wrong("one of exclude", pattern, "a text")
    return given


def check_directory(directory: object) -> None:
    """Raises UsageError."""
    if not _is_path(directory):
        raise _wrong("directory", directory, "a text or a pathlib.Path")


def _one_or_several(name: str, given: object, words: str) -> list[Any]:
    if isinstance(given, str | os.PathLike):
        return [given]
    if isinstance(given, bytes | bytearray | memoryview) or not isinstance(given, Iterable):
        raise _wrong(name, given, f"a list of {words}, or one")
    return list(given)


def _is_path(path: object) -> TypeGuard[AnyPath]:
    return isinstance(path, str | os.PathLike) and isinstance(os.fspath(path), str)


def _wrong(name: str, value: object, words: str) -> UsageError:
    return UsageError(f"{name} is of the type {type(value).__name__}: it has to be {words}.")
