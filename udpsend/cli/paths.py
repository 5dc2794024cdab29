"""Paths as they were typed: what `pathlib` takes for the same is not the same to a user."""

from __future__ import annotations

import os
from typing import Any

import click


class TypedPath(click.Path):
    """A string: `-` is a stream, and `./-` a file of that name. Never empty: that is a variable of a script that was
    not set, and no way to say the current directory."""

    def __init__(self, *, allow_dash: bool = False) -> None:
        super().__init__(readable=False, allow_dash=allow_dash)  # who reads says it better

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("A path is empty. The current directory is '.'.", param, ctx)
        return super().convert(value, param, ctx)
