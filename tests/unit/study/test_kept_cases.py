"""A study goes on over the cases that it was begun with, and says which came and went where it does not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import made_up
import picture_kit
import pytest
from made_up_study import new_store
from small_task import SmallTask

from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import Case, Split, Task
from edgedeploy.study.kept_cases import names_of, record_of, require_same_cases
from edgedeploy.study.store import Store
from edgedeploy.tasks.load import load_task


def classes(root: Path) -> Task:
    options = {"root": str(root), "resolutions": [16], "base_channels": 4}
    return load_task({"kind": "classification", "options": options}, root.parent)


def begun(root: Path, task: Task) -> Store:
    store, names = new_store(root, [made_up.variant()]), names_of(task)
    store.keep_case_names(names)
    keep(store, cases=record_of(task, names))
    return store


def keep(store: Store, **changes: Any) -> None:
    store.study_path.write_text(json.dumps({**json.loads(store.study_path.read_text()), **changes}))


class Named(SmallTask):
    """A task whose cases have the names that it is given, by split."""

    def __init__(self, folder: Path, brightness: float = 0.0, **named: tuple[str, ...]) -> None:
        super().__init__(folder, brightness)
        self.named: Mapping[str, tuple[str, ...]] = named

    def cases(self, split: Split) -> tuple[Case, ...]:
        found = super().cases(split)
        return tuple(Case(name, split) for name in self.named[split]) if split in self.named else tuple(found)


def test_an_image_that_was_added_to_a_folder_is_refused_and_each_split_named(tmp_path: Path) -> None:
    root = picture_kit.two_classes(tmp_path / "data", cases=12)
    store = begun(tmp_path / "study", classes(root))
    assert require_same_cases(store, classes(root), ()) == ()
    added = picture_kit.save(root / "lying" / "added.png", picture_kit.striped(99, False))
    before, now = begun(tmp_path / "other", classes(root)).case_names(), store.case_names()
    moved = [split for split in before if sorted(before[split]) != sorted(now[split])]
    assert moved
    with pytest.raises(SpecError, match="the data is not what the study was begun with") as refused:
        require_same_cases(store, classes(root), ())
    for split in moved:
        came, went = len(set(before[split]) - set(now[split])), len(set(now[split]) - set(before[split]))
        assert f"split {split!r}: {came} case" in refused.value.found and f", {went} case" in refused.value.found
    assert "another --out" in refused.value.remedy and "put the data back" in refused.value.remedy
    added.unlink()
    assert require_same_cases(store, classes(root), ()) == ()


@pytest.mark.parametrize("split", ["train", "calibration", "selection", "confirmation"])
def test_cases_that_came_and_went_are_counted_and_named(split: str, tmp_path: Path) -> None:
    store = begun(tmp_path / "study", Named(tmp_path, **{split: ("a", "b")}))
    with pytest.raises(SpecError) as refused:
        require_same_cases(store, Named(tmp_path, **{split: ("b", "c", "d")}), ())
    assert f"split {split!r}: 2 cases came (c, d), 1 case went (a)" in refused.value.found


def test_another_order_is_refused_where_rows_of_inputs_are_stored_by_it(tmp_path: Path) -> None:
    store = begun(tmp_path / "study", Named(tmp_path, selection=("a", "b"), train=("a", "b")))
    assert require_same_cases(store, Named(tmp_path, selection=("a", "b"), train=("b", "a")), ()) == ()
    with pytest.raises(SpecError, match="split 'selection' has its 2 cases in another order"):
        require_same_cases(store, Named(tmp_path, selection=("b", "a"), train=("a", "b")), ())


def test_other_inputs_of_the_same_cases_are_noted(tmp_path: Path) -> None:
    store = begun(tmp_path / "study", SmallTask(tmp_path))
    notes = require_same_cases(store, SmallTask(tmp_path, brightness=1.0), ())
    assert len(notes) == 3 and all("inputs of its first case" in note for note in notes)


def test_without_the_names_the_counts_are_told(tmp_path: Path) -> None:
    store = begun(tmp_path / "study", Named(tmp_path, selection=("a", "b")))
    (store.root / "cases.json").unlink()
    with pytest.raises(SpecError, match="split 'selection' had 2 cases and has 3 cases"):
        require_same_cases(store, Named(tmp_path, selection=("a", "b", "c")), ())


def test_a_folder_of_before_is_held_against_its_measurements(tmp_path: Path) -> None:
    store, task = new_store(tmp_path / "study", [made_up.variant()]), Named(tmp_path, selection=("a", "b"))
    (note,) = require_same_cases(store, task, ())
    assert "is not known" in note
    measured = made_up.measurement(per_case={name: {"dice_mean": 0.9} for name in ("b", "a")})
    (note,) = require_same_cases(store, task, [measured])
    assert "other splits than selection" in note
    with pytest.raises(SpecError, match=r"split 'selection': 1 case came \(c\), 1 case went \(b\)"):
        require_same_cases(store, Named(tmp_path, selection=("a", "c")), [measured])
    assert require_same_cases(Store(tmp_path / "new"), task, ()) == ()


def test_damaged_records_are_told(tmp_path: Path) -> None:
    store = begun(tmp_path / "study", SmallTask(tmp_path))
    (store.root / "cases.json").write_text('{"selection": 3}')
    assert store.case_names() == {}
    assert "cases.json is left out" in store.left_out()[0]
    keep(store, cases={"selection": "two"})
    with pytest.raises(DataError, match=r"study\.json"):
        store.study()
