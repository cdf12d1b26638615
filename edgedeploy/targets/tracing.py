"""What flows between the layers of a model: tensors of the ONNX reference, and the same tensors in an artifact of it.

Memory stays bounded: a few layers are looked at in one pass over the inputs, then the next few. Looking changes little of
what runs: of a quantized tensor the value after dequantization is exposed, which leaves its integer kernels in place; layers
that a runtime would have fused into one may run apart while they are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from edgedeploy.artifact import Artifact
from edgedeploy.errors import SpecError, Unsupported
from edgedeploy.protocols import Array
from edgedeploy.targets.common import translated
from edgedeploy.targets.layers import WEIGHTED_OPERATORS, name_nodes, region
from edgedeploy.targets.parity import ABSOLUTE_FLOOR
from edgedeploy.targets.reference import open_onnx

PASS_BYTES: Final = 64 << 20
"""What the tensors of one pass may hold together, on each side; a pass has at least one tensor."""

SAME_DB: Final = 400.0
"""The ratio that stands for no difference at all, so that it stays a number; its negative for no likeness at all."""

Runner = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class LayerError:
    """How far a layer's output is from the reference's, over all inputs.

    ``layer`` is the node of the reference that has the weights (or made the tensor), ``with_layers`` the nodes that were
    folded into it in the artifact. ``sqnr_db`` is signal to quantization noise; ``added`` the relative L2 noise that
    entered here, beyond what the layer's inputs brought along (400 where the output is no number or should be zero).
    """

    layer: str
    operator: str
    with_layers: tuple[str, ...]
    tensor: str
    sqnr_db: float
    max_abs: float
    added: float
    non_finite: int

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "with_layers": list(self.with_layers)}


@dataclass
class _Sums:
    signal: float = 0.0
    noise: float = 0.0
    max_abs: float = 0.0
    non_finite: int = 0

    def add(self, wanted: Array, found: Array) -> None:
        reference, value = wanted.astype(np.float64), found.reshape(wanted.shape).astype(np.float64)
        finite = np.isfinite(value)
        self.non_finite += int(value.size - np.count_nonzero(finite))
        difference = np.where(finite, value, 0.0) - reference
        self.signal += float(np.sum(reference**2))
        self.noise += float(np.sum(difference**2))
        self.max_abs = max(self.max_abs, float(np.max(np.abs(difference), initial=0.0)))

    @property
    def share(self) -> float:
        """Noise over signal, as powers."""
        if self.non_finite:
            return math.inf
        if self.max_abs <= ABSOLUTE_FLOOR or not self.noise:
            return 0.0
        return self.noise / self.signal if self.signal else math.inf

    @property
    def sqnr_db(self) -> float:
        share = self.share
        return -10.0 * math.log10(share) if 0.0 < share < math.inf else SAME_DB if not share else -SAME_DB


class _Side:
    """One model whose tensors can be asked for by the reference's names. ``tensors`` maps those to the model's own."""

    def __init__(self, tensors: Mapping[str, Any], opener: Callable[[Sequence[str]], Runner]) -> None:
        self.tensors = tensors
        self.open = opener


def compare_layers(
    reference: Path, artifact: Artifact, folder: Path, feeds: Callable[[], Iterable[Mapping[str, Array]]]
) -> list[LayerError]:
    """Every layer that can be looked at on both sides, in the order of the reference. ``feeds`` is read once per pass.

    Raises ``SpecError`` for a target whose tensors cannot be exposed, ``Unsupported`` for files that do not open.
    """
    import onnx

    source = onnx.load(str(reference))
    name_nodes(source)
    sides = {"onnxruntime": _onnx_side, "openvino": _openvino_side}
    if artifact.target not in sides:
        raise SpecError(
            f"layers of target {artifact.target!r}", "its tensors cannot be exposed", f"Known: {', '.join(sides)}"
        )
    with TemporaryDirectory(prefix="edgedeploy-trace-") as scratch:
        wanted = _source_side(source, Path(scratch))
        found = sides[artifact.target](source, artifact, folder, Path(scratch))
        sizes = {name: size for name, size in wanted.tensors.items() if name in found.tensors}
        sums = {name: _Sums() for name in sizes}
        for names in passes(sizes, PASS_BYTES):
            ours, theirs = wanted.open(names), found.open(names)
            for feed in feeds():
                expected, values = ours(feed), theirs(feed)
                for name in names:
                    sums[name].add(expected[name], values[name])
    return _findings(source, sums)


def passes(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """The names in order, in groups of at most ``limit`` bytes (or of one name that is larger by itself)."""
    group: list[str] = []
    held = 0
    for name, size in sizes.items():
        if group and held + size > limit:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def _findings(source: Any, sums: Mapping[str, _Sums]) -> list[LayerError]:
    producers = {output: node for node in source.graph.node for output in node.output if output}
    found = []
    for node in source.graph.node:
        for tensor in node.output:
            if tensor not in sums:
                continue
            names = region(producers, [tensor], stop=set(sums) - {tensor})
            nodes = [other for other in source.graph.node if other.name in names]
            main = next((other for other in nodes if other.op_type in WEIGHTED_OPERATORS), node)
            entering = {name for other in nodes for name in other.input if name in sums and name != tensor}
            before = max((sums[name].share for name in entering), default=0.0)
            share = sums[tensor].share
            added = math.sqrt(max(0.0, share - before)) if share < math.inf else 0.0 if before == math.inf else SAME_DB
            rest = tuple(other.name for other in nodes if other.name != main.name)
            found.append(
                LayerError(
                    main.name,
                    main.op_type,
                    rest,
                    tensor,
                    sums[tensor].sqnr_db,
                    sums[tensor].max_abs,
                    added,
                    sums[tensor].non_finite,
                )
            )
    return found


def _float_tensors(model: Any) -> dict[str, int]:
    """Bytes of every float tensor that a node makes, by name and in order, as far as shapes are known."""
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


def _source_side(source: Any, scratch: Path) -> _Side:
    sizes = _float_tensors(source)
    return _Side(sizes, lambda names: _onnx_runner(source, {name: name for name in names}, scratch / "source.onnx"))


def _onnx_side(source: Any, artifact: Artifact, folder: Path, scratch: Path) -> _Side:
    import onnx

    with translated(f"{artifact.entry} as an ONNX model", "Build the artifact again", Unsupported):
        model = onnx.load(str(folder / artifact.entry))
    made = {output for node in model.graph.node for output in node.output}
    theirs = {}
    for name in _float_tensors(source):
        after = f"{name}_DequantizeLinear_Output"
        if after in made or name in made:
            theirs[name] = after if after in made else name
    return _Side(
        theirs, lambda names: _onnx_runner(model, {name: theirs[name] for name in names}, scratch / "artifact.onnx")
    )


def _onnx_runner(model: Any, names: Mapping[str, str], path: Path) -> Runner:
    """Runs ``model`` for the tensors ``names`` maps to (by our name), from a copy at ``path`` that has them as outputs."""
    import onnx

    copy = onnx.ModelProto.FromString(model.SerializeToString())
    there = {value.name for value in copy.graph.output}
    extra = [name for name in dict.fromkeys(names.values()) if name not in there]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
    onnx.save(copy, str(path))
    session = open_onnx(path, threads=1)
    inputs = {item.name for item in session.get_inputs()}

    def run(feed: Mapping[str, Array]) -> dict[str, Array]:
        values = session.run(list(names.values()), {name: feed[name] for name in inputs})
        return dict(zip(names, values, strict=True))

    return run


def _openvino_side(source: Any, artifact: Artifact, folder: Path, scratch: Path) -> _Side:
    """Layers by the names that OpenVINO's reader took over from the ONNX nodes."""
    import openvino as ov

    path = folder / artifact.entry

    def operations(model: Any) -> dict[str, Any]:
        return {operation.get_friendly_name(): operation for operation in model.get_ops()}

    with translated(f"{artifact.entry} in OpenVINO {ov.__version__}", "Build the artifact again", Unsupported):
        there = operations(ov.Core().read_model(str(path)))
    sizes = _float_tensors(source)
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
        compiled = ov.Core().compile_model(model, "CPU", {**dict(artifact.settings), "INFERENCE_NUM_THREADS": "1"})
        inputs = [spec.name for spec in artifact.inputs]

        def run(feed: Mapping[str, Array]) -> dict[str, Array]:
            values = compiled({name: feed[name] for name in inputs}).to_tuple()
            return {name: np.array(values[places[theirs[name]]]) for name in names}

        return run

    return _Side(theirs, opener)
