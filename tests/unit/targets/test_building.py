"""``edgedeploy.build_artifact``: what it refuses and leaves behind, for a toolchain and a session that are made up.

The contract of targets, which ``tests/thirdparty`` passes by it, tests the rest with real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgedeploy import (
    BuildError,
    BuildRequest,
    DataError,
    Readiness,
    SessionSource,
    TargetUnavailable,
    TensorSpec,
    Unsupported,
    build_artifact,
    look_for,
)

SPEC = TensorSpec("image", "float32", (1, 4))
SESSION = """
from edgedeploy.runtime.faults import RuntimeFault

class Session:
    inputs, outputs, device, version = ["image"], ["out0"], "none", "1"
    def __init__(self, path):
        self.text = path.read_text()
        path.with_name("cache").write_text("written beside the model")
    def run(self, feeds):
        if self.text.startswith("fault "):
            raise RuntimeFault(*self.text.split()[1:])
        return {"out0": feeds["image"] * float(self.text)}

def open_model(path, settings, threads):
    return Session(path)
"""


class Made:
    name = "made"
    session = SessionSource("made_session", packages=("made-runtime",))
    precisions: tuple[str, ...] = ("float32",)
    extra = ""

    def probe(self) -> Readiness:
        return look_for(("numpy",))

    def build(self, request: BuildRequest, folder: Path) -> Any:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "site"
    place.mkdir()
    (place / "made_session.py").write_text(SESSION, encoding="utf-8")
    monkeypatch.syspath_prepend(str(place))


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    edges = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in ("image", "out0")]
    node = onnx.helper.make_node("Relu", ["image"], ["out0"], name="the_node")
    path = tmp_path / "reference.onnx"
    graph = onnx.helper.make_graph([node], "one", edges[:1], edges[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), str(path))
    outputs = (TensorSpec("out0", "float32", (1, 4)),)
    return BuildRequest(path, (SPEC,), outputs, "float32", lambda: iter(()))


def built(request: BuildRequest, folder: Path, text: str, **options: Any) -> Any:
    def write(_: BuildRequest, scratch: Path) -> Mapping[str, str]:
        (scratch / "model.txt").write_text(text, encoding="utf-8")
        return {"key": "value"}

    return build_artifact(Made(), request, folder, "model.txt", write, **options)


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def test_the_folder_holds_what_was_written_and_nothing_that_the_run_left(
    request_: BuildRequest, tmp_path: Path
) -> None:
    artifact = built(request_, tmp_path / "new" / "built", "2")
    assert left_in(tmp_path / "new" / "built") == ["model.txt"] == [file.name for file in artifact.files]
    assert dict(artifact.settings) == {"key": "value"}


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("nan", Unsupported, "NaN or Inf"),
        ("fault open_failed Relu", Unsupported, "the_node"),
        ("fault run_failed Relu", Unsupported, "the_node"),
        ("fault runtime_missing gone", TargetUnavailable, "pip install made-runtime"),
        ("fault memory_exceeded full", TargetUnavailable, "full"),
    ],
)
def test_a_run_that_fails_is_a_failure_of_the_variant_or_of_this_host(
    text: str, error: type[Exception], told: str, request_: BuildRequest, tmp_path: Path
) -> None:
    with pytest.raises(error, match=told):
        built(request_, tmp_path / "built", text)
    assert left_in(tmp_path / "built") == []


def test_files_that_this_host_cannot_run_are_not_run(request_: BuildRequest, tmp_path: Path) -> None:
    artifact = built(request_, tmp_path / "built", "fault runtime_missing gone", run_here=False)
    assert [file.name for file in artifact.files] == ["model.txt"]


def test_what_a_toolchain_raises_names_the_model_and_the_node(request_: BuildRequest, tmp_path: Path) -> None:
    def write(_: BuildRequest, scratch: Path) -> Mapping[str, str]:
        (scratch / "half.txt").write_text("half", encoding="utf-8")
        raise RuntimeError("no kernel for Relu")

    with pytest.raises(Unsupported, match=r"reference\.onnx") as caught:
        build_artifact(Made(), request_, tmp_path / "built", "half.txt", write)
    assert "the_node" in str(caught.value)
    assert left_in(tmp_path / "built") == []


@pytest.mark.parametrize("error", [DataError("a", "b", "c"), OSError("disk"), MemoryError("memory")])
def test_errors_of_the_task_and_of_this_host_pass_unchanged(
    error: Exception, request_: BuildRequest, tmp_path: Path
) -> None:
    def write(_: BuildRequest, scratch: Path) -> Mapping[str, str]:
        raise error

    with pytest.raises(type(error)) as caught:
        build_artifact(Made(), request_, tmp_path / "built", "model.txt", write)
    assert caught.value is error


def test_a_reference_that_is_no_model_is_named(request_: BuildRequest, tmp_path: Path) -> None:
    request_.reference.write_bytes(request_.reference.read_bytes()[:20])
    with pytest.raises(BuildError, match=r"reference\.onnx"):
        built(request_, tmp_path / "built", "1")
    assert left_in(tmp_path / "built") == []


def test_calibration_is_checked_before_it_reaches_the_toolchain(request_: BuildRequest, tmp_path: Path) -> None:
    cases = [{"image": np.zeros((1, 4), np.float32)}, {"image": np.full((1, 4), np.nan, np.float32)}]

    def write(request: BuildRequest, scratch: Path) -> Mapping[str, str]:
        seen = request.calibration()
        assert next(seen)["image"].shape == (1, 4)
        next(seen)
        raise AssertionError("the second case was let through")

    with_nan = BuildRequest(**{**vars(request_), "calibration": lambda: iter(cases)})
    with pytest.raises(DataError, match="calibration case 1"):
        build_artifact(Made(), with_nan, tmp_path / "built", "model.txt", write)


def test_what_is_missing_is_told_with_the_way_to_install_it() -> None:
    assert look_for(("no-such-runtime", "numpy", "nor-this")).remedy == "pip install no-such-runtime nor-this"
    assert look_for(("no-such-runtime",), "litert").remedy == "pip install 'edgedeploy[litert]'"
    assert look_for(("numpy",)).ready
