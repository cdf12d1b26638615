"""The row of three sites says what happened where a site has no number, and does not end the benchmark."""

from __future__ import annotations

from benchmarks.clinic_kit.sites import _row


def test_a_release_without_a_mean_misses_the_bar_and_says_which_site_failed() -> None:
    release = {
        "outcome": "refused",
        "means_over_sites": [],
        "failing": {"south": "no number"},
        "broken": {},
        "answers": {},
    }
    row = _row(release, 1, b"", 0, True, 9)
    assert not row.holds and "refused (exit status 1)" in row.found and "south: no number" in row.found
