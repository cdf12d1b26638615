"""A study on a busy machine goes on under wider limits, and says so; not under tighter ones than it was measured with."""

from __future__ import annotations

import json
from pathlib import Path

import made_up
import pytest
from made_up_study import WITHOUT_ITS_TASK, new_store

from edgedeploy.errors import SpecError
from edgedeploy.records.measurement import LIMITS_CHANGED
from edgedeploy.report.terminal import front_table
from edgedeploy.spec.study import StudySpec, parse_spec
from edgedeploy.study.front import read_front
from edgedeploy.study.limits import changed_limits, limit_marks, limits_of, memory_notes
from edgedeploy.study.store import Store


def spec(**limits: float | str) -> StudySpec:
    lines = [f"{key} = {json.dumps(value)}" for key, value in limits.items()]
    return parse_spec("\n".join([WITHOUT_ITS_TASK, "[measure]", *lines, ""]), Path("study.toml"))[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = new_store(tmp_path / "study", [made_up.variant()])
    store.keep(made_up.measurement())
    return store


def resume(store: Store, wanted: StudySpec) -> tuple[str, ...]:
    change, notes = changed_limits(store, spec(), wanted)
    if change:
        store.keep_limit_change(change)
    return notes


def test_wider_limits_are_told_and_kept_with_what_is_measured_later(store: Store) -> None:
    assert resume(store, spec()) == () and limit_marks(store.study()) == ()
    (note,) = resume(store, spec(max_background_cores=2))
    assert "max_background_cores 2, was 0.5" in note
    assert resume(store, spec(max_background_cores=2)) == (), "they are the study's limits now"
    (mark,) = limit_marks(store.study())
    assert mark == f"{LIMITS_CHANGED} (max_background_cores 2 instead of 0.5)"
    store.keep(made_up.measurement(made_up.variant(precision="int8"), latency_ms=2.0, seed=3, notes=(mark,)))
    told = [note for note in front_table(read_front(store.root)).notes if LIMITS_CHANGED in note]
    assert told == [f"1 of 2 variants were {mark}."]


@pytest.mark.parametrize(
    ("key", "lower", "before"),
    [
        ("max_drift", 0.1, "0.25"),
        ("max_spread", 0.1, "0.35"),
        ("max_background_cores", 0.1, "0.5"),
        ("max_heating_c", 0.1, "15"),
        ("max_clock_drift", 0.1, "0.15"),
        ("time_limit", "1 s", '"900 s"'),
    ],
)
def test_a_tighter_limit_is_refused_by_its_key(key: str, lower: float | str, before: str, store: Store) -> None:
    shown = json.dumps(lower)
    with pytest.raises(SpecError) as refused:
        resume(store, spec(**{key: lower}))
    assert f"{key} in [measure] is {shown} in this study file and {before} in the folder" in refused.value.found
    assert f"Set {key} = {before} or more" in refused.value.remedy


def test_the_limits_of_before_come_back_while_nothing_was_measured_under_wider_ones(store: Store) -> None:
    resume(store, spec(max_drift=2, max_spread=3))
    assert len(resume(store, spec())) == 1
    assert limit_marks(store.study()) == (), "they are those that the study began with"
    resume(store, spec(max_drift=2))
    marks = limit_marks(store.study())
    store.keep(made_up.measurement(made_up.variant(precision="int8"), notes=marks))
    with pytest.raises(SpecError, match=r"max_drift in \[measure\] is 0\.25 in this study file and 2 in the folder"):
        resume(store, spec())


def test_limits_are_free_before_anything_is_measured(tmp_path: Path) -> None:
    store = new_store(tmp_path / "study", [made_up.variant()])
    assert len(resume(store, spec(max_drift=0.1))) == 1
    assert changed_limits(Store(tmp_path / "new"), spec(), spec(max_drift=2)) == ({}, ())


def test_what_decides_no_validity_changes_either_way_and_marks_nothing(store: Store) -> None:
    assert len(resume(store, spec(retries=0, cool_down="1 s"))) == 1
    assert len(resume(store, spec(retries=5, cool_down="2 min"))) == 1
    assert limit_marks(store.study()) == ()


def test_the_recorded_limits_count_where_the_file_in_the_folder_was_edited(store: Store) -> None:
    kept = json.loads(store.study_path.read_text())
    store.study_path.write_text(json.dumps({**kept, "limits": limits_of(spec())}))
    change, notes = changed_limits(store, spec(max_drift=2), spec(max_drift=2))
    assert change["limits"] == {"max_drift": 2.0} and "max_drift 2, was 0.25" in notes[0]


def test_what_held_a_process_to_its_memory_is_a_note_and_no_board_can_make_another() -> None:
    held = {"bytes": 512_000_000, "held_by": "control group"}
    said = "its process had 512 MB of memory at most, held by control group"
    assert memory_notes({"memory_limit": held}) == (said,)
    for odd in ({}, {**held, "held_by": "<b>me</b>"}, {**held, "bytes": 10**400}, {**held, "bytes": "512"}, [], None):
        assert memory_notes({"memory_limit": odd}) == ()
    assert memory_notes({}) == ()
