"""Ctrl-C while variants run on the confirmation split: a real process that gets the signal, and the run that goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import warm_cli
from board_kit import STUDY_LIMIT_S, squares_study
from fault_kit import gate, running_jobs, wait_for

from edgedeploy.study.events import read_events
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

LISTENING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from edgedeploy.__main__ import main
main()
"""
"""A suite started in the background hands down that Ctrl-C is ignored."""

BEGUN = '"text": "confirmation: '
"""Stands in the events once for each variant whose run on the confirmation split has begun."""


def confirming(out: Path) -> list[str]:
    """Variants whose run on the confirmation split has begun, in order."""
    if not (out / "events.jsonl").exists():
        return []
    return [item["text"] for item in read_events(out) if str(item.get("text", "")).startswith("confirmation: ")]


def test_ctrl_c_during_a_confirmation_loses_nothing_and_opens_nothing_twice(tmp_path: Path) -> None:
    out, root = tmp_path / "out", tmp_path / "root"
    held = gate(tmp_path, f"[ \"$(grep -c '{BEGUN}' '{out}/events.jsonl')\" -gt 1 ]")
    study = squares_study(
        tmp_path,
        ("kernel = [3, 5]\n", ""),
        ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'),
        ('"latency_ratio"', '"size_bytes"'),
        ("trials = 6", "trials = 4"),
        ("queries = 64", "queries = 16"),
        ('kind = "local"', f'kind = "local"\nroot = "{root}"\npython = "{held.python}"'),
    )
    study.write_text(study.read_text() + "\n[evidence]\nmargin = 1.0\nlost_case = 1.0\n")
    words = ["search", str(study), "--out", str(out), "--board", "here"]
    process = subprocess.Popen([sys.executable, "-c", LISTENING, *words], stderr=subprocess.PIPE, text=True)
    begun = "the second variant's run on the confirmation split"
    wait_for(begun, lambda: process.poll() is not None or len(confirming(out)) > 1, STUDY_LIMIT_S)
    wait_for("its job", lambda: process.poll() is not None or running_jobs(root), STUDY_LIMIT_S)
    assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=STUDY_LIMIT_S)
    held.open()
    assert process.returncode == 4, told
    assert told.count("Traceback") == told.count("Exception ignored in")
    assert "--resume" in told
    assert read_events(out)[-1]["reason"] == "interrupted"

    before = Store(out).confirmations()
    (opening,) = Store(out).openings()
    assert 0 < len(before) < len(opening["variants"]), "it was cut between two of them"
    cut = front(out)
    assert cut["pick"]["digest"] == opening["order"][0] and cut["confirmation"]["outcome"] == "no number"
    assert "`search --resume` runs what is missing" in said(out)
    kept = {path: path.read_bytes() for path in (out / "confirmation").glob("*.json")}

    subprocess.run([*warm_cli.command(), *words, "--resume"], check=True, capture_output=True, timeout=STUDY_LIMIT_S)
    after = Counter(item.digest for item in Store(out).confirmations())
    assert after == Counter(opening["variants"]), "each once"
    assert {path: path.read_bytes() for path in kept} == kept, "nothing is run a second time"
    again = Store(out).openings()[1:]
    assert [set(item["variants"]) for item in again] == [set(after) - {item.digest for item in before}]
    assert [item["order"] for item in again] == [opening["order"]], "the order that was fixed first"
    whole = front(out)
    assert whole["pick"]["digest"] == cut["pick"]["digest"]
    assert whole["confirmation"]["intact"] and whole["confirmation"]["outcome"] == "confirmed"


def said(out: Path) -> str:
    argv = [*warm_cli.command(), "front", str(out)]
    return " ".join(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())


def front(out: Path) -> dict[str, Any]:
    argv = [*warm_cli.command(), "front", str(out), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    return found
