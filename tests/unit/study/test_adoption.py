"""What a study takes over from another board's: what is whole, and what is this board's too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import pytest
from made_up_study import new_store
from small_onnx import convolutional

from edgedeploy.files import write_json
from edgedeploy.interfaces.ability import sums_int8_exactly
from edgedeploy.records.artifact import MANIFEST, Artifact
from edgedeploy.records.elastic import Elastic
from edgedeploy.records.layer_times import LayerTimes, TimedLayer
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Variant
from edgedeploy.reference.export import describe
from edgedeploy.reference.program import PROGRAM_FILE
from edgedeploy.study.adoption import Adopted, adopt, alike, models_to_take
from edgedeploy.study.elastic import CUTS, is_whole
from edgedeploy.study.layout import LAYER_TIMES
from edgedeploy.study.models import WEIGHTS, write_reference
from edgedeploy.study.origin import Origin
from edgedeploy.study.store import Store
from edgedeploy.study.whole import keep_note, sums_of

FLOAT = made_up.variant()
CALIBRATED = made_up.variant(precision="int8")
TRAINED = Variant("onnxruntime", "int8", 0.5, (("resolution", 128),), 2, training="qat")
VNNI, PLAIN = ("avx2", "avx512_vnni"), ("avx2",)


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    """A study's folder with a baseline, three models and an artifact of each variant. The numbers are MADE UP."""
    store = new_store(tmp_path / "first", [FLOAT])
    keep_baseline(store, b"weights of the baseline")
    measured = []
    for variant in (FLOAT, CALIBRATED, TRAINED):
        folder = store.model_folder(variant.model_digest)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS).write_bytes(variant.model_digest.encode())
        reference = describe(convolutional(folder / "reference.onnx"))
        write_reference(reference, folder)
        built = store.artifact_folder(variant.artifact_folder())
        built.mkdir(parents=True)
        (built / "model.onnx").write_bytes(variant.artifact_name.encode())
        artifact = Artifact.of_folder(
            built,
            target=variant.target,
            precision=variant.precision,
            entry="model.onnx",
            inputs=reference.inputs,
            outputs=reference.outputs,
            settings={},
            reference_sha256=reference.sha256,
            built_with={"onnx": "1.23.2"},
        )
        write_json(built / MANIFEST, artifact.as_json())
        measured.append(made_up.measurement(variant, artifact=artifact))
    return Origin(store, store.study(), tuple(measured))


def keep_baseline(store: Store, weights: bytes) -> None:
    store.baseline_weights.parent.mkdir(parents=True, exist_ok=True)
    store.baseline_weights.write_bytes(weights)
    keep_note(store.baseline_weights)


def take(origin: Origin, *, sums_alike: bool = True, same_tools: bool = True) -> tuple[Adopted, list[str]]:
    told: list[str] = []
    store = Store(origin.store.root.with_name("second"))
    found = adopt(
        origin, store, targets={"onnxruntime"}, sums_alike=sums_alike, same_tools=same_tools, tell=told.append
    )
    assert found.models == {path.name for path in (store.root / "models").glob("*")}
    assert found.artifacts == {path.name for path in (store.root / "artifacts").glob("*")}
    return found, told


def test_models_and_artifacts_are_copied_as_they_are(origin: Origin) -> None:
    found, told = take(origin)
    assert not told
    assert found.models == {FLOAT.model_digest, TRAINED.model_digest}, "two variants share the float model"
    assert found.artifacts == {variant.artifact_folder() for variant in (FLOAT, CALIBRATED, TRAINED)}
    for path in origin.store.root.glob("*/*/*"):
        assert (origin.store.root.with_name("second") / path.relative_to(origin.store.root)).read_bytes() == (
            path.read_bytes()
        )
    assert take(origin) == (found, []), "a killed beginning is taken up again"


def test_the_layer_times_that_name_models_come_with_them(origin: Origin) -> None:
    path, ours = (root / LAYER_TIMES for root in (origin.store.root, origin.store.root.with_name("second")))
    layers = {"first": TimedLayer(400.0, 100.0)}
    times = LayerTimes(layers, (), 0.0, "onnxruntime", "bench", "measured", FLOAT.digest, "2" * 64, "then")
    write_json(path, times.as_json())
    path.write_bytes(path.read_bytes().replace(b"400", b"401"))
    found, told = take(origin)
    assert found.models and not ours.exists()
    assert told == ["the layer times of first are not taken over: its times are not those that its digest names"]
    write_json(path, times.as_json())
    assert take(origin) == (found, [])
    assert ours.read_bytes() == path.read_bytes()
    write_json(path, replace(times, board="other").as_json())
    take(origin)
    assert ours.read_bytes() != path.read_bytes(), "a study keeps the times that it has"


def test_what_is_made_for_one_way_of_adding_int8_products_stays(origin: Origin) -> None:
    found, _ = take(origin, sums_alike=False)
    assert found == Adopted(frozenset({FLOAT.model_digest}), frozenset({FLOAT.artifact_folder()}))


