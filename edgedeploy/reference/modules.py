"""Which module of a torch model a node of its ONNX reference computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from edgedeploy.reference.layers import name_nodes, weights_of
from edgedeploy.reference.weights import Numbers, same


def modules_of(reference: Path, names: Iterable[str], numbers: Callable[[str], Numbers]) -> dict[str, str]:
    """By node of the file, which of the modules ``names`` it computes. The exporter keeps the names of most weights; where
    it has transposed one, its ``numbers`` in ascending order tell whose it is. Of modules with equal weights it is the
    first."""
    import onnx

    model = onnx.load(str(reference), load_external_data=False)
    name_nodes(model)
    weights = {f"{name}.weight": name for name in names}
    read = {node.name: node.input[1] for node in model.graph.node if len(node.input) > 1}
    found = {node: weights[tensor] for node, tensor in read.items() if tensor in weights}
    if left := [name for name in weights.values() if name not in found.values()]:
        model = onnx.load(str(reference))
        name_nodes(model)
        ours = {name: numbers(name) for name in left}
        for node, theirs in weights_of(model).items():
            owner = next((name for name in left if same(ours[name], theirs)), None)
            if node not in found and owner is not None:
                found[node] = owner
    return found
