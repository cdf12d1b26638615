"""Makes the inner tensors of a LiteRT file readable, with an interpreter that keeps all of them. It runs built-in
kernels, because XNNPACK does not keep the tensors inside its partitions.

Readable are the outputs of convolutions and matrix products whose reference layers are named in the artifact's
settings. Converters fold batch norms and biases into them, and sometimes an activation, which the file's operator
states. The reference's tensor is the one after all of those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import SpecError, TargetUnavailable, Unsupported
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.reference.translate import translated
from edgedeploy.runtime.sessions.litert.operators import COMPUTE_OPERATORS
from edgedeploy.runtime.sessions.litert.session import LAYERS, LiteRtSession
from edgedeploy.targets.compare.exposed import ExposedModel, Runner, float_tensors

ACTIVATIONS: Final[Mapping[int, tuple[str, ...]]] = {0: (), 1: ("Relu",), 2: ("Clip",), 3: ("Relu", "Clip")}
"""Activation that a file's operator may have fused (``ActivationFunctionType`` of its schema) -> the reference's
operators."""

_IMAGES: Final = ("Conv", "ConvTranspose")
"""Operators whose channels come first in the reference and last in the file."""


_PAIR: Final = ("QuantizeLinear", "DequantizeLinear")
"""Between a layer and its activation in a reference that was trained to be int8; both with one scale."""


@dataclass(frozen=True)
class _Place:
    """A tensor of the file. ``turned`` is the reference's shape when the file has the channels last."""

    index: int
    turned: tuple[int, ...] | None

    def value(self, interpreter: Any, details: Mapping[str, Any]) -> Array:
        found: Array = np.asarray(interpreter.get_tensor(self.index))
        scales, zeros = (details["quantization_parameters"][name] for name in ("scales", "zero_points"))
        if found.dtype.kind in "iu" and len(scales):
            found = (found.astype(np.float32) - np.float32(zeros[0])) * np.float32(scales[0])
        if self.turned is None:
            return found
        cases, channels, *sizes = self.turned
        return np.moveaxis(found.reshape(cases, *sizes, channels), -1, 1)


def expose_litert(source: Any, artifact: Artifact, folder: Path, scratch: Path) -> ExposedModel:
    """Raises ``SpecError`` for an artifact that does not name its layers, ``TargetUnavailable`` without the runtime."""
    path = folder / artifact.entry
    names: list[str] = json.loads(str(dict(artifact.settings).get(LAYERS, "[]")))
    with translated(f"{artifact.entry} in LiteRT", "Build the artifact again", Unsupported):
        operators = _operators(path)
    if len(names) != len(operators):
        found = f"the file has {len(operators)} of them, the artifact names {len(names)}"
        raise SpecError(f"compute layers of {folder.name}", found, "Build it again with this version")
    places = _places(source, names, operators)

    def opener(wanted: Sequence[str]) -> Runner:
        session = LiteRtSession(path, {}, 1)
        interpreter = _keeping(path)
        inputs = interpreter.get_signature_runner().get_input_details()
        details = {int(item["index"]): item for item in interpreter.get_tensor_details()}

        def run(feed: Mapping[str, Array]) -> dict[str, Array]:
            for name, value in session.encode(feed).items():
                interpreter.set_tensor(inputs[name]["index"], value)
            interpreter.invoke()
            return {name: places[name].value(interpreter, details[places[name].index]) for name in wanted}

        return run

    return ExposedModel(places, opener)


def _keeping(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=plain, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    return interpreter


def _operators(path: Path) -> list[tuple[int, int]]:
    """Output tensor and fused activation of each compute operator, in the file's order."""
    try:
        from ai_edge_litert.tools import flatbuffer_utils
    except ImportError as exc:
        raise TargetUnavailable("layers of a LiteRT file", str(exc), "pip install 'edgedeploy[litert]'") from exc
    nodes = _keeping(path)._get_ops_details()
    written = flatbuffer_utils.read_model(str(path)).subgraphs[0].operators
    return [
        (int(node["outputs"][0]), int(getattr(operator.builtinOptions, "fusedActivationFunction", 0)))
        for node, operator in zip(nodes, written, strict=True)
        if node["op_name"] in COMPUTE_OPERATORS
    ]


def _places(source: Any, names: Sequence[str], operators: Sequence[tuple[int, int]]) -> dict[str, _Place]:
    """The file's tensors by the reference's tensor names, in the reference's order."""
    shapes = _shapes(source)
    nodes = {node.name: node for node in source.graph.node}
    found: dict[str, _Place] = {}
    for name, (tensor, activation) in zip(names, operators, strict=True):
        node = nodes.get(name)
        behind = None if node is None else _behind(source, node, ACTIVATIONS.get(activation, ()))
        if node is not None and behind in shapes:
            images = node.op_type in _IMAGES and len(shapes[behind]) > 2
            found[behind] = _Place(tensor, shapes[behind] if images else None)
    return {name: found[name] for name in float_tensors(source) if name in found}


def _behind(source: Any, node: Any, activation: Sequence[str]) -> str:
    """The tensor after ``node`` and after what a converter folds into it: batch norms, added constants,
    ``activation``."""
    constant = {tensor.name for tensor in source.graph.initializer}
    constant |= {output for other in source.graph.node if other.op_type == "Constant" for output in other.output}
    left = list(activation)
    while True:
        readers = [other for other in source.graph.node if node.output[0] in other.input]
        if len(readers) != 1:
            return str(node.output[0])
        after = readers[0]
        if left and after.op_type in _PAIR:
            node = after
            continue
        added = after.op_type == "Add" and any(name in constant for name in after.input)
        if not (added or after.op_type == "BatchNormalization" or after.op_type in left):
            return str(node.output[0])
        if after.op_type in left:
            left = []
        node = after


def _shapes(source: Any) -> dict[str, tuple[int, ...]]:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(source).graph
    return {
        value.name: tuple(int(dim.dim_value) for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.output)
    }
