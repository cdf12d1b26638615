"""Where an int8 build rounds, and what each rounding costs, on small ONNX networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_onnx import convolutional, two_stages

from edgedeploy.errors import DataError, OutOfTime, Unsupported
from edgedeploy.interfaces.task import Array
from edgedeploy.records.precision import Int8Scheme
from edgedeploy.reference import sensitivity
from edgedeploy.reference.external import MOST_IN_ONE_FILE_BYTES, weights_file
from edgedeploy.reference.passes import passes
from edgedeploy.reference.roundings import Roundings, roundings_of
from edgedeploy.reference.sensitivity import (
    Simulation,
    rounded_weights,
    sensitivity_of,
    sqnr_db,
)

ORT = Int8Scheme(operators=("Concat",))
NNCF = Int8Scheme(outputs=False, mean_extremes=True)


def images(count: int = 3) -> Iterator[dict[str, Array]]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {"image": rng.random((1, 3, 16, 16)).astype(np.float32)}


def by_tensor(found: Roundings, losses: tuple[float, ...]) -> dict[str, float]:
    return {place.tensor: loss for place, loss in zip(found.places, losses, strict=True)}


def members(found: Roundings, kind: str = "tensor") -> dict[str, set[str]]:
    places = [place for place in found.places if place.kind == kind]
    return {place.tensor: {found.layers[i].name for i in place.layers} for place in places}


def test_tensors_between_layers_are_rounded_once_and_activations_belong_to_the_layer_before(tmp_path: Path) -> None:
    found = roundings_of(convolutional(tmp_path / "m.onnx"), ORT)
    assert [layer.name for layer in found.layers] == ["/block1/conv", "/block2/conv", "/head/conv"]
    assert [layer.size_bytes for layer in found.layers] == [4 * 3 * 8 * 9, 4 * 8 * 8 * 9, 4 * 8 * 2]
    assert members(found) == {
        "image": {"/block1/conv"},
        "r1": {"/block1/conv", "/block2/conv"},
        "r2": {"/block2/conv", "/head/conv"},
        "out": {"/head/conv"},
    }
    assert found.owners["/block1/norm"] == found.owners["/block1/relu"] == 0
    assert found.groups == ((0,), (1,), (2,))
    assert [link[:2] for link in found.links] == [(0, 1), (1, 2)]
    assert found.links[0][2] == 8 * 16 * 16


def test_a_scheme_that_rounds_what_is_read_leaves_the_output_alone(tmp_path: Path) -> None:
    found = roundings_of(convolutional(tmp_path / "m.onnx"), NNCF)
    assert members(found) == {"image": {"/block1/conv"}, "r1": {"/block2/conv"}, "r2": {"/head/conv"}}


def test_a_concatenation_has_a_precision_of_its_own_or_holds_the_layers_before_it_together(tmp_path: Path) -> None:
    path = _two_branches(tmp_path / "m.onnx")
    own = roundings_of(path, ORT)
    assert [layer.name for layer in own.layers] == ["/left", "/right", "/both", "/head"]
    assert members(own)["l"] == {"/left", "/both"}
    together = roundings_of(path, Int8Scheme(one_range=("Concat",)))
    assert [layer.name for layer in together.layers] == ["/left", "/right", "/head"]
    assert together.groups == ((0, 1), (2,))


def test_layers_that_share_weights_are_one_group(tmp_path: Path) -> None:
    found = roundings_of(_two_branches(tmp_path / "m.onnx", shared=True), Int8Scheme())
    assert found.groups == ((0, 1), (2,))
    assert members(found, "weights")["wl"] == {"/left", "/right"}


def test_a_network_without_weights_has_no_plans(tmp_path: Path) -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="/relu")], "g", [_value("x")], [_value("y")])
    path = tmp_path / "m.onnx"
    onnx.save(_model(graph), str(path))
    with pytest.raises(Unsupported, match="no layer multiplies with constant weights"):
        roundings_of(path, ORT)


def test_weights_past_one_protobuf_have_no_plans_and_are_not_read(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "m.onnx")
    with weights_file(path).open("wb") as file:
        file.truncate(MOST_IN_ONE_FILE_BYTES + 1)  # a hole: it takes no room
    with pytest.raises(Unsupported, match=r"its weights have 2000000001 bytes.*Search without them"):
        roundings_of(path, ORT)


def test_what_each_rounding_costs_adds_up_to_what_all_cost(tmp_path: Path) -> None:
    """The sum of the losses of one rounding at a time, against the network in which everything is rounded."""
    found = roundings_of(convolutional(tmp_path / "m.onnx"), ORT)
    losses = sensitivity_of(Simulation(found, images(), ORT))
    assert losses.cases == 3
    assert all(20 < sqnr_db(loss) < 80 for loss in losses.losses)
    feeds = list(images())
    ranges = sensitivity._ranges(found.model, [p.tensor for p in found.places if p.kind == "tensor"], feeds, ORT)
    model = sensitivity._copy(found.model)
    for place in found.places:
        sensitivity._round(model, place, ranges.get(place.tensor), {})
    plain, rounded = sensitivity._Session(found.model), sensitivity._Session(model)
    whole = float(np.mean([sensitivity._noise(plain.run(feed), rounded.run(feed)) for feed in feeds]))
    assert sum(losses.losses) == pytest.approx(whole, rel=0.35)


def test_a_whole_plan_is_simulated_with_all_that_it_rounds(tmp_path: Path) -> None:
    found = roundings_of(convolutional(tmp_path / "m.onnx"), ORT)
    plain = _first_outputs(found.model)

    def judge(case: int, outputs: Mapping[str, Array]) -> dict[str, float]:
        return {"away": float(np.abs(plain[case] - outputs["out"]).mean())}

    simulation = Simulation(found, images(), ORT, judge)
    alone = sensitivity_of(simulation)
    assert simulation.look([found.places[0]]).loss == alone.losses[0]
    nothing = simulation.look_at_plan(["float32"] * 3)
    assert (nothing.loss, nothing.metrics) == (0, {"away": 0})
    every = simulation.look_at_plan(["int8"] * 3)
    assert every == simulation.look(found.places)
    assert every.metrics["away"] > max(alone.metrics["away"])
    first = {place.tensor for place in found.places if 0 in place.layers}
    assert first == {"image", "r1", found.layers[0].weight}
    only = simulation.look_at_plan(["int8", "float32", "float32"])
    assert only == simulation.look([place for place in found.places if place.tensor in first])
    assert 0 < only.loss < every.loss


def _first_outputs(model: onnx.ModelProto) -> list[Array]:
    session = sensitivity._Session(model)
    return [session.run(feed)[0] for feed in images()]


@pytest.mark.parametrize("scheme", [ORT, NNCF])
def test_a_tensor_may_be_empty_as_where_nothing_was_found(tmp_path: Path, scheme: Int8Scheme) -> None:
    """The pixels above a threshold, one a row, are multiplied: in no case there is one."""
    weights = {
        "threshold": np.float32(9),
        "row": np.array([-1]),
        "rows": np.array([-1, 1]),
        "w": np.ones((1, 4), np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Reshape", ["image", "row"], ["flat"]),
        node("Greater", ["flat", "threshold"], ["above"]),
        node("Compress", ["flat", "above"], ["found"], axis=0),
        node("Reshape", ["found", "rows"], ["column"]),
        node("MatMul", ["column", "w"], ["scores"], name="score"),
        node("ReduceSum", ["scores"], ["sum"], keepdims=1),
        node("Add", ["image", "sum"], ["out"]),
    ]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "found", [_value("image")], [_value("out")], constants)
    onnx.save(_model(graph), tmp_path / "m.onnx")
    found = roundings_of(tmp_path / "m.onnx", scheme)
    losses = by_tensor(found, sensitivity_of(Simulation(found, images(), scheme)).losses)
    assert "score" in [layer.name for layer in found.layers]
    assert losses["w"] == losses["found"] == 0


def test_a_layer_with_weights_that_eight_bits_cannot_hold_is_the_worst(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "m.onnx")
    plain = roundings_of(path, ORT)
    model = onnx.load(str(path))
    tensor = next(item for item in model.graph.initializer if item.name == "w2")
    values = numpy_helper.to_array(tensor).copy()
    values[:, 0, 0, 0] = 100  # one large weight takes the range of each channel
    tensor.CopyFrom(numpy_helper.from_array(values, "w2"))
    onnx.save(model, str(path))
    found = roundings_of(path, ORT)
    costs = by_tensor(found, sensitivity_of(Simulation(found, images(), ORT)).losses)
    before = by_tensor(plain, sensitivity_of(Simulation(plain, images(), ORT)).losses)
    second = found.layers[1].weight
    assert costs[second] > 10 * before[second]
    assert max((costs[layer.weight], layer.name) for layer in found.layers)[1] == "/block2/conv"


def test_the_range_of_an_image_beside_logits_costs_the_second_stage(tmp_path: Path) -> None:
    found = roundings_of(two_stages(tmp_path / "m.onnx", gain=200.0), ORT)
    costs = by_tensor(found, sensitivity_of(Simulation(found, images(), ORT)).losses)
    assert costs["image"] > 0
    assert costs["both"] > 0
    assert sum(loss > 0 for loss in costs.values()) == len(costs)


def test_weights_are_rounded_with_one_scale_a_channel() -> None:
    weights = np.array([[1.0, -127.0], [0.01, 1.27], [0.0, 0.0]], dtype=np.float32)
    assert rounded_weights(weights, 0) == pytest.approx(weights)
    assert rounded_weights(weights, 1)[0, 0] == pytest.approx(1.0)
    assert rounded_weights(weights, 1)[1, 1] == pytest.approx(1.0)
    vector = np.array([127.0, 1.3, 0.2], dtype=np.float32)  # a matrix times it: a runtime has no channels to tell apart
    assert rounded_weights(vector, 0) == pytest.approx([127.0, 1.0, 0.0])


def test_the_numbers_are_those_of_the_method_that_they_are_kept_under(tmp_path: Path) -> None:
    """Where this fails because a number is meant to be another: raise METHOD, so that kept ones are measured anew."""
    vector = numpy_helper.from_array(np.linspace(-1.0, 1.0, 16, dtype=np.float32) ** 3, "w")
    nodes = [
        helper.make_node("MatMul", ["image", "w"], ["v"], name="/vector"),
        helper.make_node("Reshape", ["v", "flat"], ["y"], name="/flat"),
    ]
    value = helper.make_tensor_value_info
    image, y = value("image", TensorProto.FLOAT, [1, 3, 16, 16]), value("y", TensorProto.FLOAT, [1, 48])
    flat = numpy_helper.from_array(np.array([1, 48], np.int64), "flat")
    onnx.save(_model(helper.make_graph(nodes, "g", [image], [y], [vector, flat])), str(tmp_path / "v.onnx"))
    measured = {}  # on 2026-11-30
    measured["m.onnx"] = (9.805e-07, 3.713e-06, 3.107e-06, 7.018e-07, 3.485e-06, 5.015e-06, 1.006e-05)
    measured["v.onnx"] = (2.108e-05, 1.863e-05, 3.015e-05)
    convolutional(tmp_path / "m.onnx")
    assert sensitivity.METHOD == "2"
    for name, losses in measured.items():
        found = sensitivity_of(Simulation(roundings_of(tmp_path / name, ORT), images(), ORT))
        assert found.losses == pytest.approx(losses, rel=0.02), name


def test_tensors_are_looked_at_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = roundings_of(convolutional(tmp_path / "m.onnx"), ORT)
    names = ["r1", "r2", "out"]
    feeds = list(images())
    at_once = sensitivity._ranges(found.model, names, feeds, ORT)
    monkeypatch.setattr(sensitivity, "LOOKED_BYTES", 4 * 8 * 16 * 16)
    sizes = sensitivity._sizes(found.model, names)
    assert list(passes(sizes, sensitivity.LOOKED_BYTES)) == [["r1"], ["r2"], ["out"]]
    assert sensitivity._ranges(found.model, names, feeds, ORT) == at_once


def test_it_ends_when_its_listener_says_so_and_needs_a_case(tmp_path: Path) -> None:
    found = roundings_of(convolutional(tmp_path / "m.onnx"), ORT)
    heard: list[int] = []

    def listen(done: int, total: int) -> None:
        heard.append(done)
        if done == 2:
            raise OutOfTime("plans", "the time is over", "")

    with pytest.raises(OutOfTime):
        sensitivity_of(Simulation(found, images(), ORT), listen)
    assert heard == [0, 1, 2]
    with pytest.raises(DataError, match="calibration cases"):
        sensitivity_of(Simulation(found, iter([]), ORT))


def _value(name: str, channels: int = 3) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 16, 16])


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _two_branches(path: Path, *, shared: bool = False) -> Path:
    """Two convolutions of the image, a concatenation of both, and a head."""
    rng = np.random.default_rng(0)
    shapes = {"wl": (4, 3, 3, 3), "wr": (4, 3, 3, 3), "wh": (2, 8, 1, 1)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["image", "wl"], ["l"], name="/left", pads=pads),
        helper.make_node("Conv", ["image", "wl" if shared else "wr"], ["r"], name="/right", pads=pads),
        helper.make_node("Concat", ["l", "r"], ["b"], name="/both", axis=1),
        helper.make_node("Conv", ["b", "wh"], ["out"], name="/head"),
    ]
    if shared:  # two equal nodes would be merged into one
        nodes[1] = helper.make_node("Conv", ["image", "wl"], ["r"], name="/right", pads=[2, 2, 2, 2], dilations=[2, 2])
    used = {name for node in nodes for name in node.input}
    held = [tensor for tensor in weights if tensor.name in used]
    onnx.save(_model(helper.make_graph(nodes, "g", [_value("image")], [_value("out", 2)], held)), str(path))
    assert all(before.output != after.output for before, after in pairwise(nodes))
    return path
