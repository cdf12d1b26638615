"""What a study's folder keeps beside the evidence: the study itself, its changes, names of cases, trainings, and places."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import made_up_study
import pytest

from edgedeploy.errors import DataError, SpecError, StorageError
from edgedeploy.files import PARTIAL_PREFIX
from edgedeploy.records.measurement import SCHEMA_VERSION, Failure
from edgedeploy.study import place as module
from edgedeploy.study.store import MADE, Store

TRAINED = {
    "epochs": 3,
    "wall_s": 1.5,
    "precision": "float32",
    "host": {"cpu": "x", "isa": ["avx2"], "native_bfloat16": False, "isa_limit": ""},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return made_up_study.new_store(tmp_path / "study", [made_up.variant()])


def test_a_folder_holds_a_study_once_it_was_made(tmp_path: Path) -> None:
    store = Store(tmp_path / "study")
    assert not store.exists() and not store.root.exists()
    with pytest.raises(SpecError, match="it holds no study"):
        store.study()
    store.create("[study]\n", {"task_metrics": {}})
    assert store.exists()
    assert store.study_text() == "[study]\n"
    kept = store.study()
    assert (kept["schema"], kept["task_metrics"]) == (SCHEMA_VERSION, {})
    assert kept["created_utc"][:2] == "20"


def test_a_study_of_another_version_is_not_read(store: Store) -> None:
    kept = json.loads(store.study_path.read_text())
    store.study_path.write_text(json.dumps({**kept, "schema": SCHEMA_VERSION + 1}))
    with pytest.raises((SpecError, DataError), match="version"):
        store.study()


def test_a_key_that_a_study_lacks_is_told_when_it_is_looked_up(store: Store) -> None:
    kept = store.study()
    assert kept.get("board") is None
    with pytest.raises(DataError, match=r"study\.json.*lacks 'board'"):
        kept["board"]


def test_changes_of_the_task_are_kept_in_their_order_and_taken_back_from_the_end(store: Store) -> None:
    assert "task_changes" not in store.study()
    for number in (1, 2, 3):
        store.keep_task_change({"task.py": str(number)}, ["task.py"])
    kept = store.study()
    assert kept["task_sources"] == {"task.py": "3"}
    assert [change["files"] for change in kept["task_changes"]] == [["task.py"]] * 3
    assert [change["before"] for change in kept["task_changes"]] == [{}, {"task.py": "1"}, {"task.py": "2"}]
    store.take_back_task_changes(1)
    kept = store.study()
    assert kept["task_sources"] == {"task.py": "1"} and len(kept["task_changes"]) == 1
    assert kept["baselines"] == [made_up.variant().as_json()], "the rest of the study stays"


def test_changes_of_limits_are_kept_in_their_order(store: Store) -> None:
    for number in (1.0, 2.0):
        store.keep_limit_change({"limits": {"max_drift": number}, "first": {"max_drift": 0.5}})
    changes = store.study()["limit_changes"]
    assert [change["limits"] for change in changes] == [{"max_drift": 1.0}, {"max_drift": 2.0}]
    assert all(change["utc"] for change in changes)


def test_names_of_cases_are_kept(store: Store) -> None:
    assert store.case_names() == {}
    store.keep_case_names({"selection": ("b", "a"), "train": ()})
    assert store.case_names() == {"selection": ["b", "a"], "train": []}


def test_trainings_are_kept(store: Store) -> None:
    assert store.baseline_training() == {} and store.model_trainings() == []
    store.keep_baseline_training(TRAINED)
    assert store.baseline_training() == TRAINED
    for name in ("b", "a"):
        folder = store.model_folder(name)
        folder.mkdir(parents=True)
        (folder / "training.json").write_text(json.dumps({**TRAINED, "epochs": ord(name)}))
    assert [found["epochs"] for found in store.model_trainings()] == [ord("a"), ord("b")]
    assert store.baseline_training() == TRAINED


def test_every_thing_has_a_place_of_its_own(store: Store) -> None:
    places = {
        store.study_path: "study.json",
        store.optimiser_path: "optuna.sqlite3",
        store.model_folder("d"): "models/d",
        store.artifact_folder("n"): "artifacts/n",
        store.weight_bits_path("n"): "artifacts/n.weight-bits.json",
        store.inputs_path("n"): "inputs/n.npz",
        store.outputs_path("d", "selection"): "outputs/d-selection.npz",
        store.baseline_weights: "baseline/weights.pt",
        store.checkpoint("n"): "training/n.pt",
    }
    assert {str(path.relative_to(store.root)): name for path, name in places.items()} == {n: n for n in places.values()}


def test_the_latest_of_what_was_made_counts(store: Store) -> None:
    assert store.latest_made() == 0.0
    for number, name in enumerate(MADE, start=1):
        path = store.root / name / "inner" / "file"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (100 * number, 100 * number))
        os.utime(path.parent, (10**9, 10**9))
    (store.root / "measurements").mkdir()
    (store.root / "measurements" / "x.json").touch()
    assert store.latest_made() == 100 * len(MADE)


def test_runs_that_drifted_are_numbered(store: Store) -> None:
    first, other = made_up.measurement(cause="it was hot"), made_up.measurement(made_up.variant(width=0.5), cause="x")
    for item in (first, other, first):
        store.keep(item)
    names = sorted(path.name for path in (store.root / "invalid").iterdir())
    assert names == sorted([f"{first.digest}-1.json", f"{first.digest}-2.json", f"{other.digest}-1.json"])
    assert store.measurements() == () and [item.cause for item in store.invalid()].count("it was hot") == 2


def test_a_drifted_confirmation_is_a_confirmation(store: Store) -> None:
    store.keep(made_up.measurement(split="confirmation", cause="it was hot"))
    assert len(store.confirmations()) == 1 and store.invalid() == () == store.measurements()


def test_variants_are_told_in_the_order_of_their_outcomes(store: Store) -> None:
    first, second, third = (made_up.variant(width=width) for width in (0.25, 1.0, 0.5))
    store.keep(replace(made_up.measurement(third), created_utc="2026-01-03"))
    store.keep(replace(made_up.measurement(first), created_utc="2026-01-01"))
    store.keep_failure(Failure(second, "BuildError", "build", "no kernel", "2026-01-02"))
    assert store.variants() == [first, second, third]


def test_openings_are_logged_with_their_time(store: Store) -> None:
    assert store.openings() == []
    store.log_opening("end of the search", ("a", "b"))
    store.log_opening("again", ())
    found = store.openings()
    assert [(entry["reason"], entry["variants"]) for entry in found] == [
        ("end of the search", ["a", "b"]),
        ("again", []),
    ]
    assert all(entry["utc"] for entry in found)


def test_times_are_added_line_by_line(store: Store) -> None:
    store.add_time("r", "train", 5, 7)
    store.add_time("r", "idle", 6, 8)
    assert store.times() == [
        {"run": "r", "phase": "train", "ns": 5, "at_ns": 7},
        {"run": "r", "phase": "idle", "ns": 6, "at_ns": 8},
    ]
    store.add_time("r", "asleep", 6, 8)
    assert len(store.times()) == 2, "of no known phase"
    assert store.left_out() == ("1 damaged line of account.jsonl left out: the time account lacks them",)


# -- who may write


def test_one_process_owns_the_folder(store: Store) -> None:
    with store.own(), pytest.raises(SpecError, match="another process is writing to it"), Store(store.root).own():
        pass
    with store.own():
        pass


def test_a_reader_that_asks_whether_somebody_has_the_folder_keeps_no_search_from_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a busy machine keeps it."""
    monkeypatch.setattr(module, "LOOKS", 60 * module.LOOKS)
    with store.own():
        pass
    with (store.root / ".lock").open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        leaves = threading.Timer(3 * module.LOOK_S, lambda: fcntl.flock(asking, fcntl.LOCK_UN))
        leaves.start()
        with store.own():
            leaves.join()


