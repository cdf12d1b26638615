"""What a measurement says of ranges that training has not learned."""

from __future__ import annotations

from dataclasses import replace

import made_up
import pytest

from edgedeploy.study.artifacts import range_notes


@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        ((), ""),
        ((("calibrated_ranges", "0"),), ""),
        ((("calibrated_ranges", "of another tool"),), ""),
        ((("calibrated_ranges", "1"), ("layers", "[]")), "1 range is calibrated"),
        ((("calibrated_ranges", "9"),), "9 ranges are calibrated"),
    ],
)
def test_how_many_are_calibrated_is_a_note(settings: tuple[tuple[str, str], ...], begins: str) -> None:
    artifact = replace(made_up.measurement(made_up.variant()).artifact, settings=settings)
    notes = range_notes(artifact)
    assert len(notes) == bool(begins)
    assert all(note.startswith(begins) for note in notes)
