"""Networks that end on made-up inputs and never on others, or that grow there: this host runs none of them by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from board_kit import SHAPE
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.errors import DataError
from edgedeploy.interfaces.task import Array
from edgedeploy.reference.apart import Apart, run_apart
from edgedeploy.reference.export import Reference, describe, kept_outputs
from edgedeploy.reference.safety import Limits
from edgedeploy.reference.take_in import take_in

pytestmark = pytest.mark.beside

SHORT = Limits(memory_bytes=4 << 30, cpu_s=2, each=True)


def trips_by_value(path: Path, body: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> None:
    """A loop of as many trips as the largest input says, whose result's shape the file declares."""
    value = helper.make_tensor_value_info
    inner = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), *body],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("s", TensorProto.FLOAT, [])],
        [value("go_on", TensorProto.BOOL, []), value("s_next", TensorProto.FLOAT, [])],
        weights,
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["n"], to=TensorProto.INT64),
        helper.make_node("Loop", ["n", "", "zero"], ["sum"], body=inner),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [value("x", TensorProto.FLOAT, SHAPE)],
        [value("y", TensorProto.FLOAT, SHAPE)],
        [numpy_helper.from_array(np.float32(0), "zero")],
        value_info=[value("sum", TensorProto.FLOAT, [])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def endless(path: Path) -> None:
    one = numpy_helper.from_array(np.float32(1), "one")
    trips_by_value(path, [helper.make_node("Add", ["s", "one"], ["s_next"])], [one])


def growing(path: Path) -> None:
    """In the loop an array of as many elements as the input says."""
    nodes = [
        helper.make_node("Unsqueeze", ["n", "first"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["array"]),
        helper.make_node("ReduceMax", ["array"], ["largest"], keepdims=0),
        helper.make_node("Add", ["s", "largest"], ["s_next"]),
    ]
    trips_by_value(path, nodes, [numpy_helper.from_array(np.int64([0]), "first")])


def taken_in(path: Path) -> Reference:
    path.write_bytes(take_in(path, {}).data)
    return describe(path)


def case(value: float) -> dict[str, Array]:
    return {"x": np.full(SHAPE, value, np.float32)}


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    ("write", "value", "found"),
    [(endless, 2.0**62, "processor time"), (growing, 2.0**40, "more memory than it may|ended with signal")],
)
def test_network_that_is_sound_on_made_up_inputs_alone_is_ended_in_a_limited_process(
    write: object, value: float, found: str, tmp_path: Path
) -> None:
    write(tmp_path / "model.onnx")  # type: ignore[operator]
    reference = taken_in(tmp_path / "model.onnx")
    run_apart(reference, [case(0.5), case(3.0)], SHORT)
    with pytest.raises(DataError, match=found):
        run_apart(reference, [case(0.5), case(value)], SHORT)


@pytest.mark.fault(52)
def test_nothing_is_computed_here_of_what_was_not_run_apart(tmp_path: Path) -> None:
    endless(tmp_path / "model.onnx")
    reference = taken_in(tmp_path / "model.onnx")
    with pytest.raises(DataError, match="processor time"):
        kept_outputs(
            reference, [case(2.0**62)], tmp_path / "golden.npz", apart=lambda r, feeds: run_apart(r, feeds, SHORT)
        )
    assert not (tmp_path / "golden.npz").exists()


def test_calibration_cases_come_out_in_order_and_are_run_apart_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless(tmp_path / "model.onnx")
    reference = taken_in(tmp_path / "model.onnx")
    groups: list[int] = []
    monkeypatch.setattr("edgedeploy.reference.apart.run_apart", lambda found, feeds: groups.append(len(feeds)))
    apart = Apart()
    cases = [case(float(number)) for number in range(12)]
    first = next(apart.first(reference, iter(cases)))
    assert first is cases[0] and groups == [1]
    assert [*apart.first(reference, iter(cases))] == cases
    assert groups == [1, 1, 8, 2]
    assert [*apart.first(reference, iter(cases))] == cases
    assert groups == [1, 1, 8, 2]


SOCKETS = """
import json, socket
from edgedeploy.reference.no_network import leave_network
left, found = leave_network(), {}
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    try:
        socket.socket(family).close()
        found[family.name] = True
    except PermissionError:
        found[family.name] = False
print(json.dumps([left, found]))
"""


@pytest.mark.fault(52)
def test_a_process_that_looks_at_a_strangers_file_opens_no_socket() -> None:
    done = subprocess.run([sys.executable, "-c", SOCKETS], capture_output=True, check=True)
    left, found = json.loads(done.stdout)
    if not left:
        pytest.skip("this kernel or machine has no seccomp filters")
    assert found == {"AF_INET": False, "AF_INET6": False, "AF_UNIX": False}
