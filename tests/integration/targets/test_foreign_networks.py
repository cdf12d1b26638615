"""Networks without a convolution or a matrix product, built and run by the targets that take any ONNX."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from foreign_networks import NETWORKS, convolutional_lstm
from small_onnx import feeds

from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import random_feed
from edgedeploy.reference.export import Reference, describe, run_reference
from edgedeploy.reference.parity import check_executed, check_parity
from edgedeploy.reference.take_in import take_in
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget

pytestmark = pytest.mark.beside


def taken(write: Callable[[Path], Path], folder: Path) -> Reference:
    path = folder / "reference.onnx"
    path.write_bytes(take_in(write(folder / "m.onnx"), {}).data)
    return describe(path)


def built_and_run(target: Target, reference: Reference, precision: str, folder: Path) -> dict[str, int]:
    """The executed layers of an artifact that is held against its reference as a study does it."""
    several = len(reference.inputs) > 1

    def calibration() -> Iterator[dict[str, Array]]:
        return (random_feed(reference.inputs, seed) for seed in range(4)) if several else feeds(reference.inputs[0])

    request = BuildRequest(reference.path, reference.inputs, reference.outputs, precision, calibration)
    artifact = target.build(request, folder)
    session = open_session(target.name, folder, artifact.entry, dict(artifact.settings), 1)
    executed = session.executed()
    check_executed(precision, executed)
    feed = random_feed(reference.inputs, 5)
    found = {name: np.asarray(value) for name, value in session.run(feed).items()}
    check_parity(run_reference(reference, feed), found, precision)
    return executed


@pytest.mark.parametrize("target", [OnnxRuntimeTarget(), OpenVinoTarget()], ids=lambda target: target.name)
@pytest.mark.parametrize("write", NETWORKS, ids=lambda write: write.__name__)
def test_it_runs_in_float32_and_says_so(write: Callable[[Path], Path], target: Target, tmp_path: Path) -> None:
    executed = built_and_run(target, taken(write, tmp_path), "float32", tmp_path / "built")
    assert set(executed) <= {"float32", "none"}


@pytest.mark.skipif(find_spec("silero_vad") is None, reason="the package silero-vad is not installed")
def test_two_int8_builds_of_a_published_voice_detector_are_equal(tmp_path: Path) -> None:
    """OpenVINO names constants of a split that it folds by a counter of the process."""
    spec = find_spec("silero_vad")
    assert spec is not None
    assert spec.origin is not None
    model = Path(spec.origin).parent / "data" / "silero_vad_openvino_16k.onnx"
    (tmp_path / "r.onnx").write_bytes(take_in(model, {}).data)
    reference = describe(tmp_path / "r.onnx")
    cases = lambda: (random_feed(reference.inputs, seed) for seed in range(2))  # noqa: E731
    request = BuildRequest(reference.path, reference.inputs, reference.outputs, "int8", cases)
    digests = {OpenVinoTarget().build(request, tmp_path / name).digest for name in ("first", "second")}
    assert len(digests) == 1


def test_recurrent_layers_stay_in_float_beside_int8_ones(tmp_path: Path) -> None:
    reference = taken(convolutional_lstm, tmp_path)
    for target in (OnnxRuntimeTarget(), OpenVinoTarget()):
        executed = built_and_run(target, reference, "int8", tmp_path / target.name)
        assert executed["int8"] >= 1
        assert executed["float32"] >= 1
