"""A night's verdict on made-up sessions: three questions kept apart, and one outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import made_up
import numpy as np
import pytest

from edgedeploy.errors import BundleError, StorageError
from edgedeploy.evidence.nights import LEAST_NIGHTS, Limits
from edgedeploy.nightly.states import board_state
from edgedeploy.nightly.verdict import not_run, refused, verdict
from edgedeploy.records.night import Accepted, ArtifactState, GoldenCheck, Rebuilt, Session, Verdict

INFO = replace(made_up.board(), serial="A1", image="debian 12", python="3.11.2", governor="performance")
STATE = board_state(INFO, {}, {"onnxruntime": "1.23.0"})
SHIPPED = ArtifactState("a" * 16, {"model.onnx": "1" * 64}, {"onnx": "1.21.0"}, release=3)
ACCEPTED = Accepted("2026-11-01", SHIPPED, STATE, INFO)
ANSWERS = GoldenCheck(3, {"out": 0.0}, {"out": 0.01})
LATENCY = "latency_p50_ns"


def session(loss: float = 0.0, number: int = 1, **fields: Any) -> Session:
    given: dict[str, Any] = {
        "info": INFO,
        "state": STATE,
        "artifact": SHIPPED,
        "baseline_digest": "b" * 16,
        "losses": {LATENCY: loss},
        "golden": ANSWERS,
        **fields,
    }
    return Session("thyroid", "cart", "2026-12-01", number, "2026-12-01T01:00:00+00:00", 20.0, **given)


def failed(error: str, cause: str = "it broke", **fields: Any) -> Session:
    given: dict[str, Any] = {"info": None, "state": None, "losses": {}, "golden": None, "error": error, "cause": cause}
    return session(**{**given, **fields})


def nights(count: int, loss: float = 0.0, seed: int = 0, **fields: Any) -> list[Verdict]:
    """Quiet nights of the accepted state, whose mean is ``loss``."""
    rng = np.random.default_rng(seed)
    found: list[Verdict] = []
    for number in range(count):
        ours = [session(loss + value, at + 1, **fields) for at, value in enumerate(rng.normal(0, 0.01, 2))]
        found.append(replace(judged(ours, found), night=f"2026-11-{number + 1:02d}"))
    return found


def judged(sessions: Sequence[Session], history: Sequence[Verdict] = (), **fields: Any) -> Verdict:
    return verdict(sessions, history, fields.pop("accepted", ACCEPTED), Limits(), **fields)


def both(loss: float = 0.0, **fields: Any) -> list[Session]:
    return [session(loss, number, **fields) for number in (1, 2)]


def four(loss: float, again: float, **fields: Any) -> list[Session]:
    return [*both(loss, **fields), *(session(again, number, **fields) for number in (3, 4))]


def test_quiet_nights_are_young_and_then_ok() -> None:
    found = nights(LEAST_NIGHTS + 1)
    assert [item.outcome for item in found] == ["young"] * LEAST_NIGHTS + ["ok"]
    assert found[0].series[0].nights == 0 and found[-1].series[0].nights == LEAST_NIGHTS
    assert "first night" in found[0].series[0].reason
    assert "than on its first nights" in found[3].series[0].reason
    assert all(not item.artifact_changes and not item.board_changes and not item.new_history for item in found)
    assert {item.key for item in found} == {STATE.key} and {item.artifact for item in found} == {SHIPPED.digest}


@pytest.mark.parametrize("usual", [0.0, 0.7, -0.7])
@pytest.mark.parametrize("history", [1, 4, LEAST_NIGHTS, 30])
def test_what_became_slower_is_suspect_and_then_a_regression(history: int, usual: float) -> None:
    """Whether an artifact is as fast as its float baseline, half or twice as fast: what counts is what it was."""
    past = nights(history, usual)
    suspect = judged(both(usual + math.log(1.12)), past)
    assert (suspect.outcome, suspect.series[0].status) == ("not_run", "suspect")
    found = judged(four(usual + math.log(1.12), usual + math.log(1.12)), past)
    assert found.outcome == "regression" and found.series[0].sessions == 4
    assert found.reason.startswith(LATENCY) and "worse" in found.reason
    assert found.series[0].limit is not None and 0.03 < found.series[0].limit - usual < 0.12
    calm = judged(four(usual + math.log(1.12), usual), past)
    assert calm.outcome in ("ok", "young") and "not confirmed" in calm.series[0].reason


def test_the_first_night_is_held_against_a_baseline_only_where_that_is_the_same_artifact() -> None:
    slow = math.log(2)
    assert judged(both(slow)).outcome == "young"
    found = judged(both(slow, baseline_digest=SHIPPED.digest))
    assert found.series[0].status == "suspect"


def test_a_wrong_answer_is_a_regression_whatever_the_times_are() -> None:
    wrong = GoldenCheck(3, {"out": 0.2, "mask": 0.0}, {"out": 0.01, "mask": 0.01}, ("out",))
    found = judged([session(), session(number=2, golden=wrong)], nights(20))
    assert found.outcome == "regression" and found.golden == wrong
    assert "output 'out'" in found.reason and "0.2 of its norm" in found.reason and "mask" not in found.reason
    assert found.series[0].status == "ok"


def test_other_bytes_are_named_as_the_artifact_and_leave_the_history_alone() -> None:
    other = ArtifactState("c" * 16, {"model.onnx": "2" * 64}, {"onnx": "1.22.0"}, release=2)
    past = nights(LEAST_NIGHTS)
    found = judged(both(artifact=other), past)
    assert found.outcome == "artifact" and found.artifact == other.digest
    files, tools, release = found.artifact_changes
    assert "model.onnx has other bytes" in files and "onnx 1.22.0, accepted: 1.21.0" in tools
    assert "release 2, older than the accepted release 3: a downgrade" in release
    slower = judged(four(0.2, 0.2, artifact=other), [*past, found])
    assert slower.outcome == "regression" and "what is shipped changed too" in slower.reason
    assert slower.series[0].nights == LEAST_NIGHTS  # not the night of the artifact that nobody accepted


def test_a_build_that_is_not_the_shipped_one_is_named_until_it_is_accepted() -> None:
    again = replace(SHIPPED, rebuilt=Rebuilt(False, "d" * 16, ("model.onnx differs", "onnx 1.22.0 here, 1.21.0 then")))
    found = judged(both(artifact=again), nights(3))
    assert found.outcome == "artifact" and "onnx 1.22.0 here" in found.reason
    assert judged(both(artifact=again), nights(3), accepted=replace(ACCEPTED, artifact=again)).outcome == "young"
    same = replace(SHIPPED, rebuilt=Rebuilt(True, SHIPPED.digest))
    assert judged(both(artifact=same), nights(3)).outcome == "young"
    unknown = judged(both(artifact=replace(SHIPPED, not_rebuilt="its target is not installed")), nights(3))
    assert unknown.outcome == "young" and unknown.notes == ("not built again: its target is not installed",)


CHANGES = [
    ({"image": "debian 13"}, "", {}, "OS image is debian 13, and was debian 12"),
    ({"python": "3.12.1"}, "", {}, "Python is 3.12.1"),
    ({}, "1.24.0", {}, "runtime is onnxruntime 1.24.0, and was onnxruntime 1.23.0"),
    ({}, "", {"power_mode": "15W (2)"}, "power mode is 15W (2), and was unknown"),
    ({"governor": "powersave"}, "", {}, "clock governor is powersave, and was performance"),
]


@pytest.mark.parametrize(("info", "runtime", "before", "named"), CHANGES)
def test_another_board_state_begins_a_new_history_and_is_named(
    info: dict[str, str], runtime: str, before: dict[str, str], named: str
) -> None:
    past = nights(LEAST_NIGHTS)
    board = replace(INFO, **info)  # type: ignore[arg-type]
    state = board_state(board, {"before": before}, {"onnxruntime": runtime or "1.23.0"})
    found = judged(both(0.5, info=board, state=state), past)
    assert found.outcome == "board" and found.new_history
    (text,) = found.board_changes
    assert named in text
    assert "a new history begins" in found.reason and found.series[0].status == "young"
    then = judged(both(0.5, info=board, state=state), [*past, found])
    assert then.outcome == "young" and not then.new_history and then.board_changes == found.board_changes
    assert then.series[0].nights == 1
    back = judged(both(), [*past, found, then])
    assert back.outcome == "ok" and back.series[0].nights == LEAST_NIGHTS and not back.board_changes


@pytest.mark.parametrize("field", ["serial", "identity"])
def test_another_machine_is_the_outcome_before_anything_else(field: str) -> None:
    board = replace(INFO, **{field: "B2"})  # type: ignore[arg-type]
    state = board_state(board, {}, {"onnxruntime": "1.23.0"})
    wrong = GoldenCheck(3, {"out": 0.2}, {"out": 0.01}, ("out",))
    other = replace(SHIPPED, digest="c" * 16)
    found = judged(both(0.9, info=board, state=state, golden=wrong, artifact=other), nights(20))
    assert found.outcome == "board" and "answers as another board" in found.reason and field in found.reason
    again = judged(both(0.0, info=board, state=state), [*nights(20), found])
    assert again.outcome == "board" and not again.new_history


def test_clocks_and_heat_are_told_and_begin_nothing() -> None:
    hot = replace(STATE, cpu_mhz=900.0, temperature_c=81.0)
    cool = replace(ACCEPTED, board=replace(STATE, cpu_mhz=1800.0, temperature_c=50.0))
    found = judged(both(state=hot), nights(20), accepted=cool)
    assert found.outcome == "ok" and not found.new_history
    assert found.board_changes == (
        "its cores run at 900 MHz, and ran at 1800 MHz",
        "its hottest sensor shows 81 C, and showed 50 C",
    )


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ("Unreachable", "board"),
        ("CommandFailed", "board"),
        ("Unstable", "board"),
        ("StorageError", "infrastructure"),
        ("DamagedFile", "infrastructure"),
        ("DidNotRun", "regression"),
        ("ParityError", "regression"),
    ],
)
def test_failures_are_told_by_whose_they_are(error: str, outcome: str) -> None:
    found = judged([failed(error), failed(error, number=2)], nights(3))
    assert (found.outcome, found.error) == (outcome, error) and "it broke" in found.reason
    (series,) = found.series
    assert series.status == "missing" and series.nights == 3


def test_a_night_of_one_good_session_is_judged_by_it() -> None:
    past = nights(20)
    assert judged([failed("Unreachable"), session(number=2)], past).outcome == "ok"
    drifted = session(9.0, cause="the baseline became 40 % slower")
    assert judged([drifted, session(number=2)], past).outcome == "ok"
    assert judged([drifted, drifted], past).outcome == "board"
    more = [session(0.2), drifted, session(0.0, 3), session(0.0, 4)]
    found = judged(more, past)
    assert found.outcome == "ok" and "not confirmed" in found.series[0].reason


def test_a_metric_that_is_gone_is_missing() -> None:
    past = nights(3, losses={LATENCY: 0.0, "energy_j": 0.0})
    found = judged(both(missing={"energy_j": "no sensor"}), past)
    gone = next(item for item in found.series if item.metric == "energy_j")
    assert (gone.status, gone.reason, gone.nights) == ("missing", "no sensor", 3)
    assert found.outcome == "young" and found.reason.endswith("; energy_j has no number: no sensor")


def test_accuracy_may_lose_its_margin() -> None:
    past = nights(20, losses={"dice_mean": 0.004})
    for loss, outcome in ((0.012, "ok"), (0.016, "regression")):
        found = judged(four(0, 0, losses={"dice_mean": loss}), past, margins={"dice_mean": 0.01})
        assert found.outcome == outcome and "%" not in found.series[0].reason


def test_what_could_not_be_prepared_or_run_has_a_verdict_too() -> None:
    bad = refused("thyroid", "cart", "2026-12-01", BundleError("bundle", "tampered: it was changed"), owner="Ada")
    assert (bad.outcome, bad.error, bad.owner) == ("artifact", "BundleError", "Ada") and bad.artifact_changes
    full = refused("thyroid", "cart", "2026-12-01", StorageError("write", "full"))
    assert full.outcome == "infrastructure" and not full.artifact_changes
    assert not_run("thyroid", "cart", "2026-12-01", "the budget ended").outcome == "not_run"
    with pytest.raises(ValueError, match="session"):
        judged([])
    assert judged(both(), accepted=None).outcome == "young"


def test_sessions_of_another_artifact_or_baseline_are_not_mixed() -> None:
    """A night was taken up again after somebody replaced what is shipped, or accepted another baseline."""
    history = nights(20)
    other = replace(SHIPPED, digest="c" * 16, files={"model.onnx": "3" * 64})
    found = judged([session(-0.5, 1, artifact=other), session(0.1, 2)], history)
    assert found.series[0].loss == pytest.approx(0.1) and found.series[0].status == "suspect"
    assert found.outcome == "artifact" and found.artifact == SHIPPED.digest
    found = judged([session(0.5, 1, baseline_digest="d" * 16), session(0.0, 2)], history)
    assert (found.outcome, found.series[0].loss, found.series[0].sessions) == ("ok", 0.0, 1)


@pytest.mark.parametrize("history", [0, 3, 20])
def test_a_margin_of_nothing_allows_rounding(history: int) -> None:
    def rounded(loss: float) -> list[Session]:
        return [session(0.0, number, losses={"dice_mean": loss}) for number in (1, 2, 3, 4)]

    calm: list[Verdict] = []
    for night in range(history):
        calm.append(
            replace(judged(rounded(0.0)[:2], calm, margins={"dice_mean": 0.0}), night=f"2026-11-{night + 1:02d}")
        )
    for loss, alarms in ((1e-15, False), (1e-3, history > 0)):
        found = judged(rounded(loss), calm, margins={"dice_mean": 0.0})
        assert (found.outcome == "regression") == alarms, found.reason


def test_another_number_of_threads_is_another_artifact() -> None:
    accepted = replace(ACCEPTED, artifact=replace(SHIPPED, threads=4))
    found = judged(both(artifact=replace(SHIPPED, threads=1)), accepted=accepted)
    assert (found.outcome, found.reason) == ("artifact", "it runs with 1 threads, accepted: 4")
    assert judged(both(), accepted=accepted).outcome == "young"  # a record of before says nothing


def test_a_slowdown_that_is_never_decided_becomes_no_reference() -> None:
    history = nights(3)
    for number in range(40):
        found = judged(both(0.2), history)
        assert found.outcome == "not_run" and found.series[0].status == "suspect", number
        history.append(replace(found, night=f"2026-11-{number + 4:02d}"))
