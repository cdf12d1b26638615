"""Scenarios with real sessions on this host: counts, orders and conservation; no speed is judged."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from board_kit import SHORT_REALTIME, SHORT_SCENARIOS, SHORT_SERVER, conv_model, huge_model, make_payload, patient
from fault_kit import living, wait_for

from edgedeploy.boards.open import open_board
from edgedeploy.errors import CommandFailed, MeasurementError
from edgedeploy.evidence.metrics import scenario_metrics
from edgedeploy.evidence.serving import predicted_users
from edgedeploy.interfaces.board import Board
from edgedeploy.records.job import Job, MeasurePlan, RawRun, ScenarioPlan
from edgedeploy.records.metric_table import OF_IMAGES, OF_PACKED, SCENARIO_METRICS
from edgedeploy.runtime.scenarios.schedule import Replay
from edgedeploy.spec.scenarios import RealtimeTable

pytestmark = pytest.mark.waiting


def plan(*scenarios: ScenarioPlan) -> MeasurePlan:
    return MeasurePlan(queries=8, warmup=1, block=4, cold_starts=0, time_limit_s=60.0, scenarios=scenarios)


def here(folder: Path) -> Board:
    return patient(open_board({"name": "here", "kind": "local", "root": str(folder / "root")}))


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RawRun:
    folder = tmp_path_factory.mktemp("run")
    candidate = make_payload(folder / "candidate", target=request.param, cases=5)
    with here(folder).session() as session:
        return session.measure(Job(candidate, make_payload(folder / "baseline"), plan(*SHORT_SCENARIOS)), folder)


def test_every_scenario_gives_its_metrics(run: RawRun) -> None:
    assert set(run.scenarios) == {item.name for item in SHORT_SCENARIOS}
    asked = ["single_stream", *run.scenarios]
    metrics, missing = scenario_metrics(asked, run.candidate, run.scenarios)
    of_host = (OF_IMAGES, OF_PACKED)  # told by no run
    told = [table for name, table in SCENARIO_METRICS.items() if name not in of_host]
    assert set(metrics) | set(missing) == {name for table in told for name in table}
    # 8 queries, 80 frames and 64 requests carry no far percentile, a host may lack sensors, and 8 streams and 50 users may
    # all fit.
    optional = (
        *("latency_p", "realtime_result_age_p99_ns", "sustained_temperature", "multi_stream_streams"),
        *("users_within_deadline", "server_latency_p99_ns"),
    )
    assert all(name.startswith(optional) for name in missing)


def test_frames_that_arrived_are_processed_dropped_or_pending(run: RawRun) -> None:
    raw = run.scenarios["realtime"]
    replay = Replay.from_json(raw)  # refuses frames that are lost or doubled
    assert list(replay.arrivals_ns) == SHORT_REALTIME.plan(Path()).settings["arrivals_ns"]
    assert len(replay.processed) + len(replay.dropped) + len(replay.pending) == 80
    assert list(raw["stages_ns"]) == ["decode", "resize", "inference", "overlay"]
    assert {len(times) for times in raw["stages_ns"].values()} == {len(replay.processed)}
    for index, (frame, start, end) in enumerate(replay.processed):
        stages = sum(times[index] for times in raw["stages_ns"].values())
        assert replay.arrivals_ns[frame] <= start < start + stages <= end


def test_offline_and_sustained_count_what_they_ran(run: RawRun) -> None:
    assert sum(run.scenarios["offline"]["samples"]) == 100
    assert len(run.scenarios["offline"]["elapsed_ns"]) == 7
    windows = run.scenarios["sustained"]["windows"]
    starts_ns = [item["start_ns"] for item in windows]
    assert all(later - earlier >= 100_000_000 for earlier, later in pairwise(starts_ns))  # whole windows, at any pace
    assert len(starts_ns) >= 2 and starts_ns[-2] < 1_000_000_000
    assert all(item["queries"] >= 1 and item["p50_ns"] <= item["p90_ns"] <= item["max_ns"] for item in windows)
    assert len(run.scenarios["sustained"]["conditions"]) == len(windows) + 1


def test_multi_stream_levels_agree_with_its_answer(run: RawRun) -> None:
    raw = run.scenarios["multi_stream"]
    held = [level["streams"] for level in raw["levels"] if level["held"]]
    assert max(held, default=0) == raw["streams"]
    for level in raw["levels"]:
        assert level["late"] == sum(time_ns > 2_000_000 for time_ns in level["latencies_ns"])
        assert (len(level["latencies_ns"]) == 64) or not level["held"]


def test_resource_curves_cover_a_whole_run(run: RawRun) -> None:
    runs = run.scenarios["resources"]["runs"]
    assert len(runs) == 2
    for curves in runs:
        assert curves["at_ns"] == sorted(curves["at_ns"])
        assert curves["cpu_ns"] == sorted(curves["cpu_ns"])
        assert curves["cpu_ns"][-1] > 0
        # A Python process with numpy and a runtime in it, seen from its start on.
        assert curves["resident_bytes"][0] < curves["resident_bytes"][-1] and curves["resident_bytes"][-1] > 20_000_000


def test_each_case_has_a_process_of_its_own(run: RawRun) -> None:
    runs = run.scenarios["flare"]["runs"]
    assert len(runs) == 2 and {curves["failed"] for curves in runs} == {""}
    assert all(curves["cpu_ns"][-1] > 0 and curves["resident_bytes"][-1] > 20_000_000 for curves in runs)


def test_a_stuck_case_is_a_failure_and_the_next_is_run_as_far_as_there_are_some(tmp_path: Path) -> None:
    settings = {"cases": 8, "limit_ns": 60 * 10**9, "period_ns": 10**7}
    stuck = ScenarioPlan("flare", {**settings, "cases": 2, "limit_ns": 10**6}, limit_s=60.0)
    payload = make_payload(tmp_path / "job", cases=3)
    with here(tmp_path).session() as session:
        ended = session.measure(Job(payload, None, plan(stuck)), tmp_path).scenarios["flare"]
        whole = session.measure(Job(payload, None, plan(ScenarioPlan("flare", settings, 500.0))), tmp_path).scenarios[
            "flare"
        ]
    assert [curves["failed"] for curves in ended["runs"]] == ["time_limit"] * 2
    assert [curves["failed"] for curves in whole["runs"]] == [""] * 3


@pytest.mark.shared
@pytest.mark.parametrize("policy", ["latest", "bounded", "block"])
def test_a_real_recordings_frames_are_all_accounted_for(policy: str, shared: Path, tmp_path: Path) -> None:
    recording = shared / "data" / "us_sequences" / "fCal_Test_Calibration_3NWires.igs.mha"
    table = RealtimeTable.model_validate({"recording": str(recording), "frames": 20, "policy": policy})
    with here(tmp_path).session() as session:
        raw = session.measure(Job(make_payload(tmp_path / "job"), None, plan(table.plan(tmp_path))), tmp_path)
    replay = Replay.from_json(raw.scenarios["realtime"])
    assert len(replay.arrivals_ns) == 20
    # The deadline is some 75 ms, and the last arrival 1.5 s after the first.
    assert replay.processed[-1][1] >= 1_000_000_000
    assert policy != "block" or not replay.dropped


@pytest.mark.parametrize("name", ["sustained", "resources"])
def test_a_stuck_run_is_a_failure_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    endless = {
        "sustained": ScenarioPlan("sustained", {"duration_ns": 10**12, "window_ns": 10**9}, limit_s=1.0),
        "resources": ScenarioPlan("resources", {"inferences": 10**9, "repeats": 1, "period_ns": 10**8}, limit_s=1.0),
    }
    board = here(tmp_path)
    job = Job(make_payload(tmp_path / "job"), None, plan(endless[name]))
    with board.session() as session:
        with pytest.raises(MeasurementError, match=f"time_limit: {name} was stuck: it ran over 1 s"):
            session.measure(job, tmp_path)
        (folder,) = (tmp_path / "root" / "jobs").iterdir()
        wait_for("its supervisor, who wrote that it is over, to end", lambda: not living(folder.name))


def test_a_fault_inside_a_protocol_keeps_its_own_cause(tmp_path: Path) -> None:
    job = Job(make_payload(tmp_path / "job", huge_model), None, plan(SHORT_SCENARIOS[-1]))
    with here(tmp_path).session() as session, pytest.raises(MeasurementError, match="memory_exceeded: candidate"):
        session.measure(job, tmp_path)


def test_settings_that_the_agent_does_not_know_are_about_the_board(tmp_path: Path) -> None:
    job = Job(make_payload(tmp_path / "job", conv_model), None, plan(ScenarioPlan("closed_loop", {}, 10.0)))
    with here(tmp_path).session() as session, pytest.raises(CommandFailed, match=r"bad_job.*no scenario 'closed_loop'"):
        session.measure(job, tmp_path)


def test_requests_of_a_server_are_all_accounted_for(run: RawRun) -> None:
    raw = run.scenarios["server"]
    assert [cell["busy"] for cell in raw["services"]] == [1]
    for load in (*raw["levels"], raw["at"]):
        assert len(load["latencies_ns"]) + len(load["shed"]) + len(load["pending"]) == load["sent"]
    assert raw["users"] == max((load["users"] for load in raw["levels"] if load["held"]), default=0)
    predicted = predicted_users(raw)
    assert predicted.provenance == "predicted"
    assert 0 <= predicted.least <= predicted.users <= predicted.most <= 50


def test_two_instances_answer_from_a_session_each(tmp_path: Path) -> None:
    asked = SHORT_SERVER.plan(Path())
    served = replace(asked, settings={**asked.settings, "instances": 2, "most": 20})
    with here(tmp_path).session() as session:
        raw = session.measure(Job(make_payload(tmp_path / "job"), None, plan(served)), tmp_path).scenarios["server"]
    assert [(cell["batch"], cell["busy"]) for cell in raw["services"]] == [(1, 1), (1, 2)]
    assert raw["rules"]["instances"] == 2
    alone, both = (
        sum(len(cell["ns"]) for cell in (*raw["services"], *raw["rested"]) if cell["busy"] == busy) for busy in (1, 2)
    )
    assert both == 2 * alone  # both of them were timed at once


def test_a_model_that_takes_no_batches_is_refused(tmp_path: Path) -> None:
    asked = SHORT_SERVER.plan(Path())
    served = replace(asked, settings={**asked.settings, "max_batch": 2})
    with here(tmp_path).session() as session, pytest.raises(MeasurementError, match="a batch of 2"):
        session.measure(Job(make_payload(tmp_path / "job"), None, plan(served)), tmp_path)
