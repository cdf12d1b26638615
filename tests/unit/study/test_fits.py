"""Variants whose weights alone pass the memory of a board, refused before anything is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
from levels_task import ARCH, LeveledEdges

from edgedeploy.compress.sizes import least_weights
from edgedeploy.errors import Unsupported
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Variant
from edgedeploy.study.fits import Fits

TASK = LeveledEdges()
WHOLE = Variant("onnxruntime", "float32", 1.0, tuple(sorted(ARCH.items())), 1)
WEIGHTS = least_weights(TASK, ARCH, 1.0) or 0


def fits(variant: Variant, limit_bytes: int | None) -> bool:
    try:
        Fits(TASK, limit_bytes).require(variant)
    except Unsupported:
        return False
    return True


def test_the_fewest_bits_of_each_precision_decide() -> None:
    assert WEIGHTS > 0
    for precision, bits in (("float32", 16), ("int8", 8), ("int4-weights", 4)):
        variant = replace(WHOLE, precision=precision)
        assert fits(variant, WEIGHTS * bits // 8)
        assert not fits(variant, WEIGHTS * bits // 8 - 1)


def test_a_narrower_network_is_weighed_as_it_is_pruned() -> None:
    narrow = replace(WHOLE, width=0.5)
    left = least_weights(TASK, ARCH, 0.5) or 0
    assert 0 < left < WEIGHTS
    assert fits(narrow, 2 * left)
    assert not fits(narrow, 2 * left - 1)


def test_what_is_not_certain_is_left_to_the_board() -> None:
    assert fits(WHOLE, None)
    assert fits(replace(WHOLE, target="tensorrt"), 1), "its weights lie in a device's memory"
    assert fits(replace(WHOLE, width=0.5, allocation="sensitivity"), 1), "how many it keeps is not known yet"
    assert fits(replace(WHOLE, shrink=Shrink(rank=0.25)), 1), "factors have fewer weights than the network"
    assert fits(replace(WHOLE, shrink=Shrink(student="small")), 1), "another network has weights of its own"


def test_the_message_names_both_numbers() -> None:
    with pytest.raises(Unsupported, match=rf"within 10 B .*`memory`.*{WEIGHTS:,} weights .* take .* or more"):
        Fits(TASK, 10).require(WHOLE)
