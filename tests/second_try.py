"""Which failed tests `scripts/test` tries once more, alone, one a line; none when a noisy machine is no excuse for them.

Tests of boards measure, and share a machine with tests beside them. One of thousands that fails there and passes alone is a
defect, of a test or of the product, and is said as one; it does not make every other result of the run worthless.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

MOST = 3
"""More than these in one run are no accident."""

RECORD = Path(".pytest_cache/v/cache/lastfailed")
"""Where pytest keeps what failed, over several runs."""


def worth_it(failed: Sequence[str]) -> bool:
    """Whether these are few, each a test and no file that could not be read, and each has a board, a study or a process:
    unit tests and contracts depend on none."""
    apart = ("tests/faults/", "tests/integration/")
    return 0 < len(failed) <= MOST and all("::" in test and test.startswith(apart) for test in failed)


def main() -> None:
    failed = sorted(json.loads(RECORD.read_text("utf-8"))) if RECORD.exists() else []
    sys.stdout.writelines(f"{test}\n" for test in failed if worth_it(failed))


if __name__ == "__main__":
    main()
