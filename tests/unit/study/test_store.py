"""What a study's folder says of its artifacts: a manifest among the files of each, whatever its target is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import pytest
from small_task import SmallTask, bench

from edgedeploy.errors import SpecError
from edgedeploy.files import PARTIAL_PREFIX, read_json, write_json
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.records.artifact import MANIFEST, Artifact
from edgedeploy.runtime.files import sha256_file
from edgedeploy.study.artifacts import artifact_manifest
from edgedeploy.study.store import Store
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget


class Named(OnnxRuntimeTarget):
    """Builds what ONNX Runtime's target builds, under another name. ``builds`` counts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.builds = 0

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        self.builds += 1
        return super().build(request, folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "study")


def as_older_versions_had_it(folder: Path) -> Path:
    """The manifest out of the folder, to where it was written before: beside it, named by what comes before its last
    dot."""
    older = folder.with_suffix(".json")
    (folder / MANIFEST).replace(older)
    return older


def test_the_manifest_lies_among_the_files_and_is_none_of_them(store: Store, tmp_path: Path) -> None:
    target = Named("onnxruntime")
    artifact, folder = bench(store, SmallTask(tmp_path), target).artifact(made_up.variant())
    assert {path.name for path in folder.iterdir()} == {"model.onnx", MANIFEST}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert [file.name for file in artifact.files] == ["model.onnx"]
    again = Artifact.of_folder(
        folder,
        target=artifact.target,
        precision=artifact.precision,
        entry=artifact.entry,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        settings=dict(artifact.settings),
        reference_sha256=artifact.reference_sha256,
        built_with=dict(artifact.built_with),
    )
    assert (again.digest, again.size_bytes) == (artifact.digest, (folder / "model.onnx").stat().st_size)


def test_targets_with_a_dot_in_their_names_have_artifacts_of_their_own(store: Store, tmp_path: Path) -> None:
    left, right = Named("a.b"), Named("a.c")
    task = SmallTask(tmp_path)
    wanted = [made_up.variant(name, precision) for name in ("a.b", "a.c") for precision in ("float32", "int8")]
    for _ in range(2):  # made, then found
        for variant in wanted:
            artifact, folder = bench(store, task, left, right).artifact(variant)
            assert (artifact.target, artifact.precision) == (variant.target, variant.precision)
            assert all(sha256_file(folder / file.name) == file.sha256 for file in artifact.files)
    assert (left.builds, right.builds) == (2, 2)


def test_a_manifest_beside_the_folder_is_found_and_moved_into_it(store: Store, tmp_path: Path) -> None:
    task, target = SmallTask(tmp_path), Named("onnxruntime")
    built, folder = bench(store, task, target).artifact(made_up.variant())
    older = as_older_versions_had_it(folder)
    assert older.name == f"{folder.name}.json"
    assert artifact_manifest(folder) == built.as_json()
    assert older.is_file(), "who only looks writes nothing"
    found, _ = bench(store, task, target).artifact(made_up.variant())
    assert (found, target.builds) == (built, 1)
    assert (folder / MANIFEST).is_file()
    assert not older.exists()


def test_an_older_manifest_that_two_targets_shared_is_that_of_the_last(store: Store, tmp_path: Path) -> None:
    """It tells of ``a.c``, and must not be taken for what it says of the files of ``a.b``."""
    task, left, right = SmallTask(tmp_path), Named("a.b"), Named("a.c")
    first, folder = bench(store, task, left, right).artifact(made_up.variant("a.b", "int8"))
    shared = as_older_versions_had_it(folder)
    assert shared.name == "a.json"
    second, other = bench(store, task, left, right).artifact(made_up.variant("a.c"))
    assert as_older_versions_had_it(other) == shared
    assert bench(store, task, left, right).artifact(made_up.variant("a.b", "int8"))[0] == first
    assert bench(store, task, left, right).artifact(made_up.variant("a.c"))[0] == second
    assert (left.builds, right.builds) == (2, 1), "only the one whose manifest was lost is built again"


def test_a_manifest_without_its_folder_is_no_artifact(store: Store, tmp_path: Path) -> None:
    variant = made_up.variant()
    write_json(store.artifact_folder(f"{variant.artifact_name}.json"), made_up.artifact(variant).as_json())
    target = Named("onnxruntime")
    _, folder = bench(store, SmallTask(tmp_path), target).artifact(variant)
    assert target.builds == 1
    assert (folder / "model.onnx").is_file()


@pytest.mark.parametrize("older", [False, True])
def test_what_is_forgotten_is_built_again(older: bool, store: Store, tmp_path: Path) -> None:
    made = bench(store, SmallTask(tmp_path), target := Named("onnxruntime"))
    _, folder = made.artifact(made_up.variant())
    if older:
        as_older_versions_had_it(folder)
    made.forget(made_up.variant())
    assert artifact_manifest(folder) is None
    made.artifact(made_up.variant())
    assert target.builds == 2


# -- damage: what is not whole, or not what was asked for, is built anew

