"""The nightly example: systemd checks its units, both CI jobs run with a night behind them, the alarm posts to a server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_kit import edgedeploy_commands
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.nightly.results.write import JUNIT, LAB, SUMMARY, TREND
from edgedeploy.spec.lab import load_lab

pytestmark = pytest.mark.beside

REPO = Path(__file__).resolve().parents[3]
EXAMPLE = REPO / "docs" / "examples" / "nightly"
PROGRAM = "/opt/edgedeploy/bin/edgedeploy"

NIGHT = """
import os, sys
from pathlib import Path
import made_up_night
from edgedeploy.nightly.results import write_results
assert sys.argv[1:] == ["nightly", "lab.toml"], sys.argv
if os.environ.get("FAILS"):
    sys.exit(2)
night = made_up_night.every_outcome()
sys.exit(write_results(night, (), Path(os.environ["NIGHTS"])).exit_code)
"""
"""Stands in for the command, which would need boards: a night with one of everything, and its exit code."""


def test_the_lab_file_is_one() -> None:
    spec, _ = load_lab(EXAMPLE / "lab.toml")
    assert [entry.id for entry in spec.entries] == ["thyroid", "vessels"]
    assert spec.alarm is not None and os.access(EXAMPLE / spec.alarm.command[0], os.X_OK)
    assert spec.lab.budget < 9 * 3600, "the units' and jobs' limit"


def test_systemd_takes_both_units(tmp_path: Path) -> None:
    names = ("edgedeploy-nightly.service", "edgedeploy-nightly.timer")
    for name in names:
        text = (EXAMPLE / name).read_text("utf-8")
        assert name.endswith("timer") or text.count(PROGRAM) == 1
        (tmp_path / name).write_text(text.replace(PROGRAM, "/bin/true"), "utf-8")
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze on this machine: apt-get install systemd")
    argv = [program, "verify", "--man=no", *(str(tmp_path / name) for name in names)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / names[0]).write_text("[Service]\nType=oneshot\nRestart=always\nExecStart=/bin/true\n", "utf-8")
    wrong = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert wrong.returncode != 0, "a unit that is wrong would be seen"


def commands() -> list[list[str]]:
    """Those of the unit and of both jobs."""
    unit = (EXAMPLE / "edgedeploy-nightly.service").read_text("utf-8")
    lines = [*unit.replace(f"ExecStart={PROGRAM}", "edgedeploy").splitlines()]
    lines += [*script_of("github").splitlines(), *script_of("gitlab").splitlines()]
    found = [
        line[line.index("edgedeploy nightly") :].partition("||")[0] for line in lines if "edgedeploy nightly" in line
    ]
    return [words for line in found for words in edgedeploy_commands(line)]


def test_their_commands_have_options_that_there_are() -> None:
    assert commands() == [["nightly", "lab.toml"]] * 3
    runner = CliRunner()
    assert runner.invoke(app, ["nightly", "lab.toml", "--help"]).exit_code == 0
    assert runner.invoke(app, ["nightly", "lab.toml", "--no-such-option", "--help"]).exit_code == 2


def job_of(which: str) -> dict[str, Any]:
    if which == "gitlab":
        found: dict[str, Any] = yaml.safe_load((EXAMPLE / "gitlab-ci.yml").read_text("utf-8"))["nightly"]
        return found
    jobs: dict[str, Any] = yaml.safe_load((EXAMPLE / "github-actions.yml").read_text("utf-8"))["jobs"]
    found = jobs["nightly"]
    return found


def script_of(which: str) -> str:
    """What the runner has bash do, one step of GitLab's after the other in one shell."""
    job = job_of(which)
    if which == "gitlab":
        return "\n".join(job["script"])
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


@pytest.mark.parametrize("which", ["github", "gitlab"])
def test_a_job_leaves_what_it_says_and_ends_as_the_night_did(which: str, tmp_path: Path) -> None:
    job = job_of(which)
    assert job.get("env", job.get("variables"))["NIGHTS"] == load_lab(EXAMPLE / "lab.toml")[0].lab.out
    done, folder = run_job(which, tmp_path)
    assert done.returncode == 1, done.stderr
    there = {path.name for path in (folder / "results").iterdir()}
    assert there == {JUNIT, SUMMARY, TREND, LAB, "night-2026-11-29.json"}
    if which == "gitlab":
        artifacts = job["artifacts"]
        assert (folder / artifacts["reports"]["junit"]).is_file()
        assert all((folder / path).exists() for path in artifacts["paths"]) and artifacts["when"] == "always"
        assert 1 not in job["allow_failure"]["exit_codes"]
    else:
        assert (tmp_path / "step-summary").read_text("utf-8") == (folder / "results" / SUMMARY).read_text("utf-8")
        (upload,) = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
        assert upload["if"] == "always()" and (folder / upload["with"]["path"]).is_dir()


@pytest.mark.parametrize("which", ["github", "gitlab"])
def test_a_night_that_did_not_begin_shows_nothing_of_the_night_before(which: str, tmp_path: Path) -> None:
    run_job(which, tmp_path)
    for path in (tmp_path / "nights").iterdir():
        os.utime(path, (1e9, 1e9))
    done, folder = run_job(which, tmp_path, FAILS="1")
    assert done.returncode == 2
    assert list((folder / "results").iterdir()) == []


def run_job(which: str, place: Path, **more: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """As the runner does: a shell that ends at the first command that fails."""
    folder, programs, nights = place / "checkout", place / "programs", place / "nights"
    for one in (folder, programs, nights):
        one.mkdir(exist_ok=True)
    (place / "night.py").write_text(NIGHT, "utf-8")
    (programs / "edgedeploy").write_text(f'#!/bin/sh\nexec {sys.executable} {place / "night.py"} "$@"\n', "utf-8")
    (programs / "edgedeploy").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": f"{REPO}:{REPO / 'tests'}",
        "NIGHTS": str(nights),
        "GITHUB_STEP_SUMMARY": str(place / "step-summary"),
        **more,
    }
    argv = ["bash", "-eo", "pipefail", "-c", script_of(which)]
    return subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    ), folder


class Hook(BaseHTTPRequestHandler):
    said: list[Any] = []  # noqa: RUF012 (the class is the server's, and so is what it heard)

    def do_POST(self) -> None:
        self.said.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200 if self.path == "/hook" else 500)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def test_the_alarm_posts_the_message_and_fails_when_it_is_refused(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine: apt-get install curl")
    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    codes = []
    for path in ("hook", "gone"):
        (tmp_path / "webhook").write_text(f'url = "http://127.0.0.1:{server.server_port}/{path}"\n', "utf-8")
        environment = {"PATH": os.environ["PATH"], "CREDENTIALS_DIRECTORY": str(tmp_path)}
        message = 'one "regression"\nand a line\n'
        done = subprocess.run(
            [str(EXAMPLE / "alarm")], input=message, text=True, env=environment, check=False, timeout=60
        )
        codes.append(done.returncode)
    server.shutdown()
    server.server_close()
    assert Hook.said == [{"text": message}] * 2
    assert codes[0] == 0 and codes[1] != 0
