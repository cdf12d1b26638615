"""`scripts/bench`: every benchmark of the folder is listed with its line, and says what it takes."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import warm_cli

REPO = Path(__file__).resolve().parents[3]
DOOR = REPO / "scripts" / "bench.py"
MODULES = sorted(path for path in (REPO / "scripts" / "benchmarks").glob("*.py") if not path.name.startswith("_"))
BARE = ("-E", "-S")
"""An interpreter without site-packages: what stands before anything is installed."""

HELP_LIMIT_S = 300
"""About 1 s on an idle machine, many where others work; a benchmark that begins to work instead says no help."""


def bench(
    *arguments: str, options: tuple[str, ...] = (), python: tuple[str, ...] = (sys.executable,)
) -> subprocess.CompletedProcess[str]:
    argv = [*python, *options, str(DOOR), *arguments]
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.run(argv, capture_output=True, text=True, env=env, timeout=HELP_LIMIT_S, check=False)


def name_of(module: Path) -> str:
    return module.stem.replace("_", "-")


def line_of(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    assert text is not None
    return text.splitlines()[0]


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_every_module_is_listed_once_with_its_own_line_before_anything_is_installed(arguments: tuple[str, ...]) -> None:
    done = bench(*arguments, options=BARE)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [row.split(maxsplit=1) for row in done.stdout.splitlines() if row.startswith("  ")]
    assert len(MODULES) >= 9
    assert rows == sorted([name_of(module), line_of(module)] for module in MODULES)


@pytest.mark.parametrize("name", ["plans", "search"])
def test_what_is_not_installed_is_named_with_the_script_that_installs_it(name: str) -> None:
    done = bench(name, options=BARE)
    assert done.returncode == 2
    assert f"is not installed; run scripts/bench {name}, which" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_benchmark_says_what_it_takes_and_begins_nothing(module: Path) -> None:
    done = bench(name_of(module), "--help", python=warm_cli.script())
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: scripts/bench {name_of(module)} " in done.stdout
    assert line_of(module) in done.stdout


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_what_a_benchmark_needs_are_extras_of_the_project(module: Path) -> None:
    extras = bench("--extras-of", name_of(module), options=BARE).stdout
    known = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(filter(None, extras.split(","))) <= set(known)
    assert extras


def test_an_unknown_name_is_a_usage_error_that_lists_the_known_ones() -> None:
    done = bench("nosie", options=BARE)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'nosie'" in done.stderr
    assert all(f"  {name_of(module)} " in done.stderr for module in MODULES)


def test_the_bars_of_a_folder_without_a_study_are_a_usage_error(tmp_path: Path) -> None:
    done = bench("demo", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"study folder {tmp_path}: it holds no study")


def test_the_door_runs_a_benchmark_in_an_environment_with_its_extras(tmp_path: Path) -> None:
    """The environment's interpreter is a STUB that says what it is asked to run."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / ".edgedeploy-extras").write_text("study\n")
    stamp = hashlib.sha256((REPO / "pyproject.toml").read_bytes() + b"study\n").hexdigest()
    (venv / ".edgedeploy-stamp").write_text(stamp + "\n")
    stub = venv / "bin" / "python"
    stub.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$*"\n')
    stub.chmod(0o755)
    env = {**os.environ, "EDGEDEPLOY_VENV": str(venv), "EDGEDEPLOY_PYTHON": sys.executable}
    argv = [str(REPO / "scripts" / "bench"), "noise", "--pairs", "3"]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=HELP_LIMIT_S, check=True)
    assert done.stdout == "scripts/bench.py noise --pairs 3\n"
