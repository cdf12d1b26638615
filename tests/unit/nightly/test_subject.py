"""An entry of a lab: what it ships, what was frozen beside it, and what is refused. Bundles and artifacts are real."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import bundle_kit
import night_kit
import numpy as np
import product_kit
import pytest
from night_kit import Entry, subject_of, write_bundle

from edgedeploy.errors import BundleError, DamagedFile, GoalNotMet, SpecError, StorageError
from edgedeploy.files import array_forms, read_arrays
from edgedeploy.nightly.picks import check_pick
from edgedeploy.nightly.subject import accept, prepare
from edgedeploy.runtime.bundle import manifest as m
from edgedeploy.runtime.bundle.names import MANIFEST
from edgedeploy.runtime.bundle.tree import read_tree
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.study.bundle.make import REFERENCE
from edgedeploy.study.bundle.pack import as_zip

pytestmark = pytest.mark.beside


def test_a_bundle_runs_on_its_golden_inputs_beside_its_portable_model(tmp_path: Path) -> None:
    place = write_bundle(tmp_path / "bundle", cases=3)
    subject = subject_of(tmp_path)
    candidate, baseline = subject.candidate, subject.baseline
    assert (candidate.artifact.target, candidate.artifact.entry) == ("onnxruntime", "model.onnx")
    assert (candidate.folder / "model.onnx").read_bytes() == (place / "artifact/model.onnx").read_bytes()
    assert (baseline.artifact.entry, baseline.artifact.precision) == ("reference.onnx", "float32")
    assert (baseline.folder / "reference.onnx").read_bytes() == (place / REFERENCE).read_bytes()
    assert candidate.inputs == baseline.inputs
    assert array_forms(candidate.inputs)["image"][0] == (3, 1, 3, 16, 16)
    session = open_session("onnxruntime", candidate.folder, candidate.artifact.entry, {}, 1)
    answers = subject.answers()
    assert answers is not None
    for row, image in enumerate(read_arrays(candidate.inputs)["image"]):
        assert np.array_equal(session.run({"image": image})["out"], answers["out"][row])
    assert subject.frozen.tolerance == {"out": 1e-4}
    assert subject.state.release == 1 and set(subject.state.built_with) == {"onnx"}


@pytest.mark.parametrize("changed", ["artifact", "name"])
def test_what_is_frozen_stays_until_somebody_accepts(changed: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    first = subject_of(tmp_path)
    fields = {"network": night_kit.changed_weight} if changed == "artifact" else {"name": "another"}
    write_bundle(tmp_path / "bundle", release=2, **fields)
    then = subject_of(tmp_path)
    assert then.frozen == first.frozen and then.state.release == 2
    assert then.baseline == first.baseline
    assert (then.state.digest == first.state.digest) == (changed == "name")
    now = accept(Entry(), tmp_path, tmp_path / "frozen")
    assert now.accepted == then.state and now.frozen.generation == 2
    assert subject_of(tmp_path).frozen == now.frozen
    before, after = first.answers(), now.answers()
    assert before is not None and after is not None
    assert np.array_equal(before["out"], after["out"]) == (changed == "name")


def test_a_frozen_file_that_was_damaged_is_named(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    subject = subject_of(tmp_path)
    answers = next((tmp_path / "frozen" / "arrays").glob("*.npz"))
    record = tmp_path / "frozen" / "entries" / "thyroid" / "1" / "accepted.json"
    for path in (subject.baseline.folder / "reference.onnx", answers, record):
        whole = path.read_bytes()
        path.write_bytes(whole[:-9])
        with pytest.raises(DamagedFile, match=path.name) as caught:
            subject_of(tmp_path).answers()
        assert "nightly accept" in caught.value.remedy
        path.write_bytes(whole)
    (subject.candidate.folder / "model.onnx").write_bytes(b"")  # the bundle has it: it is taken from there again
    assert subject_of(tmp_path).frozen == subject.frozen


def test_a_place_that_cannot_be_written_is_this_hosts_failure(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    (tmp_path / "frozen").write_text("a file in the way")
    with pytest.raises(StorageError, match="frozen"):
        subject_of(tmp_path)


def test_an_archive_is_read_as_its_folder(tmp_path: Path) -> None:
    place = write_bundle(tmp_path / "folder")
    (tmp_path / "bundle").write_bytes(as_zip(read_tree(place)))
    assert subject_of(tmp_path).state.files == {"model.onnx": read_tree(place).digests["artifact/model.onnx"]}


def test_only_its_makers_bundle_is_measured(tmp_path: Path) -> None:
    files = night_kit.with_reference(product_kit.make_files(steps=product_kit.NO_STEPS))
    key, trust = product_kit.make_key(tmp_path)
    place = product_kit.write_signed(tmp_path / "bundle", files, key)
    entry = Entry(trust=trust.name)
    subject = subject_of(tmp_path, entry)
    (place / "artifact/model.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"untrusted|tampered|changed"):
        subject_of(tmp_path, entry)
    product_kit.replace_folder(place, files)
    with pytest.raises(BundleError, match="unsigned"):
        subject_of(tmp_path, entry)
    assert subject.frozen.generation == 1


def test_a_bundle_without_its_portable_model_needs_another_baseline(tmp_path: Path) -> None:
    product_kit.write_files(tmp_path / "bundle", product_kit.make_files(steps=product_kit.NO_STEPS))
    with pytest.raises(BundleError, match=REFERENCE):
        subject_of(tmp_path)
    subject = subject_of(tmp_path, Entry(baseline="bundle"))
    assert subject.baseline.artifact == subject.candidate.artifact


def test_a_named_baseline_is_frozen_in_its_accepted_release(tmp_path: Path) -> None:
    """The entry's own bundle: later releases are timed beside the accepted one."""
    write_bundle(tmp_path / "bundle", release=3)
    entry = Entry(baseline="bundle")
    first = subject_of(tmp_path, entry)
    assert first.baseline == first.candidate and first.same_cases
    write_bundle(tmp_path / "bundle", release=4, network=night_kit.changed_weight)
    then = subject_of(tmp_path, entry)
    assert then.baseline == first.baseline and then.candidate.artifact != first.candidate.artifact


