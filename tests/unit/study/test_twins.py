"""Shares that leave one network are evaluated once, whichever of them comes first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_search import SPACE

from edgedeploy.records.elastic import NO_ELASTIC, Elastic
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Variant
from edgedeploy.search.outcomes import Failed, Scored
from edgedeploy.study.twins import Arch, Twins

LARGE: Arch = (("kernel", 5),)
HALF = Variant("onnxruntime", "int8", 0.5, (("kernel", 3),), 1)
ANSWERED = Scored((0.9, 1.0), {})


def anything(variant: Variant) -> bool:
    return True


def rounded(arch: Arch, name: str, share: float) -> tuple[int, ...]:
    """As layers of 8 and 16 channels are, in steps of four, and as 6 blocks of 4 heads and 12 features each; the larger
    kernel cannot be cut at all."""
    if arch == LARGE:
        return ()
    if name == "width":
        return tuple(max(4, int(channels * share) // 4 * 4) for channels in (8, 16))
    return (max(1, int({"depth": 6, "heads": 4, "mlp": 12}[name] * share)),)


def spread(variant: Variant) -> tuple[int, ...]:
    """As budgets of two costs are: what a width leaves by one of them, the next smaller one leaves by the other."""
    if variant.arch == LARGE:
        return ()
    return (int(10 * variant.width) - (variant.allocation == "bytes"), int(6 * variant.shrink.depth))


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.6), (0.6, 0.5)])
def test_a_network_is_left_out_once_it_was_evaluated_under_another_width(first: float, second: float) -> None:
    twins = Twins(rounded, spread, anything)
    one, other = replace(HALF, width=first), replace(HALF, width=second, target="openvino", recovery_epochs=4)
    assert not twins.left_out(one) and not twins.left_out(other)
    twins.told(one, ANSWERED)
    assert twins.left_out(other) == f"its network is that of width {first:g}"
    assert not twins.left_out(replace(one, precision="float32", threads=2)), "the same width in another way"
    twins.told(other, ANSWERED)
    assert not twins.left_out(one), "the first one stays what it was"


def test_other_networks_are_not_left_out() -> None:
    twins = Twins(rounded, spread, anything)
    twins.told(HALF, ANSWERED)
    for variant in (
        replace(HALF, width=0.25),
        replace(HALF, width=1.0),
        replace(HALF, width=0.6, allocation="bytes"),
        replace(HALF, width=0.6, shrink=Shrink(depth=0.5)),
        replace(HALF, width=0.6, shrink=Shrink(rank=0.5)),
        replace(HALF, width=0.6, elastic=Elastic(2, (0.5, 0.6), ("bytes",))),
        replace(HALF, width=1.0, shrink=Shrink(depth=0.5)),
        replace(HALF, width=1.0, shrink=Shrink(student="tiny")),
        replace(HALF, width=0.6, arch=(("kernel", 7),)),
    ):
        assert not twins.left_out(variant), variant.label


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (Shrink(depth=0.5), Shrink(depth=0.6), "depth 0.5"),
        (Shrink(depth=0.6), Shrink(depth=0.5), "depth 0.6"),
        (Shrink(heads=0.5), Shrink(heads=0.7), "heads 0.5"),
        (Shrink(mlp=0.5), Shrink(mlp=0.55), "mlp 0.5"),
        (Shrink(depth=0.5, heads=0.5, rank=0.5), Shrink(depth=0.6, heads=0.7, rank=0.5), "depth 0.5 and heads 0.5"),
        (Shrink(depth=0.5, tokens=0.5), Shrink(depth=0.6, tokens=0.5), "depth 0.5"),
    ],
)
@pytest.mark.parametrize("elastic", [NO_ELASTIC, Elastic(2, (), (), (0.5, 0.6))])
def test_blocks_heads_and_features_round_too(first: Shrink, second: Shrink, words: str, elastic: Elastic) -> None:
    twins = Twins(rounded, spread, anything)
    one, other = (replace(HALF, width=1.0, shrink=shrink, elastic=elastic) for shrink in (first, second))
    assert not twins.left_out(other)
    twins.told(one, ANSWERED)
    assert twins.left_out(replace(other, target="openvino")) == f"its network is that of {words}"


def test_a_width_and_a_depth_may_both_round() -> None:
    twins = Twins(rounded, spread, anything)
    twins.told(replace(HALF, shrink=Shrink(depth=0.5)), ANSWERED)
    both = replace(HALF, width=0.6, shrink=Shrink(depth=0.6))
    assert twins.left_out(both) == "its network is that of width 0.5 and depth 0.5"
    assert twins.left_out(replace(both, width=0.5)) == "its network is that of depth 0.5"
    assert not twins.left_out(replace(both, shrink=Shrink(depth=0.7)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Shrink(depth=0.5), Shrink(depth=0.7)),
        (Shrink(depth=0.5), Shrink(depth=0.5, heads=0.9)),
        (Shrink(depth=0.5), Shrink(depth=0.6, rank=0.5)),
        (Shrink(depth=0.5, tokens=0.5), Shrink(depth=0.6, tokens=0.6)),
    ],
)
def test_other_blocks_are_another_network(first: Shrink, second: Shrink) -> None:
    twins = Twins(rounded, spread, anything)
    twins.told(replace(HALF, width=1.0, shrink=first), ANSWERED)
    assert not twins.left_out(replace(HALF, width=1.0, shrink=second))


def test_heads_of_a_narrower_network_round_otherwise() -> None:
    """Of which nothing is known: an architecture's whole network is asked."""
    twins = Twins(rounded, spread, anything)
    twins.told(replace(HALF, shrink=Shrink(heads=0.5)), ANSWERED)
    assert not twins.left_out(replace(HALF, shrink=Shrink(heads=0.7)))
    assert twins.left_out(replace(HALF, width=0.6, shrink=Shrink(heads=0.5))), "these have the same share of them"


