from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgedeploy.records.units import human, human_limit, parse_quantity


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("20 ms", "ns", 20e6),
        ("1.5us", "ns", 1500.0),
        ("8 MB", "bytes", 8e6),
        ("2 MiB", "bytes", 2**21),
        (0.8, "1", 0.8),
        ("-4.14 ms", "ns", -4.14e6),  # the float of 4.14 times 1e6 is another number
        ("4.35 GB", "bytes", 4.35e9),
        ("0.3 mJ", "J", 3e-4),
        ("90 /min", "/s", 1.5),
        ("7 %/h", "%/min", 7 / 60),
        ("1e-999999999999999999999 s", "ns", 0.0),
    ],
)
def test_quantities_come_out_in_base_units(text: float | str, unit: str, value: float) -> None:
    assert parse_quantity(text, unit) == value


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (20, "ns"),
        ("20", "ns"),
        ("20 MB", "ns"),
        ("0.8 ms", "1"),
        ("ms", "ns"),
        (True, "1"),
        ("1e999 s", "s"),
        ("1e999999999999999999999 s", "s"),
    ],
)
def test_a_wrong_unit_says_what_was_expected(text: float | str, unit: str) -> None:
    with pytest.raises(ValueError, match="expected a quantity"):
        parse_quantity(text, unit)


def test_people_read_the_unit_that_fits() -> None:
    assert [human(v, "ns") for v in (12_345_678, 950, 2.5e9)] == ["12.3 ms", "950 ns", "2.5 s"]
    assert [human(v, "bytes") for v in (3_910_000, 12)] == ["3.91 MB", "12 B"]
    assert human(0.7424, "1") == "0.742"
    assert [human(v, "ns") for v in (999.6, 999_600, 999.6e6)] == ["1 \N{MICRO SIGN}s", "1 ms", "1 s"]
    assert [human(v, "bytes") for v in (999.6, 999_400, 999_600)] == ["1 KB", "999 KB", "1 MB"]


@pytest.mark.parametrize("unit", ["1", "ns", "bytes", "J", "px", "percent", "dB"])
def test_a_limit_is_never_rounded_to_where_its_value_is_outside(unit: str) -> None:
    for value in (0.0, 4.5874e-7, 0.0009994, 0.45943, 0.9996, 1.0004, 12.34567, 999.6, 1234.4, 86_499.0, 7.0049e8):
        for sign in (1, -1):
            upper, lower = human_limit(sign * value, unit, at_most=True), human_limit(sign * value, unit, at_most=False)
            assert parse_quantity(lower, unit) <= sign * value <= parse_quantity(upper, unit)
            assert human(sign * value, unit) in (lower, upper), "the nearest one where it is on the right side"
            assert abs(parse_quantity(upper, unit) - sign * value) <= max(
                0.0101 * value, 1.0 if unit == "bytes" else 0.0011
            )


def last_digit(text: str, value: float, unit: str) -> float:
    """One unit of the last digit that ``text`` can show, in the base unit."""
    number, _, name = text.partition(" ")
    if name == "B":
        return 1.0
    if unit == "1" and abs(value) >= 1e-3:
        return 1e-3
    shown = Decimal(number)
    one = Decimal(1).scaleb(shown.adjusted() - 2)
    return parse_quantity(f"{one:f} {name}", unit)


VALUES = st.one_of(
    st.floats(-1e13, 1e13, allow_subnormal=False),
    st.floats(-1e-2, 1e-2, allow_subnormal=False),
    st.floats(-2000, 2000),
    st.tuples(st.integers(-1000, 1000), st.integers(-12, 12)).map(lambda pair: float(f"{pair[0]}e{pair[1]}")),
)


@given(
    VALUES, st.sampled_from(["1", "ns", "bytes", "J", "s", "px", "percent", "%/min", "/s", "B*s", "dB"]), st.booleans()
)
@example(999.4, "ns", True)
@example(999.6, "ns", False)
@example(0.9996, "J", False)
@example(-0.9996, "J", True)
@example(0.0009996, "1", False)
@example(0.4, "bytes", True)
@example(0.5, "bytes", True)
@example(-4.14e6, "ns", False)
@settings(max_examples=2000, deadline=None)
def test_a_limit_that_is_told_holds_and_is_the_nearest_that_does(value: float, unit: str, at_most: bool) -> None:
    text = human_limit(value, unit, at_most=at_most)
    read = parse_quantity(text, unit)
    assert read >= value if at_most else read <= value
    assert abs(read - value) <= last_digit(text, value, unit)
    assert human(read, unit) == text, "it is written as any other number"
