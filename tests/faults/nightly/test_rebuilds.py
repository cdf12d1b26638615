"""What is shipped, built again by its recipe on this host: the same bytes, or what differs. Studies and toolchains are real
but where a mark says otherwise."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import bundle_kit
import pytest
from night_kit import Entry

from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.nightly.rebuild import UNREPEATABLE, rebuilt
from edgedeploy.nightly.states import artifact_changes
from edgedeploy.nightly.subject import Subject, prepare
from edgedeploy.records.artifact import Artifact
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.study.bundle import rebuild
from edgedeploy.study.bundle.make import make_bundle
from edgedeploy.study.bundle.rebuild import NO_CASES, NO_RECIPE
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget

pytestmark = pytest.mark.beside

PICK = Entry(bundle=None, study="runs", rebuild=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder with its two bundles: the float baseline, and the int8 pick."""
    folder = tmp_path_factory.mktemp("lab")
    store = bundle_kit.made_up_study(folder)
    for item in store.measurements():
        make_bundle(store.root, item.digest, folder / item.variant.precision)
    return folder


def subject_of(lab: Path, entry: Entry) -> Subject:
    return prepare(entry, lab, lab / "frozen")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_pick_of_a_study_is_built_again_and_nothing_of_the_study_changes(lab: Path) -> None:
    subject, before = subject_of(lab, PICK), contents(lab / "runs")
    again = rebuilt(subject, PICK, lab)
    assert again.state.rebuilt is not None and again.state.rebuilt.same
    assert again.state.rebuilt.digest == subject.state.digest
    assert artifact_changes(subject.accepted, again.state) == ()
    assert contents(lab / "runs") == before


def test_what_differs_is_named_with_the_tools(lab: Path) -> None:
    """As if what is shipped had been built with another release of onnx, which gave other bytes."""
    subject = subject_of(lab, PICK)
    ours = subject.candidate.artifact
    (file,) = ours.files
    tools = tuple((name, "0.9" if name == "onnx" else version) for name, version in ours.built_with)
    theirs = replace(ours, files=(replace(file, sha256="0" * 64),), built_with=tools)
    shipped = replace(subject, candidate=replace(subject.candidate, artifact=theirs))
    found = rebuilt(shipped, PICK, lab).state.rebuilt
    assert found is not None and not found.same and found.digest == ours.digest
    bytes_differ, tool = found.differences
    assert bytes_differ == f"{file.name} has other bytes"
    assert tool == f"onnx is {dict(ours.built_with)['onnx']} here, and was 0.9"
    (text,) = artifact_changes(subject.accepted, replace(subject.state, rebuilt=found))
    assert "built again from its recipe it is another artifact" in text and tool in text


def test_a_bundle_is_built_again_from_its_portable_model(lab: Path) -> None:
    entry = Entry(id="float", bundle="float32", rebuild=True)
    again = rebuilt(subject_of(lab, entry), entry, lab).state
    assert again.rebuilt is not None and again.rebuilt.same, again


def test_a_bundle_is_built_again_with_its_batches(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that asks for batches of two is not that of this artifact, which answers one case."""
    told = rebuild.recipe_of

    def batched(tree: Tree) -> dict[str, Any]:
        recipe = dict(told(tree))
        return {**recipe, "variant": {**recipe["variant"], "max_batch": 2}}

    entry = Entry(id="float", bundle="float32", rebuild=True)
    monkeypatch.setattr(rebuild, "recipe_of", batched)
    found = rebuilt(subject_of(lab, entry), entry, lab).state.rebuilt
    assert found is not None and "model.onnx has other bytes" in found.differences


def test_a_calibrated_bundle_says_why_it_is_not(lab: Path) -> None:
    entry = Entry(id="int8", bundle="int8", rebuild=True)
    again = rebuilt(subject_of(lab, entry), entry, lab).state
    assert again.rebuilt is None and NO_CASES in again.not_rebuilt


def test_a_bundle_without_a_recipe_says_so(tmp_path: Path) -> None:
    from night_kit import subject_of as subject_in
    from night_kit import write_bundle

    write_bundle(tmp_path / "bundle")  # its recipe names no variant
    assert NO_RECIPE in rebuilt(subject_in(tmp_path), Entry(), tmp_path).state.not_rebuilt


class Restless(OnnxRuntimeTarget):
    """Writes something else each time."""

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        made = super().build(request, folder)
        (file,) = made.files
        with (folder / file.name).open("ab") as stream:
            stream.write(uuid.uuid4().bytes)
        more = {name: getattr(made, name) for name in ("target", "precision", "entry", "inputs", "outputs")}
        settings, tools = dict(made.settings), dict(made.built_with)
        sha256 = made.reference_sha256
        return Artifact.of_folder(folder, **more, settings=settings, reference_sha256=sha256, built_with=tools)


@pytest.mark.fault(59, simulated="a toolchain that writes something else each time")
def test_a_toolchain_that_does_not_repeat_itself_is_found_by_building_twice(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restless(plugins: Any) -> dict[str, OnnxRuntimeTarget]:
        return {"onnxruntime": Restless()}

    monkeypatch.setattr(rebuild, "ready_targets", restless)
    found = rebuilt(subject_of(lab, PICK), PICK, lab).state.rebuilt
    assert found is not None and not found.same
    assert UNREPEATABLE in found.differences and "all tools that it names have the same versions" in found.differences
