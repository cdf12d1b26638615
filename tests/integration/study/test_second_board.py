"""A study for a second board starts from the first one's: nothing is trained again, and what is trained comes first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from board_kit import squares_study

import edgedeploy
from edgedeploy.diagnose.doctor import Finding, warm_start_findings
from edgedeploy.errors import DataError, SpecError
from edgedeploy.search.warmstart import FIRST_TRIALS
from edgedeploy.spec.study import load_spec
from edgedeploy.study.front import read_front
from edgedeploy.study.store import Store
from edgedeploy.study.warmstart import PREDICTED, RECORD

pytestmark = pytest.mark.beside

CHANGES = (
    ("kernel = [3, 5]\n", ""),
    ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'),
    ("trials = 6", "trials = 3"),
    ("queries = 64", "queries = 16"),
    ("cold_starts = 1", "cold_starts = 0"),
    ('kind = "local"', 'kind = "local"\n\n[[boards]]\nname = "second"\nkind = "local"'),
)
START = ("[budget]", '[search]\nwarm_start = "first"\n\n[budget]')


def run(study: Path, out: Path, board: str, **options: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    told = edgedeploy.RunOptions(out=out, board=board, confirm=False, **options)
    return edgedeploy.load_study(study).run(told, observer=lambda event: said.append(event.text)), said


def weights(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("weights.pt"))}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of three variants, with two models, beside its study file."""
    folder = tmp_path_factory.mktemp("boards")
    run(squares_study(folder, *CHANGES), folder / "first", "here")
    assert len(weights(folder / "first")) == 3, "the baseline, and a model for each width"
    return folder


def test_nothing_is_trained_again_and_nothing_predicted_is_on_the_front(first: Path) -> None:
    out = first / "second"
    study = squares_study(first, *CHANGES, START)
    _, said = run(study, out, "second", trials=2)
    assert weights(out) == weights(first / "first")
    assert not [text for text in said if text.startswith("training")]
    started = next(text for text in said if text.startswith("started from squares on here"))
    assert "2 of its models and 3 of its artifacts" in started

    before, now = Store(first / "first").measurements(), Store(out).measurements()
    assert {item.variant for item in now} < {item.variant for item in before}
    same = {item.variant: item for item in before}
    for item in now:
        assert item.artifact.digest == same[item.variant].artifact.digest
        assert item.metrics["correct"] == same[item.variant].metrics["correct"], "one file computes one thing"
        assert item.created_utc >= same[item.variant].created_utc and item.provenance == "measured"

    (left,) = {item.variant for item in before} - {item.variant for item in now}
    (predicted,) = json.loads((out / PREDICTED).read_text())["predicted"]
    assert (predicted["variant_digest"], predicted["metric"]) == (left.digest, "latency_ratio")
    assert (predicted["provenance"], predicted["interval"]) == ("predicted", None)
    assert left.digest not in {row.digest for row in read_front(out).rows}

    shutil.move(first / "first", first / "gone")
    try:
        _, again = run(study, out, "second", trials=3, resume=True)
    finally:
        shutil.move(first / "gone", first / "first")
    assert not [text for text in again if text.startswith("training")]
    assert not (out / PREDICTED).exists(), "all of it is measured"
    assert len(json.loads((out / RECORD).read_text())["variants"]) == 3 < FIRST_TRIALS


def test_a_board_that_runs_with_other_threads_tries_what_is_trained_too(first: Path) -> None:
    out, threads = first / "threads", {item.variant.threads for item in Store(first / "first").measurements()}
    other = 1 if threads == {2} else 2
    study = squares_study(first, *CHANGES, START, ("[space]\n", f"[space]\nthreads = [{other}]\n"))
    planned = edgedeploy.load_study(study).plan(out, board="second")
    assert [line for line in planned.notes if line.startswith("starts from squares on here, ")]
    assert any(line.endswith("among 3 variants that were measured there") for line in planned.notes)
    _, said = run(study, out, "second", trials=2)
    assert "; the first trials are among 3 variants" in next(text for text in said if text.startswith("started from"))
    assert {item.variant.threads for item in Store(out).measurements()} == {other}
    assert weights(out) == weights(first / "first") and not [text for text in said if text.startswith("training")]


def test_a_plan_starts_from_another_study_as_a_run_does(tmp_path: Path) -> None:
    always_pruned = ("[space]\n", "[recovery]\nfrom_wider = false\n\n[space]\n")
    run(squares_study(tmp_path, *CHANGES, always_pruned), tmp_path / "first", "here")
    planned = edgedeploy.load_study(squares_study(tmp_path, *CHANGES, START)).plan(tmp_path / "new", board="second")
    times = {item.phase: item.times for item in planned.times}
    assert times["training of variants"] == 0, "its models begin as those of the other study did"


def test_a_plan_lists_first_what_is_trained_and_counts_no_training_that_falls_away(first: Path) -> None:
    def planned(*changes: tuple[str, str]) -> tuple[tuple[str, ...], dict[str, int | None]]:
        study = squares_study(first, *CHANGES, *changes)
        found = edgedeploy.load_study(study).plan(first / "planned", board="second")
        assert found.tried is not None
        return found.tried.seeds, {item.phase: item.times for item in found.times if "training" in item.phase}

    seeds, times = planned()
    assert any(" int8 w0.5 " in seed for seed in seeds)
    assert times == {"training of the baseline": 1, "training of variants": 1}
    trained = {item.variant.label for item in Store(first / "first").measurements()}
    again, times = planned(START)
    assert set(again) <= trained and times == {"training of the baseline": 0, "training of variants": 0}
    narrow = ("width = [1.0, 0.5]", "width = [1.0, 0.25]")
    assert any(" w0.25 " in seed for seed in planned(narrow)[0])
    seeds, times = planned(START, narrow)
    assert not [seed for seed in seeds if " w0.25 " in seed], "nothing was trained for it there"
    assert times == {"training of the baseline": 0, "training of variants": 1}
    assert not (first / "planned").exists()


