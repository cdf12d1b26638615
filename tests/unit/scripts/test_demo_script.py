"""`scripts/demo` writes a fitted study once; a folder that holds a study goes on with its own file. The environment and the
command are STUBS: what the script asks of them is looked at, nothing is installed or searched."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]

STUB = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"{log}"
case $1 in
    recipe) echo '# fitted' ;;
    search)
        mkdir -p "$4"
        [ "$2" = "$4/study.toml" ] || cp "$2" "$4/study.toml"
        ;;
esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A place for the virtual environment that looks installed."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / ".edgedeploy-extras").write_text("study\n")
    stamp = hashlib.sha256((REPO / "pyproject.toml").read_bytes() + b"study\n").hexdigest()
    (venv / ".edgedeploy-stamp").write_text(stamp + "\n")
    program = venv / "bin" / "edgedeploy"
    program.write_text(STUB.format(log=tmp_path / "log"))
    program.chmod(0o755)
    return {**os.environ, "EDGEDEPLOY_VENV": str(venv), "OUT": str(tmp_path / "demo")}


def calls(tmp_path: Path, environment: dict[str, str], *arguments: str) -> list[list[str]]:
    (tmp_path / "log").unlink(missing_ok=True)
    subprocess.run([str(REPO / "scripts" / "demo"), *arguments], check=True, env=environment, timeout=300)
    return [line.split() for line in (tmp_path / "log").read_text().splitlines()]


def ended(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    argv = [str(REPO / "scripts" / "demo")]
    return subprocess.run(argv, env=environment, timeout=300, check=False, capture_output=True, text=True)


def test_a_new_demo_is_fitted_to_the_host_and_a_begun_one_goes_on_as_it_is(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "demo"
    recipe, search, front, report = calls(tmp_path, environment, "--trials", "3")
    assert recipe[:3] == ["recipe", "demo", "--within"]
    assert recipe[4] == "s" and 480 <= int(recipe[3]) <= 1200
    assert search[1:] == [f"{out}.toml", "--out", str(out), "--resume", "--trials", "3"]
    assert (front, report) == (["front", str(out)], ["report", str(out)])
    assert (out / "study.toml").read_text() == "# fitted\n"

    again = calls(tmp_path, environment)
    assert again[0] == ["search", str(out / "study.toml"), "--out", str(out), "--resume"]
    assert [call[0] for call in again] == ["search", "front", "report"]


def test_a_demo_whose_search_fails_has_a_report_and_says_how_to_go_on(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    program = tmp_path / "venv" / "bin" / "edgedeploy"
    program.write_text(program.read_text() + "case $1 in search) exit 4 ;; front) exit 1 ;; esac\n")
    done = ended(environment)
    assert done.returncode == 4
    assert f"OUT={tmp_path / 'demo'} scripts/demo" in done.stderr and "status 4" in done.stderr
    called = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert called == ["recipe", "search", "front", "report"]


@pytest.mark.parametrize("status", [0, 1, 4])
def test_the_front_is_printed_once_however_the_search_ends(
    status: int, tmp_path: Path, environment: dict[str, str]
) -> None:
    program = tmp_path / "venv" / "bin" / "edgedeploy"
    said = "case $1 in search | front) echo 'Front: here'; echo \"how $1 goes\" >&2 ;; esac\n"
    program.write_text(f"{program.read_text()}{said}[ $1 != search ] || exit {status}\n")
    done = ended(environment)
    assert done.returncode == status
    assert done.stdout.count("Front: here") == 1
    assert "how search goes" in done.stderr  # its progress is shown


def test_a_front_that_fails_after_a_search_that_did_not_ends_with_its_status(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    program = tmp_path / "venv" / "bin" / "edgedeploy"
    program.write_text(program.read_text() + "[ $1 != front ] || exit 3\n")
    assert ended(environment).returncode == 3


@pytest.mark.parametrize(("status", "told"), [(4, True), (137, False)])
def test_a_busy_machine_is_named_where_it_was_the_reason(
    status: int, told: bool, tmp_path: Path, environment: dict[str, str]
) -> None:
    program = tmp_path / "venv" / "bin" / "edgedeploy"
    program.write_text(program.read_text() + f"case $1 in search) exit {status} ;; esac\n")
    done = ended(environment)
    assert done.returncode == status
    assert (f"below [measure] of {tmp_path / 'demo' / 'study.toml'}" in done.stderr) == told


def test_help_begins_nothing(tmp_path: Path) -> None:
    argv = [str(REPO / "scripts" / "demo"), "--help"]
    env = {**os.environ, "EDGEDEPLOY_VENV": str(tmp_path / "venv"), "OUT": str(tmp_path / "demo")}
    done = subprocess.run(argv, env=env, timeout=300, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("From nothing to a report")
    assert list(tmp_path.iterdir()) == []
