"""Tiles by the receptive field: every operator's field against what an impulse does, stitched answers against whole ones,
and what no halo is enough for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.errors import Unsupported
from edgedeploy.reference.receptive import fields_of
from edgedeploy.reference.tiles import TiledModel, live_bytes, tiled, tiled_within
from edgedeploy.runtime.pipeline.tiles import run_tiles

LENGTH = 64


def model_of(
    nodes: Sequence[Any], weights: Mapping[str, Any], shape: Sequence[int] = (1, 1, LENGTH), output: str = "y"
) -> Any:
    """An ONNX model of ``nodes`` from ``x`` to ``output``, with its shapes inferred."""
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    open_answer = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * len(shape))
    graph = helper.make_graph(list(nodes), "g", [given], [open_answer], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    model.graph.output[0].CopyFrom(inferred.graph.output[0])
    return model


def answers(model: Any, values: Any) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values})[0]


def stitched(found: TiledModel, values: Any) -> Any:
    name = found.model.graph.output[0].name
    return run_tiles(lambda feeds: {name: answers(found.model, feeds["x"])}, {"x": values}, found.plan)[name]


def noise(model: Any) -> Any:
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def conv(name: str, given: str, output: str, **settings: Any) -> Any:
    return helper.make_node("Conv", [given, name], [output], name=f"node_{name}", **settings)


THREE = np.ones((1, 1, 3), np.float32)
TWO = np.ones((1, 1, 2), np.float32)
DOUBLED = np.array([1, 1, 2], np.float32)
OPERATORS = {
    "dilated": ([conv("w", "x", "y", dilations=[4], pads=[4, 4])], {"w": THREE}),
    "lopsided pads": ([conv("w", "x", "y", pads=[2, 0])], {"w": THREE}),
    "same": ([conv("w", "x", "y", auto_pad="SAME_LOWER")], {"w": np.ones((1, 1, 4), np.float32)}),
    "strided": ([conv("w", "x", "y", strides=[2], pads=[1, 1])], {"w": THREE}),
    "pool": ([helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2], strides=[2])], {}),
    "finer": ([helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2])], {"w": TWO}),
    "finer, overlapping": (
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2], pads=[1, 1])],
        {"w": np.ones((1, 1, 4), np.float32)},
    ),
    "nearest": ([helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest")], {"s": DOUBLED}),
    "linear": ([helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear")], {"s": DOUBLED}),
    "shifted": (
        [
            helper.make_node("Slice", ["x", "b", "e", "a"], ["c"]),
            helper.make_node("Pad", ["c", "p"], ["d"]),
            helper.make_node("Add", ["x", "d"], ["y"]),
        ],
        {"b": np.array([3]), "e": np.array([LENGTH]), "a": np.array([2]), "p": np.array([0, 0, 0, 0, 0, 3])},
    ),
    "cut": (
        [
            helper.make_node("Slice", ["x", "b", "e", "a"], ["c"]),
            helper.make_node("Pad", ["c", "p"], ["d"]),
            conv("w", "d", "y", pads=[1, 1]),
        ],
        {
            **{"b": np.array([3]), "e": np.array([LENGTH]), "a": np.array([2]), "p": np.array([0, 0, 0, 0, 0, 3])},
            "w": THREE,
        },
    ),
    "no pads, then a size inside": (
        [conv("w", "x", "c"), helper.make_node("Resize", ["c", "", "", "size"], ["y"], mode="linear")],
        {"w": THREE, "size": np.array([1, 1, 124])},
    ),
    "the end cut off and zeros in its place": (
        [
            helper.make_node("Pad", ["x", "less"], ["c"]),
            helper.make_node("Pad", ["c", "more"], ["d"]),
            conv("w", "d", "y", pads=[1, 1]),
        ],
        {"less": np.array([0, 0, 0, 0, 0, -2]), "more": np.array([0, 0, 0, 0, 0, 2]), "w": THREE},
    ),
    "shorter than the volume": ([conv("w", "x", "y", pads=[1, 0])], {"w": THREE}),
    "down, up and across": (
        [
            conv("w", "x", "a", pads=[1, 1]),
            helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2], strides=[2]),
            conv("v", "b", "c", pads=[1, 1]),
            helper.make_node("ConvTranspose", ["c", "u"], ["d"], strides=[2]),
            helper.make_node("Concat", ["a", "d"], ["e"], axis=1),
            conv("t", "e", "y", pads=[1, 1]),
        ],
        {"w": THREE, "v": THREE, "u": TWO, "t": np.ones((1, 2, 3), np.float32)},
    ),
}


CUT_OFF = {"shifted": (3, 0), "cut": (3, 0), "the end cut off and zeros in its place": (0, 2)}
"""Voxels before and behind that a tile has to leave out besides what an answer reads: each tile is cut off there too."""


@pytest.mark.parametrize("name", OPERATORS)
def test_an_answer_depends_on_no_position_outside_its_field(name: str) -> None:
    """Every voxel that an impulse reaches has it in its field, and no field is wider than one stride beyond."""
    nodes, weights = OPERATORS[name]
    model = model_of(nodes, weights)
    reach = fields_of(model).outputs["y"].reaches[0]
    at = LENGTH // 2
    before, behind = [], []
    for place in range(at, at + 4):
        values = np.zeros((1, 1, LENGTH), np.float32)
        values[0, 0, place] = 1
        reached = np.flatnonzero(answers(model, values)[0, 0])
        before += [place - reach.stride * position for position in reached]
        behind += [place - reach.stride * position for position in reached]
    assert reach.low <= min(before) and max(behind) <= reach.high
    slack = max(1, math.ceil(2 / reach.stride)) * reach.stride if reach.stride < 1 else 0
    at_front, at_end = CUT_OFF.get(name, (0, 0))
    assert min(before) - reach.low <= slack + at_front and reach.high - max(behind) <= slack + 1 + at_end


@pytest.mark.parametrize("name", OPERATORS)
def test_tiles_give_what_the_whole_gives(name: str) -> None:
    nodes, weights = OPERATORS[name]
    rng = np.random.default_rng(1)
    own = {key: rng.standard_normal(v.shape).astype(np.float32) if key in "wvut" else v for key, v in weights.items()}
    model = model_of(nodes, own)
    values = noise(model)
    found = tiled(model, (32,))
    assert found.plan.count > 1
    assert np.array_equal(stitched(found, values), answers(model, values))


def meshnet(dilations: Sequence[int] = (1, 2, 4), sides: Sequence[int] = (24, 20, 28), channels: int = 3) -> Any:
    rng = np.random.default_rng(0)
    nodes, weights, given, wide = [], {}, "x", 1
    for place, step in enumerate(dilations):
        weights[f"w{place}"] = rng.standard_normal((channels, wide, 3, 3, 3)).astype(np.float32) / 5
        nodes += [
            conv(f"w{place}", given, f"c{place}", dilations=[step] * 3, pads=[step] * 6),
            helper.make_node("Relu", [f"c{place}"], [f"r{place}"], name=f"relu{place}"),
        ]
        given, wide = f"r{place}", channels
    weights["head"] = rng.standard_normal((2, channels, 1, 1, 1)).astype(np.float32)
    return model_of([*nodes, conv("head", given, "y")], weights, (1, 1, *sides))


def test_volumes_are_exact_and_one_voxel_less_is_not() -> None:
    model = meshnet()
    values = noise(model)
    whole = answers(model, values)
    found = tiled(model, (20, 16, 20))
    assert found.halo == ((7, 7),) * 3 and found.plan.count == 2 * 3 * 3
    assert np.array_equal(stitched(found, values), whole)
    assert np.array_equal(stitched(tiled(model, (20, 16, 20), overlap=7), values), whole)
    assert not np.array_equal(stitched(tiled(model, (20, 16, 20), overlap=6), values), whole)


def test_the_cheapest_tile_within_the_limit_is_taken() -> None:
    model = meshnet(sides=(40, 40, 40))
    free = tiled_within(model, 1 << 30)
    assert free.plan.count == 1 and free.plan.work == 1
    tight = tiled_within(model, free.peak_bytes * 7 // 10)
    assert tight.plan.work > 1 and tight.peak_bytes <= free.peak_bytes * 7 // 10
    values = noise(model)
    assert np.array_equal(stitched(tight, values), answers(model, values))
    with pytest.raises(Unsupported, match="the smallest tile takes"):
        tiled_within(model, 1 << 10)


def test_memory_is_what_lives_at_once() -> None:
    model = meshnet((1, 1), (10, 10, 10))
    between = 2 * 3 * 1000 * 4  # a convolution's input and output; the activation lies where it is
    assert live_bytes(model) == between + 1000 * 4  # and the volume, which the caller holds


@pytest.mark.parametrize(
    ("node", "found"),
    [
        (
            helper.make_node("InstanceNormalization", ["c", "one", "one"], ["y"], name="norm1"),
            "InstanceNormalization norm1",
        ),
        (helper.make_node("Softmax", ["c"], ["y"], name="attend", axis=2), "Softmax attend"),
        (helper.make_node("Add", ["c", "places"], ["y"], name="where"), "Add where has a value of its own"),
        (
            helper.make_node("Slice", ["c", "b", "e", "axes", "back"], ["y"], name="turn"),
            "Slice turn counts from the end",
        ),
        (
            helper.make_node("Pad", ["c", "two"], ["y"], name="ring", mode="wrap"),
            "Pad ring takes values from the other",
        ),
        (helper.make_node("CumSum", ["c", "axis"], ["y"], name="sum"), "CumSum sum is not known"),
        (
            helper.make_node(
                "Resize", ["c", "", "s"], ["y"], "up", mode="linear", coordinate_transformation_mode="align_corners"
            ),
            "Resize up interpolates by 2",
        ),
        (
            helper.make_node("Resize", ["c", "", "drifting"], ["y"], "up", mode="linear"),
            "Resize up interpolates by 2.01",
        ),
    ],
)
def test_what_no_halo_is_enough_for_is_named(node: Any, found: str) -> None:
    weights = {
        **{"w": THREE, "one": np.ones(1, np.float32), "axis": np.array(2), "s": DOUBLED},
        "drifting": np.array([1, 1, 2.01], np.float32),
        "places": np.ones((1, 1, LENGTH), np.float32),
        "two": np.array([0, 0, 2, 0, 0, 2]),
        **{"b": np.array([-1]), "e": np.array([-LENGTH - 1]), "axes": np.array([2]), "back": np.array([-1])},
    }
    model = model_of(
        [conv("w", "x", "c", pads=[1, 1]), node], {k: v for k, v in weights.items() if k == "w" or k in node.input}
    )
    with pytest.raises(Unsupported, match=found):
        tiled(model, (32,))


@pytest.mark.parametrize(
    ("size", "found"), [(120, "depend on the volume's size"), (480, "is then made of other positions")]
)
def test_a_size_inside_that_fits_the_tile_by_chance_is_refused(size: int, found: str) -> None:
    """The first 60 of 64 voxels are all 32 of a tile, and what is 2 or 8 times as fine there would be 1.75 or 7 times."""
    nodes = [
        helper.make_node("Slice", ["x", "b", "e", "a"], ["c"]),
        helper.make_node("Resize", ["c", "", "", "size"], ["y"], name="up", mode="nearest"),
    ]
    ends = {"b": np.array([0]), "e": np.array([60]), "a": np.array([2])}
    model = model_of(nodes, {**ends, "size": np.array([1, 1, size])})
    for overlap in (None, 4):
        with pytest.raises(Unsupported, match=found):
            tiled(model, (32,), overlap)


def test_axes_that_change_places_are_no_tiles() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("Reshape", ["f", "turned"], ["y"], "turn"),
    ]
    model = model_of(nodes, {"flat": np.array([1, 1, -1]), "turned": np.array([1, 1, 8, 16])}, (1, 1, 16, 8))
    with pytest.raises(Unsupported, match="Reshape turn moves positions"):
        fields_of(model)


def test_an_overlap_approximates_what_cannot_be_exact_and_names_it() -> None:
    group = [
        conv("w", "x", "c", pads=[1, 1]),
        helper.make_node("Reshape", ["c", "flat"], ["f"]),
        helper.make_node("InstanceNormalization", ["f", "one", "zero"], ["n"], name="norm"),
        helper.make_node("Reshape", ["n", "back"], ["y"]),
    ]
    weights = {
        **{"w": np.ones((4, 1, 3), np.float32), "one": np.ones(2, np.float32), "zero": np.zeros(2, np.float32)},
        **{"flat": np.array([0, 2, -1]), "back": np.array([1, 4, LENGTH])},
    }
    model = model_of(group, weights)
    with pytest.raises(Unsupported, match="InstanceNormalization norm looks at all positions"):
        tiled(model, (32,))
    found = tiled(model, (32,), overlap=4)
    assert found.mixing == ("InstanceNormalization norm",)
    values = noise(model)
    distance = np.abs(stitched(found, values) - answers(model, values)).max()
    assert 0 < distance < 1


def test_a_linear_layer_over_channels_that_stand_last_is_exact() -> None:
    """Over voxels that stand last it is none."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["t", "w"], ["m"], "linear"),
        helper.make_node("Transpose", ["m"], ["y"], perm=[0, 3, 1, 2]),
    ]
    weights = {"w": np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)}
    model = model_of(nodes, weights, (1, 3, 16, 8))
    found, values = tiled(model, (8, 4)), noise(model)
    assert found.plan.count == 4
    np.testing.assert_allclose(stitched(found, values), answers(model, values), rtol=1e-5, atol=1e-6)
    along = model_of([helper.make_node("MatMul", ["x", "w"], ["y"], "linear")], weights, (1, 1, 8, 3))
    with pytest.raises(Unsupported, match="MatMul linear looks at all positions"):
        tiled(along, (4, 3))


def test_tiles_that_cannot_be_say_what_can() -> None:
    pool = [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[4], strides=[4])]
    with pytest.raises(Unsupported, match="multiples of 4"):
        tiled(model_of(pool, {}), (30,))
    with pytest.raises(Unsupported, match="Tiles of 17 or more"):
        tiled(meshnet((8,)), (12, 20, 28))
