"""What changed is named for what it is: the tests that make each change, run as rows."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import ROOT
from benchmarks.nightly_kit.asked import Asked
from benchmarks.shared.rows import Row, RowMaker

TESTS: Final = "tests/faults/nightly/test_what_changed.py"


def changed_golden_output(asked: Asked) -> Row:
    return _row("other weights: the golden output and the artifact", "test_other_weights_are_a_wrong_answer")


def drifted_golden_output(asked: Asked) -> Row:
    return _row("answers that drift under one artifact", "test_answers_that_drift_under_one_artifact_are_named")


def swapped_runtime(asked: Asked) -> Row:
    return _row("another release of the runtime", "test_another_release_of_the_runtime_is_named")


def other_os_image(asked: Asked) -> Row:
    return _row("another OS image (SIMULATED: its release file)", "test_another_os_image_is_named")


def other_power_mode(asked: Asked) -> Row:
    return _row("another power mode (SIMULATED nvpmodel)", "test_another_power_mode_is_named")


def another_board(asked: Asked) -> Row:
    return _row("a board that answers as another board", "test_a_board_that_answers_as_another_board_is_named")


def _row(what: str, test: str) -> Row:
    found = {name: word for name, word in _outcomes().items() if name.startswith(test)}
    word = ", ".join(found.values()) or "no such test"
    return Row(f"named for what it is: {what}", word, "named", bool(found) and set(found.values()) == {"named"})


@lru_cache(maxsize=1)
def _outcomes() -> dict[str, str]:
    """Each test of the file, and what became of it."""
    with TemporaryDirectory(prefix="edgedeploy-") as folder:
        report = Path(folder) / "tests.xml"
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS, f"--junit-xml={report}"]
        subprocess.run(argv, cwd=ROOT, check=False, stdout=sys.stderr, timeout=900)
        cases = ET.parse(report).getroot().iter("testcase")  # noqa: S314 (what pytest has just written)
        return {str(case.get("name")): _word(case) for case in cases}


def _word(case: ET.Element) -> str:
    skipped = case.find("skipped")
    if skipped is not None:
        return f"not run here: {skipped.get('message')}"
    return "named" if case.find("failure") is None and case.find("error") is None else "FAILED"


ROWS: Final[tuple[RowMaker, ...]] = (
    changed_golden_output,
    drifted_golden_output,
    swapped_runtime,
    other_os_image,
    other_power_mode,
    another_board,
)