FAMILY = Elastic(2, (0.5, 0.6), ("compute", "bytes"), (0.5, 0.6))


@pytest.mark.parametrize("elastic", [NO_ELASTIC, FAMILY])
def test_widths_that_are_spread_to_the_same_channels_are_one_network(elastic: Elastic) -> None:
    twins = Twins(rounded, spread, anything)
    first = replace(HALF, allocation="compute", elastic=elastic)
    second = replace(first, width=0.6, allocation="bytes", target="openvino")
    assert not twins.left_out(second)
    twins.told(first, ANSWERED)
    assert twins.left_out(second) == "its network is that of width 0.5 by compute"
    assert not twins.left_out(replace(second, width=0.7)) and not twins.left_out(replace(second, width=0.5))
    assert not twins.left_out(replace(second, allocation="")), "the uniform width chooses its channels otherwise"
    assert not twins.left_out(replace(second, elastic=Elastic() if elastic else FAMILY)), "it begins with other weights"


def test_a_spread_width_and_a_depth_may_both_be_those_of_others() -> None:
    twins = Twins(rounded, spread, anything)
    twins.told(replace(HALF, allocation="compute", shrink=Shrink(depth=0.5)), ANSWERED)
    both = replace(HALF, width=0.6, allocation="bytes", shrink=Shrink(depth=0.6))
    assert twins.left_out(both) == "its network is that of width 0.5 by compute and depth 0.5"
    alike = replace(both, width=0.5, allocation="compute")
    assert twins.left_out(alike) == "its network is that of depth 0.5"
    assert not twins.left_out(replace(both, shrink=Shrink(depth=0.7)))


def test_a_width_that_cannot_be_spread_is_no_twin() -> None:
    twins = Twins(rounded, spread, anything)
    large = replace(HALF, arch=LARGE, allocation="compute")
    twins.told(large, ANSWERED)
    assert not twins.left_out(replace(large, width=0.6, allocation="bytes"))


def test_a_twin_by_time_is_offered_with_its_times() -> None:
    asked: list[Variant] = []
    twins = Twins(rounded, spread, lambda variant: bool(asked.append(variant)))
    timed = replace(HALF, width=0.5, allocation="time", layer_times="0123456789abcdef")
    twins.told(timed, ANSWERED)
    assert not twins.left_out(replace(HALF, width=0.6, allocation="bytes", target="openvino"))
    assert asked == [replace(timed, target="openvino")]


def test_what_was_never_evaluated_stands_for_nothing() -> None:
    twins = Twins(rounded, spread, anything)
    twins.told(HALF, Failed("Unsupported", "not on this target", "build"))
    assert not twins.left_out(replace(HALF, width=0.6)), "another target may take it"
    cannot = replace(HALF, arch=LARGE)
    twins.told(cannot, ANSWERED)
    assert not twins.left_out(replace(cannot, width=0.6)), "of these two nothing is known"


def test_a_width_that_may_not_be_tried_stands_for_nothing() -> None:
    """`[[never]]` of one of them on a target had kept that target from the network altogether."""
    never = ({"target": ("openvino",), "width": (0.5,)},)
    space = replace(SPACE, parameters={"width": (1.0, 0.6, 0.5, 0.7)}, never=never)
    twins = Twins(lambda arch, name, share: (4,), spread, space.offers)
    half, wider, widest = (space.variant({"target": "openvino", "width": width}) for width in (0.5, 0.6, 0.7))
    twins.told(replace(half, target="onnxruntime"), ANSWERED)
    assert twins.left_out(replace(wider, target="onnxruntime")) == "its network is that of width 0.5"
    assert not twins.left_out(wider) and not twins.left_out(widest)
    twins.told(wider, ANSWERED)
    assert twins.left_out(widest) == "its network is that of width 0.6"


def test_no_network_is_cut_where_no_other_width_was_evaluated() -> None:
    """Each takes a while: the model is built, and followed layer by layer."""
    cut: list[float] = []
    twins = Twins(lambda arch, name, share: (cut.append(share), (4,))[1], spread, anything)
    for precision in ("float32", "int8"):
        twins.told(replace(HALF, precision=precision), ANSWERED)
        assert not twins.left_out(replace(HALF, target="openvino")) and not cut
    assert twins.left_out(replace(HALF, width=0.6)) and sorted(cut) == [0.5, 0.6]
    assert twins.left_out(replace(HALF, width=0.6, target="openvino")) and len(cut) == 2
