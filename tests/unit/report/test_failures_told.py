"""What gave no number is told where people look, and "Ship" is said only of what the rule has shown."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import made_up
import made_up_report
import pytest
from made_up_study import new_store
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.errors import BoardError
from edgedeploy.records.measurement import Failure
from edgedeploy.records.weightbits import WeightBits
from edgedeploy.report.make import make_report
from edgedeploy.report.page_sections import ReportData, render_report
from edgedeploy.report.terminal import front_table
from edgedeploy.report.words import SHOWN_FAILURES, answer, failure_lines
from edgedeploy.study.events import Event, EventLog
from edgedeploy.study.front import read_front
from edgedeploy.study.store import Store

STORED = made_up.variant(precision="bfloat16")
PASSING = made_up.variant(precision="int8", width=0.5)
UTC = "2026-01-01T00:00:00+00:00"


def test_a_member_beyond_the_tolerance_says_so_wherever_the_front_is_shown(tmp_path: Path) -> None:
    note = "parity: worst case knee-2: 0.6 from the float model; dice_mean 0.912 decides"
    store = new_store(tmp_path / "study", [made_up.variant()])
    store.keep(made_up.measurement())
    store.keep(made_up.measurement(made_up.variant(precision="int8"), latency_ms=2.0, seed=3, notes=(note,)))
    front = read_front(store.root)
    assert any(note in line and "int8" in line for line in front_table(front).notes)
    rows = json.loads(CliRunner().invoke(app, ["front", str(store.root), "--json"]).stdout)["rows"]
    assert [row["notes"] for row in rows if row["variant"]["precision"] == "int8"] == [[note]]
    assert note in make_report(store.root).read_text(encoding="utf-8")


def told(failure: Failure) -> Event:
    return Event("trial", f"{failure.variant.label}: no number", 1, 6, failed=failure)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A study with a pick, a stored failure, one of a run only, one that was mended, and a board that was lost at last."""
    store = new_store(tmp_path / "study", [made_up.variant()])
    store.keep(made_up.measurement())
    store.keep(made_up.measurement(made_up.variant(precision="int8"), latency_ms=2.0, seed=3))
    store.keep_failure(Failure(STORED, "Unsupported", "build", "no bfloat16 kernel\nfor Conv", UTC))
    unrepeatable = Failure(PASSING, "Unrepeatable", "build", "two builds differ", UTC)
    mended = Failure(made_up.variant(precision="int8"), "Unstable", "measure", "the host was busy", UTC)
    with pytest.raises(BoardError), EventLog(store.root) as log:
        log.start("made up", {})
        log(told(unrepeatable))
        log(told(mended))
        raise BoardError("board cart", "no answer", "Turn it on")
    return store


def test_json_names_each_failure_with_its_reason(store: Store) -> None:
    said = CliRunner().invoke(app, ["front", str(store.root), "--json"])
    assert said.exit_code == 0
    front = json.loads(said.stdout)
    facts = {item["digest"]: (item["kind"], item["phase"], item["tried_again"]) for item in front["failures"]}
    assert facts == {
        STORED.digest: ("Unsupported", "build", False),
        PASSING.digest: ("Unrepeatable", "build", True),
    }
    assert front["ended_early"] == "BoardError: board cart: no answer"


def test_the_terminal_names_each_failure_in_one_line(store: Store) -> None:
    notes = front_table(read_front(store.root)).notes
    assert f"No number of {STORED.label}: Unsupported in build: no bfloat16 kernel for Conv" in notes
    again = f"No number of {PASSING.label}: Unrepeatable in build: two builds differ (the next run tries it again)"
    assert again in notes
    assert "The last run ended early. BoardError: board cart: no answer" in notes


def test_a_front_without_a_variant_says_why(tmp_path: Path) -> None:
    store = new_store(tmp_path / "study", [made_up.variant()])
    store.keep_failure(Failure(made_up.variant(), "ParityError", "measure", "max error 0.4", UTC))
    said = CliRunner().invoke(app, ["front", str(store.root)])
    assert said.exit_code == 1
    assert "ParityError in measure: max error 0.4" in said.stdout


def test_an_older_log_without_these_facts_is_read(store: Store) -> None:
    with (store.root / "events.jsonl").open("a") as log:
        for failed in (7, {"variant": 7}, {"variant": {"arch": "x"}, "kind": "x"}):
            log.write(json.dumps({"kind": "trial", "text": "x: no number: Unstable: y", "failed": failed}) + "\n")
    assert [item.variant for item in read_front(store.root).passing] == [PASSING]


def test_a_failed_confirmation_is_told_until_it_is_mended(store: Store) -> None:
    failure = Failure(made_up.variant(), "MeasurementError", "confirmation", "no outputs", UTC)
    with EventLog(store.root) as log:
        log.start("made up", {})
        log(Event("note", "confirmation failed", 1, 6, failed=failure))
        log.finish("trials", 1, 6)
    found = read_front(store.root)
    assert sorted(item.phase for item in found.passing) == ["build", "confirmation"]
    assert found.ended is None
    store.keep(made_up.measurement(split="confirmation"))
    assert [item.phase for item in read_front(store.root).passing] == ["build"]


