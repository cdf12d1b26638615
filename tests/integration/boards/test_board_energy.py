"""The whole path of energy on this host, with a simulated tegrastats whose power follows the real workers' CPU time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import simulated_tegrastats
from board_kit import make_payload

from edgedeploy.boards.open import open_board
from edgedeploy.evidence.energy import Energy, energy_of
from edgedeploy.records.job import Job, MeasurePlan
from edgedeploy.runtime.sensors import power

PLAN = MeasurePlan(queries=8, warmup=1, block=4, cold_starts=0, collect_outputs=False, time_limit_s=120.0)


def this_host_has_a_sensor() -> bool:
    try:
        power.find_source().close()
    except LookupError:
        return False
    return True


def test_energy_follows_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    simulated_tegrastats.install(programs, tmp_path / "root")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    board = open_board({"name": "here", "kind": "local", "root": str(tmp_path / "root"), "python": sys.executable})
    job = Job(make_payload(tmp_path / "a"), make_payload(tmp_path / "b", target="openvino"), PLAN)
    (tmp_path / "collected").mkdir()
    with board.session() as session:
        raw = session.measure(job, tmp_path / "collected")
    recorded = raw.environment["energy"]
    assert recorded["source"] == "tegrastats VDD_IN"
    stretches = [item for item in recorded["stretches"] if item["side"] == "candidate"]
    found = energy_of(recorded, "candidate")
    assert isinstance(found, Energy), found
    assert found.idle_w == pytest.approx(3.0, rel=0.1)
    # Each second that the workers compute draws 5 J above idle, however long a query takes and whoever else computes.
    log = tmp_path / simulated_tegrastats.SEEN
    busy_s = sum(simulated_tegrastats.seconds_between(log, item["start_ns"], item["end_ns"]) for item in stretches)
    assert busy_s > 0
    assert found.energy_j * found.queries == pytest.approx(5.0 * busy_s, rel=0.1)


@pytest.mark.skipif(this_host_has_a_sensor(), reason="this host has a power sensor")
def test_a_host_without_a_sensor_gives_the_reasons(tmp_path: Path) -> None:
    board = open_board({"name": "here", "kind": "local", "root": str(tmp_path / "root"), "python": sys.executable})
    (tmp_path / "collected").mkdir()
    with board.session() as session:
        raw = session.measure(Job(make_payload(tmp_path / "a"), None, PLAN), tmp_path / "collected")
    reason = energy_of(raw.environment["energy"], "candidate")
    assert isinstance(reason, str)
    assert reason.startswith("no sensor: ")
    assert "RAPL" in reason
