"""Layers of an ONNX graph by name, and which of them a toolchain has fused into one node.

Tools rename and fuse nodes, so node names of a prepared file cannot be looked up in its source. Tensors keep their
names: a node of a prepared file computes the source nodes that lie between the same input and output tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.records.precision import NARROW, Assignment, Layer, PrecisionPlan, assign
from edgedeploy.reference.weights import Numbers, numbers

WEIGHTED_OPERATORS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose second input may be constant weights."""


def name_nodes(model: Any) -> None:
    """Give every node a name of its own, in place. Names that tell nodes apart stay."""
    taken: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}:{next((output for output in node.output if output), len(taken))}"
        taken.add(node.name)


def constants_of(model: Any) -> set[str]:
    """Tensors that no input of the model changes."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:  # constants may be nodes, and so may what is made of constants alone
        if all(name in constants for name in node.input if name):
            constants.update(node.output)
    return constants


def layers_of(model: Any) -> tuple[Layer, ...]:
    """The nodes of a model, in order. Call :func:`name_nodes` first."""
    constants = constants_of(model)
    return tuple(
        Layer(
            node.name,
            node.op_type,
            node.op_type in WEIGHTED_OPERATORS and len(node.input) > 1 and node.input[1] in constants,
        )
        for node in model.graph.node
        if not set(node.output) <= constants
    )


def fused_from(source: Any, prepared: Any) -> dict[str, tuple[str, ...]]:
    """For each node of ``prepared``, the names of the source nodes it computes; empty for one that tools inserted."""
    producers = {output: node for node in source.graph.node for output in node.output if output}
    made = {output for node in prepared.graph.node for output in node.output if output}
    return {
        node.name: region(producers, node.output, stop=set(node.input) | (made - set(node.output)))
        for node in prepared.graph.node
    }


def region(producers: Mapping[str, Any], outputs: Iterable[str], stop: set[str]) -> tuple[str, ...]:
    """Names of the nodes between the tensors ``stop`` and ``outputs``, the last one first. ``producers`` maps a tensor to
    the node that makes it."""
    found: dict[str, None] = {}
    waiting = [name for name in outputs if name in producers]
    while waiting:
        node = producers[waiting.pop()]
        if node.name in found:
            continue
        found[node.name] = None
        waiting += [name for name in node.input if name in producers and name not in stop]
    return tuple(found)


def check_alive(plan: PrecisionPlan, assignment: Assignment, alive: Iterable[Iterable[str]]) -> None:
    """Raises ``BuildError`` for a rule all of whose layers were folded away before precisions are assigned. ``alive``
    holds the source layers of each node that is left."""
    left = {name for names in alive for name in names}
    for rule in plan.rules:
        own = [name for name, by in assignment.rules.items() if by == rule]
        if not left & set(own):
            found = f"preparation folded {own[0]!r} away"
            raise BuildError(f"layer {rule.pattern!r} in {rule.precision}", found, "Remove the rule")


def check_followed(
    plan: PrecisionPlan, assignment: Assignment, sources: Mapping[str, Iterable[str]], narrow: Mapping[str, str]
) -> None:
    """Compare the built model with the plan. ``sources`` maps a built node to its source layers; ``narrow`` maps built
    nodes that have a narrow precision to that precision.

    Raises ``Unsupported`` where a narrow rule narrowed nothing, ``BuildError`` where a layer became narrower than asked.
    """
    for rule in plan.rules:
        own = {name for name, by in assignment.rules.items() if by == rule and name in assignment.weighted}
        built = [node for node, names in sources.items() if own & set(names)]
        asked = f"layer {rule.pattern!r} in {rule.precision}"
        if rule.precision in NARROW and not any(narrow.get(node) == rule.precision for node in built):
            raise Unsupported(asked, "the toolchain left it as it was", "Choose other layers or another precision")
        wrong = [node for node in built if narrow.get(node, rule.precision) != rule.precision]
        if wrong:
            raise BuildError(asked, f"{wrong[0]!r} was built in {narrow[wrong[0]]}", "Report this: it is our mistake")


def with_sources(profile: Mapping[str, Any], reference: Path) -> dict[str, Any]:
    """A runtime's profile with the ``source`` of each layer: the layer of the ONNX reference that it computes, or None.

    A runtime may name a fused layer after any of its parts, or after its output tensor. A fused layer counts as its
    convolution or matrix product: a name that belongs to an activation or a batch norm is followed back to that.
    """
    import onnx

    if "layers" not in profile:
        return dict(profile)
    model = onnx.load(str(reference), load_external_data=False)
    name_nodes(model)
    producers = {output: node for node in model.graph.node for output in node.output if output}
    nodes = {node.name: node for node in model.graph.node}
    products = {node.name for node in model.graph.node if node.op_type in WEIGHTED_OPERATORS}
    layers = []
    for layer in profile["layers"]:
        known = [nodes.get(name) or producers.get(name) for name in layer["sources"]]
        multiplies = any(word in layer["operator"] for word in MULTIPLYING)
        found = (_source(node, producers, products if multiplies else set()) for node in known if node is not None)
        layers.append({**layer, "source": next((name for name in found if name is not None), None)})
    return {**profile, "layers": layers}


MULTIPLYING: Final = ("Conv", "Deconvolution", "Gemm", "MatMul", "FullyConnected")
"""Words in the names that runtimes give to operators that multiply with weights."""


def _source(node: Any, producers: Mapping[str, Any], products: set[str]) -> str | None:
    """``node``'s name. If ``products`` is not empty: the nearest node of ``products`` on the way back along first
    inputs, or None."""
    while products and node.name not in products:
        before = producers.get(node.input[0]) if node.input else None
        if before is None:
            return None
        node = before
    return str(node.name)


_SAME_NUMBERS: Final = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze")
"""Operators that may lie between a constant and its layer: they reorder the numbers without changing them."""


def weights_of(model: Any) -> dict[str, Numbers]:
    """By node, the sorted numbers of its second input, where that is a constant or a reordered constant."""
    import onnx

    held = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, Numbers] = {}
    for node in model.graph.node:
        name = node.input[1] if len(node.input) > 1 else ""
        while name in producers and producers[name].op_type in _SAME_NUMBERS:
            name = producers[name].input[0]
        if name in producers and producers[name].op_type == "Constant":
            held[name] = next(item.t for item in producers[name].attribute if item.name == "value")
        if name in held:
            found[node.name] = numbers(onnx.numpy_helper.to_array(held[name]))
    return found


def kept_float(plan: PrecisionPlan, base: str, reference: Path) -> dict[str, Numbers]:
    """Names and weights of the layers that ``plan`` keeps in float32 in a ``base`` model of ``reference``.

    Raises ``BuildError`` for a rule that fits no layer, ``Unsupported`` for one that fits none with weights.
    """
    import onnx

    model = onnx.load(str(reference))
    name_nodes(model)
    assignment = assign(plan, layers_of(model), base)
    weights = weights_of(model)
    for rule in plan.rules:
        own = [name for name, by in assignment.rules.items() if by == rule]
        if not any(name in weights and name in assignment.weighted for name in own):
            asked = f"layer {rule.pattern!r} in {rule.precision} in a model that is trained to be {base}"
            raise Unsupported(asked, f"{own[0]!r} has no constant weights", "Name convolutions or matrix products")
    return {
        name: weights[name]
        for name in assignment.weighted
        if assignment.precisions[name] == "float32" and name in weights
    }
