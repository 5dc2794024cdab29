"""What JSON can say: messages of the mailboxes and of the control stream, and what is offered."""

from __future__ import annotations

from typing import Union

JSON = Union[dict[str, "JSON"], list["JSON"], str, int, float, bool, None]  # noqa: UP007 - recursive, and 3.11
