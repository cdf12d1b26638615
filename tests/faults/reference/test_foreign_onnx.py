"""Small ONNX files made to exhaust whoever reads them, at every place where a user's file comes in."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_onnx import HOSTILE, bomb_of_100_bytes, endless_loop, growing_loop, save
from onnx import helper
from small_onnx import convolutional

from edgedeploy.errors import DataError
from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.reference.export import describe
from edgedeploy.reference.safety import Limits, check_onnx
from edgedeploy.reference.take_in import take_in
from edgedeploy.targets.compare.layers import compare_layers
from edgedeploy.targets.tensorrt.lint import Platform, lint_file
from edgedeploy.targets.tensorrt.version import TrtVersion
from edgedeploy.tasks.load import load_task

pytestmark = pytest.mark.beside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def artifact_of(path: Path) -> Artifact:
    spec = TensorSpec("image", "float32", (1, 3, 16, 16))
    return Artifact.of_folder(
        path.parent,
        target="onnxruntime",
        precision="float32",
        entry=path.name,
        inputs=(spec,),
        outputs=(TensorSpec("out", "float32", (1, 2, 16, 16)),),
        settings={},
        reference_sha256="0" * 64,
        built_with={},
    )


def as_a_task(path: Path) -> object:
    return load_task({"kind": "onnx", "model": path.name, "options": options(path.parent)}, path.parent)


def options(folder: Path) -> dict[str, Any]:
    found = {}
    for seed, split in enumerate(("calibration", "selection", "confirmation")):
        rng = np.random.default_rng(seed)
        np.savez(folder / f"{split}.npz", x=rng.random((2, 1, 4, 8, 8), np.float32))
        found[split] = f"{split}.npz"
    return found


def as_a_reference(path: Path) -> object:
    (path.parent / "built").mkdir()
    return compare_layers(
        path, artifact_of(convolutional(path.parent / "built" / "m.onnx")), path.parent / "built", list
    )


def as_an_artifact(path: Path) -> object:
    return compare_layers(convolutional(path.parent / "fine.onnx"), artifact_of(path), path.parent, list)


def on_tensorrt(path: Path) -> object:
    return lint_file(path, Platform(TrtVersion(10, 3), "float32", False, "8.7"))


DOORS: tuple[Callable[[Path], object], ...] = (
    *(as_a_task, describe, check_onnx, as_a_reference, as_an_artifact, on_tensorrt),
)


@pytest.mark.fault(33)
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_hundred_bytes_that_ask_for_64_gib_are_refused_at_each_door(
    door: Callable[[Path], object], folder: Path
) -> None:
    path = bomb_of_100_bytes(folder / "model.onnx")
    assert path.stat().st_size < 128
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="larger than 2147483648 bytes"):
        door(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 1 << 20


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    "write", [item for item in HOSTILE if item is not growing_loop], ids=lambda item: item.__name__
)
def test_file_made_to_harm_is_refused_by_a_process_with_limits(write: Callable[[Path], Path], folder: Path) -> None:
    """Bombs in branches, loops and functions; weights that lie elsewhere, seen from there."""
    with pytest.raises(DataError, match="Do not load it"):
        take_in(write(folder / "model.onnx"), {})


@pytest.mark.fault(33)
def test_file_whose_hunger_only_a_run_shows_harms_its_own_process(folder: Path) -> None:
    with pytest.raises(DataError, match="asks for more memory than it may"):
        take_in(growing_loop(folder / "a.onnx"), {}, limits=Limits(memory_bytes=1 << 30))
    with pytest.raises(DataError, match="takes more than 2 s of processor time"):
        take_in(endless_loop(folder / "b.onnx"), {}, limits=Limits(cpu_s=2))


@pytest.mark.fault(33)
def test_this_process_parses_nothing_of_a_users_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    path = save(folder / "model.onnx", [helper.make_node("Relu", ["x"], ["y"])])

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a user's file was parsed in this process")

    for name in ("load", "load_model", "load_from_string", "load_model_from_string"):
        monkeypatch.setattr(onnx, name, refuse)
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", refuse)
    assert take_in(path, {}).outputs == (TensorSpec("y", "float32", (1, 4, 8, 8)),)
