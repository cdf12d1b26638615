"""Control flow and lists in a user's ONNX graph: what constants decide is folded away, and what depends on input values
is found. Only for the process with limits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from edgedeploy.reference.foreign import nodes_of

UNSHAPED: Final = ("NonZero", "NonMaxSuppression", "Unique", "Compress")
"""Operators whose output shape depends on input values."""

SPLIT_COUNTS: Final = 18
"""The first operator set whose Split has ``num_outputs``."""

FLOW: Final = ("If", "Loop", "Scan")
GIVE_LISTS: Final = (
    *("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceMap", "SplitToSequence"),
    "Optional",
)
TAKE_LISTS: Final = (
    *("SequenceAt", "SequenceLength", "ConcatFromSequence", "OptionalHasElement", "OptionalGetElement"),
)
_OF_SHAPES: Final = ("Shape", "Size")
"""Operators whose output depends on shapes alone, which are constants here."""


def has_flow(model: Any) -> bool:
    return any(node.op_type in (*FLOW, *GIVE_LISTS, *TAKE_LISTS) for node in nodes_of(model.graph))


def fold(model: Any) -> Any:
    """The model with what constants decide computed: an ``If`` becomes one of its branches, a list its arrays. A model that
    the folding pass cannot read stays as it is: what is left in it is told by name."""
    from onnxscript import optimizer

    try:
        folded = optimizer.optimize(model)
    except Exception:  # a pass of that package has its own wrapper without a public base
        return model
    if not any(entry.version >= SPLIT_COUNTS for entry in folded.opset_import if entry.domain in ("", "ai.onnx")):
        for node in nodes_of(folded.graph):  # the pass writes a Split of the newest set; its outputs tell their number
            for item in [item for item in node.attribute if node.op_type == "Split" and item.name == "num_outputs"]:
                node.attribute.remove(item)
    return folded


def unshaped(graph: Any) -> set[str]:
    """Outputs of each ``If`` and ``Loop`` of which input values decide: which branch, or how many times."""
    moved = _moved(graph.node, {value.name for value in graph.input})
    found: set[str] = set()
    for node in graph.node:
        if (node.op_type == "If" and node.input[0] in moved) or (node.op_type == "Loop" and _counts(node, moved)):
            found.update(node.output)
    return found


def _moved(nodes: Iterable[Any], by: set[str]) -> set[str]:
    """``by`` and every tensor whose values depend on one of these."""
    found = set(by)
    for node in nodes:
        if node.op_type not in _OF_SHAPES and _read(node) & found:
            found.update(name for name in node.output if name)
    return found


def _read(node: Any) -> set[str]:
    names = set(node.input)
    for item in node.attribute:
        if item.HasField("g"):
            names |= {name for inner in nodes_of(item.g) for name in inner.input}
            names |= {value.name for value in item.g.output}
    return names


def _counts(node: Any, moved: set[str]) -> bool:
    """Whether values decide how many times a ``Loop`` runs."""
    if set(node.input[:2]) & moved:
        return True
    body = next(item.g for item in node.attribute if item.name == "body")
    carried = [value.name for value in body.input][2:]
    by = set(moved) | {name for name, start in zip(carried, node.input[2:], strict=True) if start in moved}
    for _ in carried:  # a value may reach another one round later
        inside = _moved(body.node, by)
        after = [value.name for value in body.output][1 : 1 + len(carried)]
        grown = by | {name for name, end in zip(carried, after, strict=True) if end in inside}
        if grown == by:
            break
        by = grown
    return body.output[0].name in _moved(body.node, by)
