"""`scripts/test` runs its tests in parts: none is in a folder that no part names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import second_try

REPO = Path(__file__).resolve().parents[3]


def test_every_folder_of_tests_is_part_of_the_run() -> None:
    lines = (REPO / "scripts" / "test").read_text("utf-8").replace(")", " ").splitlines()
    parts = [line for line in lines if line.startswith("part ") or "grep -r" in line]
    assert len(parts) == 6  # a part whose files are looked for is told by what is looked through
    parts = [line for line in parts if "@]" not in line]
    named = {word.removeprefix("tests/") for line in parts for word in line.split() if word.startswith("tests/")}
    tests = {path.relative_to(REPO / "tests").parts[0] for path in (REPO / "tests").rglob("test_*.py")}
    assert named == tests - {"thirdparty"}  # run by integration/targets/test_third_party.py
    marked = {"unit", "contract"}  # all of these run side by side: conftest.py
    assert all(named - marked <= {word.removeprefix("tests/") for word in line.split()} for line in parts)


@pytest.mark.parametrize(
    ("failed", "tried"),
    [
        (["tests/faults/boards/test_a.py::test_b[c d]", "tests/integration/study/test_e.py::test_f"], 2),
        (["tests/faults/boards/test_a.py::test_b", "tests/unit/test_g.py::test_h"], 0),  # a unit test has no excuse
        (["tests/faults/boards/test_a.py"], 0),  # it could not be read
        ([f"tests/faults/boards/test_a.py::test_{number}" for number in range(second_try.MOST + 1)], 0),
        ([], 0),
    ],
)
def test_few_failures_of_tests_with_boards_are_tried_once_more(
    failed: list[str], tried: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    second_try.RECORD.parent.mkdir(parents=True)
    second_try.RECORD.write_text(json.dumps(dict.fromkeys(failed, True)), "utf-8")
    second_try.main()
    assert capsys.readouterr().out.splitlines() == sorted(failed)[:tried]
