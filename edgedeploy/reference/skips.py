"""Where a network adds its own input to what it answers, as denoisers do, and what has to stay float so that int8 keeps
it.

The sum of an input and what a network finds to change in it carries the input's own values to the output. Rounded to
256 steps of the input's whole range, it loses what it was made for: a CT slice of 4096 HU comes out in steps of 16.
What the convolutions compute may be int8 all the same: it is the small part of the sum. Such a sum costs one addition
an element.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.reference.layers import constants_of, layers_of

JOINING: Final = ("Add", "Sub")


@dataclass(frozen=True)
class Step:
    """A node of any toolchain's graph: its inputs without constants (empty text for one) and its outputs by tensor
    name. ``weighted``: it multiplies with constant weights; ``joins``: it adds or subtracts."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weighted: bool
    joins: bool


def untouched(steps: Sequence[Step], inputs: Iterable[str], outputs: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The steps, in order of computation, that have to stay float, each with the places of the inputs that it has to
    read as they are: a sum near the end, one side of which comes from an input through no weights; what lies between
    that input and the sum; and what lies between the sum and the outputs. Empty for most networks.

    ``inputs`` are those of floating-point numbers.
    """
    given = set(inputs)
    plain = set(given)
    for step in steps:
        read = [name for name in step.inputs if name]
        if read and not step.weighted and plain.issuperset(read):
            plain.update(step.outputs)
    final = _final(steps, outputs)
    found: dict[str, tuple[int, ...]] = {}
    producers = {name: step for step in steps for name in step.outputs}
    for step in steps:
        own = tuple(place for place, name in enumerate(step.inputs) if name in plain)
        others = any(name and name not in plain for name in step.inputs)
        if step.joins and own and others and final.issuperset(step.outputs):
            found[step.name] = own
            found |= _between(producers, [step.inputs[place] for place in own], given)
            found |= {later.name: () for later in _after(steps, step)}
    return found


def _final(steps: Sequence[Step], outputs: Iterable[str]) -> set[str]:
    """Tensors that reach an output, and nothing with weights."""
    ends = set(outputs)
    final: set[str] = set()
    readers: dict[str, list[Step]] = {}
    for step in steps:
        for name in step.inputs:
            readers.setdefault(name, []).append(step)
    for step in reversed(steps):
        for name in step.outputs:
            free = all(not other.weighted and final.issuperset(other.outputs) for other in readers.get(name, ()))
            if free and (name in ends or readers.get(name)):
                final.add(name)
    return final


def _between(producers: Mapping[str, Step], tensors: Iterable[str], given: set[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    waiting = [name for name in tensors if name not in given]
    while waiting:
        step = producers[waiting.pop()]
        if step.name in found:
            continue
        found[step.name] = tuple(place for place, name in enumerate(step.inputs) if name)
        waiting += [name for name in step.inputs if name and name not in given]
    return found


def _after(steps: Sequence[Step], join: Step) -> list[Step]:
    reached, found = set(join.outputs), []
    for step in steps:
        if reached.intersection(step.inputs):
            reached.update(step.outputs)
            found.append(step)
    return found


def input_skips(model: Any) -> dict[str, tuple[int, ...]]:
    """:func:`untouched` of an ONNX model whose nodes have names."""
    import onnx

    graph, constants = model.graph, constants_of(model)
    weighted = {layer.name for layer in layers_of(model) if layer.weighted}
    steps = [
        Step(
            node.name,
            tuple("" if name in constants else name for name in node.input),
            tuple(name for name in node.output if name),
            node.name in weighted,
            node.op_type in JOINING,
        )
        for node in graph.node
        if not constants.issuperset(node.output)
    ]
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
    inputs = [
        value.name
        for value in graph.input
        if value.name not in constants and value.type.tensor_type.elem_type in floats
    ]
    return untouched(steps, inputs, [value.name for value in graph.output])


def reading_again(model: Any, source: Any, skips: Mapping[str, Sequence[int]]) -> None:
    """Let the nodes of a quantized ``model`` that ``skips`` names read what they read in ``source``, in place: a
    quantizer puts its pairs in front of all readers of a tensor, also of those that stay float."""
    given = {node.name: node for node in source.graph.node}
    made = {name for node in model.graph.node for name in node.output} | {value.name for value in model.graph.input}
    for node in model.graph.node:
        for place in skips.get(node.name, ()):
            wanted = given[node.name].input[place]
            if wanted in made:
                node.input[place] = wanted
