"""``edgedeploy doctor --board``: what a board is and what is worth building for it, before anything is built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from x86_kit import as_avx2, need_avx2_emulation

from edgedeploy.runtime.sensors.probe import probe

pytestmark = pytest.mark.beside

STUDY = Path(__file__).resolve().parents[3] / "docs" / "examples" / "squares.toml"


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgedeploy", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_board_says_which_precisions_are_worth_trying() -> None:
    done = doctor("--board", "local", "--json")
    found = {finding["what"]: finding["found"] for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert "cores" in found["board local"]
    assert "accelerators: " in found["board local"]
    for target in ("onnxruntime", "openvino"):
        assert {part.split(" (")[0] for part in found[f"board local, {target}"].split("; ")} >= {"float32", "int8"}


def test_a_board_says_how_its_processor_computes() -> None:
    found = {finding["what"]: finding for finding in json.loads(doctor("--board", "local", "--json").stdout)}
    text = found["board local, processor"]["found"]
    assert "float kernels: " in text
    assert "int8 kernels: " in text


def test_this_host_is_named_with_its_cores() -> None:
    found = {finding["what"]: finding for finding in json.loads(doctor("--json").stdout)}
    assert found["processor"]["found"] == f"{probe()['cpu']}, {len(os.sched_getaffinity(0))} cores"
    assert {"float kernels", "int8 kernels", "bfloat16 training", "program qemu-x86_64-static"} <= set(found)
    assert "board local, processor" in found
    assert f" {found['memory']['found']}, " in found["board local"]["found"]  # this host's memory, in one unit


def test_a_board_with_avx2_alone_says_what_is_done_about_it() -> None:
    need_avx2_emulation()
    done = doctor("--board", "emulated:x86-avx2", "--json")
    assert done.returncode == 0
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    board = found["board emulated:x86-avx2, processor"]
    assert board["ok"] is None
    assert "float kernels: AVX2" in board["found"]
    assert "7-bit weights" in board["found"]
    assert "no time is asked of it" in board["found"]
    assert "bfloat16 (left out: " in found["board emulated:x86-avx2, openvino"]["found"]


def test_a_host_with_avx2_alone_says_what_is_slow_and_what_is_done_about_it() -> None:
    need_avx2_emulation()
    code = (
        "import json; from edgedeploy.diagnose.doctor import machine_findings\n"
        "print(json.dumps({finding.what: [finding.ok, finding.found] for finding in machine_findings()}))"
    )
    found = json.loads(as_avx2([sys.executable, "-c", code]).stdout)
    assert found["float kernels"] == [True, "AVX2, half as wide as AVX-512"]
    assert found["bfloat16 training"][0] is None
    assert "training uses float32" in found["bfloat16 training"][1]
    assert found["int8 kernels"][0] is None
    assert "7-bit weights" in found["int8 kernels"][1]


def test_the_board_of_a_study_is_looked_at_alone() -> None:
    done = doctor(str(STUDY), "--board", "here", "--json")
    assert {finding["what"].split(",")[0] for finding in json.loads(done.stdout)} == {"board here"}


def test_an_unknown_board_names_the_near_miss() -> None:
    done = doctor(str(STUDY), "--board", "her")
    assert done.returncode == 2
    assert "Did you mean 'here'" in done.stderr
    assert "Traceback" not in done.stderr
