"""The tiles of a search space, held against the graph of the task's network before anything is trained: an operator that
looks at all positions, or strides that do not divide a tile, would refuse every variant of it after the training."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import EdgeDeployError, Unsupported
from edgedeploy.interfaces.task import ReadyMade, Task, baseline_arch
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.tiles import EXACT, Tile, overlap_of, tile_of
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.receptive import fields_of
from edgedeploy.reference.tiles import tiled
from edgedeploy.spec.source import SpecSource

OTHER_NETWORKS: Final = ("student", "depth")
"""Parameters that make networks with another receptive field, besides the task's own architecture."""


def check_tiles_here(source: SpecSource, space: Mapping[str, Sequence[Scalar]], task: Task) -> tuple[str, ...]:
    """Raises ``SpecError`` for a tile and an overlap of the space that the baseline's network cannot be cut by, or returns
    that as notes where other networks of the space may be. Memory is not looked at: what a tile takes depends on the
    variant. What cannot be exported is told by the study itself."""
    tiles = [tile for tile in map(tile_of, space.get("tile", ())) if tile.text]
    if not tiles:
        return ()
    model = _graph(task)
    if model is None:
        return ()
    overlaps = [overlap_of(value) for value in space.get("overlap", (EXACT,))]
    found = [_told(tile, overlap, exc) for tile, overlap, exc in _refusals(model, tiles, overlaps)]
    if not found:
        return ()
    asked, remedy = found[0]
    if (task.architecture.keys() | {*OTHER_NETWORKS}).isdisjoint(space):
        raise source.error("space.tile", asked, remedy)
    return tuple(f"{asked}; of the space's other networks it may be cut. {remedy}" for asked, remedy in found)


def _told(tile: Tile, overlap: int | None, exc: Unsupported) -> tuple[str, str]:
    how = f'"{EXACT}"' if overlap is None else str(overlap)
    return f"the network cannot be cut by tile = {tile.text}, overlap = {how}: {exc.found}", exc.remedy


def _refusals(
    model: Any, tiles: Sequence[Tile], overlaps: Sequence[int | None]
) -> Iterator[tuple[Tile, int | None, Unsupported]]:
    for tile in tiles:
        for overlap in overlaps:
            try:
                fields = fields_of(model, approximate=overlap is not None)
                if tile.sides:
                    tiled(model, tile.sides if len(tile.sides) > 1 else tile.sides * fields.axes, overlap)
            except Unsupported as exc:
                yield tile, overlap, exc


def _graph(task: Task) -> Any:
    """The ONNX graph of the baseline's network, with its first weights; None where there is none in one file."""
    import onnx

    if isinstance(task, ReadyMade):
        model = onnx.load_from_string(task.reference_model())
        outside = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
        return None if outside else model
    return _exported(task)


def _exported(task: Task) -> Any:
    import onnx
    import torch

    from edgedeploy.compress.shaped import built
    from edgedeploy.reference.export import export_reference

    arch = baseline_arch(task)
    with tempfile.TemporaryDirectory(prefix="edgedeploy-tiles-") as folder, torch.random.fork_rng(devices=[]):
        with their_code(task, "inputs() of a calibration case"):
            specs, feed = task.input_specs(**arch), task.inputs(task.cases("calibration")[0], **arch)
        try:
            path = export_reference(built(task, arch), specs, Path(folder) / "model.onnx", samples=[feed]).path
            return onnx.load(str(path))
        except EdgeDeployError:
            return None
