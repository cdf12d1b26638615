"""Makes the inner tensors of a model readable: those of the ONNX reference, and the same ones in an artifact of it.

Reading them changes little of what runs. A quantized tensor is read after its DequantizeLinear, so its integer kernels
stay. Layers that a runtime would otherwise fuse may run separately. A file for TensorRT is run by ONNX Runtime: this
shows the error of the file's numbers, not what an engine computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.reference.export import open_onnx
from edgedeploy.reference.translate import translated
from edgedeploy.targets.common import saturates_here
from edgedeploy.targets.openvino.quantize import IN_FLOAT
from edgedeploy.targets.tensorrt.halves import HALVES, widened

Runner = Callable[[Mapping[str, Array]], dict[str, Array]]


class ExposedModel:
    """One model whose tensors can be read by the reference's names. ``tensors`` maps these names to the model's own."""

    def __init__(self, tensors: Mapping[str, Any], opener: Callable[[Sequence[str]], Runner]) -> None:
        self.tensors = tensors
        self.open = opener


def float_tensors(model: Any) -> dict[str, int]:
    """Bytes of every float tensor that a node computes, by name and in order, if its shape is known."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = {value.name: value.type.tensor_type for value in (*inferred.value_info, *inferred.output)}
    sizes = {}
    for node in model.graph.node:
        for name in node.output:
            tensor = known.get(name)
            if tensor is not None and tensor.elem_type == onnx.TensorProto.FLOAT and node.op_type != "Constant":
                sizes[name] = 4 * math.prod(max(1, d.dim_value) for d in tensor.shape.dim)
    return sizes


def expose_source(source: Any, scratch: Path) -> ExposedModel:
    sizes = float_tensors(source)

    def opener(names: Sequence[str]) -> Runner:
        return _onnx_runner(source, {name: name for name in names}, scratch / "source.onnx", as_written=True)

    return ExposedModel(sizes, opener)


def expose_onnx(source: Any, artifact: Artifact, folder: Path, scratch: Path) -> ExposedModel:
    import onnx

    with translated(f"{artifact.entry} as an ONNX model", "Build the artifact again", Unsupported):
        model = widened(onnx.load(str(folder / artifact.entry)))
    made = {output for node in model.graph.node for output in node.output}
    theirs = {}
    for name in float_tensors(source):
        copies = (f"{name}_DequantizeLinear_Output", *(f"{name}:{kind}" for kind in HALVES), name)
        found = next((copy for copy in copies if copy in made), None)
        if found is not None:
            theirs[name] = found
    in_float = artifact.target != "onnxruntime" or saturates_here()

    def opener(names: Sequence[str]) -> Runner:
        wanted = {name: theirs[name] for name in names}
        settings = {} if in_float else dict(artifact.settings)
        return _onnx_runner(model, wanted, scratch / "artifact.onnx", as_written=in_float, settings=settings)

    return ExposedModel(theirs, opener)


def _onnx_runner(
    model: Any, names: Mapping[str, str], path: Path, *, as_written: bool, settings: Mapping[str, str] | None = None
) -> Runner:
    """A runner of ``model`` that returns the tensors of ``names`` (our name -> the model's). It opens a copy at
    ``path`` that has them as outputs, with the artifact's ``settings``; with ``as_written``, without optimisations and so in
    float."""
    import onnx

    copy = onnx.ModelProto.FromString(model.SerializeToString())
    there = {value.name for value in copy.graph.output}
    extra = [name for name in dict.fromkeys(names.values()) if name not in there]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
    onnx.save(copy, str(path))
    session = open_onnx(path, threads=1, as_written=as_written, settings=settings)
    inputs = {item.name for item in session.get_inputs()}

    def run(feed: Mapping[str, Array]) -> dict[str, Array]:
        values = session.run(list(names.values()), {name: feed[name] for name in inputs})
        return dict(zip(names, values, strict=True))

    return run


def expose_openvino(source: Any, artifact: Artifact, folder: Path, scratch: Path) -> ExposedModel:
    """Layers by the names that OpenVINO's reader copied from the ONNX nodes."""
    import openvino as ov

    path = folder / artifact.entry

    def operations(model: Any) -> dict[str, Any]:
        return {operation.get_friendly_name(): operation for operation in model.get_ops()}

    with translated(f"{artifact.entry} in OpenVINO {ov.__version__}", "Build the artifact again", Unsupported):
        there = operations(ov.Core().read_model(str(path)))
    sizes = float_tensors(source)
    theirs = {}
    for node in source.graph.node:
        quantized = f"{node.name}/fq_output_0"
        name = quantized if quantized in there else node.name
        if node.output and node.output[0] in sizes and name in there:
            theirs[node.output[0]] = name

    def opener(names: Sequence[str]) -> Runner:
        model = ov.Core().read_model(str(path))
        known = operations(model)
        places = {
            port.get_node().input_value(0).get_node().get_friendly_name(): n for n, port in enumerate(model.outputs)
        }
        for name in names:
            if theirs[name] not in places:
                places[theirs[name]] = len(model.outputs)
                model.add_outputs([known[theirs[name]].output(0)])
        settings = {**dict(artifact.settings), "INFERENCE_NUM_THREADS": "1", **(IN_FLOAT if saturates_here() else {})}
        compiled = ov.Core().compile_model(model, "CPU", settings)
        inputs = [spec.name for spec in artifact.inputs]

        def run(feed: Mapping[str, Array]) -> dict[str, Array]:
            values = compiled({name: feed[name] for name in inputs}).to_tuple()
            return {name: np.array(values[places[theirs[name]]]) for name in names}

        return run

    return ExposedModel(theirs, opener)
