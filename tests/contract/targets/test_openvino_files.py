"""What OpenVINO files leave out changes nothing that runs: the outputs are equal bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import openvino as ov
import pytest
from small_onnx import convolutional, feeds, request, transformer_block

from edgedeploy.records.artifact import Artifact
from edgedeploy.reference.export import describe
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.openvino import target as module
from edgedeploy.targets.openvino.constants import rounded_to_bfloat16
from edgedeploy.targets.openvino.target import OpenVinoTarget

WRITERS = [convolutional, transformer_block]


def plainly(model: Any, path: Path) -> None:
    ov.save_model(model, str(path), compress_to_fp16=False)


def answers(artifact: Artifact, folder: Path, model: Path) -> tuple[list[Any], dict[str, int]]:
    session = open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)
    rows = feeds(describe(model).inputs[0], count=3, seed=4)
    return [session.run(feed)["out"].copy() for feed in rows], session.executed()


def built_twice(
    model: Path, precision: str, without: str, instead: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Artifact, Artifact]:
    """The artifact, and what it would be without a step; both give equal bits."""
    artifact = OpenVinoTarget().build(request(model, precision), tmp_path / "own")
    with monkeypatch.context() as patch:
        patch.setattr(module, without, instead)
        plain = OpenVinoTarget().build(request(model, precision), tmp_path / "plain")
    own, executed = answers(artifact, tmp_path / "own", model)
    other, same = answers(plain, tmp_path / "plain", model)
    assert executed == same
    for one, two in zip(own, other, strict=True):
        np.testing.assert_array_equal(one, two)
    return artifact, plain


def sizes(artifact: Artifact) -> dict[str, int]:
    return {file.name: file.size_bytes for file in artifact.files}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("write", WRITERS)
def test_a_compact_file_computes_the_same_under_the_same_names(
    write: Any, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, plain = built_twice(write(tmp_path / "m.onnx"), precision, "save_compact", plainly, tmp_path, monkeypatch)
    assert sizes(own)["model.bin"] == sizes(plain)["model.bin"]
    assert sizes(own)["model.xml"] < 0.7 * sizes(plain)["model.xml"]
    layers = [
        [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() != "Constant"]
        for model in (ov.Core().read_model(str(tmp_path / name / "model.xml")) for name in ("own", "plain"))
    ]
    assert sorted(layers[0]) == sorted(layers[1])


def test_the_file_still_says_how_it_was_quantized(tmp_path: Path) -> None:
    OpenVinoTarget().build(request(convolutional(tmp_path / "m.onnx"), "int8"), tmp_path / "own")
    network = ElementTree.parse(tmp_path / "own" / "model.xml").getroot()
    assert network.find("rt_info/nncf/quantization/preset") is not None
    assert network.find("rt_info/conversion_parameters") is None


@pytest.mark.parametrize("write", WRITERS)
def test_bfloat16_weights_take_two_bytes(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU without bfloat16 the device computes in float32, where rounded weights are others."""
    model = write(tmp_path / "m.onnx")
    folder = tmp_path / "float"
    wide = OpenVinoTarget().build(request(model, "float32"), folder)
    narrow = OpenVinoTarget().build(request(model, "bfloat16"), tmp_path / "probe")
    assert sizes(narrow)["model.bin"] < 0.65 * sizes(wide)["model.bin"]
    _, executed = answers(narrow, tmp_path / "probe", model)
    if set(executed) == {"float32"}:
        pytest.skip("this CPU has no bfloat16 instructions")
    built_twice(model, "bfloat16", "narrow_weights", lambda model, hint: None, tmp_path, monkeypatch)


def test_weights_that_are_float16_are_stored_as_such_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = convolutional(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    rounded = tmp_path / "rounded.onnx"
    onnx.save(model, str(rounded))
    stay: Any = lambda model, hint: None  # noqa: E731
    (tmp_path / "a").mkdir()
    own, plain = built_twice(path, "float32", "narrow_weights", stay, tmp_path / "a", monkeypatch)
    assert sizes(own) == sizes(plain)
    (tmp_path / "b").mkdir()
    own, plain = built_twice(rounded, "float32", "narrow_weights", stay, tmp_path / "b", monkeypatch)
    assert sizes(own)["model.bin"] < 0.65 * sizes(plain)["model.bin"]


def test_rounding_to_bfloat16_is_to_the_nearest_even() -> None:
    step = 2.0**-7
    values = np.array([1 + step / 2, 1 + 3 * step / 2, 1 + step * 0.51, -1.0, 3e-39, 1e30], np.float32)
    wanted = np.array([1, 1 + 2 * step, 1 + step, -1.0], np.float32)
    found = rounded_to_bfloat16(values)
    np.testing.assert_array_equal(found[:4], wanted)
    np.testing.assert_allclose(found[4:], values[4:], rtol=2**-6)
    assert not (found.view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_build_reports_to_nobody(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's converter takes silence for consent, and asks for its reporter by name in three of its modules."""
    telemetry = pytest.importorskip("openvino_telemetry")
    from openvino.tools.ovc import convert_impl, telemetry_utils, utils

    reports = []
    for name in ("init", "start_session", "send_event", "send_error", "send_stack_trace", "end_session"):
        monkeypatch.setattr(telemetry.Telemetry, name, lambda *told, **_: reports.append(told))
    for part in (convert_impl, telemetry_utils, utils):
        monkeypatch.setattr(part, "tm", telemetry)  # as where nothing has been built yet
    OpenVinoTarget().build(request(convolutional(tmp_path / "m.onnx"), precision), tmp_path / "built")
    assert reports == []
