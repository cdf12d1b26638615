"""Tables of bars: rows are found by themselves, and one that misses its bar says so."""

from __future__ import annotations

import pytest
from benchmarks.nightly import main as nightly
from benchmarks.shared.rows import Asked, Row, Table, made, makers_of, table


@pytest.mark.parametrize("kit", ["evidence_kit", "nightly_kit", "large_kit", "clinic_kit"])
def test_the_rows_of_a_kit_are_found(kit: str) -> None:
    found = makers_of(kit)
    assert len(found) >= 5
    assert all(maker.__name__ == name for name, maker in found.items())


def test_rows_are_made_in_the_order_asked_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    makers = {name: lambda asked, name=name: Row(name, str(asked)) for name in "abc"}
    assert [row.what for row in made(makers, ["c", "a"], 7)] == ["c", "a"]
    assert capsys.readouterr().err.startswith("c: 7 (")
    assert [row.what for row in made(makers, None, 7)] == ["a", "b", "c"]


def test_a_missed_bar_stands_in_the_table() -> None:
    told = table("speed", [Row("a", "2", "at most 1", holds=False), Row("b", "1", "at most 1"), Row("c", "3")])
    assert [line.rsplit("|", 2)[1].strip() for line in told.splitlines()[2:]] == ["MISSED", "held", ""]


@pytest.mark.parametrize("wrong", ["--labs", "--nights"])
def test_nothing_is_counted_from_none(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        nightly([wrong, "0"])
    assert f"at least 1 is needed of {wrong}" in capsys.readouterr().err


def test_rows_may_be_asked_for_one_by_one() -> None:
    table_of_bars = Table("clinic", None, "the clinic", "clinic_kit", (), Asked)
    given = table_of_bars.parser().parse_args(["--only", "sites_matrix", "--only", "delta_update", "audit_corpus"])
    assert given.only == ["sites_matrix", "delta_update", "audit_corpus"]