def test_owning_makes_the_folder_and_clears_what_a_kill_left(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "study")
    with store.own():
        half = store.root / "measurements" / f"{PARTIAL_PREFIX}1"
        half.parent.mkdir()
        half.write_text("{")
        store.add_time("r", "train", 5, 7)
        store.log_opening("x", ())
    for name in ("account.jsonl", "confirmation/openings.jsonl"):
        with (store.root / name).open("a") as stream:
            stream.write('{"run"')
    with store.own():
        assert not half.exists()
        assert [(store.root / n).read_text().count("\n") for n in ("account.jsonl", "confirmation/openings.jsonl")] == [
            1,
            1,
        ]
        assert all("run" not in (store.root / n).read_text().splitlines()[-1][:1] for n in ("account.jsonl",))


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EACCES, SpecError), (errno.EROFS, StorageError), (errno.ENOSPC, StorageError)]
)
def test_a_folder_that_cannot_be_written_is_told(
    code: int, kind: type[Exception], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is told where all of them are: with what to do about it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(kind, match=os.strerror(code)), store.own():
        pass


# -- where a folder may lie


def test_a_place_that_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    Store(tmp_path / "a" / "b").check_place()
    assert not (tmp_path / "a").exists()


def test_a_place_that_can_be_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="Not a directory"):
        Store(tmp_path / "file" / "study").check_place()
    with pytest.raises(SpecError, match="too long"):
        Store(tmp_path / ("x" * 300)).check_place()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SpecError, match="Choose another --out"):
        Store(tmp_path / "loop").check_place()


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere: what the system says of the parent is a STUB."""
    asked: list[tuple[Path, int]] = []

    def access(path: Path, mode: int) -> bool:
        asked.append((path, mode))
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(SpecError, match=f"{tmp_path} cannot be written to"):
        Store(tmp_path / "a" / "b").check_place()
    assert asked == [(tmp_path, os.W_OK)]


@pytest.mark.parametrize("kind", ["nfs4", None])
def test_a_network_disk_is_refused(kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "network_file_system", lambda path: kind)
    store = Store(tmp_path / "study")
    if kind is None:
        store.check_place()
        return
    with pytest.raises(SpecError, match=r"network file system \(nfs4\)"):
        store.check_place()


# -- forms


@pytest.mark.parametrize(
    "change",
    [
        {"baselines": [{"target": 3}]},
        {"task_changes": [{"utc": "x"}]},
        {"limit_changes": [{"utc": "x", "limits": {}}]},
        {"cases": {"selection": {"count": "x", "ids": "", "first_inputs": ""}}},
        {"versions": ["x"]},
    ],
)
def test_a_study_of_another_form_is_told(change: Mapping[str, Any], store: Store) -> None:
    kept = json.loads(store.study_path.read_text())
    store.study_path.write_text(json.dumps({**kept, **change}))
    with pytest.raises(DataError, match=r"study\.json"):
        store.study()


def test_what_older_folders_lack_is_no_damage(store: Store) -> None:
    """Every key may be missing, and a change without what was before."""
    store.study_path.write_text(json.dumps({"schema": SCHEMA_VERSION}))
    assert dict(store.study()) == {"schema": SCHEMA_VERSION}
    store.study_path.write_text(
        json.dumps({"schema": SCHEMA_VERSION, "task_changes": [{"utc": "x", "files": ["a.py"]}]})
    )
    assert store.study()["task_changes"][0]["files"] == ["a.py"]
