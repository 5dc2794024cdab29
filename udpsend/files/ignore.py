"""What the user does not want to send: `--exclude`, and `.gitignore` files with `--gitignore`."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from udpsend.errors import UsageError
from udpsend.files.disk import FLAGS
from udpsend.files.names import quote

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

MAX_FILE = 1 << 20  # bytes of a .gitignore that are read


class Ignore:
    """The patterns that hold in one directory: the user's, then those of each directory above it, then its own."""

    def __init__(self, patterns: Sequence[str], gitignore: bool) -> None:
        self._gitignore = gitignore
        self._user = _spec(patterns) if patterns else None
        self._specs: tuple[tuple[int, GitIgnoreSpec], ...] = ()

    def below(self, path: str, fd: int, names: Sequence[str]) -> Ignore:
        """The same with what the .gitignore in `path`, open as `fd`, adds."""
        if not self._gitignore or ".gitignore" not in names:
            return self
        try:
            file = os.open(".gitignore", os.O_RDONLY | FLAGS, dir_fd=fd)
        except OSError:
            return self
        try:
            lines = os.read(file, MAX_FILE).decode(errors="replace").splitlines()
        except OSError:
            return self
        finally:
            os.close(file)
        more = Ignore((), True)
        more._user = self._user
        more._specs = (*self._specs, (len(path) + 1, _spec(lines, others_match_nothing=True)))
        return more

    def __bool__(self) -> bool:
        return self._user is not None or self._gitignore

    def matches(self, path: str, is_directory: bool) -> bool:
        """Whether it is not to be sent. The innermost .gitignore that says anything decides."""
        if not self:
            return False
        name = path + "/" if is_directory else path
        if self._user is not None and self._user.match_file(name):
            return True
        if self._gitignore and path.endswith("/.git"):
            return True
        for start, spec in reversed(self._specs):
            decision = spec.check_file(name[start:]).include
            if decision is not None:
                return decision
        return False


def _spec(lines: Iterable[str], *, others_match_nothing: bool = False) -> GitIgnoreSpec:
    """Raises UsageError for what is no pattern, unless it is to match nothing, as it does for git."""
    from pathspec import GitIgnoreSpec

    patterns: list[GitIgnoreSpecPattern] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of `re`, about '[[]'
        for line in lines:
            try:
                patterns += GitIgnoreSpec.from_lines([line]).patterns
            except (ValueError, re.error) as error:
                if not others_match_nothing:
                    raise UsageError(f"{quote(line)} is not a pattern that a .gitignore could have.") from error
    return GitIgnoreSpec(patterns)
