"""Sessions of targets from other packages. Empty here: the agent that is pushed to a board has their files in this folder,
and this module names them."""

from __future__ import annotations

ROWS: dict[str, tuple[str, tuple[str, ...], bool]] = {}
