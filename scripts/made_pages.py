"""What scripts that make a page of the documentation share: ``python scripts/NAME.py`` prints it, ``--write`` writes it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

REFERENCE: Final = Path(__file__).resolve().parents[1] / "docs" / "reference"


def write_or_print(path: Path, page: Callable[[], str], usage: str | None, argv: Sequence[str]) -> int:
    """The exit code. ``usage`` is what is said to other arguments."""
    if list(argv) == ["--write"]:
        path.write_text(page(), encoding="utf-8")
    elif argv:
        sys.stderr.write(usage or "")
        return 2
    else:
        sys.stdout.write(page())
    return 0
