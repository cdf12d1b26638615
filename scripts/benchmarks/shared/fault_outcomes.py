"""What became of each test with a `fault` mark in one run of pytest: written by tests/conftest.py, read by the benchmark.

The log has one JSON object a line, the fields of :class:`Outcome`. It is appended to, so that the parts of a run share one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """``result`` is ``passed``, ``failed`` or ``skipped``; ``reason`` says why it is not ``passed``."""

    line: int
    simulated: str | None
    test: str
    result: str
    reason: str = ""


def write_log(path: Path, outcomes: Iterable[Outcome]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(asdict(item)) + "\n" for item in outcomes)


def read_log(path: Path) -> list[Outcome]:
    """Raises ``TypeError`` or ``ValueError`` for a file that is no such log."""
    return [Outcome(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
