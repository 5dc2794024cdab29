"""Programs to compare with that are not on this machine, fetched from PyPI and Debian into a cache directory.

Nothing on the system changes: Python packages go into a virtual environment each, Debian packages are unpacked, not
installed. The directory is `$UDPSEND_BENCH_CACHE`, else `udpsend-bench` in the user's cache directory; deleting it
makes the next run fetch everything again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_PATIENCE = 300  # seconds for a package registry


class Unavailable(Exception):
    """The registry does not have it, or cannot be reached; the text says why."""


def cache_directory() -> Path:
    chosen = os.environ.get("UDPSEND_BENCH_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "udpsend-bench"


def _fetch(argv: Sequence[str | os.PathLike[str]], directory: Path) -> None:
    try:
        done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(str(error)) from error
    if done.returncode != 0:
        last = [line for line in done.stderr.splitlines() if line.strip()]
        raise Unavailable(last[-1].strip() if last else f"exit code {done.returncode}")


def _make(name: str, commands: Sequence[Sequence[str | os.PathLike[str]]]) -> Path:
    """The directory `name` of the cache, in which all `commands` have succeeded once. Raises Unavailable."""
    directory = cache_directory() / name
    if (directory / ".complete").exists():
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    print(f"bench: fetching {name} into {directory}", file=sys.stderr)
    for argv in commands:
        _fetch(argv, directory)
    (directory / ".complete").touch()
    return directory


def python_environment(name: str, *packages: str) -> Path:
    """Where the programs of these PyPI packages are. Raises Unavailable."""
    install = ["bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    return _make(name, [[sys.executable, "-m", "venv", "."], install]) / "bin"


def debian_program(name: str, *packages: str) -> tuple[Path, dict[str, str]]:
    """The program `name` of Debian packages (itself and the libraries that it needs), and its environment.

    One that is installed is preferred. Raises Unavailable.
    """
    installed = shutil.which(name)
    if installed is not None:
        return Path(installed), {}
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Unavailable(f"no {name} here, and no apt-get to fetch it with")
    unpack = 'for package in *.deb; do dpkg-deb -x "$package" . || exit 1; done'
    directory = _make(name, [["apt-get", "-qq", "download", *packages], ["sh", "-c", unpack]])
    libraries = sorted({str(path.parent) for path in directory.glob("usr/lib/**/*.so.*")})
    return directory / "usr" / "bin" / name, {"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {}
