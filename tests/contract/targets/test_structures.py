"""Models of several inputs, structured outputs and volumes, as each target builds and runs them on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from strangers_networks import STRUCTURES, made
from torch import nn

from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec, random_feed
from edgedeploy.reference.export import export_reference, run_reference
from edgedeploy.reference.parity import check_parity
from edgedeploy.reference.program import PROGRAM_FILE, export_program
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.study.runner import in_order
from edgedeploy.targets.litert.target import LiteRtTarget
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget

pytestmark = pytest.mark.usefixtures("warm_converter")


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, 2, 1)
        self.norm = nn.InstanceNorm3d(8)

    def forward(self, image: object) -> dict[str, object]:
        return {"mask": self.head(self.norm(self.body(image)).relu())}


VOLUME = (TensorSpec("image", "float32", (1, 1, 6, 6, 6)),)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[TensorSpec, ...], list[str]]] = {
    **STRUCTURES,
    "volume": (Volume, VOLUME, ["mask"]),
}


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", ["nested tuples", "model output", "by keyword", "volume"])
@pytest.mark.parametrize("target", [OnnxRuntimeTarget(), OpenVinoTarget()], ids=lambda target: target.name)
def test_names_and_values_survive_a_build(target: Target, name: str, precision: str, tmp_path: Path) -> None:
    compare_with_reference(target, name, precision, tmp_path)


@pytest.mark.parametrize("name", ["model output", "by keyword", "volume"])
def test_names_and_values_survive_a_build_of_litert(name: str, tmp_path: Path) -> None:
    compare_with_reference(LiteRtTarget(), name, "float32", tmp_path)


def compare_with_reference(target: Target, name: str, precision: str, folder: Path) -> None:
    kind, specs, names = MODELS[name]
    model = made(kind, specs)
    reference = export_reference(model, specs, folder / "reference.onnx")
    program = folder / PROGRAM_FILE
    if isinstance(target, LiteRtTarget):
        export_program(model, specs, program)

    def cases() -> Iterator[dict[str, Array]]:
        return (random_feed(specs, seed) for seed in range(4))

    request = BuildRequest(reference.path, reference.inputs, reference.outputs, precision, cases)
    request = BuildRequest(**{**vars(request), "program": program if program.is_file() else None})
    artifact = target.build(request, folder / "built")
    session = open_session(target.name, folder / "built", artifact.entry, dict(artifact.settings), 1)
    feed = random_feed(specs, seed=9)
    found, wanted = session.run(feed), run_reference(reference, feed)
    assert list(in_order(found, artifact)) == names == list(wanted)
    classes = [key for key in names if wanted[key].dtype.kind == "i"]
    for key in classes:
        assert np.mean(found.pop(key) == wanted.pop(key)) > (0.8 if precision == "int8" else 0.999)
    check_parity(wanted, found, precision)