def test_hundreds_of_failures_do_not_flood_the_terminal() -> None:
    many = tuple(
        Failure(made_up.variant(width=width / 100), "Unsupported", "build", "no kernel", UTC) for width in range(1, 100)
    )
    lines = failure_lines(dataclasses.replace(made_up_report.front(), failures=many))
    assert len(lines) == SHOWN_FAILURES + 1
    assert lines[-1].startswith(f"{99 - SHOWN_FAILURES} more gave no number")


def test_a_baseline_that_failed_names_what_tries_it_again() -> None:
    """It is kept, and a loss that was mended since left the study without a baseline."""
    failed = (
        Failure(made_up.variant(), "BuildError", "baseline", "the task's loss: a tensor (32,)", UTC),
        Failure(made_up.variant(width=0.5), "BuildError", "build", "no kernel", UTC),
    )
    first, second = failure_lines(dataclasses.replace(made_up_report.front(), failures=failed))
    assert first.endswith("a tensor (32,) (mended? `search --resume --retry-failed` tries it again)")
    assert second.endswith("no kernel")


def test_the_pick_names_its_file(store: Store) -> None:
    front = read_front(store.root)
    assert front.pick is not None
    variant = made_up.variant(precision="int8")
    assert front.pick.digest == variant.digest
    file = f"artifacts/{variant.artifact_name}/model.onnx"
    assert f"File: {file}." in answer(front)
    data = json.loads(CliRunner().invoke(app, ["front", str(store.root), "--json"]).stdout)
    assert data["pick"]["file"] == file
    assert {row["file"] for row in data["rows"] if row["digest"] == variant.digest} == {file}


def test_the_file_of_a_build_that_a_board_chose_is_that_build() -> None:
    variant = made_up.variant(precision="int8")
    item = made_up.measurement(variant, weight_bits=WeightBits(7, "sums saturate"))
    assert item.file == f"artifacts/{variant.artifact_name}-weights7/model.onnx"


def test_ship_is_said_only_when_the_rule_held() -> None:
    items = [made_up.measurement(dice=0.85), made_up.measurement(made_up.variant(width=0.5), dice=0.845, latency_ms=2)]
    held = made_up_report.front(items, margin=0.02)
    assert answer(held)[0].startswith("Ship ")


def test_what_is_missing_is_said_with_how_much_and_how_many_cases() -> None:
    # The baseline is slower and misses the limit on latency: only the smaller variant is on the front.
    noisy = made_up.cases(0.845, shift_noise=0.02, seed=5)
    items = [
        made_up.measurement(dice=0.85, size_bytes=9_000_000),
        made_up.measurement(made_up.variant(width=0.5), per_case=noisy, latency_ms=2),
    ]
    report = made_up_report.front(
        items, margin=0.006, constraints=[made_up_report.Constraint("size_bytes", at_most=5e6)]
    )
    assert report.pick is None and report.decision.outcome == "none shown"
    head, rule, missing, *_ = answer(report)
    assert head.startswith("Nothing is shown fit to ship: ") and "comes closest" in head
    assert rule.startswith("A variant may lose at most 0.006 of Dice mean against the float baseline")
    assert "is allowed, which is 0.00" in missing
    assert "cases would show it; there were 40" in missing
    assert not any(sentence.startswith("Ship") for sentence in answer(report))


def test_more_cases_are_not_promised_where_the_loss_itself_is_too_large() -> None:
    items = [
        made_up.measurement(dice=0.85, size_bytes=9_000_000),
        made_up.measurement(made_up.variant(width=0.5), dice=0.80, latency_ms=2),
    ]
    limit = [made_up_report.Constraint("size_bytes", at_most=5e6)]
    said = answer(made_up_report.front(items, margin=0.006, constraints=limit))[2]
    assert "more cases will not show less" in said


def test_too_few_cases_are_named_as_the_cause() -> None:
    few = dict(list(made_up.cases(0.85).items())[:3])
    items = [
        made_up.measurement(per_case=few, size_bytes=9_000_000),
        made_up.measurement(made_up.variant(width=0.5), per_case=few, latency_ms=2),
    ]
    limit = [made_up_report.Constraint("size_bytes", at_most=5e6)]
    said = answer(made_up_report.front(items, constraints=limit))[2]
    assert said == (
        "There is no verdict on it: it was held against the baseline on 3 cases, and fewer than 5 bound no loss."
    )


def test_without_a_baseline_nothing_is_shipped() -> None:
    report = made_up_report.front([made_up.measurement(made_up.variant(width=0.5))], baseline_digests=[])
    assert answer(report)[0].startswith("Nothing is shown fit to ship: ")


@pytest.mark.parametrize(
    "changes", [{"metrics": {}}, {"metrics": {}, "cases": {}}, {"metrics": {"latency_ratio": 1.0}}]
)
def test_a_baseline_without_the_metrics_still_has_a_front_and_a_report(changes: dict[str, dict[str, float]]) -> None:
    items = [
        dataclasses.replace(made_up.measurement(), **changes),
        made_up.measurement(made_up.variant(precision="int8"), latency_ms=2.0, seed=3),
    ]
    front = made_up_report.front(items)
    assert answer(front)[0].startswith("Nothing is shown fit to ship: ")
    confirmed = [dataclasses.replace(item, split="confirmation") for item in items]
    assert render_report(ReportData("made up", front, items, "", "", confirmation=confirmed))
