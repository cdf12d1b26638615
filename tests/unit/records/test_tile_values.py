"""Values of `tile` and `overlap`: what they mean, what is refused, and that variants without them are who they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgedeploy.errors import SpecError
from edgedeploy.records.canonical import Choices, canonical
from edgedeploy.records.tiles import Tile, overlap_of, tile_of
from edgedeploy.records.variant import Variant
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.tiles import check_tiles


def variant(**params: Any) -> Variant:
    return canonical(
        {"target": "t", **params},
        arch_defaults={},
        target_precisions={"t": ("float32",)},
        default_threads=1,
        choices=Choices(batched=("t",)),
    )


def test_values_mean_sides_or_memory() -> None:
    assert tile_of(0) == tile_of("0") == Tile("")
    assert tile_of(96) == tile_of("96") == tile_of(" 096") == Tile("96", (96,))
    assert tile_of("96x96x64").sides == (96, 96, 64)
    assert tile_of("2 GiB").limit_bytes == 2 << 30
    assert overlap_of("exact") is None and overlap_of(8) == overlap_of("8") == 8 and overlap_of(0) == 0


@pytest.mark.parametrize("value", [-1, 5000, "96x", "1x2x3x4", "2 ms", 1.5, True, "0 B", "0x4", "9" * 5000, "\u0663"])
def test_what_is_no_tile_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected|voxels"):
        tile_of(value)


def test_a_variant_without_tiles_is_who_it_was() -> None:
    plain = variant()
    assert "tile" not in plain.as_json() and "overlap" not in plain.as_json()
    assert variant(tile=0, overlap=8) == plain
    cut = variant(tile=96, overlap="exact")
    assert cut.overlap == "" and cut.model_digest == plain.model_digest and cut.artifact_name != plain.artifact_name
    assert cut.label.endswith("float32 tile 96 w1 t1") and Variant.from_json(cut.as_json()) == cut
    assert variant(tile="96", overlap=0).digest != cut.digest


def test_a_volume_that_is_cut_has_no_batches() -> None:
    """Its tiles are put together one volume at a time, whatever the tile's own artifact could answer."""
    assert variant(max_batch=4).max_batch == 4
    assert variant(tile=96, max_batch=4) == variant(tile=96)


@pytest.mark.parametrize(
    ("space", "found"),
    [
        ({"tile": ("wide",)}, "space.tile"),
        ({"tile": (0,), "overlap": (8,)}, "no tile overlaps"),
        ({"tile": (64,), "overlap": ("some",)}, "space.overlap"),
    ],
)
def test_a_space_that_cannot_be_cut_so_is_refused(space: dict[str, Any], found: str) -> None:
    with pytest.raises(SpecError, match=found):
        check_tiles(SpecSource(Path("study.toml"), "[space]\n"), space)
