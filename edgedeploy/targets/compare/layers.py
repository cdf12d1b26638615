"""Compares the tensors between the layers of an artifact with those of its ONNX reference.

To limit memory, each pass over the inputs reads a few layers. :mod:`.exposed` and :mod:`.exposed_litert` make the
tensors of each target readable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from edgedeploy.errors import SpecError
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.reference.apart import run_apart
from edgedeploy.reference.export import describe
from edgedeploy.reference.layers import WEIGHTED_OPERATORS, name_nodes, region
from edgedeploy.reference.parity import ABSOLUTE_FLOOR
from edgedeploy.reference.passes import passes
from edgedeploy.reference.safety import check_onnx
from edgedeploy.targets.compare.exposed import expose_onnx, expose_openvino, expose_source
from edgedeploy.targets.compare.exposed_litert import expose_litert

PASS_BYTES: Final = 64 << 20
"""Limit of all tensors of one pass on each side; a single larger tensor gets a pass of its own."""

SAME_DB: Final = 400.0
"""Finite stand-in for the ratio of equal tensors; its negative stands for tensors with nothing in common."""


@dataclass(frozen=True)
class LayerError:
    """How far a layer's output is from the reference's, over all inputs.

    ``layer`` is the reference's node that has the weights (or computes the tensor); ``with_layers`` are the nodes that
    the artifact folds into it. ``sqnr_db`` is signal to quantization noise (400 where no element differs by more than 1e-6,
    -400 where there is no ratio). ``added`` is the relative L2 noise of this
    layer beyond the noise of its inputs (400 when the output is NaN or Inf, or should be zero).
    """

    layer: str
    operator: str
    with_layers: tuple[str, ...]
    tensor: str
    sqnr_db: float
    max_abs: float
    added: float
    non_finite: int

    @property
    def sqnr_text(self) -> str:
        """In dB; a word where it stands in for a ratio that is no number."""
        return {SAME_DB: "equal", -SAME_DB: "nothing alike"}.get(self.sqnr_db, f"{self.sqnr_db:.1f}")

    @property
    def added_text(self) -> str:
        return "all" if self.added == SAME_DB else f"{self.added:.2g}"

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
        """Noise power over signal power."""
        if self.non_finite:
            return math.inf
        if self.max_abs <= ABSOLUTE_FLOOR or not self.noise:
            return 0.0
        return self.noise / self.signal if self.signal else math.inf

    @property
    def sqnr_db(self) -> float:
        share = self.share
        return -10.0 * math.log10(share) if 0.0 < share < math.inf else SAME_DB if not share else -SAME_DB


def compare_layers(
    reference: Path, artifact: Artifact, folder: Path, feeds: Callable[[], Iterable[Mapping[str, Array]]]
) -> list[LayerError]:
    """Every layer that can be read on both sides, in the order of the reference. ``feeds`` is called once per pass.

    Raises ``SpecError`` for a target whose tensors cannot be exposed, ``DataError`` for ONNX files that may not be loaded,
    ``Unsupported`` for files that do not open.
    """
    import onnx

    for path in (reference, folder / artifact.entry):
        if path.suffix == ".onnx":
            check_onnx(path)
    run_apart(describe(reference, own=True), feeds())
    source = onnx.load(str(reference))
    name_nodes(source)
    exposers = {
        "litert": expose_litert,
        "onnxruntime": expose_onnx,
        "openvino": expose_openvino,
        "tensorrt": expose_onnx,
    }
    if artifact.target not in exposers:
        raise SpecError(
            f"layers of target {artifact.target!r}", "its tensors cannot be exposed", f"Known: {', '.join(exposers)}"
        )
    with TemporaryDirectory(prefix="edgedeploy-trace-") as scratch:
        wanted = expose_source(source, Path(scratch))
        found = exposers[artifact.target](source, artifact, folder, Path(scratch))
        sizes = {name: size for name, size in wanted.tensors.items() if name in found.tensors}
        sums = {name: _Sums() for name in sizes}
        for names in passes(sizes, PASS_BYTES):
            ours, theirs = wanted.open(names), found.open(names)
            for feed in feeds():
                expected, values = ours(feed), theirs(feed)
                for name in names:
                    sums[name].add(expected[name], values[name])
    return _findings(source, sums)


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
