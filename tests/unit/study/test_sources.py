"""A study goes on with the task's code that it was measured with, or says that it does not; and folders that cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import made_up
import pytest
from made_up_study import WITHOUT_ITS_TASK, new_store

from edgedeploy.errors import SpecError
from edgedeploy.records.measurement import TASK_CHANGED, Failure, Measurement
from edgedeploy.report.terminal import front_table
from edgedeploy.spec.study import parse_spec
from edgedeploy.study.front import read_front
from edgedeploy.study.sources import TaskChange, changed_sources, task_marks, task_sources
from edgedeploy.study.store import Store


@pytest.fixture
def table(tmp_path: Path) -> dict[str, object]:
    """A task of two files: its own, and a helper that it imports."""
    (tmp_path / "task.py").write_text("import helper\n\ndef make_task():\n    return helper.make()\n")
    (tmp_path / "helper.py").write_text("def make():\n    return None\n")
    (tmp_path / "other.py").write_text("")
    return {"kind": "python", "object": "task.py:make_task"}


@pytest.fixture
def store(table: dict[str, object], tmp_path: Path) -> Store:
    store = new_store(tmp_path / "study", [made_up.variant()])
    kept = json.loads(store.study_path.read_text())
    store.study_path.write_text(json.dumps({**kept, "task_sources": task_sources(table, tmp_path)}))
    return store


def test_a_changed_helper_is_named_and_refused_with_the_ways_out(
    store: Store, table: dict[str, object], tmp_path: Path
) -> None:
    assert changed_sources(store, task_sources(table, tmp_path), allowed=False) == (TaskChange(), ())
    (tmp_path / "other.py").write_text("# no part of the task\n")
    assert changed_sources(store, task_sources(table, tmp_path), allowed=False) == (TaskChange(), ())
    (tmp_path / "helper.py").write_text("def make():\n    return 1\n")
    with pytest.raises(SpecError, match=r"helper\.py changed") as refused:
        changed_sources(store, task_sources(table, tmp_path), allowed=False)
    assert "another --out" in refused.value.remedy and "--task-changed" in refused.value.remedy


def test_where_nothing_is_measured_yet_the_refusal_says_so(
    store: Store, table: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "helper.py").write_text("def make():\n    return 1\n")
    sources = task_sources(table, tmp_path)
    with pytest.raises(SpecError) as empty:
        changed_sources(store, sources, allowed=False)
    assert "is not what the study was begun with: helper.py changed" in empty.value.found
    assert empty.value.found.endswith("nothing is measured in it yet, and nothing trained or built")
    assert empty.value.remedy.endswith("there is nothing of the old code to be mixed with")
    _, (note,) = changed_sources(store, sources, allowed=True)
    assert note.endswith("nothing was measured with the old one")

    trained = store.model_folder("ab") / "model.onnx"
    trained.parent.mkdir(parents=True)
    trained.write_bytes(b"")
    with pytest.raises(SpecError) as begun:
        changed_sources(store, sources, allowed=False)
    assert begun.value.found.endswith("nothing is measured in it yet")
    assert "what is trained and stored with the old code stays" in begun.value.remedy

    store.keep(made_up.measurement())
    with pytest.raises(SpecError, match="is not what the study was measured with") as measured:
        changed_sources(store, sources, allowed=False)
    assert "two versions stand on one front" in measured.value.remedy and "yet" not in measured.value.found


def test_variants_of_the_changed_code_alone_are_not_called_two_versions(
    store: Store, table: dict[str, object], tmp_path: Path
) -> None:
    edit(store, table, tmp_path, "def make():\n    return 1\n")
    store.keep(made_up.measurement(notes=task_marks(store.study())))
    (told,) = (note for note in front_table(read_front(store.root)).notes if TASK_CHANGED in note)
    assert told.startswith("1 of 1 variants were ")


def test_files_that_came_and_went_are_changes_too(store: Store, table: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("import other\n\ndef make_task():\n    return None\n")
    with pytest.raises(SpecError) as refused:
        changed_sources(store, task_sources(table, tmp_path), allowed=False)
    for said in ("task.py changed", "helper.py is gone", "other.py is new"):
        assert said in refused.value.found


def test_an_allowed_change_is_kept_with_what_is_measured_later_and_told(
    store: Store, table: dict[str, object], tmp_path: Path
) -> None:
    store.keep(made_up.measurement())
    (tmp_path / "helper.py").write_text("def make():\n    return 1\n")
    sources = task_sources(table, tmp_path)
    change, notes = changed_sources(store, sources, allowed=True)
    assert change == TaskChange(("helper.py",)) and "helper.py changed" in notes[0]
    change.keep(store, sources)
    assert changed_sources(store, sources, allowed=False) == (TaskChange(), ()), "it is the study's code now"

    (mark,) = task_marks(store.study())
    assert mark.startswith(TASK_CHANGED) and "helper.py" in mark
    later = made_up.measurement(made_up.variant(precision="int8"), latency_ms=2.0, seed=3, notes=(mark,))
    store.keep(later)
    assert Measurement.from_json(later.as_json()).notes == (mark,)
    front = read_front(store.root)
    told = [note for note in front_table(front).notes if note.startswith("Two versions of the task")]
    assert len(told) == 1 and "1 of 2 variants" in told[0] and "helper.py" in told[0]
    notes_of = {row["digest"]: row["notes"] for row in front.as_json()["rows"]}
    assert notes_of[later.digest] == [mark]


def edit(store: Store, table: dict[str, object], root: Path, text: str) -> None:
    """Change the helper and resume with ``--task-changed``."""
    (root / "helper.py").write_text(text)
    sources = task_sources(table, root)
    change, _ = changed_sources(store, sources, allowed=True)
    change.keep(store, sources)


@pytest.mark.parametrize("edits", [["def make():\n    return 1\n"], ["# one\n", "# two\n", "# three\n"]])
def test_the_original_file_comes_back_while_nothing_was_made_with_the_changed_one(
    edits: list[str], store: Store, table: dict[str, object], tmp_path: Path
) -> None:
    store.keep(made_up.measurement())
    original = (tmp_path / "helper.py").read_text()
    for text in edits:
        edit(store, table, tmp_path, text)
    assert len(store.study()["task_changes"]) == len(edits)
    (tmp_path / "helper.py").write_text(original)
    sources = task_sources(table, tmp_path)
    change, (note,) = changed_sources(store, sources, allowed=False)
    assert change == TaskChange(taken_back_to=0) and "nothing was made since" in note
    change.keep(store, sources)
    assert task_marks(store.study()) == (), "what is measured next is of the version that all of it is of"
    assert changed_sources(store, sources, allowed=False) == (TaskChange(), ())


def test_the_original_file_is_refused_once_something_was_made_with_the_changed_one(
    store: Store, table: dict[str, object], tmp_path: Path
) -> None:
    original = (tmp_path / "helper.py").read_text()
    edit(store, table, tmp_path, "# changed\n")
    marks = task_marks(store.study())
    store.keep(made_up.measurement(made_up.variant(precision="int8"), notes=marks))
    (tmp_path / "helper.py").write_text(original)
    with pytest.raises(SpecError, match="again, but 1 measurement was made since then") as refused:
        changed_sources(store, task_sources(table, tmp_path), allowed=False)
    assert "put the changed files back" in refused.value.remedy and "--task-changed" in refused.value.remedy
    change, _ = changed_sources(store, task_sources(table, tmp_path), allowed=True)
    assert change == TaskChange(("helper.py",))


@pytest.mark.parametrize("made", ["model", "failure"])
def test_models_and_failures_of_the_changed_file_count_too(
    made: str, store: Store, table: dict[str, object], tmp_path: Path
) -> None:
    original = (tmp_path / "helper.py").read_text()
    edit(store, table, tmp_path, "# changed\n")
    if made == "model":
        path = store.model_folder("ab") / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        os.utime(path, (4e9, 4e9))
    else:
        store.keep_failure(Failure(made_up.variant(), "BuildError", "build", "no", "2099-01-01T00:00:00+00:00"))
    (tmp_path / "helper.py").write_text(original)
    with pytest.raises(SpecError, match=r"(models or artifacts were made|failed) since"):
        changed_sources(store, task_sources(table, tmp_path), allowed=False)


def test_a_folder_without_the_record_is_noted_and_not_refused(tmp_path: Path, table: dict[str, object]) -> None:
    store = new_store(tmp_path / "older", [made_up.variant()])
    change, notes = changed_sources(store, task_sources(table, tmp_path), allowed=False)
    assert change == TaskChange()
    assert "is not known" in notes[0]
    assert changed_sources(Store(tmp_path / "new"), {}, allowed=False) == (TaskChange(), ())


def test_a_damaged_record_is_told(store: Store) -> None:
    kept = json.loads(store.study_path.read_text())
    store.study_path.write_text(json.dumps({**kept, "task_sources": ["task.py"]}))
    with pytest.raises(Exception, match=r"study\.json"):
        store.study()


def test_the_spec_of_these_tests_is_a_python_task() -> None:
    assert parse_spec(WITHOUT_ITS_TASK, Path("study.toml"))[0].task.kind == "python"


@pytest.mark.parametrize("place", ["/proc/study", "/proc/self/fd/study", "/sys/study"])
def test_a_place_where_nothing_can_be_written_is_one_line(place: str) -> None:
    if not Path(place).parent.is_dir():
        pytest.skip(f"no {Path(place).parent} here")
    store = Store(Path(place))
    with pytest.raises(SpecError, match="Choose another --out"):
        store.check_place()
        with store.own():
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_place_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SpecError, match="Choose another --out"):
        Store(tmp_path / "study").check_place()
