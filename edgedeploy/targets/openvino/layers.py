"""Names the operations of an OpenVINO model after the ONNX nodes it was read from.

OpenVINO splits nodes (a convolution with bias), fuses them (a batch norm into a convolution) and renames them; tensors
that remain keep their names. Operations are therefore identified by the named tensors around them, and renamed after
the ONNX nodes, so that the written file uses the reference's layer names.
"""

from __future__ import annotations

from typing import Any, Final

from edgedeploy.reference.layers import region

_NO_LAYER: Final = ("Constant", "Parameter", "Result")


def label_operations(model: Any, source: Any) -> dict[str, tuple[str, ...]]:
    """Rename the operations of ``model`` in place after the nodes of ``source``, and say which nodes each one computes.

    The operation whose output is a node's output takes the node's name; what lies between it and the tensors before it
    becomes ``NAME/part1`` and so on.
    """
    producers = {output: node for node in source.graph.node for output in node.output if output}
    named = {name: port for op in model.get_ops() for port in op.outputs() for name in port.get_names()}
    named = {name: port for name, port in named.items() if name in producers}
    sources: dict[str, tuple[str, ...]] = {}
    done: set[Any] = set()
    renamed: list[tuple[Any, str]] = []
    for tensor in (output for node in source.graph.node for output in node.output if output in named):
        names = region(producers, [tensor], stop=set(named) - {tensor})
        for place, operation in enumerate(_between(named[tensor], set(named))):
            if id_of(operation) in done:
                continue
            done.add(id_of(operation))
            base = names[0] if producers[tensor].output[0] == tensor else f"{names[0]}:{tensor}"
            name = base if place == 0 else f"{base}/part{place}"
            renamed.append((operation, name))
            sources[name] = names
    for operation, name in renamed:
        operation.set_friendly_name(name)
    return sources


def name_ranges(model: Any, source: Any) -> None:
    """Name the operation that quantizes the output of a node of ``source`` as NNCF names it, ``NODE/fq_output_0``, in
    place: whoever reads that tensor has to read it there."""
    nodes = {node.name for node in source.graph.node}
    done: set[str] = set()
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "FakeQuantize":
            before = operation.input_value(0).get_node()
            name = str(before.get_friendly_name())
            if (name in nodes or before.get_type_name() == "Parameter") and name not in done:
                done.add(name)
                operation.set_friendly_name(f"{name}/fq_output_0")


def id_of(operation: Any) -> str:
    """A unique key of an operation: its internal name. OpenVINO returns a new Python object for it at each access."""
    return str(operation.get_name())


def _between(port: Any, named: set[str]) -> list[Any]:
    """The operation of ``port`` and those before it, up to named tensors, constants and inputs."""
    found: dict[str, Any] = {}
    waiting = [port.get_node()]
    while waiting:
        operation = waiting.pop(0)
        if id_of(operation) in found or operation.get_type_name() in _NO_LAYER:
            continue
        found[id_of(operation)] = operation
        waiting += [value.get_node() for value in operation.input_values() if not value.get_names() & named]
    return list(found.values())