REFERENCE = "0" * 64
MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no object": lambda data: [],
    "lacks a key": lambda data: {key: value for key, value in data.items() if key != "files"},
    "a way out of the folder": lambda data: {**data, "files": [{**data["files"][0], "name": "../model.onnx"}]},
    "an absolute path": lambda data: {**data, "files": [{**data["files"][0], "name": "/etc/passwd"}]},
    "a half-written file": lambda data: {**data, "files": [*data["files"], {**data["files"][0], "name": ".part-1"}]},
    "an entry that is no file of it": lambda data: {**data, "entry": "other.onnx"},
    "another hash": lambda data: {**data, "files": [{**data["files"][0], "sha256": "1" * 64}], "digest": None},
    "another size": lambda data: {**data, "files": [{**data["files"][0], "size_bytes": 5}]},
    "another target": lambda data: Artifact.from_json({**data, "target": "openvino"}).as_json(),
    "another precision": lambda data: Artifact.from_json({**data, "precision": "int8"}).as_json(),
    "another reference": lambda data: {**data, "reference_sha256": REFERENCE},
    "other settings": lambda data: {**data, "settings": {"threads": "9"}},
}


def built_anew(store: Store, task: SmallTask, before: Artifact) -> str:
    """Another process builds the artifact again and gives the same one. The note of it."""
    heard = list[str]()
    target = Named("onnxruntime")
    found, folder = bench(store, task, target, heard=heard).artifact(made_up.variant())
    assert (found, target.builds) == (before, 1)
    assert all(sha256_file(folder / file.name) == file.sha256 for file in found.files)
    assert bench(store, task, target).artifact(made_up.variant())[0] == before
    assert target.builds == 1
    (note,) = heard
    return note


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("what", [*MANIFESTS, "torn", "not UTF-8"])
def test_a_damaged_manifest_is_told_and_the_artifact_built_anew(
    what: str, older: bool, store: Store, tmp_path: Path
) -> None:
    task = SmallTask(tmp_path)
    before, folder = bench(store, task).artifact(made_up.variant())
    if what in MANIFESTS:
        write_json(folder / MANIFEST, MANIFESTS[what](read_json(folder / MANIFEST)))
    else:
        (folder / MANIFEST).write_bytes(b'{"target": "' + (b"" if what == "torn" else b'\xff"}'))
    if older:
        as_older_versions_had_it(folder)
    assert "not used and built anew" in built_anew(store, task, before)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("what", ["cut", "changed", "gone", "a folder"])
def test_a_damaged_file_of_an_artifact_is_told_and_built_anew(
    what: str, older: bool, store: Store, tmp_path: Path
) -> None:
    task = SmallTask(tmp_path)
    before, folder = bench(store, task).artifact(made_up.variant())
    path = folder / before.entry
    whole = path.read_bytes()
    path.unlink()
    if what == "a folder":
        path.mkdir()
    elif what != "gone":
        path.write_bytes(whole[:-1] if what == "cut" else whole[:-1] + bytes([whole[-1] ^ 1]))
    if older:
        as_older_versions_had_it(folder)
    assert "model.onnx" in built_anew(store, task, before)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"file": "../reference.onnx"}', b"\xff"])
def test_a_damaged_record_of_a_reference_is_told_and_made_anew(content: bytes, store: Store, tmp_path: Path) -> None:
    task, heard = SmallTask(tmp_path), list[str]()
    before = bench(store, task).reference(made_up.variant())
    (before.path.parent / "reference.json").write_bytes(content)
    assert bench(store, task, heard=heard).reference(made_up.variant()) == before
    assert [line for line in heard if "made anew" in line] == heard != []
    assert bench(store, task, heard=heard).reference(made_up.variant()) == before
    assert len(heard) == 1


@pytest.mark.fault(47)
@pytest.mark.parametrize("what", ["cut", "changed"])
def test_a_damaged_reference_is_told_and_made_anew(what: str, store: Store, tmp_path: Path) -> None:
    """It is what artifacts are built from: a build that fails on it would be kept as the variant's failure."""
    task, heard = SmallTask(tmp_path), list[str]()
    before = bench(store, task).reference(made_up.variant())
    whole = before.path.read_bytes()
    before.path.write_bytes(whole[: len(whole) // 2] if what == "cut" else whole[:-1] + bytes([whole[-1] ^ 1]))
    assert bench(store, task, heard=heard).reference(made_up.variant()) == before
    assert before.path.read_bytes() == whole
    assert (
        [line for line in heard if "made anew: of reference.onnx, it is not the file that was made" in line]
        == heard
        != []
    )


def test_half_written_files_are_none_of_an_artifacts_files(store: Store, tmp_path: Path) -> None:
    artifact, folder = bench(store, SmallTask(tmp_path)).artifact(made_up.variant())
    (folder / f"{PARTIAL_PREFIX}1").write_bytes(b"half")
    facts = {name: getattr(artifact, name) for name in ("target", "precision", "entry", "inputs", "outputs")}
    again = Artifact.of_folder(folder, **facts, settings={}, reference_sha256=REFERENCE, built_with={})
    assert again.files == artifact.files


@pytest.mark.parametrize(
    ("name", "told"), [("file/x", "Not a directory"), ("loop/x", "levels of symbolic links"), ("n" * 300, "too long")]
)
def test_a_path_that_cannot_be_a_folder_is_said(name: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(SpecError, match=told):
        Store(tmp_path / name).check_place()
    Store(tmp_path / "new" / "folder").check_place()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]
