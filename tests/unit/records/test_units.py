from __future__ import annotations

import pytest

from edgedeploy.records.units import human, parse_quantity


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("20 ms", "ns", 20e6),
        ("1.5us", "ns", 1500.0),
        ("8 MB", "bytes", 8e6),
        ("2 MiB", "bytes", 2**21),
        (0.8, "1", 0.8),
    ],
)
def test_quantities_come_out_in_base_units(text: float | str, unit: str, value: float) -> None:
    assert parse_quantity(text, unit) == value


@pytest.mark.parametrize(
    ("text", "unit"), [(20, "ns"), ("20", "ns"), ("20 MB", "ns"), ("0.8 ms", "1"), ("ms", "ns"), (True, "1")]
)
def test_a_wrong_unit_says_what_was_expected(text: float | str, unit: str) -> None:
    with pytest.raises(ValueError, match="expected a quantity"):
        parse_quantity(text, unit)


def test_people_read_the_unit_that_fits() -> None:
    assert [human(v, "ns") for v in (12_345_678, 950, 2.5e9)] == ["12.3 ms", "950 ns", "2.5 s"]
    assert [human(v, "bytes") for v in (3_910_000, 12)] == ["3.91 MB", "12 B"]
    assert human(0.7424, "1") == "0.742"
