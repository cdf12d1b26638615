"""Widths that leave one network are evaluated once, whichever of them comes first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_search import SPACE

from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Variant
from edgedeploy.search.outcomes import Failed, Scored
from edgedeploy.study.twins import Arch, Twins, Widths

LARGE: Arch = (("kernel", 5),)
HALF = Variant("onnxruntime", "int8", 0.5, (("kernel", 3),), 1)
ANSWERED = Scored((0.9, 1.0), {})


def anything(variant: Variant) -> bool:
    return True


def rounded(arch: Arch, width: float) -> Widths:
    """As layers of 8 and 16 channels are, in steps of four; the larger kernel cannot be cut at all."""
    if arch == LARGE:
        return ()
    return tuple(max(4, int(channels * width) // 4 * 4) for channels in (8, 16))


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.6), (0.6, 0.5)])
def test_a_network_is_left_out_once_it_was_evaluated_under_another_width(first: float, second: float) -> None:
    twins = Twins(rounded, anything)
    one, other = replace(HALF, width=first), replace(HALF, width=second, target="openvino", recovery_epochs=4)
    assert not twins.left_out(one) and not twins.left_out(other)
    twins.told(one, ANSWERED)
    assert twins.left_out(other) == f"its network is that of width {first:g}"
    assert not twins.left_out(replace(one, precision="float32", threads=2)), "the same width in another way"
    twins.told(other, ANSWERED)
    assert not twins.left_out(one), "the first one stays what it was"


def test_other_networks_are_not_left_out() -> None:
    twins = Twins(rounded, anything)
    twins.told(HALF, ANSWERED)
    for variant in (
        replace(HALF, width=0.25),
        replace(HALF, width=1.0),
        replace(HALF, width=0.6, allocation="bytes"),
        replace(HALF, width=0.6, shrink=Shrink(depth=0.5)),
        replace(HALF, width=0.6, arch=(("kernel", 7),)),
    ):
        assert not twins.left_out(variant), variant.label


def test_what_was_never_evaluated_stands_for_nothing() -> None:
    twins = Twins(rounded, anything)
    twins.told(HALF, Failed("Unsupported", "not on this target", "build"))
    assert not twins.left_out(replace(HALF, width=0.6)), "another target may take it"
    cannot = replace(HALF, arch=LARGE)
    twins.told(cannot, ANSWERED)
    assert not twins.left_out(replace(cannot, width=0.6)), "of these two nothing is known"


def test_a_width_that_may_not_be_tried_stands_for_nothing() -> None:
    """`[[never]]` of one of them on a target had kept that target from the network altogether."""
    never = ({"target": ("openvino",), "width": (0.5,)},)
    space = replace(SPACE, parameters={"width": (1.0, 0.6, 0.5, 0.7)}, never=never)
    twins = Twins(lambda arch, width: (4,), space.offers)
    half, wider, widest = (space.variant({"target": "openvino", "width": width}) for width in (0.5, 0.6, 0.7))
    twins.told(replace(half, target="onnxruntime"), ANSWERED)
    assert twins.left_out(replace(wider, target="onnxruntime")) == "its network is that of width 0.5"
    assert not twins.left_out(wider) and not twins.left_out(widest)
    twins.told(wider, ANSWERED)
    assert twins.left_out(widest) == "its network is that of width 0.6"


def test_no_network_is_cut_where_no_other_width_was_evaluated() -> None:
    """Each takes a while: the model is built, and followed layer by layer."""
    cut: list[float] = []
    twins = Twins(lambda arch, width: (cut.append(width), (4,))[1], anything)
    for precision in ("float32", "int8"):
        twins.told(replace(HALF, precision=precision), ANSWERED)
        assert not twins.left_out(replace(HALF, target="openvino")) and not cut
    assert twins.left_out(replace(HALF, width=0.6)) and sorted(cut) == [0.5, 0.6]
    assert twins.left_out(replace(HALF, width=0.6, target="openvino")) and len(cut) == 2
