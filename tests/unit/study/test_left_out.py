"""A search that finds nothing more to try says what it never tries, and why."""

from __future__ import annotations

from dataclasses import replace

from made_up_search import SPACE

from edgedeploy.records.variant import Variant
from edgedeploy.study.left import left_out_line

SMALL = replace(SPACE, parameters={"width": (1.0, 0.6, 0.5), "precision": ("float32", "int8")})
ALL = {SMALL.variant(params).digest: SMALL.variant(params) for params in SMALL.combinations()}


def twin(variant: Variant) -> str:
    """Width .6 is .5 again."""
    return "its network is that of width 0.5" if variant.width == 0.6 else ""


def test_each_reason_is_told_with_how_many_variants_it_keeps_away() -> None:
    others = {digest for digest, variant in ALL.items() if variant.width != 0.6}
    told = "nothing is left to try: 4 variants are left out, 4 because its network is that of width 0.5"
    assert left_out_line(SMALL, twin, others) == told

    def target_too(variant: Variant) -> str:
        return twin(variant) or ("it cannot" if variant.target == "openvino" and variant.precision == "int8" else "")

    told = "nothing is left to try: 6 variants are left out, 4 because its network is that of width 0.5; 2 because it cannot"
    assert left_out_line(SMALL, target_too, ()) == told


def test_what_was_tried_or_may_not_be_tried_is_not_left_out() -> None:
    assert left_out_line(SMALL, twin, ALL) is None, "all of them, which are points of the user's own"
    assert left_out_line(SMALL, lambda variant: "", ()) is None
    assert left_out_line(replace(SMALL, never=({"width": (0.6,)},)), twin, ()) is None


def test_a_space_that_is_never_listed_is_not_listed_for_this() -> None:
    assert left_out_line(SMALL, twin, (), most=11) is None
    assert left_out_line(SMALL, twin, (), most=12) is not None
