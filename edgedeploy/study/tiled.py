"""Artifacts of one tile that answer whole volumes: the build sees the network at the tile's size, everything else the
volume's inputs and outputs, with the plan as a file of the artifact."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import Unsupported
from edgedeploy.files import write_atomic
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact, ArtifactFile
from edgedeploy.records.tiles import overlap_of, tile_of
from edgedeploy.records.variant import Variant, digest_of
from edgedeploy.reference import graph
from edgedeploy.reference.external import require_in_one_file
from edgedeploy.reference.tiles import TiledModel, tiled, tiled_within
from edgedeploy.runtime.files import sha256_file
from edgedeploy.runtime.pipeline.tiles import SETTING, Tiling
from edgedeploy.runtime.pipeline.tiles import tile_of as cut_out

PLAN_FILE: Final = "tiles.json"

TILES_A_CASE: Final = 8
"""Of a calibration case: the ranges of all of a volume's tiles would take its whole time again for each."""


def cut_request(request: BuildRequest, variant: Variant) -> tuple[BuildRequest, Tiling | None]:
    """``request`` at the size of the variant's tile, with the plan; as it is where nothing is cut. The graph of the tile
    lies beside the reference. Raises ``Unsupported`` for a network or a tile that cannot be cut so."""
    if not variant.tile:
        return request, None
    found = _tiled(request, variant)
    settings = digest_of([variant.tile, variant.overlap])[:8]
    path = request.reference.with_name(f"{request.reference.stem}-tile-{settings}.onnx")
    write_atomic(path, found.model.SerializeToString())
    inputs = graph.graph_inputs(found.model)

    def calibration() -> Iterator[dict[str, Array]]:
        places = list(found.plan.places())
        step = -(-len(places) // TILES_A_CASE)
        for feeds in request.calibration():
            for place in itertools.islice(places, 0, None, step):
                yield cut_out(feeds, found.plan, place)

    outputs = graph.graph_outputs(found.model)
    cut = replace(request, reference=path, inputs=inputs, outputs=outputs, calibration=calibration, program=None)
    return cut, found.plan


def _tiled(request: BuildRequest, variant: Variant) -> TiledModel:
    import onnx

    require_in_one_file(request.reference, f"tiles of {variant.tile}", "Search tile = [0], or a smaller network")
    model: Any = onnx.load(str(request.reference))
    tile, overlap = tile_of(variant.tile), overlap_of(variant.overlap)
    if tile.limit_bytes:
        return tiled_within(model, tile.limit_bytes, overlap)
    sides = tile.sides if len(tile.sides) > 1 else tile.sides * (len(request.inputs[0].shape) - 2)
    if not sides:
        found = f"input {request.inputs[0].name} has shape {request.inputs[0].shape}"
        raise Unsupported(f"tile = {variant.tile}", found, "Tiles are for inputs of (batch, channels, spatial axes)")
    return tiled(model, sides, overlap)


def of_volumes(artifact: Artifact, plan: Tiling | None, whole: BuildRequest, folder: Path) -> Artifact:
    """The artifact of a tile, whose files are in ``folder``, as one of the volume: inputs and outputs of the ``whole``
    request, its reference, and the plan that every session follows."""
    if plan is None:
        return artifact
    path = folder / PLAN_FILE
    write_atomic(path, plan.as_text().encode())
    added = ArtifactFile(PLAN_FILE, sha256_file(path), path.stat().st_size)
    return replace(
        artifact,
        files=tuple(sorted((*artifact.files, added), key=lambda file: file.name)),
        inputs=whole.inputs,
        outputs=whole.outputs,
        settings=tuple(sorted((*artifact.settings, (SETTING, PLAN_FILE)))),
        reference_sha256=sha256_file(whole.reference),
    )
