"""Files that were made to do harm: models that reach outside, exhaust a parser, or carry commands in their names."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from board_kit import MACHINE_WAIT_S, OUTPUTS_ONLY, SHAPE, conv_model, make_payload, open_transport, save_model
from fault_kit import local_board
from onnx import TensorProto, helper, numpy_helper

import edgedeploy
from edgedeploy.boards.agent.session import BoardOptions
from edgedeploy.boards.emulated.board import EmulatedBoard
from edgedeploy.errors import DataError
from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.records.job import Job
from edgedeploy.reference import safety
from edgedeploy.reference.export import describe
from edgedeploy.reference.safety import Limits, check_onnx

pytestmark = pytest.mark.beside


def with_external_weights(path: Path, location: str) -> None:
    """The first weight of a sound model is said to lie elsewhere."""
    conv_model(path)
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())


def upwards(path: Path) -> None:
    (path.parent.parent / "secret").write_bytes(bytes(8 * 3 * 9 * 4))
    with_external_weights(path, "../secret")


def absolute(path: Path) -> None:
    with_external_weights(path, "/etc/passwd")


def linked(path: Path) -> None:
    (path.parent / "weights").symlink_to("/etc/passwd")
    with_external_weights(path, "weights")


def linked_folder(path: Path) -> None:
    (path.parent / "sub").symlink_to("/etc")
    with_external_weights(path, "sub/passwd")


def in_an_attribute(path: Path) -> None:
    """Constants in nodes hold tensors too."""
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    nodes = [helper.make_node("Constant", [], ["c"], value=tensor), helper.make_node("Add", ["x", "c"], ["y"])]
    save_model(path, nodes, [])


def huge_weight(path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 40], raw_data=b"")
    save_model(path, [helper.make_node("Add", ["x", "w"], ["y"])], [tensor])


def negative_weight(path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-1], raw_data=b"")
    save_model(path, [helper.make_node("Add", ["x", "w"], ["y"])], [tensor])


def expanded(path: Path) -> None:
    """A few bytes that ask for a terabyte."""
    shape = numpy_helper.from_array(np.int64([1 << 19, 1 << 19]), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["h"]),
        helper.make_node("ReduceMax", ["h"], ["m"], keepdims=0),
        helper.make_node("Add", ["x", "m"], ["y"]),
    ]
    save_model(path, nodes, [shape])


def no_model(path: Path) -> None:
    path.write_bytes(b"\x08\x07" + b"\xff" * 4096)


HARMFUL = (
    (upwards, "outside of the model's folder"),
    (absolute, "outside of the model's folder"),
    (linked, "through a link"),
    (linked_folder, "through a link"),
    (in_an_attribute, "outside of the model's folder"),
    (huge_weight, "larger than"),
    (negative_weight, "negative"),
    (expanded, "larger than"),
    (no_model, "no ONNX model|cannot be inferred"),
)


@pytest.mark.fault(33)
@pytest.mark.parametrize(("write", "found"), HARMFUL)
def test_model_that_reaches_out_is_refused_before_it_is_loaded(
    write: Callable[[Path], None], found: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder / "model.onnx")
    with pytest.raises(DataError, match=found):
        describe(folder / "model.onnx")


STUDY = """\
[study]
name = "foreign"
targets = ["onnxruntime"]

[task]
kind = "onnx"
model = "model.onnx"
options = { calibration = "cases.npz", selection = "cases.npz", confirmation = "cases.npz" }

[[boards]]
name = "here"
kind = "local"

[space]
precision = ["float32"]

[budget]
trials = 1

[[objectives]]
metric = "size_bytes"
"""


@pytest.mark.fault(33)
@pytest.mark.parametrize(("write", "found"), HARMFUL)
def test_a_study_of_such_a_model_is_refused_before_it_begins(
    write: Callable[[Path], None], found: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder / "model.onnx")
    np.savez(folder / "cases.npz", x=np.zeros((3, *SHAPE), np.float32))
    (folder / "study.toml").write_text(STUDY)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=found):
        edgedeploy.load_study(folder / "study.toml").run(edgedeploy.RunOptions(out=tmp_path / "out"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.fault(33)
def test_parser_that_exhausts_its_limits_takes_nothing_with_it(tmp_path: Path) -> None:
    """The limits are the kernel's: memory here, on a sound file, because no parser bomb is known for this version."""
    conv_model(tmp_path / "model.onnx")
    check_onnx(tmp_path / "model.onnx")
    with pytest.raises(DataError, match="the process that parses it ended with"):  # and was not given up after its time
        check_onnx(tmp_path / "model.onnx", Limits(memory_bytes=64 << 20))
    with pytest.raises(DataError, match="At most 100 are read"):
        check_onnx(tmp_path / "model.onnx", Limits(file_bytes=100))


@pytest.mark.fault(33)
def test_weights_beside_the_model_are_allowed(tmp_path: Path) -> None:
    with_external_weights(tmp_path / "model.onnx", "weights.bin")
    (tmp_path / "weights.bin").write_bytes(bytes(8 * 3 * 9 * 4))
    check_onnx(tmp_path / "model.onnx")


