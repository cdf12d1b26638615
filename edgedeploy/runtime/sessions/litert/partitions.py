"""Maps the operators of LiteRT's profile to layers of the model.

XNNPACK replaces parts of the graph by delegate nodes and numbers its own operators anew. The n-th run of XNNPACK events in
the profile is the n-th delegate node; that node covers the operators between its inputs and outputs, in the file's order.
Layers are named only where the kinds and the count of the compute operators agree: a wrong name is worse than none.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from edgedeploy.runtime.sessions.litert.operators import COMPUTE_OPERATORS
from edgedeploy.runtime.sessions.litert.profile import BUILT_IN, DELEGATED, OperatorEvent

Node = typing.Mapping[str, Any]  # before Python 3.9 that of collections.abc takes no types
"""A node as the interpreter describes it: ``index``, ``op_name``, and the tensors of ``inputs`` and ``outputs``."""

_DELEGATE = "DELEGATE"
_MADE_FROM = {
    "Convolution": ("CONV_2D", "DEPTHWISE_CONV_2D"),
    "Deconvolution": ("TRANSPOSE_CONV",),
    "Fully Connected": ("FULLY_CONNECTED", "CONV_2D"),
    "Batch Matrix Multiply": ("BATCH_MATMUL",),
}
"""XNNPACK's operators that multiply -> the file's operators that each may come from."""


def layers(events: Sequence[OperatorEvent], nodes: Sequence[Node], names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows as in :class:`edgedeploy.runtime.sessions.open.Profiled`. ``nodes`` include those that a delegate replaced;
    ``names`` are the reference's layers of the file's compute operators, in the file's order and empty if unknown."""
    compute = [int(node["index"]) for node in nodes if node["op_name"] in COMPUTE_OPERATORS]
    known = dict(zip(compute, names)) if len(names) == len(compute) else {}
    of_event = {**_delegated(events, nodes), **_built_in(events, nodes)}
    return [_row(place, event, known.get(of_event.get(place, -1), "")) for place, event in enumerate(events)]


def _row(place: int, event: OperatorEvent, source: str) -> dict[str, Any]:
    operator = _operator(event)
    return {
        "name": f"{place} {operator}",
        "operator": operator,
        "kernel": event.tag,
        "device": "CPU, XNNPACK" if event.kind == DELEGATED else "CPU, built-in",
        "ns": event.ns,
        "sources": [source] if source else [],
    }


def _operator(event: OperatorEvent) -> str:
    """The operator without what XNNPACK adds, types and the kind of kernel: ``Convolution (NHWC, QC8) IGEMM``."""
    return event.tag.partition(" (")[0]


def _built_in(events: Sequence[OperatorEvent], nodes: Sequence[Node]) -> dict[int, int]:
    """Position of an event of a built-in kernel -> index of its node."""
    tags = {int(node["index"]): node["op_name"] for node in nodes}
    return {
        place: event.index
        for place, event in enumerate(events)
        if event.kind == BUILT_IN and tags.get(event.index) == event.tag
    }


def _delegated(events: Sequence[OperatorEvent], nodes: Sequence[Node]) -> dict[int, int]:
    """As :func:`_built_in`, for XNNPACK's operators that multiply."""
    delegates = [node for node in nodes if node["op_name"] == _DELEGATE]
    stretches = _stretches(events)
    if len(delegates) != len(stretches):
        return {}
    found: dict[int, int] = {}
    for places, delegate in zip(stretches, delegates):
        made = [place for place in places if _operator(events[place]) in _MADE_FROM]
        covered = [node for node in _covered(delegate, nodes) if node["op_name"] in COMPUTE_OPERATORS]
        if len(made) == len(covered) and all(
            node["op_name"] in _MADE_FROM[_operator(events[place])] for place, node in zip(made, covered)
        ):
            found.update((place, int(node["index"])) for place, node in zip(made, covered))
    return found


def _stretches(events: Sequence[OperatorEvent]) -> list[list[int]]:
    """Positions of XNNPACK's events by partition; each partition numbers its operators from 0."""
    found: list[list[int]] = []
    last = -1
    for place, event in enumerate(events):
        if event.kind != DELEGATED:
            last = -1
            continue
        if last < 0 or event.index <= last:
            found.append([])
        found[-1].append(place)
        last = event.index
    return found


def _covered(delegate: Node, nodes: Sequence[Node]) -> list[Node]:
    """The nodes that a delegate node replaces."""
    producers = {int(tensor): node for node in nodes if node["op_name"] != _DELEGATE for tensor in node["outputs"]}
    border = {int(tensor) for tensor in delegate["inputs"]}
    todo = [int(tensor) for tensor in delegate["outputs"]]
    taken: set[int] = set()
    while todo:
        tensor = todo.pop()
        node = None if tensor in border else producers.get(tensor)
        if node is not None and int(node["index"]) not in taken:
            taken.add(int(node["index"]))
            todo += [int(tensor) for tensor in node["inputs"]]
    return [node for node in nodes if int(node["index"]) in taken]
