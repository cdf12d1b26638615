"""`scripts/test` runs its tests in parts: none is in a folder that no part names."""

from __future__ import annotations

from pathlib import Path

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
