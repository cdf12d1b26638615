"""From a study's folder to its front and its report: every file of the evidence is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import made_up_report
import numpy as np
import pytest
from made_up_study import new_store
from small_task import SmallTask
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.files import write_arrays
from edgedeploy.interfaces.task import Array, Case, Split
from edgedeploy.report.make import make_report
from edgedeploy.study import store as module
from edgedeploy.study.evidence_files import EvidenceFolder
from edgedeploy.study.front import read_front
from edgedeploy.study.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = new_store(tmp_path / "study", made_up_report.BASELINES)
    for item in made_up_report.measurements():
        store.keep(item)
    store.keep(made_up.measurement(made_up.variant(width=0.5), cause="the baseline became slower"))
    return store.root


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each JSON file of a study's folder was read."""
    real, real_evidence, seen = module.read_record, EvidenceFolder.read, Counter[str]()

    def counted(path: Path, make: Callable[[dict[str, Any]], Any], remedy: str) -> Any:
        seen[f"{path.parent.name}/{path.name}"] += 1
        return real(path, make, remedy)

    def evidence_counted(kind: EvidenceFolder[Any], path: Path, study: str) -> Any:
        seen[f"{path.parent.name}/{path.name}"] += 1
        return real_evidence(kind, path, study)

    monkeypatch.setattr(module, "read_record", counted)
    monkeypatch.setattr(EvidenceFolder, "read", evidence_counted)
    return seen


def evidence(folder: Path) -> set[str]:
    paths = [path for name in ("measurements", "invalid") for path in (folder / name).glob("*.json")]
    assert len(paths) > 3
    return {f"{path.parent.name}/{path.name}" for path in paths}


def test_a_report_reads_every_measurement_once_and_again_what_it_shows_in_detail(
    folder: Path, read: Counter[str]
) -> None:
    page = make_report(folder).read_text(encoding="utf-8")
    assert evidence(folder) <= set(read)
    twice = {name for name, times in read.items() if times > 1}
    front = read_front(folder)
    assert front.pick is not None
    shown = {f"measurements/{digest}.json" for digest in (front.pick.digest, front.reference)}
    assert twice == shown
    read.clear()
    assert make_report(folder).read_text(encoding="utf-8") == page
    assert {name for name in read if name.startswith("measurements/")} == shown, "the index has the others"
    assert "No pictures of cases" in page, "the pick's worst cases were looked for"


def test_a_front_reads_every_measurement_once(folder: Path, read: Counter[str]) -> None:
    done = CliRunner().invoke(app, ["front", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    assert evidence(folder) <= set(read)
    assert set(read.values()) == {1}


def test_the_reports_front_is_that_of_the_folder(folder: Path) -> None:
    front = read_front(folder)
    page = make_report(folder).read_text(encoding="utf-8")
    assert front.pick is not None
    row = front.row(front.pick.digest)
    assert row is not None
    assert row.variant.label in page


def test_the_command_line_writes_each_form(folder: Path) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    assert "page.md" in run("report", str(folder), "--markdown", str(folder / "page.md"))
    assert not (folder / "report.html").exists()
    assert "What was not shown" in (folder / "page.md").read_text(encoding="utf-8")
    told = run("report", str(folder), "--markdown", str(folder / "page.md"), "--out", str(folder / "page.html"))
    assert "page.md" in told and "page.html" in told
    for name, begins in (("front.svg", b"<svg"), ("front.png", b"\x89PNG")):
        assert name in run("plot", str(folder), "--out", str(folder / name))
        assert (folder / name).read_bytes().lstrip().startswith(begins)


class DrawnTask(SmallTask):
    """The cases of the made-up measurements, each a grey square."""

    ids = tuple(made_up.cases(0.8))
    image: Any = np.full((8, 8, 3), 128, np.uint8)

    def cases(self, split: Split) -> Sequence[Case]:
        return tuple(Case(name, split) for name in self.ids)

    def picture(self, case: Case, outputs: Mapping[str, Array] | None) -> Any:
        if isinstance(self.image, Exception):
            raise self.image
        return self.image


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DrawnTask:
    made = DrawnTask(tmp_path / "task")
    monkeypatch.setattr("edgedeploy.report.make.load_task", lambda *_: made)
    return made


def outputs_of_pick(folder: Path) -> Path:
    pick = read_front(folder).pick
    assert pick is not None
    return Store(folder).outputs_path(pick.digest, "selection")


def test_a_report_shows_the_worst_cases(folder: Path, task: DrawnTask) -> None:
    write_arrays(outputs_of_pick(folder), {"mask": np.zeros((len(task.ids), 1))})
    page = make_report(folder).read_text(encoding="utf-8")
    assert "No pictures of cases" not in page
    assert "data:image/png" in page


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ids": ("other",)}, "they are not those that the study measured"),
        ({"ids": (*DrawnTask.ids, "one more")}, "they are not those that the study measured"),
        ({"image": ZeroDivisionError("by the task")}, "ZeroDivisionError: by the task"),
        ({"image": np.zeros((8, 8), np.uint8)}, "a picture is uint8 (H, W, 3), but got uint8 (8, 8)"),
        ({"image": np.zeros((0, 8, 3), np.uint8)}, "a picture is uint8 (H, W, 3), but got uint8 (0, 8, 3)"),
        ({"image": None}, "a picture is uint8 (H, W, 3), but got NoneType"),
    ],
)
def test_a_task_that_draws_no_more_costs_the_pictures_alone(
    change: dict[str, Any], why: str, folder: Path, task: DrawnTask
) -> None:
    write_arrays(outputs_of_pick(folder), {"mask": np.zeros((len(task.ids), 1))})
    vars(task).update(change)
    page = make_report(folder).read_text(encoding="utf-8")
    assert "No pictures of cases" in page
    assert why in page


@pytest.mark.parametrize("kept", [0, 100])
def test_torn_outputs_cost_the_pictures_alone(kept: int, folder: Path, task: DrawnTask) -> None:
    path = outputs_of_pick(folder)
    write_arrays(path, {"mask": np.zeros((len(task.ids), 1))})
    path.write_bytes(path.read_bytes()[:kept])
    page = make_report(folder).read_text(encoding="utf-8")
    assert f"No pictures of cases: they could not be drawn (stored outputs {path.name}: they cannot be read" in page


def test_a_folder_whose_name_is_no_unicode_has_a_report(folder: Path) -> None:
    odd = folder.rename(folder.with_name("study-\udcff"))
    assert r"study-\udcff" in make_report(odd).read_text(encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(odd)])
    assert done.exit_code == 0, done.output


def test_a_front_with_a_name_that_is_no_unicode_is_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = read_front(folder)
    odd = replace(real, rows=[replace(row, variant=replace(row.variant, target="odd-\udcff")) for row in real.rows])
    monkeypatch.setattr("edgedeploy.study.front.read_front", lambda *_: odd)
    done = CliRunner().invoke(app, ["front", str(folder)])
    assert done.exit_code == 0, done.output
    assert r"odd-\udcff" in done.output
