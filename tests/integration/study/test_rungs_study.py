"""A study whose architectures are recovered on rungs: measured first, trained last, each rung from the one below."""

from __future__ import annotations

import json
import shutil
from html import escape
from pathlib import Path
from typing import Any

import pytest
from board_kit import squares_study

import edgedeploy
from edgedeploy.errors import SpecError
from edgedeploy.search.rungs import Rungs
from edgedeploy.study.layout import NOT_TRIED
from edgedeploy.study.left import kept_left, kept_promotions
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

EPOCHS = (0, 1, 3)
RUNGS = Rungs.of(EPOCHS)
CHANGES = (
    ("kernel = [3, 5]\n", "recovery_epochs = [0, 1, 3]\n"),
    ("width = [1.0, 0.5]", "width = [1.0, 0.5, 0.25]"),
    ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'),
    ("trials = 6", "trials = 11"),
    ("queries = 64", "queries = 16"),
    ("cold_starts = 1", "cold_starts = 0"),
)


def run(study: Path, out: Path, **options: Any) -> tuple[Any, list[Any]]:
    events: list[Any] = []
    told = edgedeploy.RunOptions(out=out, board="here", confirm=False, **options)
    return edgedeploy.load_study(study).run(told, observer=events.append), events


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    place = tmp_path_factory.mktemp("rungs")
    result, events = run(squares_study(place, *CHANGES), place / "out")
    result.report()
    return place / "out", events


def test_each_rung_is_trained_by_the_epochs_that_it_adds(folder: tuple[Path, list[Any]]) -> None:
    out, _ = folder
    store = Store(out)
    climbed = {item.variant.recovery_epochs for item in store.measurements()}
    assert {0, 1} <= climbed, "the search climbed"
    for item in store.measurements():
        report = store.model_folder(item.variant.model_digest) / "training.json"
        further = RUNGS.further_epochs(item.variant)
        if further:
            assert json.loads(report.read_text())["epochs"] == further
        else:
            assert not report.exists(), "the lowest rung and the baseline are not trained"


def test_nothing_is_trained_before_its_structure_was_measured(folder: tuple[Path, list[Any]]) -> None:
    out, _ = folder
    made = sorted(Store(out).measurements(), key=lambda item: item.created_utc)
    for at, item in enumerate(made):
        if RUNGS.below(item.variant) is not None:
            assert RUNGS.lowest(item.variant) in [other.variant for other in made[:at]]


def test_every_promotion_says_why(folder: tuple[Path, list[Any]]) -> None:
    _, events = folder
    told = [event.text for event in events if event.kind == "note" and "is predicted to be" in event.text]
    assert told
    for text in told:
        assert (", because" in text and "of the front's volume" in text) != ("to tell what training gives" in text), (
            text
        )


def test_the_folder_and_the_report_keep_each_promotion_with_its_reason(folder: tuple[Path, list[Any]]) -> None:
    out, events = folder
    store = Store(out)
    told = [event.text for event in events if event.kind == "note" and "is predicted to be" in event.text]
    promoted = kept_promotions(store)
    assert [f"{item.label}: {item.reason}" for item in promoted] == told
    searched = [item.variant for item in store.measurements() if not item.variant.recovered]
    climbed = {variant.digest for variant in searched if RUNGS.below(variant) is not None}
    assert {item.digest for item in promoted} == climbed
    page = (out / "report.html").read_text()
    assert "What was trained further" in page
    assert all(escape(item.reason, quote=True).replace("&#x27;", "&#39;") in page for item in promoted)


def test_the_report_says_what_was_not_tried_and_why(folder: tuple[Path, list[Any]]) -> None:
    out, _ = folder
    left = kept_left(Store(out))
    assert left
    measured = {item.variant.digest for item in Store(out).measurements()}
    kept = json.loads((out / NOT_TRIED).read_text())
    assert kept["provenance"] == "predicted"
    assert not {digest_in(item) for item in kept["not_tried"]} & measured
    page = (out / "report.html").read_text()
    assert "What was not tried" in page
    assert left[0].label in page


def digest_in(item: dict[str, Any]) -> str:
    from edgedeploy.records.variant import Variant

    return Variant.from_json(item["variant"]).digest


def test_a_resumed_study_trains_no_rung_again(folder: tuple[Path, list[Any]]) -> None:
    out, _ = folder
    before = {path: path.stat().st_mtime_ns for path in sorted(out.glob("models/*/weights.pt"))}
    run(out.parent / "study.toml", out, resume=True, trials=12)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_run_that_is_cut_leaves_no_list_of_an_earlier_run(folder: tuple[Path, list[Any]], tmp_path: Path) -> None:
    """What it tried would stand there as not tried."""
    out = shutil.copytree(folder[0], tmp_path / "out")
    assert (out / NOT_TRIED).exists()

    def cut(event: edgedeploy.Event) -> None:
        if event.kind == "phase":
            raise KeyboardInterrupt

    again = edgedeploy.RunOptions(out=out, board="here", confirm=False, resume=True, trials=20)
    with pytest.raises(KeyboardInterrupt):
        edgedeploy.load_study(folder[0].parent / "study.toml").run(again, observer=cut)
    assert not (out / NOT_TRIED).exists()


@pytest.mark.parametrize("value", ["-1", "0.5", '"4"'])
def test_rungs_are_whole_numbers_of_epochs(tmp_path: Path, value: str) -> None:
    study = squares_study(tmp_path, *CHANGES, ("[0, 1, 3]", f"[0, {value}]"))
    with pytest.raises(SpecError, match=r"recovery_epochs.*whole numbers"):
        edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=tmp_path / "out", board="here"))