def test_one_files_bytes_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a process of its own each time, as long as anything else decides: other bytes, other limits, or other files."""
    looks: list[str] = []

    def counted(asked: str, *arguments: Any) -> bytes:
        looks.append(asked)
        return run_limited(asked, *arguments)

    run_limited = safety.run_limited
    monkeypatch.setattr(safety, "run_limited", counted)
    monkeypatch.setattr(safety, "_found_sound", set())
    sound, same = tmp_path / "sound.onnx", tmp_path / "same.onnx"
    conv_model(sound)
    shutil.copy(sound, same)
    for path in (sound, sound, same):
        check_onnx(path)
    assert len(looks) == 1
    check_onnx(sound, Limits(tensor_bytes=1 << 20))
    assert len(looks) == 2
    shutil.copy(sound, tmp_path / "sound.json")
    with pytest.raises(DataError, match="it is no ONNX model"):
        check_onnx(tmp_path / "sound.json")
    sound.write_bytes(sound.read_bytes()[:-20])
    for _ in range(2):
        with pytest.raises(DataError):
            check_onnx(sound)
    assert len(looks) == 5
    spread = tmp_path / "spread.onnx"
    with_external_weights(spread, "weights.bin")
    (tmp_path / "weights.bin").write_bytes(bytes(8 * 3 * 9 * 4))
    check_onnx(spread)
    (tmp_path / "weights.bin").unlink()
    (tmp_path / "weights.bin").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="are reached through a link"):
        check_onnx(spread)


def names(marker: Path) -> list[str]:
    return [
        f"$(touch {marker})",
        f"`touch {marker}`; touch {marker}",
        f"'; touch {marker} #",
        f"../../../../..{marker}",
        "<script>alert(1)</script>",
        "--help",
    ]


@pytest.mark.fault(38)
@pytest.mark.parametrize("which", range(6))
def test_names_in_a_model_are_inert_on_the_board(which: int, tmp_path: Path) -> None:
    """Tensor, layer and file names that are commands or paths, through a real sshd where there is one."""
    marker = tmp_path / "executed"
    name = names(marker)[which]
    place = tmp_path / "job"

    def renamed(path: Path) -> None:
        conv_model(path)
        model = onnx.load(path)
        for node in model.graph.node:
            node.name = f"{name}{node.output[0]}"
            node.input[:] = [name if item == "x" else item for item in node.input]
            node.output[:] = [f"{name}!" if item == "y" else item for item in node.output]
        model.graph.name = model.graph.input[0].name = name
        model.graph.output[0].name = f"{name}!"
        onnx.save(model, path)

    payload = make_payload(place, renamed)
    if "/" not in name:
        (place / "artifact" / name).write_bytes(b"a file of the artifact")
    artifact = Artifact.of_folder(
        place / "artifact",
        target="onnxruntime",
        precision="float32",
        entry="model.onnx",
        inputs=(TensorSpec(name, "float32", SHAPE),),
        outputs=(TensorSpec(f"{name}!", "float32", (1, 2, 16, 16)),),
        settings={},
        reference_sha256="0" * 64,
        built_with={},
    )
    np.savez(place / "inputs.npz", **{name: np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)})
    job = Job(replace(payload, artifact=artifact), None, OUTPUTS_ONLY)
    board = EmulatedBoard(f"board {name}", options=BoardOptions(python=sys.executable, root=str(tmp_path / "r")))
    with board.session() as session:
        run = session.measure(job, tmp_path)
    assert run.outputs is not None
    with np.load(run.outputs) as outputs:
        assert [outputs[key].shape for key in outputs.files] == [(3, 1, 2, 16, 16)]
    assert not marker.exists()
    assert not list(tmp_path.rglob("executed*"))


@pytest.mark.fault(38)
def test_folder_in_a_file_name_is_refused_on_the_board(tmp_path: Path) -> None:
    """By the board itself: a host that was taken over cannot write outside of its jobs either."""
    payload = make_payload(tmp_path / "job")
    (file,) = payload.artifact.files
    evil = replace(payload.artifact, files=(replace(file, name="../evil"),), entry="../evil")
    (tmp_path / "job" / "evil").write_bytes((payload.folder / "model.onnx").read_bytes())
    board = local_board(tmp_path / "root", wait_s=MACHINE_WAIT_S)
    with board.session() as session, pytest.raises(Exception, match="bad_job"):
        session.measure(Job(replace(payload, artifact=evil), None, OUTPUTS_ONLY), tmp_path)
    assert not list((tmp_path / "root").rglob("evil"))


@pytest.mark.fault(38)
@pytest.mark.parametrize("kind", ["local", "embedded", "sshd"])
def test_arguments_reach_a_command_as_they_are(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    with open_transport(kind) as transport:
        for name in names(marker):
            done = transport.run(["printf", "%s", name], timeout_s=10)
            assert done.stdout.decode() == name
    assert not marker.exists()
