"""A study end to end, on real runtimes over a real SSH connection, as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import warm_cli
from board_kit import STUDY_LIMIT_S, squares_study
from fault_kit import wait_for

import edgedeploy
from edgedeploy.errors import SpecError
from edgedeploy.study.account import summarise
from edgedeploy.study.events import read_events
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for name in ("squares.py", "squares.toml", "squares_scenarios.toml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    return tmp_path / "squares.toml"


def run(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    argv = [*warm_cli.command(), *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=STUDY_LIMIT_S)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def runs_of(events: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    starts = [index for index, event in enumerate(events) if event["kind"] == "start"]
    return [events[start:end] for start, end in zip(starts, [*starts[1:], len(events)], strict=True)]


@pytest.mark.slow
def test_search_front_and_report_over_ssh(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    searched = run("search", study, "--out", out)
    assert re.search(rf"^{STAMP} \[6/6, ETA ", searched.stderr, re.MULTILINE)
    assert "ETA" in searched.stderr
    assert "best so far" in searched.stderr

    store = Store(out)
    measured = store.measurements()
    assert len({item.digest for item in measured}) == len(measured) == 6
    assert {item.provenance for item in measured} == {"emulated"}
    assert {item.variant.target for item in measured} == {"onnxruntime", "openvino"}
    for item in measured:
        assert item.candidate.executed
        assert item.metrics["latency_p50_ns"] > 0
        assert "latency_p99_ns" in item.missing  # 64 queries do not carry a p99
        assert len(item.cases) == 32

    front = json.loads(run("front", out, "--json").stdout)
    assert front["members"]
    assert front["pick"] is None and front["decision"]["outcome"] == "no margin"
    assert "the study states no margin" in run("front", out).stdout
    assert "[evidence] margin is not in the study file" in searched.stderr
    assert front["provenance"] == "emulated"
    assert run("front", out, "--json").stdout == run("front", out, "--json").stdout

    confirmed = store.confirmations()
    assert {item.split for item in confirmed} == {"confirmation"}
    assert set(front["members"]) <= {item.digest for item in confirmed}
    assert len(store.openings()) == 1

    page = Path(run("report", out).stdout.split("Report: ")[1].strip())
    assert page.stat().st_size > 1_000_000  # the plot's program is inside
    times = summarise(store.times())
    assert times.seconds["train"] > 0
    assert times.seconds["measure"] > 0

    again = run("search", study, "--out", out, check=False)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    resumed = run("search", study, "--out", out, "--resume", "--verbose")
    assert len(store.measurements()) == 6
    assert len(store.openings()) == 1
    assert re.search(
        rf"^{STAMP} debug edgedeploy.study.preflight: board loopback answered after ", resumed.stderr, re.M
    )
    quiet = run("--quiet", "search", study, "--out", out, "--resume")
    assert quiet.stderr == ""
    assert quiet.stdout == resumed.stdout

    first, second, third = runs_of(read_events(out))
    assert [event["kind"] for event in first].count("trial") == 6
    assert first[-1]["reason"] == second[-1]["reason"] == third[-1]["reason"]
    for events in (first, second, third):
        assert (events[0]["kind"], events[-1]["kind"]) == ("start", "end")
        assert [event["at_s"] for event in events] == sorted(event["at_s"] for event in events)
    assert second[0]["options"] == {"out": str(out), "resume": True}


def test_the_order_of_candidates_is_fixed_before_the_split_that_confirms_the_pick_is_opened(tmp_path: Path) -> None:
    """Everything may be lost here: what is smaller than the baseline is shown, and confirmed."""
    out = tmp_path / "out"
    study = squares_study(
        tmp_path,
        ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'),
        ("kernel = [3, 5]\n", ""),
        ('"latency_ratio"', '"size_bytes"'),  # what is smaller is so on a busy host too
        ("trials = 6", "trials = 4"),
    )
    study.write_text(study.read_text() + "\n[evidence]\nmargin = 1.0\nlost_case = 1.0\n")
    searched = run("search", study, "--out", out, "--board", "here")
    front, openings = json.loads(run("front", out, "--json").stdout), Store(out).openings()
    order = front["decision"]["order"]
    sizes = {item.digest: item.metrics["size_bytes"] for item in Store(out).measurements()}
    assert len(sizes) == 4 and len(order) == 3
    assert [sizes[digest] for digest in order] == sorted(sizes.values())[:3]
    assert front["pick"]["digest"] == order[0]
    (opening,) = openings
    assert opening["order"] == order and set(order) <= set(opening["variants"])
    assert front["confirmation"]["intact"] and front["confirmation"]["outcome"] == "confirmed"
    first = min(path.stat().st_mtime_ns for path in (out / "confirmation").glob("*.json"))
    assert (out / "confirmation" / "openings.jsonl").stat().st_mtime_ns <= first
    assert "in the order fixed before the confirmation split is opened" in searched.stderr


def begun_by_other_code(out: Path) -> None:
    """The digest is what code with other keys or other defaults makes of the same study file."""
    kept = json.loads((out / "study.json").read_text())
    (out / "study.json").write_text(json.dumps({**kept, "spec_digest": "0123456789abcdef"}))


@pytest.mark.slow
def test_python_front_door(study: Path, tmp_path: Path) -> None:
    events = []
    result = edgedeploy.load_study(study).run(
        edgedeploy.RunOptions(out=tmp_path / "out", trials=3, board="here", confirm=False), observer=events.append
    )
    assert (result.reason, result.evaluated) == ("trials", 3)
    assert result.front.provenance == "measured"
    assert [event.done for event in events if event.kind == "trial"] == [1, 2, 3]
    assert result.report().is_file()
    with pytest.raises(SpecError, match="measured on board 'here'"):
        edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=tmp_path / "out", resume=True))
    events.clear()
    begun_by_other_code(tmp_path / "out")
    again = edgedeploy.RunOptions(out=tmp_path / "out", trials=3, resume=True, board="here", confirm=False)
    edgedeploy.load_study(study).run(again, observer=events.append)
    assert any(event.text.startswith("study files had other keys or defaults") for event in events)
    study.write_text(study.read_text().replace("seed = 1", "seed = 2"))
    with pytest.raises(SpecError, match="holds another study"):
        edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=tmp_path / "out", resume=True, board="here"))


def test_a_study_of_scenarios(study: Path, tmp_path: Path) -> None:
    """Objectives and constraints from scenarios; their raw series are kept, the report has their tables."""
    out = tmp_path / "out"
    run("search", study.with_name("squares_scenarios.toml"), "--out", out)
    measured = Store(out).measurements()
    assert len(measured) == 2
    for item in measured:
        assert set(item.scenarios) == {"realtime", "offline"}
        frames = item.scenarios["realtime"]
        assert len(frames["processed"]) + len(frames["dropped"]) + len(frames["pending"]) == 60
        assert sum(item.scenarios["offline"]["samples"]) == 200
        assert sum(len(block) for block in item.candidate.blocks_ns) >= 662
        assert item.metrics["latency_p99_bound_ns"] >= item.metrics["latency_p99_ns"]
        assert 0 <= item.metrics["realtime_deadline_miss_percent"] <= 100
        assert item.metrics["offline_throughput_per_s"] > 0
        assert item.missing["latency_p999_ns"].endswith("6636 needed for this percentile at 99 % confidence")
        assert item.environment["scenarios"]["background_cpu_share"] >= 0
    assert {item.scenarios == {} for item in Store(out).confirmations()} == {True}
    page = Path(run("report", out).stdout.split("Report: ")[1].strip()).read_text()
    assert "In real time: frames arrive whether the model is ready or not" in page
    assert "All samples at once" in page


def test_a_terminal_has_a_progress_bar(study: Path, tmp_path: Path) -> None:
    """A real pseudo-terminal, from the first second on, when nothing is known of the study yet."""
    ours, its = pty.openpty()
    arguments = [
        "search",
        str(study),
        "--out",
        str(tmp_path / "out"),
        "--board",
        "here",
        "--trials",
        "1",
        "--no-confirm",
    ]
    argv = [sys.executable, "-m", "edgedeploy", *arguments]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=its, env={**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    ) as process:
        os.close(its)
        seen = b"".join(iter(partial(until_hung_up, ours), b"")).decode()
        assert process.wait(STUDY_LIMIT_S) == 0, seen
    os.close(ours)
    assert "?\x1b[0m variants" in seen
    assert "1/1\x1b[0m variants" in seen
    assert "[1/1, ETA" in seen
    assert not re.search(STAMP, seen)


def until_hung_up(terminal: int) -> bytes:
    """What comes next; nothing once the other side has closed it, which Linux reports as an error."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


LISTENING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from edgedeploy.__main__ import main
main()
"""
"""A suite started in the background hands down that Ctrl-C is ignored."""


def test_ctrl_c_leaves_a_usable_folder(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = [sys.executable, "-c", LISTENING, "search", str(study), "--out", str(out), "--no-confirm"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    measured = out / "measurements"  # once the machine is free: other tests measure too
    wait_for("a first variant", lambda: list(measured.glob("*.json")) or process.poll() is not None, STUDY_LIMIT_S)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 4, complaint
    # the interpreter itself reports an interrupt that fell into a finaliser; any other traceback is ours
    assert complaint.count("Traceback") == complaint.count("Exception ignored in")
    assert "--resume" in complaint
    assert read_events(out)[-1]["reason"] == "interrupted"
    assert json.loads(run("front", out, "--json").stdout)["members"]
