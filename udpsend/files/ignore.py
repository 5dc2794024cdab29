"""What the user does not want to send: `--exclude`, and `.gitignore` files with `--gitignore`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from udpsend.files.disk import FLAGS

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

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
        more._specs = (*self._specs, (len(path) + 1, _spec(lines)))
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


def _spec(patterns: Sequence[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(patterns)