def test_the_doctor_looks_at_what_a_study_is_to_start_from(first: Path, tmp_path: Path) -> None:
    def looked(*changes: tuple[str, str]) -> Finding:
        before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
        (found,) = warm_start_findings(*load_spec(squares_study(tmp_path, *CHANGES, *changes)))
        assert {path: path.stat().st_mtime_ns for path in before} == before, "it only reads"
        return found

    assert warm_start_findings(*load_spec(squares_study(tmp_path, *CHANGES))) == []
    shutil.copytree(first / "first", tmp_path / "first")
    well = looked(START)
    assert well.ok is True and well.found == "squares on here: 3 variants measured, 2 of 2 models whole"
    gone = looked((START[0], START[1].replace("first", "nowhere")))
    assert gone.ok is False and "'nowhere' cannot be started from" in gone.found and gone.remedy
    other = looked(START, ("seed = 1", "seed = 7"))
    assert other.ok is False and "the seed of 'first' is 1, here it is 7" in other.found
    path = min((tmp_path / "first").glob("models/*/weights.pt"))
    path.write_bytes(b"")
    harmed = looked(START)
    assert harmed.ok is None and harmed.found.endswith("1 of 2 models whole") and harmed.remedy
    (tmp_path / "first" / "study.json").write_text("{")
    assert "it is no JSON" in looked(START).found
    (tmp_path / "squares.py").write_text("raise ValueError('broken')\n")
    (broken,) = warm_start_findings(*load_spec(tmp_path / "study.toml"))
    assert broken.ok is False and "the task cannot be loaded" in broken.found


def test_a_damaged_model_is_left_behind_and_said(first: Path) -> None:
    copy = first / "harmed"
    shutil.copytree(first / "first", copy)
    path = min(copy.glob("models/*/weights.pt"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    study = squares_study(first, *CHANGES, ("[budget]", '[search]\nwarm_start = "harmed"\n\n[budget]'))
    _, said = run(study, first / "third", "second", trials=1)
    assert [text for text in said if path.parent.name in text and "is not used" in text]
    assert next(text for text in said if text.startswith("started from")).count("1 of its models") == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('warm_start = "first"', 'warm_start = "nowhere"'), "it holds no study"),
        (('warm_start = "first"', 'warm_start = "new"'), "this study's own folder"),
        (('warm_start = "first"', 'warm_start = "~nobody-has-it/first"'), "it holds no study"),
        (('warm_start = "first"', 'warm_start = "round"'), "it holds no study"),
        (('warm_start = "first"', 'warm_start = "textless"'), "study.toml: it is gone"),
        (('warm_start = "first"', 'warm_start = "older"'), "study.toml:3: study.shape: unknown key"),
        (("count = 32", "count = 40"), "other options: count"),
        (("seed = 1", "seed = 2"), "the seed of 'first' is 1"),
    ],
)
def test_what_cannot_be_started_from_is_refused_by_its_line(first: Path, change: tuple[str, str], told: str) -> None:
    study = squares_study(first, *CHANGES, START, change)
    for name, text in (("textless", None), ("older", "# of before\n[study]\nshape = 3\n")):
        (first / name).mkdir(exist_ok=True)
        shutil.copy(first / "first" / "study.json", first / name)
        if text:
            (first / name / "study.toml").write_text(text)
    (first / "round").unlink(missing_ok=True)
    (first / "round").symlink_to("round")
    with pytest.raises(SpecError, match=r"study\.toml:\d+: search\.warm_start") as refused:
        run(study, first / "new", "second")
    assert told in refused.value.found
    assert not (first / "new").exists()


def test_other_code_of_the_task_is_refused(first: Path, tmp_path: Path) -> None:
    study = squares_study(tmp_path, *CHANGES, ("[budget]", f'[search]\nwarm_start = "{first}/first"\n\n[budget]'))
    with (tmp_path / "squares.py").open("a") as code:
        code.write("\n# another version\n")
    with pytest.raises(SpecError, match=r"search\.warm_start") as refused:
        run(study, tmp_path / "new", "second")
    assert "its task's code is another one: squares.py differs" in refused.value.found


def test_a_study_that_went_on_without_it_cannot_start_from_it_later(first: Path) -> None:
    study = squares_study(first, *CHANGES, ("[budget]", '[search]\nwarm_start = "second"\n\n[budget]'))
    with pytest.raises(SpecError) as refused:
        run(study, first / "first", "here", resume=True)
    assert "was begun without it" in refused.value.found


@pytest.mark.parametrize("harm", ["{", '{"objectives": ["correct", "latency_ratio"], "variants": [VARIANT]}'])
def test_a_damaged_record_is_told_with_what_helps(first: Path, tmp_path: Path, harm: str) -> None:
    shutil.copytree(first / "first", out := tmp_path / "begun")
    some = Store(out).measurements()[0].variant.as_json()
    short = json.dumps({"variant": some, "values": [0.5], "same_file": True})
    (out / RECORD).write_text(harm.replace("VARIANT", short))
    with pytest.raises(DataError, match=RECORD) as told:
        run(squares_study(first, *CHANGES, START), out, "here", resume=True)
    assert "or remove it, and search.warm_start from the study file" in told.value.remedy
    (out / RECORD).unlink()
    with pytest.raises(SpecError, match="that file is gone"):
        run(squares_study(first, *CHANGES, START), out, "here", resume=True)
    result, _ = run(squares_study(first, *CHANGES), out, "here", resume=True)
    assert result.evaluated == 3
