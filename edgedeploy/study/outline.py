"""The shape of a network for a picture of it: which layers feed which, and how far each is scaled down."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgedeploy.reference.layers import name_nodes
from edgedeploy.study.models import kept_reference
from edgedeploy.study.store import Store

LARGEST_BYTES: Final = 256 << 20
"""A reference that is larger is not read for a picture."""

DEEPEST: Final = 7


@dataclass(frozen=True)
class Outline:
    """By layer: its ``level``, 0 for the largest maps and one more for each halving of both sides; and the layers whose
    output it reads, ``inputs``, in the order of the file."""

    level: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def outline_of(store: Store, model_digest: str, layers: Collection[str]) -> Outline:
    """Of the study's own ONNX reference, as far as ``layers`` names its nodes; empty where no file is as it was made."""
    kept = kept_reference(store.model_folder(model_digest), (), lambda note: None) if layers else None
    if kept is None or kept.path.stat().st_size > LARGEST_BYTES:
        return Outline()
    return _read(kept.path, set(layers))


def _read(path: Path, layers: set[str]) -> Outline:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    name_nodes(model)
    areas = {value.name: _area(value) for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    known: dict[str, tuple[str, ...]] = {}  # tensor to the layers that it comes from
    inputs: dict[str, tuple[str, ...]] = {}
    area: dict[str, int] = {}
    for node in model.graph.node:
        sources = tuple(dict.fromkeys(name for tensor in node.input for name in known.get(tensor, ())))
        if node.name in layers:
            inputs[node.name] = sources
            area[node.name] = areas.get(node.output[0], 0)
            sources = (node.name,)
        known.update((tensor, sources) for tensor in node.output)
    largest = max(area.values(), default=0)
    return Outline({name: _level(size, largest) for name, size in area.items()}, inputs)


def _area(value: Any) -> int:
    """Pixels (or voxels) of a map (N, C, ...); 0 for what is none."""
    sides = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim][2:]
    return math.prod(sides) if len(sides) >= 2 else 0


def _level(area: int, largest: int) -> int:
    return min(DEEPEST, round(math.log2(largest / area) / 2)) if area > 0 else 0
