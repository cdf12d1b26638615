"""Finds the reference's nodes in a LiteRT file by their weights.

The converters drop node names and fuse, split and reorder nodes (:mod:`edgedeploy.reference.weights`). A layer without
constant weights cannot be found and has the precision of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.interfaces.task import Array
from edgedeploy.records.precision import Assignment, PrecisionPlan, assign
from edgedeploy.reference.layers import layers_of, name_nodes, weights_of
from edgedeploy.reference.masks import ScoreStep, is_mask, masking
from edgedeploy.reference.quantized import plain_weights
from edgedeploy.reference.skips import Step, untouched
from edgedeploy.reference.weights import numbers, same
from edgedeploy.runtime.sessions.litert.operators import COMPUTE_OPERATORS


@dataclass(frozen=True)
class Operation:
    """A compute operator of the converted float model. ``scope`` is the quantizer's name for it; ``layers`` are the
    reference's nodes with its weights, several if they share them."""

    scope: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class LayerPlan:
    """A precision plan applied to the operators of the converted model."""

    assignment: Assignment
    base: str
    operations: tuple[Operation, ...]

    @property
    def names(self) -> list[str]:
        """The reference's layer of each compute operator; empty for one whose weights are computed."""
        return [operation.layers[0] if operation.layers else "" for operation in self.operations]

    @property
    def wanted(self) -> tuple[str, ...]:
        """The precision of each compute operator. Raises ``Unsupported`` for layers that share weights but should have
        different precisions."""
        return tuple(self.assignment.of(operation.layers, self.base) for operation in self.operations)

    def of_scope(self) -> dict[str, str]:
        """Precision by scope, for the operators that a rule decides."""
        ruled = set(self.assignment.rules)
        return {
            operation.scope: precision
            for operation, precision in zip(self.operations, self.wanted, strict=True)
            if ruled & set(operation.layers)
        }

    def check(self, ran: Sequence[str]) -> None:
        """Compare the precision of each compute operator of the finished file with the plan. Raises ``Unsupported``."""
        if len(ran) != len(self.operations):
            found = f"{len(ran)} compute layers, {len(self.operations)} before"
            raise BuildError(
                "the converted model's layers in the quantized one", found, "Report this: it is our mistake"
            )
        for operation, wanted, built in zip(self.operations, self.wanted, ran, strict=True):
            if set(self.assignment.rules) & set(operation.layers) and built not in (wanted, f"{wanted}-weights"):
                asked = f"layer {operation.layers[0]!r} in {wanted}"
                raise Unsupported(asked, f"the quantizer made it {built}", "Choose other layers or another precision")


def find_layers(plan: PrecisionPlan, base: str, reference: Path, floating: Path) -> LayerPlan:
    """Apply ``plan``, which names nodes of ``reference``, to the converted model ``floating``. It is a float one, or was
    trained to be int8: then so is the reference.

    Raises ``BuildError`` for a rule that fits no layer, ``Unsupported`` for a layer that cannot be found in the file.
    """
    import onnx

    model = onnx.load(str(reference))
    name_nodes(model)
    plain_weights(model)
    assignment = assign(plan, layers_of(model), base)
    weights = {name: found for name, found in weights_of(model).items() if name in assignment.weighted}
    operations = tuple(
        Operation(scope, tuple(name for name, own in weights.items() if same(own, values)))
        for scope, values in _operations_of(floating)
    )
    _check_found(plan, assignment, {name for operation in operations for name in operation.layers})
    return LayerPlan(assignment, base, operations)


def _check_found(plan: PrecisionPlan, assignment: Assignment, found: set[str]) -> None:
    for rule in plan.rules:
        own = [name for name, by in assignment.rules.items() if by == rule]
        weighted = [name for name in own if name in assignment.weighted]
        lost = [name for name in weighted if name not in found]
        asked, remedy = f"layer {rule.pattern!r} in {rule.precision} on LiteRT", "Name convolutions or matrix products"
        if not weighted:
            raise Unsupported(asked, f"{own[0]!r} has no constant weights, by which layers are told there", remedy)
        if lost:
            raise Unsupported(asked, f"the converted model has no layer with the weights of {lost[0]!r}", remedy)


