"""Trainings that start from the nearest wider model that is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from levels_task import ARCH, LeveledEdges
from made_up_study import new_store

from edgedeploy.errors import OutOfTime
from edgedeploy.files import read_json
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.canonical import Choices, canonical
from edgedeploy.records.variant import Variant
from edgedeploy.reference.export import Reference
from edgedeploy.search.rungs import NO_RUNGS, Rungs
from edgedeploy.search.space import Space
from edgedeploy.study import modeller as modeller_module
from edgedeploy.study.account import Account
from edgedeploy.study.modeller import Modeller
from edgedeploy.study.preflight import Ready
from edgedeploy.study.store import Store
from edgedeploy.study.wider import start_path

RUNGS = Rungs.of((0, 1, 2))


@pytest.fixture(autouse=True)
def _no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """STAND-IN for the export, which takes a second a model: these tests look at weights alone."""

    def export(model: object, specs: tuple[TensorSpec, ...], path: Path, **more: object) -> Reference:
        path.write_bytes(b"no network")
        return Reference(path, hashlib.sha256(b"no network").hexdigest(), specs, (), 17, 1, 1)

    monkeypatch.setattr(modeller_module, "export_reference", export)


def at(width: float, epochs: int | None, allocation: str = "", *, from_wider: bool = True) -> Variant:
    arch = tuple(sorted(ARCH.items()))
    return Variant(
        "none",
        "float32",
        width,
        arch,
        1,
        allocation=allocation,
        recovery_epochs=epochs,
        from_wider=from_wider and epochs != 0,
    )


def modeller(
    root: Path,
    *,
    rungs: Rungs = RUNGS,
    told: list[str] | None = None,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Modeller:
    store = Store(root) if root.exists() else new_store(root, [])
    heard = told if told is not None else []
    return Modeller(
        LeveledEdges(),
        {},
        store,
        Account(store),
        lambda what, state: None,
        lambda kind, text: heard.append(text),
        out_of_time=out_of_time,
        rungs=rungs,
    )


def made(models: Modeller, variant: Variant) -> Mapping[str, torch.Tensor]:
    folder = models.reference(variant).path.parent
    return dict(torch.load(folder / "weights.pt", weights_only=True))


def start(root: Path, variant: Variant) -> str | None:
    found = read_json(start_path(Store(root), variant.model_digest)).get("model")
    return None if found is None else str(found)


def equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_it_starts_from_the_nearest_wider_model_and_has_the_widths_of_its_own(tmp_path: Path) -> None:
    told: list[str] = []
    models = modeller(tmp_path / "out", told=told)
    for width in (0.75, 0.9):
        models.reference(at(width, 1))
    models.reference(at(0.6, 0))  # measured, not trained
    narrow = made(models, at(0.5, 1))
    untrained = made(models, at(0.5, 0))
    assert {name: value.shape for name, value in narrow.items()} == {n: v.shape for n, v in untrained.items()}
    assert start(tmp_path / "out", at(0.5, 1)) == at(0.75, 1).model_digest
    assert start(tmp_path / "out", at(0.75, 1)) is None, "nothing wider was trained"
    line = f"training w0.5 wide size=16 1ep starts from w0.75 wide size=16 1ep, model {at(0.75, 1).model_digest}"
    assert line in told
    network = read_json(Store(tmp_path / "out").model_folder(at(0.5, 1).model_digest) / "network.json")
    assert network["start"]["model"] == at(0.75, 1).model_digest
    assert not equal(narrow, made(models, at(0.5, 1, from_wider=False))), "another start is another model"


def test_higher_rungs_go_on_from_their_own(tmp_path: Path) -> None:
    models = modeller(tmp_path / "out")
    models.reference(at(0.5, 1))
    models.reference(at(0.75, 2))
    models.reference(at(0.5, 2))
    store = Store(tmp_path / "out")
    assert not start_path(store, at(0.5, 2).model_digest).exists()
    assert models.start_notes(at(0.5, 2)) == ()
    models.reference(at(0.4, 1))
    said = f"its training started from the wider model w0.5 wide size=16 2ep, model {at(0.5, 2).model_digest}"
    assert models.start_notes(at(0.4, 2)) == models.start_notes(at(0.4, 1)) == (said,)
    assert models.start_notes(replace(at(0.4, 2), precision="int8", training="qat")) == (said,)
    further = models._further(at(0.5, 2))
    assert further is not None and further.wider is None
    assert further.start == store.model_folder(at(0.5, 1).model_digest) / "weights.pt"


def test_of_equal_widths_the_longest_trained_one_is_the_start_also_of_allocated_ones(tmp_path: Path) -> None:
    models = modeller(tmp_path / "out")
    for epochs in (1, 2):
        models.reference(at(0.75, epochs, "bytes"))
    narrow, untrained = made(models, at(0.4, 1, "bytes")), made(models, at(0.4, 0, "bytes"))
    assert start(tmp_path / "out", at(0.4, 1, "bytes")) == at(0.75, 2, "bytes").model_digest
    assert {name: value.shape for name, value in narrow.items()} == {n: v.shape for n, v in untrained.items()}


def test_a_model_that_is_narrower_somewhere_is_no_start(tmp_path: Path) -> None:
    models = modeller(tmp_path / "out")
    other, narrow = made(models, at(0.9, 1)), made(models, at(0.4, 1, "bytes"))
    wider = [other[name].shape[0] - value.shape[0] for name, value in narrow.items() if value.ndim == 4]
    assert min(wider) < 0 < max(wider)
    assert start(tmp_path / "out", at(0.4, 1, "bytes")) is None


def test_without_rungs_the_recipe_starts_there(tmp_path: Path) -> None:
    models = modeller(tmp_path / "out", rungs=NO_RUNGS)
    models.reference(at(0.75, None))
    further = models._further(at(0.5, None))
    assert further is not None and further.wider is not None
    assert (further.epochs, further.wider[0]) == (models.task.recovery_recipe.epochs, at(0.75, None))  # type: ignore[attr-defined]


def test_a_training_that_is_cut_off_keeps_its_start_and_a_lost_model_gets_it_again(tmp_path: Path) -> None:
    whole = modeller(tmp_path / "whole")
    whole.reference(at(0.75, 1))
    wanted = made(whole, at(0.5, 1))
    models = modeller(tmp_path / "cut")
    models.reference(at(0.75, 1))
    with pytest.raises(OutOfTime):
        modeller(tmp_path / "cut", out_of_time=lambda: True).reference(at(0.5, 1))
    models.reference(at(0.6, 1))  # would be nearer
    assert equal(made(models, at(0.5, 1)), wanted)
    (Store(tmp_path / "cut").model_folder(at(0.5, 1).model_digest) / "weights.pt").write_bytes(b"other")
    (Store(tmp_path / "cut").model_folder(at(0.75, 1).model_digest) / "weights.pt").unlink()
    assert equal(made(modeller(tmp_path / "cut"), at(0.5, 1)), wanted)


def test_a_damaged_record_of_the_start_is_told_and_written_anew(tmp_path: Path) -> None:
    models = modeller(tmp_path / "out")
    models.reference(at(0.75, 1))
    path = start_path(Store(tmp_path / "out"), at(0.5, 1).model_digest)
    path.write_text('{"variant": {}}')
    told: list[str] = []
    modeller(tmp_path / "out", told=told).reference(at(0.5, 1))
    assert start(tmp_path / "out", at(0.5, 1)) == at(0.75, 1).model_digest
    assert any(text.startswith(f"{path.name} is not used") for text in told)


def test_only_what_is_trained_and_narrow_is_another_variant_by_it() -> None:
    def variant(**params: object) -> Variant:
        return canonical(
            {"target": "none", **params},  # type: ignore[arg-type]
            arch_defaults=ARCH,
            target_precisions={"none": ("float32",)},
            default_threads=1,
            choices=Choices(from_wider=True),
        )

    assert variant(width=0.5, recovery_epochs=4).from_wider
    assert not variant(width=1.0).from_wider
    assert not variant(width=0.5, recovery_epochs=0).from_wider
    found = variant(width=0.5, recovery_epochs=4)
    assert Variant.from_json(found.as_json()) == found
    assert found.digest != replace(found, from_wider=False).digest
    rungs = Rungs.of((0, 4, 12))
    assert rungs.below(found) == rungs.lowest(found) == variant(width=0.5, recovery_epochs=0)
    assert rungs.below(variant(width=0.5, recovery_epochs=12)) == found


def test_folders_of_before_go_on_as_they_began() -> None:
    space = Space(("none",), {"width": (1.0, 0.5)}, ARCH, {"none": ("float32",)}, 1, Choices(from_wider=True))
    nothing: Any = None
    ready = Ready(nothing, {}, (), None, space, (), (), ())
    narrow = {"target": "none", "width": 0.5}
    assert ready.as_begun(None).space.variant(narrow).from_wider
    assert ready.as_begun({"from_wider": True}).space.variant(narrow).from_wider
    assert not ready.as_begun({}).space.variant(narrow).from_wider


def test_in_folders_of_before_litert_has_no_trained_int8() -> None:
    choices = Choices(trained=("litert", "onnxruntime"), from_wider=True)
    precisions = {"litert": ("float32", "int8"), "onnxruntime": ("float32", "int8")}
    space = Space(tuple(precisions), {"training": ("ptq", "qat")}, ARCH, precisions, 1, choices)
    nothing: Any = None
    ready = Ready(nothing, {}, (), None, space, (), (), ())
    asked = {"precision": "int8", "training": "qat"}
    today = {"from_wider": True, "litert_takes_trained": True}
    for study in (None, today):
        assert ready.as_begun(study).space.variant({**asked, "target": "litert"}).training == "qat"
        assert ready.as_begun(study).litert_takes_trained and not ready.as_begun(study).notes
    older = ready.as_begun({"from_wider": True})
    assert older.space.variant({**asked, "target": "litert"}) == ready.space.variant(
        {"precision": "int8", "target": "litert"}
    )
    assert older.space.variant({**asked, "target": "onnxruntime"}).training == "qat"
    assert not older.litert_takes_trained, "a study that starts from such a folder goes on as it"
    assert len(older.notes) == 1 and "LiteRT" in older.notes[0]
    without = replace(ready, space=replace(space, targets=("onnxruntime",), choices=Choices(trained=("onnxruntime",))))
    assert without.as_begun(None).litert_takes_trained and without.as_begun({}).litert_takes_trained
