"""A task reads outputs in the order in which its model returns them, whatever the runtime's order."""

from __future__ import annotations

import numpy as np

from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.study.runner import in_order


def test_outputs_come_in_the_models_order() -> None:
    specs = tuple(TensorSpec(name, "float32", (1, 1)) for name in ("mask", "boxes", "out0"))
    artifact = Artifact("litert", "float32", "m.tflite", (), (), specs, (), "", ())
    alphabetical = {name: np.zeros((2, 1, 1)) for name in ("boxes", "extra", "mask", "out0")}
    assert list(in_order(alphabetical, artifact)) == ["mask", "boxes", "out0", "extra"]
    assert all(in_order(alphabetical, artifact)[name] is values for name, values in alphabetical.items())
