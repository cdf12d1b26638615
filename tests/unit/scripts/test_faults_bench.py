"""`scripts/bench faults` counts what ran and passed, and not what is marked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.faults import ASKED, CANNOT, LINES, TESTS, judge, table, verdict
from benchmarks.shared.fault_marks import marks
from benchmarks.shared.fault_outcomes import Outcome, read_log, write_log

REPO = Path(__file__).resolve().parents[3]

A_SUITE = """
import pytest

@pytest.mark.fault(1)
@pytest.mark.parametrize("number", [1, 2])
def test_real(number): assert number

@pytest.mark.fault(2, 3)
def test_skipped(): pytest.skip("no such disk")

@pytest.mark.fault(4)
class TestFour:
    def test_inner(self): assert False, "it was lost"

@pytest.mark.fault(5, simulated="the clock")
def test_pretended(): pass

@pytest.mark.fault(6)
@pytest.mark.xfail(reason="not mended")
def test_expected(): assert False

@pytest.fixture
def late():
    yield
    raise OSError("left behind")

@pytest.mark.fault(7)
def test_teardown(late): pass

@pytest.mark.fault(8)
@pytest.mark.long
def test_long(): pass

def test_unmarked(): pass
"""


@pytest.fixture(scope="module", params=[(), ("-n", "2")], ids=["alone", "xdist"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """The log of a real run of pytest under the conftest of these tests."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "tests").mkdir()
    for name in ("conftest.py", "kept_registry.py", "warm_cli.py"):
        shutil.copy(REPO / "tests" / name, folder / "tests")
    shutil.copy(REPO / "pyproject.toml", folder)
    (folder / "scripts").symlink_to(REPO / "scripts")
    (folder / "tests" / "test_made_up.py").write_text(A_SUITE)
    path = folder / "log.jsonl"
    argv = [sys.executable, "-m", "pytest", "-q", "--fault-log", str(path), *request.param, "tests"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 1, done.stdout + done.stderr
    return read_log(path)


def test_a_line_is_held_only_by_what_ran_and_passed(log: list[Outcome]) -> None:
    found = {line: [item for item in log if item.line == line] for line in range(1, 10)}
    assert {line: verdict(line, items) for line, items in found.items()} == {
        1: "held",
        2: "skipped",
        3: "skipped",
        4: "FAILED",
        5: "only simulated",
        6: "skipped",
        7: "FAILED",
        8: "skipped",
        9: "no test",
    }
    assert len(found[1]) == 2
    text = table(log)
    for told in ("no such disk", "it was lost", "not mended", "left behind", "give --long", "(2 passed)"):
        assert told in text


def everything(*others: Outcome) -> list[Outcome]:
    named = {item.line for item in others}
    return [Outcome(n, "x" if n in CANNOT else None, "t", "passed") for n in ASKED if n not in named] + list(others)


def test_the_bar_holds_when_each_of_its_lines_is_held() -> None:
    assert set(ASKED) == {*range(1, 58)}
    text, held = judge(everything())
    assert held and "lacking: none" in text
    assert f"{len(ASKED) - len(CANNOT)} of the {len(ASKED)}" in text


@pytest.mark.parametrize(
    "others",
    [
        (),
        (Outcome(7, None, "t", "skipped", "no disk"),),
        (Outcome(7, "the disk", "t", "passed"),),
        (Outcome(7, None, "t", "passed"), Outcome(7, None, "u", "failed", "torn")),
    ],
)
def test_one_line_that_is_not_held_breaks_the_bar(others: tuple[Outcome, ...]) -> None:
    text, held = judge([*(item for item in everything() if item.line != 7), *others])
    assert not held and "lacking: 7\n" in text


def test_a_log_that_is_read_decides_the_exit_code(tmp_path: Path) -> None:
    write_log(tmp_path / "log", everything())
    argv = [sys.executable, str(REPO / "scripts" / "bench.py"), "faults", "--check", "--read", str(tmp_path / "log")]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0
    write_log(tmp_path / "log", [Outcome(1, None, "t", "failed", "it was lost")])
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "it was lost" in done.stdout
    missing = subprocess.run([*argv[:-1], str(tmp_path / "none")], capture_output=True, text=True, check=False)
    assert missing.returncode == 2 and "no log" in missing.stderr


def test_every_mark_names_a_line_of_the_list_and_says_what_it_pretends() -> None:
    found = list(marks(TESTS))
    assert len(found) > 80
    assert [mark for mark in found if mark.line not in LINES or mark.simulated == ""] == []
    assert "test_board_reboots.py::" in str([mark.test for mark in found if mark.line == 1])