def test_a_trained_int8_model_without_torchs_program_stays_where_a_target_needs_one(origin: Origin) -> None:
    """It cannot be had from the ONNX file, and another training would be another model."""
    store = Store(origin.store.root.with_name("second"))
    asked: dict[str, Any] = {"targets": {"onnxruntime"}, "sums_alike": True, "same_tools": True}
    found = adopt(origin, store, **asked, programs=True, tell=lambda text: None)
    assert found.models == models_to_take(origin, True, programs=True) == {FLOAT.model_digest}
    assert TRAINED.artifact_folder() not in found.artifacts
    (origin.store.model_folder(TRAINED.model_digest) / PROGRAM_FILE).write_bytes(b"a program")
    assert TRAINED.model_digest in adopt(origin, store, **asked, programs=True, tell=lambda text: None).models


def test_boards_with_and_without_vnni_do_not_add_alike(origin: Origin) -> None:
    assert sums_int8_exactly("x86_64", VNNI) and not sums_int8_exactly("x86_64", PLAIN)
    assert origin.sums_as(made_up.board(isa=VNNI))
    assert not origin.sums_as(made_up.board(isa=PLAIN))


def test_other_tools_build_anew(origin: Origin) -> None:
    found, _ = take(origin, same_tools=False)
    assert found.models and not found.artifacts
    tools = {"torch": "2.13.0", "system": "Debian", "optuna": "5.0.0"}
    assert alike(tools, {**tools, "system": "another", "optuna": "5.1.0"})
    assert not alike(tools, {**tools, "torch": "2.12.0"})
    assert not alike(tools, {**tools, "openvino": "2026.4.1"})


@pytest.mark.parametrize("name", [WEIGHTS, "reference.onnx"])
def test_a_model_that_is_not_whole_stays_and_its_artifacts_with_it(origin: Origin, name: str) -> None:
    path = origin.store.model_folder(FLOAT.model_digest) / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    found, told = take(origin)
    assert found == Adopted(frozenset({TRAINED.model_digest}), frozenset({TRAINED.artifact_folder()}))
    assert [line for line in told if FLOAT.model_digest in line]


def test_an_artifact_that_is_not_whole_stays(origin: Origin) -> None:
    (origin.store.artifact_folder(CALIBRATED.artifact_folder()) / "model.onnx").write_bytes(b"another")
    assert take(origin)[0].artifacts == {FLOAT.artifact_folder(), TRAINED.artifact_folder()}


def test_nothing_is_taken_beside_another_baseline(origin: Origin) -> None:
    keep_baseline(Store(origin.store.root.with_name("second")), b"weights of another training")
    assert take(origin) == (Adopted(), [])


def test_a_damaged_baseline_is_told_and_nothing_is_taken(origin: Origin) -> None:
    origin.store.baseline_weights.write_bytes(b"half")
    found, told = take(origin)
    assert found == Adopted() and "baseline/weights.pt" in told[0]


def test_links_are_not_followed(origin: Origin, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_text("of nobody's business")
    (origin.store.model_folder(FLOAT.model_digest) / "more.npz").symlink_to(private)
    take(origin)
    copied = origin.store.root.with_name("second") / "models" / FLOAT.model_digest
    assert not (copied / "more.npz").exists() and (copied / WEIGHTS).exists()


NARROW = Variant(
    "onnxruntime", "float32", 0.5, FLOAT.arch, 2, allocation="bytes", elastic=Elastic(2, (0.5,), ("bytes",))
)
SHALLOW = replace(NARROW, width=1.0, allocation="", shrink=Shrink(depth=0.5), elastic=Elastic(2, depths=(0.5,)))


@pytest.mark.parametrize("harmed", [False, True])
@pytest.mark.parametrize(("variant", "cut"), [(NARROW, "0.5-bytes.pt"), (SHALLOW, "depth0.5.pt")])
def test_the_elastic_network_of_a_model_is_taken_over_if_it_is_whole(
    origin: Origin, harmed: bool, variant: Variant, cut: str
) -> None:
    model, network = (origin.store.model_folder(name) for name in (variant.model_digest, variant.elastic_digest))
    for folder in (model, network):
        folder.mkdir()
    write_reference(describe(convolutional(model / "reference.onnx")), model)
    (network / cut).write_bytes(b"weights")
    write_json(network / CUTS, {"sha256_of": sums_of(network, [cut]), "refused": {}})
    if harmed:
        (network / cut).write_bytes(b"others")
    store = Store(origin.store.root.with_name("second"))
    there = Origin(origin.store, origin.study, (made_up.measurement(variant),))
    adopt(there, store, targets=(), sums_alike=True, same_tools=False, tell=lambda text: None)
    assert store.model_folder(variant.model_digest).is_dir()
    assert is_whole(store.model_folder(variant.elastic_digest)) is not harmed
