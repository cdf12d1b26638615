"""Widths that leave one network are evaluated once, whichever of them comes first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Variant
from edgedeploy.search.outcomes import Failed, Scored
from edgedeploy.study.twins import Arch, Twins, Widths

LARGE: Arch = (("kernel", 5),)
HALF = Variant("onnxruntime", "int8", 0.5, (("kernel", 3),), 1)
ANSWERED = Scored((0.9, 1.0), {})


def rounded(arch: Arch, width: float) -> Widths:
    """As layers of 8 and 16 channels are, in steps of four; the larger kernel cannot be cut at all."""
    if arch == LARGE:
        return ()
    return tuple(max(4, int(channels * width) // 4 * 4) for channels in (8, 16))


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.6), (0.6, 0.5)])
def test_a_network_is_left_out_once_it_was_evaluated_under_another_width(first: float, second: float) -> None:
    twins = Twins(rounded)
    one, other = replace(HALF, width=first), replace(HALF, width=second, target="openvino", recovery_epochs=4)
    assert not twins.left_out(one) and not twins.left_out(other)
    twins.told(one, ANSWERED)
    assert twins.left_out(other) == f"its network is that of width {first:g}"
    assert not twins.left_out(replace(one, precision="float32", threads=2)), "the same width in another way"
    twins.told(other, ANSWERED)
    assert not twins.left_out(one), "the first one stays what it was"


def test_other_networks_are_not_left_out() -> None:
    twins = Twins(rounded)
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
    twins = Twins(rounded)
    twins.told(HALF, Failed("Unsupported", "not on this target", "build"))
    assert not twins.left_out(replace(HALF, width=0.6)), "another target may take it"
    cannot = replace(HALF, arch=LARGE)
    twins.told(cannot, ANSWERED)
    assert not twins.left_out(replace(cannot, width=0.6)), "of these two nothing is known"