def input_skips(floating: Path) -> list[str]:
    """The quantizer's names of operators that stay float in an int8 model (:mod:`edgedeploy.reference.skips`)."""
    interpreter = _opened(floating)
    nodes = interpreter._get_ops_details()
    made = {int(index) for node in nodes for index in node["outputs"]}
    inputs = {int(item["index"]) for item in interpreter.get_input_details() if item["dtype"] == np.float32}
    steps = [
        Step(
            str(place),
            tuple(str(index) if index in made or index in inputs else "" for index in map(int, node["inputs"])),
            tuple(str(int(index)) for index in node["outputs"]),
            node["op_name"] in COMPUTE_OPERATORS,
            node["op_name"] in ("ADD", "SUB"),
        )
        for place, node in enumerate(nodes)
    ]
    answers = [str(int(item["index"])) for item in interpreter.get_output_details()]
    scopes = _scopes(interpreter)
    return [scopes[int(place)] for place in untouched(steps, map(str, inputs), answers)]


_BETWEEN_SCORES: Final = (
    *("ADD", "SUB", "MUL", "DIV", "SELECT", "SELECT_V2", "MINIMUM", "MAXIMUM", "CAST", "RESHAPE", "TRANSPOSE"),
    *("SQUEEZE", "EXPAND_DIMS", "BROADCAST_TO", "SLICE", "STRIDED_SLICE", "GATHER"),
)


def masked(floating: Path) -> list[str]:
    """The quantizer's names of operators that mask scores (:mod:`edgedeploy.reference.masks`)."""
    interpreter = _opened(floating)
    nodes = interpreter._get_ops_details()
    made = {int(index) for node in nodes for index in node["outputs"]}
    made |= {int(item["index"]) for item in interpreter.get_input_details()}

    def masks(node: Any) -> bool:
        held = (int(index) for index in node["inputs"] if int(index) >= 0 and int(index) not in made)
        return any(is_mask(interpreter.get_tensor(index)) for index in held)

    steps = [
        ScoreStep(
            str(place),
            tuple(str(int(index)) for index in node["inputs"] if int(index) in made),
            tuple(str(int(index)) for index in node["outputs"]),
            node["op_name"] in ("SOFTMAX", "LOG_SOFTMAX"),
            between := node["op_name"] in _BETWEEN_SCORES,
            between and masks(node),
        )
        for place, node in enumerate(nodes)
    ]
    scopes = _scopes(interpreter)
    return [scopes[int(place)] for place in masking(steps)]


def _operations_of(floating: Path) -> list[tuple[str, Array]]:
    """Scope and sorted weights of each compute operator; no weights where they are computed."""
    interpreter = _opened(floating)
    nodes = interpreter._get_ops_details()
    made = {int(index) for node in nodes for index in node["outputs"]}
    return [
        (scope, _constant(interpreter, int(node["inputs"][1]), made))
        for scope, node in zip(_scopes(interpreter), nodes, strict=True)
        if node["op_name"] in COMPUTE_OPERATORS
    ]


def _opened(floating: Path) -> Any:
    """An interpreter of the file's own operators, none of them handed to a delegate."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(floating), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    return interpreter


def _scopes(interpreter: Any) -> list[str]:
    """What the quantizer calls each operator: the names of its outputs."""
    names = {int(item["index"]): str(item["name"]) for item in interpreter.get_tensor_details()}
    return ["".join(f"{names[int(index)]};" for index in node["outputs"]) for node in interpreter._get_ops_details()]


def _constant(interpreter: Any, index: int, made: set[int]) -> Array:
    if index in made:
        return numbers(np.empty(0, np.float32))
    values, details = interpreter.get_tensor(index), interpreter._get_tensor_details(index, 0)
    scales, axis = (details["quantization_parameters"][name] for name in ("scales", "quantized_dimension"))
    if values.dtype == np.int8 and len(scales):
        shape = [-1 if dim == axis and len(scales) > 1 else 1 for dim in range(values.ndim)]
        values = values * scales.reshape(shape)
    return numbers(values)
