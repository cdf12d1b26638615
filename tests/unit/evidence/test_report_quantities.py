"""Numbers as people read them."""

from __future__ import annotations

import pytest

from edgedeploy.evidence.bootstrap import Comparison, Estimate
from edgedeploy.evidence.quantities import comparison_text, gain_text, heading, quantity, with_span


@pytest.mark.parametrize(
    ("value", "metric", "unit", "text"),
    [
        (1.5e6, "latency_p50_ns", "ns", "1.50 ms"),
        (999.6e3, "latency_p50_ns", "ns", "1000 µs"),
        (12, "latency_p50_ns", "ns", "12.0 ns"),
        (0, "latency_p50_ns", "ns", "0 ns"),
        (1_234_567, "size_bytes", "bytes", "1.23 MB"),
        (12, "size_bytes", "bytes", "12 B"),
        (0.8461, "dice_mean", "1", "0.846"),
        (0.25, "latency_ratio", "1", "0.250\N{MULTIPLICATION SIGN}"),
        (6.3, "hd95_px", "px", "6.30 px"),
        (123456.0, "hd95_px", "px", "123456 px"),
    ],
)
def test_quantity(value: float, metric: str, unit: str, text: str) -> None:
    assert quantity(value, metric, unit) == text


def test_an_interval_shares_the_unit_of_its_value() -> None:
    assert with_span(Estimate(998e3, 990e3, 1.004e6), "latency_p50_ns", "ns") == "998 µs (990 to 1004 µs)"


def test_an_interval_gets_digits_until_its_ends_differ() -> None:
    assert with_span(Estimate(1.5e6, 1.498e6, 1.502e6), "latency_p50_ns", "ns") == "1.50 ms (1.498 to 1.502 ms)"
    assert with_span(Estimate(0.5, 0.5, 0.5), "dice_mean", "1") == "0.500 (0.500 to 0.500)"
    assert with_span(Estimate(0.5), "dice_mean", "1") == "0.500"


def test_a_gain_reads_the_same_whichever_way_the_metric_points() -> None:
    assert gain_text(-0.004, "dice_mean", "1") == "0.004 worse"
    assert gain_text(0.3, "hd95_px", "px") == "0.300 px better"
    assert gain_text(0.0004, "dice_mean", "1") == "0.0004 better"
    assert gain_text(0.0, "dice_mean", "1") == "equal"


@pytest.mark.parametrize(
    ("gain", "lower", "text"),
    [
        (-0.004, -0.006, "0.004 worse (shown to be at most 0.006 worse)"),
        (0.004, -0.001, "0.004 better (shown to be at most 0.001 worse)"),
        (0.004, 0.002, "0.004 better (shown to be at least 0.002 better)"),
        (0.004, 0.0, "0.004 better (shown to be no worse)"),
        (0.0, 0.0, "equal"),
        (0.1, None, "0.100 better (too few cases to bound it)"),
    ],
)
def test_a_comparison_says_what_is_shown(gain: float, lower: float | None, text: str) -> None:
    assert comparison_text(Comparison("dice_mean", gain, lower, None, "paired cases", 40), "1") == text


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("dice_mean", "Dice mean"),
        ("hd95_nerve_px", "HD95 nerve"),
        ("nsd_vessel", "NSD vessel"),
        ("auroc", "AUROC"),
        ("psnr_db", "PSNR"),
        ("map_50", "mAP 50"),
        ("size_bytes", "Size"),
        ("px", "Px"),
    ],
)
def test_heading(metric: str, text: str) -> None:
    assert heading(metric) == text