def test_what_takes_other_inputs_is_no_answer_to_the_same_question(tmp_path: Path) -> None:
    place = write_bundle(tmp_path / "bundle")
    subject_of(tmp_path)
    files = dict(read_tree(place).files)
    manifest = m.parse(files[MANIFEST])
    (tensor,) = manifest.inputs
    other = replace(manifest, inputs=(replace(tensor, dtype="float64"),))
    product_kit.replace_folder(place, product_kit.with_manifest(files, other))
    with pytest.raises(SpecError, match=r"image float64 .* took image float32"):
        subject_of(tmp_path)


def test_metrics_that_nobody_has_are_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    with pytest.raises(SpecError, match="dice_mean"):
        subject_of(tmp_path, Entry(metrics=("latency_p50_ns", "dice_mean")))


def test_a_study_without_a_pick_is_told_in_the_words_of_a_lab_file(tmp_path: Path) -> None:
    (float32, took), (int8, _) = bundle_kit.VARIANTS
    store = bundle_kit.made_up_study(tmp_path, variants=((float32, took), (int8, 2 * took)))
    with pytest.raises(GoalNotMet, match=r'the study has none: .* pick = "DIGEST"'):
        check_pick(store.root, "pick")
    with pytest.raises(GoalNotMet, match='pick = "DIGEST"'):
        prepare(Entry(bundle=None, study="runs"), tmp_path, tmp_path / "frozen")
    with pytest.raises(SpecError, match="variant zzz: 0 measured variants"):
        check_pick(store.root, "zzz")
    check_pick(store.root, int8.digest[:6])


def test_a_pick_runs_on_the_selection_cases_beside_its_float_baseline(tmp_path: Path) -> None:
    """Its study's measurements are made up; models and artifacts are real."""
    store = bundle_kit.made_up_study(tmp_path)
    entry = Entry(bundle=None, study="runs", accuracy_margin=0.02)
    subject = prepare(entry, tmp_path, tmp_path / "frozen")
    measured = {item.variant.precision: item for item in store.measurements()}
    assert subject.candidate.artifact == measured["int8"].artifact
    assert subject.baseline.artifact == measured["float32"].artifact
    assert subject.candidate.threads == 2 and subject.precisions == ("int8",)
    assert array_forms(subject.candidate.inputs)["image"][0][0] == 4 + 6
    assert subject.answers() is None and subject.same_cases
    assert subject.frozen.tolerance == {"out0": 0.006}
    assert "dice_mean" in subject.metrics and subject.margins["dice_mean"] == 0.02
    assert subject.scorer is not None
    outputs = {"out0": np.random.default_rng(1).standard_normal((10, 1, 3, 32, 32)).astype(np.float32)}
    means, _ = subject.scorer.means(outputs)
    assert 0 <= means["dice_mean"] < 1
    subject.keep_answers(outputs, "the first board")
    subject.keep_answers({"out0": 0 * outputs["out0"]}, "another board")
    kept = subject.answers()
    assert kept is not None and np.array_equal(kept["out0"], outputs["out0"])
    write_bundle(tmp_path / "bundle")
    with pytest.raises(SpecError, match="a bundle needs a key"):
        prepare(replace(entry, id="beside", baseline="bundle"), tmp_path, tmp_path / "frozen")
    study = json.loads(store.study_path.read_text("utf-8"))
    store.study_path.write_text(json.dumps({**study, "task_sources": {"phantom.py": "0"}}), "utf-8")
    with pytest.raises(SpecError, match="changed since"):
        prepare(entry, tmp_path, tmp_path / "frozen")
